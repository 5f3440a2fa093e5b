"""Rules for files of `ray up`: YAML of Ray's cluster launcher."""

import difflib
from pathlib import Path

from leray.platform.cluster_check.common import check_labels, is_placeholder
from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings
from leray.platform.cluster_check.node_types import Fleet, NodeType
from leray.platform.cluster_check.schema import check_as_launcher, check_schema
from leray.platform.cluster_check.start_commands import check_start_commands, starts_in

_PROVIDERS = ("aws", "gcp", "local")
_OTHER_PROVIDERS = ("aliyun", "azure", "external", "fake_multinode", "spark", "vsphere")
_LONG_IDLE_MIN = 60


def is_ray_up(document: Entry) -> bool:
    """Tell whether a document is meant for `ray up`."""
    return bool(document["provider"]) or bool(document["cluster_name"])


def check_ray_up(document: Entry, findings: Findings) -> None:
    """Check one file of `ray up`; paths count from the current folder, as they do for Ray."""
    check_schema(document, findings)
    _check_nodes(document, findings)
    check_start_commands(document, findings)
    _check_paths(document, findings)
    if not findings.errors:
        check_as_launcher(document, findings)


def _check_nodes(document: Entry, findings: Findings) -> None:
    provider = document["provider"]["type"]
    _check_provider(provider, findings)
    if provider.value == "local":
        _check_hosts(document["provider"], findings)
        return
    _check_idle(document, findings)
    _check_node_types(document, findings)
    if provider.value == "aws":
        _check_security_groups(document, findings)


def _check_provider(provider: Entry, findings: Findings) -> None:
    if provider.text in _OTHER_PROVIDERS:
        findings.note(provider, f"provider {provider.text}: its own settings are not looked at")
    elif provider.text in ("kuberay", "kubernetes"):
        findings.error(
            provider,
            "provider: Kubernetes is not for `ray up`; write a KubeRay manifest, as in "
            "cluster/raycluster.yaml",
        )
    elif provider and provider.text not in _PROVIDERS:
        near = difflib.get_close_matches(provider.text, _PROVIDERS, 1)
        hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(_PROVIDERS)}"
        findings.error(provider, f"provider {provider.value}: unknown to Ray; {hint}")


def fleet_of(document: Entry) -> Fleet:
    """Return the nodes that a file can bring up."""
    if document["provider"]["type"].value == "local":
        return _own_hosts(document)
    head = document["head_node_type"].value
    most = _number(document["max_workers"], None)
    types = [
        NodeType(
            name,
            _number(entry["max_workers"], 0 if name == head else most),
            {each: _amount(amount) for each, amount in entry["resources"].mapping.items()},
            {each: label.text for each, label in entry["labels"].mapping.items()},
            is_head=name == head,
            detects=not entry["resources"]["CPU"],
        )
        for name, entry in document["available_node_types"].mapping.items()
    ]
    return Fleet(types, most, document["available_node_types"].line)


def _own_hosts(document: Entry) -> Fleet:
    """Return hosts by the `ray start` commands that they run; how many of each is not known."""
    types = []
    for key, is_head in (("head_start_ray_commands", True), ("worker_start_ray_commands", False)):
        for start in starts_in(document[key]):
            given = {"CPU": "num-cpus", "GPU": "num-gpus"}
            amounts = {
                name: float(start.options[option])
                for name, option in given.items()
                if start.options.get(option, "").isdecimal()
            }
            resources = {**amounts, **start.resources()}
            most = 0 if is_head else None
            types.append(NodeType(key, most, resources, start.labels(), is_head, detects=True))
    return Fleet(types, None, document["worker_start_ray_commands"].line)


def _number(entry: Entry, default: int | None) -> int | None:
    return entry.value if isinstance(entry.value, int) else default


def _amount(entry: Entry) -> float:
    return entry.value if isinstance(entry.value, int | float) else 0


