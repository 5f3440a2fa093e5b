"""Rules for the pods of KubeRay manifests: containers, environment, volumes, what they refer to."""

import difflib
from dataclasses import dataclass, field

from leray.platform.cluster_check.common import is_placeholder
from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.fields import check_fields
from leray.platform.cluster_check.findings import Findings

_SPOT = {
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "eks.amazonaws.com/capacitytype": "spot",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
    "ray.io/market-type": "spot",
}
"""Labels of machines that may be taken away at any time, in small letters."""


@dataclass
class Objects:
    """Kubernetes objects that launch files define, by kind and name."""

    defined: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def add(self, document: Entry) -> None:
        """Add the object of a document."""
        kind, name = document["kind"].text, document["metadata"]["name"].text
        if kind and name:
            self.defined.setdefault(kind, {})[name] = document

    def check(self, kind: str, name: Entry, findings: Findings) -> None:
        """Check that an object that is referred to is defined, if it is one that files define."""
        known = self.defined.get(kind, {})
        if not name.text or name.text in known or is_placeholder(name):
            return
        near = difflib.get_close_matches(name.text, known, 1)
        hint = f"did you mean {near[0]}?" if near else "define it in this folder"
        if kind == "Secret" and not near:
            findings.note(
                name, f"Secret {name.text}: has to be there; `kubectl create secret` makes it"
            )
            return
        findings.error(name, f"{kind} {name.text}: is not defined here; {hint}")


def check_pod(spec: Entry, objects: Objects, findings: Findings, *, has_token: bool) -> None:
    """Check a pod's template; its first container is the one that runs Ray."""
    check_fields(spec, "pod", findings)
    containers = [*spec["initContainers"].elements, *spec["containers"].elements]
    for container in containers:
        _check_container(container, objects, findings)
    if spec["hostNetwork"].value is True:
        findings.error(
            spec["hostNetwork"], "hostNetwork: opens Ray's ports on the machine; drop it"
        )
    if not has_token:
        _check_token(spec["containers"].elements[0], findings)
    _check_volumes(spec, containers, objects, findings)


def spot_of(group: Entry) -> Entry | None:
    """Return the entry that puts a group on spot machines, or None."""
    wishes = (group["labels"], group["template"]["spec"]["nodeSelector"])
    for wish in wishes:
        for name, entry in wish.mapping.items():
            if _SPOT.get(name.lower()) == str(entry.value).lower():
                return entry
    return None


def _check_container(container: Entry, objects: Objects, findings: Findings) -> None:
    check_fields(container, "container", findings)
    name = container["name"].text
    if not name:
        findings.error(container, "a container has no name; name it")
    if not container["image"].text:
        findings.error(container["image"], f"container {name}: image is missing; name one")
    for port in container["ports"].elements:
        if port["hostPort"]:
            findings.error(
                port["hostPort"],
                f"hostPort {port['hostPort'].value}: opens the port on the machine; drop it",
            )
    for variable in container["env"].elements:
        _check_variable(variable, objects, findings)
    for source in container["envFrom"].elements:
        objects.check("ConfigMap", source["configMapRef"]["name"], findings)
        objects.check("Secret", source["secretRef"]["name"], findings)


def _check_variable(variable: Entry, objects: Objects, findings: Findings) -> None:
    name, value = variable["name"].text, variable["value"]
    if not name:
        findings.error(variable, "an environment variable has no name; name it")
    if value and not isinstance(value.value, str):
        findings.error(value, f'env {name}: {value.value} is not text; write "{value.value}"')
    if name == "RAY_AUTH_TOKEN" and value:
        findings.error(value, "env RAY_AUTH_TOKEN: a token in plain sight; use secretKeyRef")
    for kind, reference in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        wanted = variable["valueFrom"][reference]
        if not wanted or wanted["optional"].value is True:
            continue
        objects.check(kind, wanted["name"], findings)
        held = objects.defined.get(kind, {}).get(wanted["name"].text)
        keys = {**held["data"].mapping, **held["stringData"].mapping} if held else {}
        if held and wanted["key"].text not in keys:
            findings.error(
                wanted["key"],
                f"{kind} {wanted['name'].text} has no key {wanted['key'].value}; it has "
                f"{', '.join(keys) or 'none'}",
            )


def _check_token(container: Entry, findings: Findings) -> None:
    """Check that a Ray container authenticates, where KubeRay does not see to it."""
    variables = {each["name"].text: each for each in container["env"].elements}
    mode = variables.get("RAY_AUTH_MODE")
    if mode is None:
        findings.error(
            container,
            f"container {container['name'].text}: without a token anybody who reaches a port may "
            "run code; write authOptions: {mode: token} in the cluster's specification",
        )
    elif mode["value"].value != "token":
        findings.error(
            mode["value"],
            f"RAY_AUTH_MODE {mode['value'].value}: authentication is off; write token",
        )
    elif not variables.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        findings.error(mode, "RAY_AUTH_MODE without a token; add RAY_AUTH_TOKEN by secretKeyRef")


def _check_volumes(
    spec: Entry, containers: list[Entry], objects: Objects, findings: Findings
) -> None:
    volumes = {each["name"].text: each for each in spec["volumes"].elements}
    used = set()
    for container in containers:
        paths: set[str] = set()
        for mount in container["volumeMounts"].elements:
            name, path = mount["name"], mount["mountPath"]
            used.add(name.text)
            if name.text not in volumes:
                known = ", ".join(volumes) or "none"
                findings.error(name, f"volume {name.text}: is not in volumes, which has {known}")
            if path.text in paths:
                findings.error(path, f"mountPath {path.text}: is mounted twice")
            paths.add(path.text)
    for name_, volume in volumes.items():
        if name_ not in used:
            findings.error(volume, f"volume {name_}: no container mounts it; mount it, or drop it")
        objects.check(
            "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], findings
        )
        if volume["configMap"]["optional"].value is not True:
            objects.check("ConfigMap", volume["configMap"]["name"], findings)
        if volume["secret"]["optional"].value is not True:
            objects.check("Secret", volume["secret"]["secretName"], findings)
