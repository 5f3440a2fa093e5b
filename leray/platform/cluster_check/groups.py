"""Groups of nodes in KubeRay manifests: the head, and each kind of worker."""

import math

from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.fields import check_fields
from leray.platform.cluster_check.findings import Findings
from leray.platform.cluster_check.pods import Objects, check_pod
from leray.platform.cluster_check.quantities import amount_of
from leray.platform.cluster_check.shared_memory import check_shared_memory
from leray.platform.cluster_check.shell import read_resources
from leray.platform.cluster_check.start_options import option_problem

_COUNTED = {"CPU": "num-cpus", "GPU": "num-gpus"}


def check_group(
    group: Entry, objects: Objects, findings: Findings, *, has_token: bool, is_head: bool
) -> None:
    """Check one group.

    Args:
        group: `headGroupSpec`, or an element of `workerGroupSpecs`.
        objects: the Kubernetes objects that it may refer to.
        findings: what is wrong is added.
        has_token: whether KubeRay gives a token to every container.
        is_head: whether it is the head.
    """
    name = "head" if is_head else group["groupName"].text
    if not is_head:
        if not name:
            findings.error(group["groupName"], "groupName is missing; name the group")
        _check_numbers(group, findings)
    check_fields(group, "head group" if is_head else "worker group", findings)
    _check_parameters(group, findings, name=name)
    containers = group["template"]["spec"]["containers"].elements
    if not containers:
        findings.error(
            group["template"]["spec"]["containers"], f"{name}: template.spec.containers is missing"
        )
        return
    check_pod(group["template"]["spec"], objects, findings, has_token=has_token)
    check_shared_memory(group, findings)
    _check_requests(containers[0], findings)


def group_resources(group: Entry) -> dict[str, float]:
    """Return what Ray counts on each node of a group, found in the order in which Ray looks.

    The group's own `resources` come first, then `rayStartParams`, then the container's.
    """
    own = group["resources"].mapping
    parameters = group["rayStartParams"]
    container = (group["template"]["spec"]["containers"].elements or [group])[0]["resources"]
    given = {**container["requests"].mapping, **container["limits"].mapping}
    found: dict[str, float] = {}
    for name, parameter in _COUNTED.items():
        quantity = own.get(name) or parameters[parameter]
        if not quantity:
            suffix = "cpu" if name == "CPU" else "gpu"
            quantity = next(
                (entry for key, entry in given.items() if key.endswith(suffix)), quantity
            )
        found[name] = math.ceil(amount_of(quantity) or 0)
    custom = own.items() - {name: own[name] for name in _COUNTED if name in own}.items()
    found.update({name: float(math.ceil(amount_of(entry) or 0)) for name, entry in custom})
    if not own:
        read = _custom(parameters["resources"].text)
        found.update(read if isinstance(read, dict) else {})
    return found


def _custom(text: str) -> dict[str, float] | str:
    """Read resources of `rayStartParams`: JSON in quotes of the shell, as KubeRay hands it on."""
    if not text:
        return {}
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'":
        return "lacks its inner quotes"
    return read_resources(text[1:-1].replace("\\", ""))


def _check_numbers(group: Entry, findings: Findings) -> None:
    numbers = {}
    for name in ("minReplicas", "replicas", "maxReplicas"):
        entry = group[name]
        if not isinstance(entry.value, int) or entry.value < 0:
            findings.error(entry, f"{name}: give a whole number >= 0")
        else:
            numbers[name] = entry.value
    values = list(numbers.values())
    if len(values) == 3 and values != sorted(values):
        findings.error(
            group["replicas"],
            f"minReplicas {values[0]}, replicas {values[1]}, maxReplicas {values[2]}: have to be "
            "in ascending order",
        )


def _check_parameters(group: Entry, findings: Findings, *, name: str) -> None:
    parameters = group["rayStartParams"]
    for key, entry in parameters.mapping.items():
        if not isinstance(entry.value, str):
            findings.error(
                entry, f'rayStartParams.{key}: {entry.value} is not text; write "{entry.value}"'
            )
        problem = option_problem(key)
        if problem:
            findings.error(entry, f"rayStartParams.{problem}")
    if parameters["labels"]:
        findings.error(
            parameters["labels"],
            f"rayStartParams.labels: KubeRay refuses it; write labels: in group {name}",
        )
    clash = [key for key in (*_COUNTED.values(), "memory", "resources") if parameters[key]]
    if group["resources"] and clash:
        findings.error(
            group["resources"],
            f"{name}: resources are given twice, here and in rayStartParams.{clash[0]}; "
            "keep one of them",
        )
    custom = _custom(parameters["resources"].text)
    if isinstance(custom, str):
        findings.error(
            parameters["resources"],
            f'rayStartParams.resources: {custom}; write resources: \'"{{\\"robot\\": 1}}"\'',
        )


def _check_requests(container: Entry, findings: Findings) -> None:
    """Check that a Ray container gets what it asks for: Ray counts the limits."""
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    name = container["name"].text
    for resource in ("cpu", "memory"):
        if not limits[resource]:
            findings.error(
                limits if limits else container["resources"],
                f"container {name}: no limit for {resource}; Ray counts it",
            )
    for resource in sorted(requests.mapping.keys() | limits.mapping.keys()):
        asked, limit = requests[resource], limits[resource]
        for entry in (asked, limit):
            if entry and amount_of(entry) is None:
                findings.error(entry, f"container {name}: {resource} {entry.value} is no quantity")
        if asked and limit and amount_of(asked) != amount_of(limit):
            findings.error(
                asked,
                f"container {name}: requests {asked.value} {resource} and is limited to "
                f"{limit.value}; Ray counts the limit, so write the same",
            )
        elif limit and not asked:
            findings.error(
                requests if requests else limits,
                f"container {name}: requests no {resource}, is limited to {limit.value}; "
                "write the same",
            )
