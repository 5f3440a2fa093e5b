"""One HTML file that holds its style, its script and what it shows, and asks for nothing else.

The script is the only one that may run: its hash stands in the page's policy, which also forbids
any network. Texts to show are JSON in blocks that browsers do not execute.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

SHARED = "leray.data.tools.viz"
"""The package whose `theme.css` and `basics.js` begin every page's style and script."""


def page_parts(
    package: str, *, title: str, scripts: Sequence[str], sources: str = ""
) -> tuple[bytes, bytes]:
    """Return what stands before and after the data of a page.

    Args:
        package: where `page.html`, `page.css` and the scripts are; the template names `$policy`,
            `$title`, `$style`, `$data` (alone on its line) and `$script`.
        title: of the document.
        scripts: names of the package's scripts, in the order they run in.
        sources: further rules of the policy, each ending in `; `.
    """
    assets, shared = files(package), files(SHARED)
    style, script = (
        "".join(file.read_text("utf-8") for file in chosen)
        for chosen in (
            [shared / "theme.css", assets / "page.css"],
            [shared / "basics.js", *(assets / name for name in scripts)],
        )
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        f"{sources}base-uri 'none'; form-action 'none'"
    )
    filled = {"policy": policy, "title": html.escape(title), "style": style, "script": script}
    head, tail = (
        Template(part).substitute(filled).encode("utf-8", "replace")
        for part in (assets / "page.html").read_text("utf-8").split("$data\n")
    )
    return head, tail


def data_block(identity: str, content: Mapping[str, Any]) -> bytes:
    """Return JSON as an element that is not executed, and that no text inside it can end.

    Args:
        identity: the element's id.
        content: plain values; numbers are finite.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{identity}">{text}</script>\n'.encode()


def base64_text(content: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(content).decode()


def _hash(text: str) -> str:
    return f"sha256-{base64_text(hashlib.sha256(text.encode()).digest())}"
