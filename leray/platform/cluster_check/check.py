"""`leray cluster check`: verify a cluster's launch file offline, before anything is started."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from leray.errors import ConfigError
from leray.platform.cluster_check.common import check_common
from leray.platform.cluster_check.documents import Entry, read_documents
from leray.platform.cluster_check.findings import Findings
from leray.platform.cluster_check.kuberay import (
    RayManifest,
    check_entrypoint,
    check_manifest,
    fleet_of_cluster,
)
from leray.platform.cluster_check.kubernetes import check_object, is_kubernetes
from leray.platform.cluster_check.node_types import Fleet, check_training
from leray.platform.cluster_check.pods import Objects
from leray.platform.cluster_check.ray_up import check_ray_up, fleet_of, is_ray_up
from leray.platform.cluster_check.versions import check_versions
from leray.platform.config import TrainConfig

_RAY_GROUP = "ray.io/"


@dataclass(kw_only=True)
class ClusterCheckConfig:
    """Everything `leray cluster check` is told."""

    file: Path
    """The launch file: YAML of `ray up`, or KubeRay manifests. `--file=` may be left out where it
    comes first."""
    train_config: Path | None = None
    """A training config (YAML or JSON) that has to fit on the cluster."""


def run(config: ClusterCheckConfig) -> int:
    """Print what is wrong in which line.

    Returns:
        0 when there is nothing to mend, 1 when there is.

    Raises:
        ConfigError: the file is not YAML or not a launch file, or the training config is wrong.
    """
    findings = check_file(config.file, train_config=config.train_config)
    print(findings.text())
    return 1 if findings.errors else 0


def check_file(file: Path, *, train_config: Path | None = None) -> Findings:
    """Check a launch file, without a network or a cloud's library.

    Args:
        file: YAML of `ray up`, or KubeRay manifests.
        train_config: a training config that has to fit on the cluster.

    Raises:
        ConfigError: the file is not YAML or not a launch file, or the training config is wrong.
    """
    findings = Findings(file)
    documents = read_documents(file, _tell_repeated(findings))
    if not documents:
        raise ConfigError(f"{file}:1: holds nothing; give a launch file")
    training = None
    if train_config is not None:
        from leray.platform.parsing import load

        training = load(TrainConfig, train_config)
    objects = _objects_beside(file) if any(map(is_kubernetes, documents)) else Objects()
    fleets = [
        fleet
        for document in documents
        if (fleet := _check_document(document, documents, objects, findings)) is not None
    ]
    if training is not None:
        if not fleets:
            raise ConfigError(f"{file}:1: brings up no nodes that {train_config} could run on")
        for fleet in fleets:
            check_training(training, fleet, findings, source=str(train_config))
    return findings


def _check_document(
    document: Entry, documents: list[Entry], objects: Objects, findings: Findings
) -> Fleet | None:
    """Check one document; return the nodes that it brings up, or None where it brings up none."""
    check_common(document, findings)
    check_versions(document, findings)
    if is_kubernetes(document):
        if not document["apiVersion"].text.startswith(_RAY_GROUP):
            check_object(document, findings)
            return None
        manifest = RayManifest(document)
        check_manifest(manifest, objects, findings)
        if manifest.kind == "RayJob":
            check_entrypoint(manifest, findings)
        return fleet_of_cluster(manifest.cluster) if manifest.cluster else None
    if is_ray_up(document):
        if len(documents) > 1:
            findings.error(documents[1], "a second document; `ray up` reads one, so split the file")
        check_ray_up(document, findings)
        return fleet_of(document)
    raise ConfigError(
        f"{findings.file}:{document.line}: neither a file of `ray up` (cluster_name, provider) nor "
        "a Kubernetes manifest (apiVersion, kind); give a launch file"
    )


def _objects_beside(file: Path) -> Objects:
    """Return the Kubernetes objects that a file and those beside it define."""
    objects = Objects()
    for each in sorted({file, *file.parent.glob("*.yaml"), *file.parent.glob("*.yml")}):
        try:
            documents = read_documents(each, lambda _line, _name: None)
        except ConfigError:
            continue
        for document in filter(is_kubernetes, documents):
            objects.add(document)
    return objects


def _tell_repeated(findings: Findings) -> Callable[[int, str], None]:
    def tell(line: int, name: str) -> None:
        findings.error(line, f"{name}: is there twice, and only the last counts; keep one")

    return tell
