"""Rules for every launch file: placeholders, networks open to the world, secrets in plain sight."""

import re

from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings

PLACEHOLDER = "REPLACE_ME"
"""Marks what only the owner of the machines knows."""
_EVERYONE = ("0.0.0.0/0", "::/0")
_SECRETS = re.compile(
    r"RAY_AUTH_TOKEN=(?!\$)\S+|AWS_SECRET_ACCESS_KEY=(?!\$)\S+|AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{30,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_LABEL_NAME = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def is_placeholder(entry: Entry) -> bool:
    """Tell whether a value still waits for its owner."""
    return PLACEHOLDER in entry.text


def check_common(document: Entry, findings: Findings) -> None:
    """Check what holds in every document."""
    for entry in document.walk():
        if not entry.text:
            continue
        if is_placeholder(entry):
            words = [word for word in re.split(r"[\s\"'=,;]+", entry.text) if PLACEHOLDER in word]
            findings.note(
                entry.line_of(words[0], PLACEHOLDER), f"placeholder {words[0]}: put in your own"
            )
        for network in _EVERYONE:
            if re.search(rf"(?<![\w.:]){re.escape(network)}", entry.text):
                findings.error(
                    entry.line_of(network),
                    f"{network}: open to the whole internet; name your own network",
                )
        secret = _SECRETS.search(entry.text)
        if secret:
            findings.error(
                entry.line_of(secret[0]),
                "a secret in plain sight; bring it by file_mounts or a Kubernetes secret",
            )


def check_labels(labels: Entry, findings: Findings) -> None:
    """Check that labels of nodes are written as Ray and Kubernetes want them."""
    for name, entry in labels.mapping.items():
        value = entry.value
        if not isinstance(value, str):
            findings.error(entry, f'label {name}: {value} is not text; write "{value}"')
            continue
        problem = label_problem(name, value)
        if problem:
            findings.error(entry, problem)


def label_problem(name: str, value: str) -> str | None:
    """Return what is wrong with a label, or None."""
    prefix, _, short = name.rpartition("/")
    if (prefix and not _LABEL_PREFIX.fullmatch(prefix)) or not _LABEL_NAME.fullmatch(short):
        return f"label {name}: not a label's name; use letters, digits, -, _ and ."
    if value and not _LABEL_NAME.fullmatch(value):
        return f"label {name}={value}: not a label's value; use letters, digits, -, _ and ."
    return None
