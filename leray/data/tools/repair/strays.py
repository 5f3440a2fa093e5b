"""Moving aside what does not belong to the dataset, and cutting what an interrupted save left."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from leray.data.lerobot.columns import holds_only_later
from leray.data.lerobot.parquet import damage_reported, open_parquet
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.episodes import integers, stored_episodes
from leray.data.tools.check.orphans import strays
from leray.data.tools.repair.workshop import Workshop
from leray.errors import DatasetError


def mend_strays(contents: Contents, workshop: Workshop) -> None:
    """Move leftovers and orphans aside."""
    for stray in list(strays(contents)):
        name = stray.path.relative_to(contents.root).as_posix()
        if not stray.is_safe:
            workshop.give_up(f"{name} is left where it is: it may be needed")
        elif stray.kind == "temporary":
            workshop.put_away(name)
            workshop.tell(f"{name} is moved to {_relative(workshop)}")
        else:
            workshop.move_aside(name)
            workshop.tell(f"{name} is renamed to end in .orphan")
    if contents.is_v3:
        _move_repeated(contents, workshop)
    _trim(contents, workshop)


def _relative(workshop: Workshop) -> str:
    assert workshop.kept is not None
    return workshop.kept.name


def _move_repeated(contents: Contents, workshop: Workshop) -> None:
    """Move aside episodes files whose rows all stand in earlier ones."""
    seen: set[int] = set()
    repeated: list[Path] = []
    for path, table in stored_episodes(contents.root):
        stored = integers(table, "episode_index")
        indices = set() if stored is None else set(stored.tolist())
        if indices and indices <= seen:
            repeated.append(path)
        seen |= indices
    for path in repeated:
        name = path.relative_to(contents.root).as_posix()
        workshop.move_aside(name)
        workshop.tell(f"{name} repeats other files; it is renamed to end in .orphan")


def _trim(contents: Contents, workshop: Workshop) -> None:
    """Cut rows of later episodes off data files."""
    for number, name in enumerate(contents.episodes.files):
        positions = contents.positions_in[number]
        keep = int(contents.episodes.length[positions].sum())
        last = int(contents.episodes.index[positions].max())
        try:
            with open_parquet(contents.root / name) as file:
                rows = file.metadata.num_rows
                with damage_reported(contents.root / name):
                    is_cut_short = rows > keep and holds_only_later(file, keep, last)
                if is_cut_short:
                    _copy_first(file, name, keep, workshop)
                    workshop.tell(f"{name}: {rows - keep} rows of an interrupted save are cut off")
        except DatasetError:  # reported by the check; nothing here can mend it
            continue


def _copy_first(file: pq.ParquetFile, name: str, rows: int, workshop: Workshop) -> None:
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    before = np.cumsum([0, *sizes])
    with workshop.parquet_writer(name, file.schema_arrow) as writer:
        for group, first in enumerate(before[:-1].tolist()):
            with damage_reported(workshop.root / name):  # reading only: a full disk is no damage
                table = file.read_row_group(group)[: max(rows - first, 0)]
            if len(table):
                writer.write_table(table, row_group_size=len(table))
