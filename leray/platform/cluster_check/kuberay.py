"""Rules for KubeRay manifests: RayCluster, RayJob and RayService."""

import difflib
import re
import shlex
from dataclasses import dataclass

from leray.errors import ConfigError
from leray.platform.cluster_check.common import check_labels
from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.fields import check_fields
from leray.platform.cluster_check.findings import Findings
from leray.platform.cluster_check.groups import check_group, group_resources
from leray.platform.cluster_check.node_types import Fleet, NodeType, check_training
from leray.platform.cluster_check.pods import Objects, spot_of
from leray.platform.cluster_check.versions import check_ray_version
from leray.platform.config import TrainConfig

API_VERSION = "ray.io/v1"
_CLUSTERS = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
}
"""Where each kind has the cluster it brings up."""
_SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
_UPSCALING_MODES = ("Default", "Aggressive", "Conservative")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class RayManifest:
    """A document of KubeRay."""

    document: Entry

    @property
    def kind(self) -> str:
        """`RayCluster`, `RayJob`, `RayService`, or another one."""
        return self.document["kind"].text

    @property
    def cluster(self) -> Entry:
        """The specification of the cluster it brings up; no value where it brings up none."""
        entry = self.document
        for key in _CLUSTERS.get(self.kind, ()):
            entry = entry[key]
        return entry


def check_manifest(manifest: RayManifest, objects: Objects, findings: Findings) -> None:
    """Check one KubeRay manifest.

    Args:
        manifest: the document.
        objects: the Kubernetes objects that it may refer to.
        findings: what is wrong is added.
    """
    document, kind = manifest.document, manifest.kind
    if kind not in _CLUSTERS:
        _check_kind(document["kind"], findings)
        return
    version = document["apiVersion"]
    if version.value != API_VERSION:
        findings.error(version, f"apiVersion {version.value}: write {API_VERSION}")
    name = document["metadata"]["name"]
    if not _NAME.fullmatch(name.text):
        findings.error(
            name,
            f"metadata.name {name.value}: not a name; use small letters, digits and -, "
            "a letter first",
        )
    if not document["spec"]:
        findings.error(document, f"{kind}: spec is missing; describe it")
        return
    if kind == "RayJob":
        _check_job(document["spec"], findings)
    if kind != "RayCluster":
        check_fields(document["spec"], kind, findings)
    if manifest.cluster:
        _check_cluster(manifest.cluster, objects, findings)
    elif kind == "RayService":
        findings.error(document["spec"], "RayService: rayClusterConfig is missing; describe it")


def _check_kind(kind: Entry, findings: Findings) -> None:
    near = difflib.get_close_matches(kind.text, _CLUSTERS, 1, 0.85)
    if near:
        findings.error(kind, f"kind {kind.text}: unknown to KubeRay; did you mean {near[0]}?")
    else:
        findings.note(kind, f"kind {kind.text}: not looked at; known are {', '.join(_CLUSTERS)}")


def fleet_of_cluster(cluster: Entry) -> Fleet:
    """Return the nodes that a KubeRay cluster can bring up."""
    groups = [(cluster["headGroupSpec"], True)]
    groups += [(group, False) for group in cluster["workerGroupSpecs"].elements]
    types = []
    for group, is_head in groups:
        labels = {name: entry.text for name, entry in group["labels"].mapping.items()}
        scales = cluster["enableInTreeAutoscaling"].value is True
        most = group["maxReplicas" if scales else "replicas"].value
        hosts = group["numOfHosts"].value or 1
        types.append(
            NodeType(
                "head" if is_head else group["groupName"].text,
                0 if is_head else _product(most, hosts),
                group_resources(group),
                labels,
                is_head,
            )
        )
    return Fleet(types, None, cluster["workerGroupSpecs"].line)


def _product(replicas: object, hosts: object) -> int | None:
    if isinstance(replicas, int) and isinstance(hosts, int):
        return replicas * hosts
    return None


def check_entrypoint(manifest: RayManifest, findings: Findings) -> None:
    """Check that a job's own `leray train ...` can be read, and fits on the job's cluster."""
    entrypoint = manifest.document["spec"]["entrypoint"]
    try:
        words = shlex.split(entrypoint.text)
    except ValueError as error:
        findings.error(
            entrypoint, f"entrypoint: the shell cannot read it ({error}); close every quote"
        )
        return
    flags = words[2:]
    elsewhere = any(
        flag.startswith(("--config_path", "--resume", "--policy.path")) for flag in flags
    )
    if words[:2] != ["leray", "train"] or elsewhere:
        return
    from leray.platform.parsing import parse

    try:
        config = parse(TrainConfig, flags, command="train")
    except ConfigError as error:
        option = str(error).partition("=")[0].partition(":")[0]
        findings.error(entrypoint.line_of(option), f"entrypoint: {error}")
        return
    if manifest.cluster:
        fleet = fleet_of_cluster(manifest.cluster)
        check_training(config, fleet, findings, source="the entrypoint")