def _check_paths(document: Entry, findings: Findings) -> None:
    """Check that what is copied to the nodes, and the keys to reach them, are on this machine."""
    paths = list(document["file_mounts"].mapping.values())
    paths += [document["auth"][name] for name in ("ssh_private_key", "ssh_public_key")]
    for entry in paths:
        if not entry.text or is_placeholder(entry):
            continue
        path = Path(entry.text).expanduser()
        if path.exists():
            continue
        if path.name == "auth_token":
            findings.note(
                entry, f"{entry.text}: no token yet; make one with `ray get-auth-token --generate`"
            )
            continue
        findings.error(
            entry,
            f"{entry.text}: is not there, seen from {Path.cwd()}; correct the path, or start in "
            "the folder it counts from",
        )


def _check_hosts(provider: Entry, findings: Findings) -> None:
    """Check the addresses of one's own machines."""
    if provider["coordinator_address"]:
        return
    head, workers = provider["head_ip"], provider["worker_ips"]
    for name, entry in (("head_ip", head), ("worker_ips", workers)):
        if not entry:
            findings.error(entry, f"provider: {name} is missing; name the machines")
    seen = {head.text: "is the head too"}
    for entry in workers.elements:
        if entry.text in seen:
            findings.error(
                entry, f"worker {entry.text}: {seen[entry.text]}; list each machine once"
            )
        seen.setdefault(entry.text, "is listed twice")


def _check_idle(document: Entry, findings: Findings) -> None:
    idle = document["idle_timeout_minutes"]
    if not idle:
        findings.error(
            idle, "idle_timeout_minutes is missing; say when idle workers are given back"
        )
    elif not isinstance(idle.value, int | float):
        return
    elif idle.value <= 0:
        findings.error(
            idle,
            f"idle_timeout_minutes: {idle.value} gives workers back while they wait for work; "
            "write 10",
        )
    elif idle.value > _LONG_IDLE_MIN:
        findings.note(idle, f"idle_timeout_minutes: idle workers are paid for {idle.value} minutes")


def _check_node_types(document: Entry, findings: Findings) -> None:
    types, head = document["available_node_types"].mapping, document["head_node_type"]
    if not types:
        findings.error(document, "available_node_types is missing; list the kinds of nodes")
        return
    if head.text not in types:
        findings.error(
            head, f"head_node_type {head.value}: is not listed; allowed are {', '.join(types)}"
        )
    most = document["max_workers"]
    if not most:
        findings.error(most, "max_workers is missing; say how many workers there may be")
    least = 0
    for name, entry in types.items():
        check_labels(entry["labels"], findings)
        low = _number(entry["min_workers"], 0) or 0
        high = _number(entry["max_workers"], _number(most, None))
        least += low
        if high is not None and low > high:
            findings.error(
                entry["min_workers"], f"{name}: min_workers is larger than max_workers; lower it"
            )
        spot = spot_of(entry["node_config"])
        if name == head.value and spot:
            findings.error(
                spot,
                f"{name}: the head on a spot machine takes the whole cluster with it when it is "
                "taken away; use an on-demand machine",
            )
    if isinstance(most.value, int) and least > most.value:
        findings.error(
            most, f"max_workers {most.value}: the node types' min_workers sum to {least}; raise it"
        )


def spot_of(node_config: Entry) -> Entry | None:
    """Return the entry that makes a machine a spot machine, or None."""
    market = node_config["InstanceMarketOptions"]["MarketType"]
    if market.text == "spot":
        return market
    scheduling = node_config["scheduling"]
    for each in scheduling.elements or [scheduling]:
        if each["preemptible"].value is True:
            return each["preemptible"]
        if each["provisioningModel"].text.upper() == "SPOT":
            return each["provisioningModel"]
    return None


def _check_security_groups(document: Entry, findings: Findings) -> None:
    for name, entry in document["available_node_types"].mapping.items():
        config = entry["node_config"]
        own = ("SecurityGroupIds", "NetworkInterfaces", "LaunchTemplate")
        if config and not any(config[each] for each in own):
            findings.note(
                config,
                f"{name}: without SecurityGroupIds Ray makes a group that opens SSH to everyone; "
                "name one of yours",
            )
