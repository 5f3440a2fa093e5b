"""Rules for Kubernetes objects beside KubeRay's own: claims, secrets, services."""

from leray.platform.cluster_check.common import PLACEHOLDER
from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings


def is_kubernetes(document: Entry) -> bool:
    """Tell whether a document is a Kubernetes object."""
    return bool(document["kind"]) and bool(document["apiVersion"])


def check_object(document: Entry, findings: Findings) -> None:
    """Check one object of Kubernetes itself."""
    kind, name = document["kind"].text, document["metadata"]["name"]
    if not name:
        findings.error(document["metadata"], f"{kind}: metadata.name is missing; name it")
    checks = {
        "PersistentVolumeClaim": _check_claim,
        "Secret": _check_secret,
        "Service": _check_service,
        "Ingress": _check_ingress,
    }
    check = checks.get(kind)
    if check is not None:
        check(document, findings)


def _check_claim(document: Entry, findings: Findings) -> None:
    spec = document["spec"]
    modes = [entry.text for entry in spec["accessModes"].elements]
    if "ReadWriteMany" not in modes:
        findings.error(
            spec["accessModes"],
            f"accessModes {', '.join(modes) or 'missing'}: all nodes write outputs; "
            "write ReadWriteMany",
        )
    if not spec["resources"]["requests"]["storage"]:
        findings.error(spec, "PersistentVolumeClaim: resources.requests.storage is missing")


def _check_secret(document: Entry, findings: Findings) -> None:
    for key in ("data", "stringData"):
        for name, entry in document[key].mapping.items():
            if PLACEHOLDER not in str(entry.value):
                findings.error(
                    entry,
                    f"Secret: {name} stands here in plain sight; make it with `kubectl create "
                    "secret`, outside of files",
                )


def _check_service(document: Entry, findings: Findings) -> None:
    kind = document["spec"]["type"]
    if kind.text in ("LoadBalancer", "NodePort"):
        findings.error(
            kind,
            f"Service of type {kind.text}: opens the cluster outside of Kubernetes; write "
            "ClusterIP and use `kubectl port-forward`",
        )


def _check_ingress(document: Entry, findings: Findings) -> None:
    findings.error(
        document["kind"],
        "Ingress: opens the cluster outside of Kubernetes; use `kubectl port-forward`",
    )