def _check_job(spec: Entry, findings: Findings) -> None:
    mode = spec["submissionMode"]
    if mode and mode.value not in _SUBMISSION_MODES:
        findings.error(
            mode, f"submissionMode {mode.value}: allowed are {', '.join(_SUBMISSION_MODES)}"
        )
    if not spec["entrypoint"] and mode.value != "InteractiveMode":
        findings.error(spec, "RayJob: entrypoint is missing; write the command to run")
    if not spec["rayClusterSpec"] and not spec["clusterSelector"]:
        findings.error(
            spec, "RayJob: neither rayClusterSpec nor clusterSelector; say where the job runs"
        )
    if spec["rayClusterSpec"] and spec["shutdownAfterJobFinishes"].value is not True:
        findings.error(
            spec["shutdownAfterJobFinishes"],
            "RayJob: the cluster stays, and is paid for, after the job; write "
            "shutdownAfterJobFinishes: true",
        )
    for name in ("ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit"):
        entry = spec[name]
        if entry and (not isinstance(entry.value, int) or entry.value < 0):
            findings.error(entry, f"{name}: {entry.value} is not a whole number >= 0")


def _check_cluster(cluster: Entry, objects: Objects, findings: Findings) -> None:
    check_fields(cluster, "cluster", findings)
    check_ray_version(cluster["rayVersion"], findings)
    token = cluster["authOptions"]["mode"]
    if token and token.value != "token":
        findings.error(token, f"authOptions.mode {token.value}: authentication is off; write token")
    has_token = token.value == "token"
    head = cluster["headGroupSpec"]
    if not head:
        findings.error(cluster, "headGroupSpec is missing; describe the head")
    else:
        _check_head(head, findings)
        check_group(head, objects, findings, has_token=has_token, is_head=True)
    groups = cluster["workerGroupSpecs"].elements
    if not groups:
        findings.error(
            cluster["workerGroupSpecs"], "workerGroupSpecs is missing; describe the workers"
        )
    names: set[str] = set()
    for group in groups:
        if group["groupName"].text in names:
            findings.error(
                group["groupName"], f"groupName {group['groupName'].text}: is there twice"
            )
        names.add(group["groupName"].text)
        check_group(group, objects, findings, has_token=has_token, is_head=False)
    _check_autoscaling(cluster, findings)
    for group in [head, *groups]:
        check_labels(group["labels"], findings)


def _check_head(head: Entry, findings: Findings) -> None:
    services = [head["serviceType"], head["headService"]["spec"]["type"]]
    for entry in services:
        if entry.text in ("LoadBalancer", "NodePort"):
            findings.error(
                entry,
                f"serviceType {entry.text}: puts the dashboard outside of Kubernetes; write "
                "ClusterIP and use `kubectl port-forward`",
            )
    spot = spot_of(head)
    if spot is not None:
        findings.error(
            spot,
            "the head on a spot machine takes the whole cluster with it when it is taken away; "
            "use an on-demand machine",
        )


def _check_autoscaling(cluster: Entry, findings: Findings) -> None:
    options = cluster["autoscalerOptions"]
    if cluster["enableInTreeAutoscaling"].value is not True:
        if options:
            findings.error(
                options,
                "autoscalerOptions: nothing scales; write enableInTreeAutoscaling: true, "
                "or drop them",
            )
        return
    check_fields(options, "autoscalerOptions", findings)
    idle = options["idleTimeoutSeconds"]
    if not isinstance(idle.value, int) or idle.value <= 0:
        findings.error(
            idle if idle else options,
            "autoscalerOptions.idleTimeoutSeconds: say after how many seconds idle workers are "
            "given back",
        )
    mode = options["upscalingMode"]
    if mode and mode.value not in _UPSCALING_MODES:
        findings.error(
            mode, f"upscalingMode {mode.value}: allowed are {', '.join(_UPSCALING_MODES)}"
        )
    if options["version"].value == "v2":
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"].elements]:
            policy = group["template"]["spec"]["restartPolicy"]
            if policy and policy.value != "Never":
                findings.error(policy, "restartPolicy: autoscaler v2 wants Never, or none")
