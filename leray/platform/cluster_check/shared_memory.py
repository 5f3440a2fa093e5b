"""The memory that Ray's object store has in pods of KubeRay manifests."""

from decimal import Decimal

from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings
from leray.platform.cluster_check.quantities import amount_of

_FOLDER = "/dev/shm"
_SHARE = Decimal("0.3")
"""Of a node's memory, that Ray takes for objects unless it is told otherwise."""
_FREE_SHARE = Decimal("0.95")
_ALWAYS_TAKEN = 10**10
"""Bytes up to which Ray does not look whether the folder has them."""


def check_shared_memory(group: Entry, findings: Findings) -> None:
    """Check that objects stay in memory: Ray moves them to the disk where the folder is too small.

    KubeRay mounts a folder as large as the pod's memory where the manifest has none.
    """
    spec = group["template"]["spec"]
    container = spec["containers"].elements[0]
    mounts = container["volumeMounts"].elements
    mount = next((each for each in mounts if each["mountPath"].text == _FOLDER), None)
    if mount is None:
        findings.note(
            container,
            f"container {container['name'].text}: KubeRay mounts a {_FOLDER} as large as the "
            "memory limit; mount an emptyDir with medium: Memory to bound it",
        )
        return
    for volume in spec["volumes"].elements:
        if volume["name"].text == mount["name"].text:
            _check_volume(volume, group, container["resources"]["limits"]["memory"], findings)


def _check_volume(volume: Entry, group: Entry, memory: Entry, findings: Findings) -> None:
    name, folder = volume["name"].text, volume["emptyDir"]
    if folder["medium"].value != "Memory":
        findings.error(
            folder["medium"] if folder else volume,
            f"volume {name}: {_FOLDER} has to be in memory; write emptyDir: {{medium: Memory}}",
        )
        return
    size, total = amount_of(folder["sizeLimit"]), amount_of(memory)
    if size is None or total is None or group["rayStartParams"]["object-store-memory"]:
        return
    wanted = min(_SHARE * total, max(_FREE_SHARE * size, Decimal(_ALWAYS_TAKEN)))
    if wanted > size:
        findings.error(
            folder["sizeLimit"],
            f"volume {name}: Ray wants 30% of {memory.value} for objects and would take the disk; "
            f"raise sizeLimit {folder['sizeLimit'].value}, or give rayStartParams an "
            "object-store-memory",
        )
