"""A run's replay as it was at a checkpoint, in blocks of which only changed ones travel.

The replay is a ring in memory-mapped files that training goes on writing. Rows of a checkpoint stay
where they are until about two checkpoints later (`replay_slack`), so they are read while training
goes on; a header that says how far the replay had come at the checkpoint makes everything written
since invisible, as `ReplayBuffer.rewind` does. Whether rows were overwritten before they were read
is seen by the ring's own mark.

Files are cut into blocks that are named by their content: a block that the store has is not sent
again, one of zeros never. Blocks in use are never changed, so a checkpoint's replay is whole as
long as the index names it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leray.errors import CheckpointError

BLOCK_BYTES = 16 * 2**20
BLOCKS = "replay/blocks"
STATE_FILE = "replay_state.json"
"""In a checkpoint's training state: how far each ring had come, by the name of its folder."""
STEP_FILE = "training_step.json"
_ZEROS = bytes(BLOCK_BYTES)


@dataclass(frozen=True)
class BlockFile:
    """A file as its blocks."""

    size: int
    """Bytes."""
    blocks: list[str | None]
    """SHA-256 of each block; None for one of zeros."""


Manifest = dict[str, BlockFile]
"""The replay's files by their path in the replay's folder."""


class ReplayGoneError(Exception):
    """The replay of a checkpoint can no longer be had from this machine."""


def block_name(digest: str) -> str:
    """Return what a block is called in the store."""
    return f"{BLOCKS}/{digest}"


def read_replay(replay: Path, training_state: Path, send: Callable[[str, bytes], None]) -> Manifest:
    """Read a checkpoint's replay while training goes on.

    Args:
        replay: the run's replay folder.
        training_state: the checkpoint's folder that says how far the replay had come.
        send: given the digest and the content of each block that is not of zeros.

    Returns:
        What the replay consists of; nothing where the algorithm has none.

    Raises:
        ReplayGoneError: rows were overwritten meanwhile, or the replay is not on this machine.
        OSError: a file cannot be read.
    """
    state_file = training_state / STATE_FILE
    if not state_file.is_file():
        return {}
    states: dict[str, Any] = json.loads(state_file.read_text())
    exact = json.loads((training_state / STEP_FILE).read_text()).get("clock") != "async"
    manifest: Manifest = {}
    for name, state in states.items():
        if isinstance(state, dict) and {"start", "head", "steps", "total"} <= state.keys():
            files = _read_ring(replay / name, state, exact=exact, send=send)
            manifest |= {f"{name}/{file}": blocks for file, blocks in files.items()}
    return manifest


def restore_replay(manifest: Manifest, replay: Path, read: Callable[[str], bytes]) -> None:
    """Write the files of a replay.

    Args:
        manifest: what it consists of.
        replay: the run's replay folder.
        read: returns the content of a block by its digest.

    Raises:
        CheckpointError: a block is damaged.
        OSError: the disk is full.
    """
    for name, stored in manifest.items():
        path = replay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            if stored.size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, stored.size)  # a full disk shows now
            file.truncate(stored.size)
            for number, digest in enumerate(stored.blocks):
                if digest is None:
                    continue
                content = read(digest)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise CheckpointError(
                        f"replay file {name} is damaged in the store (block {digest}): start a new "
                        "run from this one's policy with --policy.path"
                    )
                file.seek(number * BLOCK_BYTES)
                file.write(content)


def _read_ring(
    folder: Path, state: dict[str, int], *, exact: bool, send: Callable[[str, bytes], None]
) -> Manifest:
    from leray.algorithms.replay.storage import (
        HEADER_FILE,
        LAYOUT_FILE,
        header_content,
        read_oldest,
    )

    if not (folder / LAYOUT_FILE).is_file():
        raise ReplayGoneError(f"{folder} is not on this machine")
    limit = state["start"] if exact else state["head"]

    def oldest() -> int:
        row = read_oldest(folder)
        if row > limit:
            raise ReplayGoneError(
                f"{folder.name} replay was overwritten before it was read: rows before {row}, and "
                f"{state['start']} to {state['head']} are needed"
            )
        return row

    manifest: Manifest = {}
    for path in sorted(folder.iterdir()):
        if path.name == HEADER_FILE or path.name.startswith("."):
            continue
        blocks = []
        for content in _contents(path):
            blocks.append(_send(content, send))
            oldest()
        manifest[path.name] = BlockFile(path.stat().st_size, blocks)
    start = max(oldest(), state["start"])  # read last: what it covers was there all the while
    header = header_content(start, (state["head"], state["steps"], state["total"]))
    manifest[HEADER_FILE] = BlockFile(len(header), [_send(header, send)])
    return manifest


def _contents(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while content := file.read(BLOCK_BYTES):
            yield content


def _send(content: bytes, send: Callable[[str, bytes], None]) -> str | None:
    if content == _ZEROS[: len(content)]:
        return None
    digest = hashlib.sha256(content).hexdigest()
    send(digest, content)
    return digest
