"""Versions in launch files: of Ray, LeRay and Python, in images and in `pip install` lines."""

import platform
import re
from importlib.metadata import version

from packaging.requirements import InvalidRequirement, Requirement

import leray
from leray.platform.cluster_check.common import PLACEHOLDER
from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings
from leray.platform.cluster_check.shell import pip_arguments

_PYTHONS = re.compile(r"(?:\bpython|\bpy|python=|python==|--python[= ])3\.?(\d{1,2})(?!\d)")
_SUPPORTED = range(11, 14)
"""Minor versions of Python 3 that LeRay runs on."""
_CONSTRAINT = ("-c", "--constraint")


def ray_version() -> str:
    """Return the version of Ray that is installed here, and that every node has to have."""
    return version("ray")


def check_versions(document: Entry, findings: Findings) -> None:
    """Check every image and shell line of a document, and that one Python is meant throughout."""
    pythons: dict[int, int] = {}
    for entry in document.walk():
        for key, member in entry.mapping.items():
            if key in ("image", "head_image", "worker_image") and member.text:
                check_image(member, findings)
        for words in pip_arguments(entry.text):
            _check_pip(words, entry, findings)
        for match in _PYTHONS.finditer(entry.text):
            pythons.setdefault(int(match[1]), entry.line_of(match[0]))
    _check_pythons(pythons, findings)


def check_image(entry: Entry, findings: Findings) -> None:
    """Check that an image is pinned, and that its tag says the version it should hold."""
    image, _, digest = entry.text.partition("@")
    name, _, tag = image.rpartition("/")[2].partition(":")
    if digest or PLACEHOLDER in name:
        return
    if tag in ("", "latest", "nightly") or tag.startswith(("latest-", "nightly.")):
        findings.error(entry, f"image {image}: is not pinned; name a version in its tag")
        return
    expected = None
    if image.startswith(("rayproject/ray", "docker.io/rayproject/ray")):
        expected = ray_version()
    elif name == "leray":
        expected = leray.__version__
    if expected is not None and re.split(r"[-_]", tag)[0] != expected:
        what = "LeRay" if name == "leray" else "Ray"
        findings.error(
            entry,
            f"image {image}: {what} {expected} is installed here, every node needs the same; "
            f"use the tag {expected}",
        )


def check_ray_version(entry: Entry, findings: Findings) -> None:
    """Check `rayVersion` of a KubeRay manifest, which stands at this entry or is missing."""
    expected = ray_version()
    if not entry:
        findings.error(entry, f'rayVersion is missing; write rayVersion: "{expected}"')
    elif entry.value != expected:
        findings.error(
            entry,
            f"rayVersion {entry.value}: Ray {expected} is installed here, every node needs the "
            f'same; write "{expected}"',
        )


def _check_pip(words: list[str], entry: Entry, findings: Findings) -> None:
    """Check what a `pip install` in a shell line installs."""
    constrained = any(word.split("=")[0] in _CONSTRAINT for word in words)
    expected = {"ray": ray_version(), "leray": leray.__version__}
    for word in words:
        try:
            requirement = Requirement(word)
        except InvalidRequirement:
            continue
        name = requirement.name
        if name not in expected:
            continue
        line = entry.line_of(word, name)
        pins = [each.version for each in requirement.specifier if each.operator == "=="]
        if not pins and not constrained:
            findings.error(
                line, f"pip install {word}: is not pinned; write {name}=={expected[name]}"
            )
        elif pins and pins[0] != expected[name]:
            findings.error(
                line,
                f"pip install {word}: {name} {expected[name]} is installed here, every node needs "
                f"the same; write {name}=={expected[name]}",
            )


def _check_pythons(pythons: dict[int, int], findings: Findings) -> None:
    """Check the minor versions of Python that a file names, each with the line it is first in."""
    for minor, line in pythons.items():
        if minor not in _SUPPORTED:
            findings.error(
                line,
                f"Python 3.{minor}: LeRay runs on 3.{_SUPPORTED[0]} to 3.{_SUPPORTED[-1]}; "
                "use one of them",
            )
    if len(pythons) > 1:
        names = ", ".join(f"3.{minor}" for minor in sorted(pythons))
        findings.error(
            max(pythons.values()), f"Python {names} in one cluster; every node needs the same"
        )
    here = platform.python_version_tuple()[1]
    for minor, line in pythons.items():
        if len(pythons) == 1 and minor in _SUPPORTED and str(minor) != here:
            findings.note(
                line,
                f"Python 3.{minor}, and 3.{here} here: submit work as Ray jobs, which run there",
            )
