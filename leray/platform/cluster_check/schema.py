"""What Ray itself says about a `ray up` file: its JSON schema, and the checks of its launcher."""

import contextlib
import copy
import difflib
import importlib.util
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leray.platform.cluster_check.documents import Entry
from leray.platform.cluster_check.findings import Findings

_OPTIONAL_OF_LOCAL = "min_workers"
"""At the top of files for one's own machines it is allowed; Ray moves it before its own check."""


def check_schema(document: Entry, findings: Findings) -> None:
    """Check a file against the JSON schema that is in Ray's package."""
    import jsonschema

    value = _with_text_keys(document.value)
    if document["provider"]["type"].value == "local":
        value.pop(_OPTIONAL_OF_LOCAL, None)
    validator = jsonschema.Draft7Validator(ray_schema())
    for error in validator.iter_errors(value):
        _add(error, document, findings)


def ray_schema() -> dict[str, Any]:
    """Return the schema of `ray up` files of the installed Ray, without importing Ray."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


def _add(error: Any, document: Entry, findings: Findings) -> None:
    """Turn an error of the schema into findings at the lines it is about."""
    place = document
    for key in error.absolute_path:
        place = place.mapping.get(key, place[key])
    name = ".".join(str(key) for key in error.absolute_path) or "the file"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        for key in error.instance.keys() - known.keys():
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            where = place.mapping.get(key, place)
            findings.error(where, f"{key}: unknown to Ray in {name}; {hint}")
        return
    if error.validator == "type":
        types = error.validator_value
        types = types if isinstance(types, str) else " or ".join(types)
        findings.error(place, f"{name}: is {place.value!r:.60}; Ray wants {_article(types)}")
        return
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        findings.error(place, f"{name}: lacks {', '.join(missing)}; Ray needs it")
        return
    findings.error(place, f"{name}: {error.message:.120}; correct the value")


def _with_text_keys(value: Any) -> Any:
    """Return a copy in which every key is text, as in JSON."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_text_keys(inner) for inner in value]
    return value


def _article(types: str) -> str:
    return f"an {types}" if types[0] in "aeiou" else f"a {types}"


def check_as_launcher(document: Entry, findings: Findings) -> None:
    """Let Ray fill in its defaults and check the outcome, as `ray up` begins.

    It knows no lines and stops at the first mistake, so it comes last.
    """
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as error:
        findings.note(document, f"Ray's launcher did not check this file: {error}")
        return
    try:
        with _silence():
            validate_config(prepare_config(copy.deepcopy(document.value)))
    except Exception as error:  # what a launcher raises is not one type
        reason = " ".join(str(error).split()) or type(error).__name__
        findings.error(document, f"Ray's launcher refuses this file: {reason:.200}; correct it")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what Ray's launcher prints and logs from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
