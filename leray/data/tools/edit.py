"""Editing datasets: every edit writes new v3.0 datasets and leaves its sources as they are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from leray.data import names
from leray.data.tools.rewriting.rewrite import Rewritten, rewrite
from leray.data.tools.rewriting.source import open_source
from leray.data.tools.rewriting.target import RewriteOptions
from leray.errors import DatasetError

OnProgress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Report nothing."""


def delete_episodes(
    root: Path, output: Path, episodes: Sequence[int], *, on_progress: OnProgress = _silent
) -> Rewritten:
    """Write a dataset without some of its episodes; the others move up, tasks keep their numbers.

    Raises:
        DatasetError: as `rewrite`; an episode does not exist, or none would be left.
    """
    source = open_source(root)
    if not episodes:
        raise DatasetError("no episode is given; give the indices of those to delete")
    _check_episodes(root, source.reader.episodes, episodes)
    left = [index for index in source.reader.episodes if index not in set(episodes)]
    if not left:
        raise DatasetError(f"{root}: no episode would be left; keep at least one")
    return rewrite(output, {"": [open_source(root, left)]}, on_progress=on_progress)[""]


def split(
    root: Path,
    output: Path,
    splits: Mapping[str, float | Sequence[int]],
    *,
    on_progress: OnProgress = _silent,
) -> dict[str, Rewritten]:
    """Write parts of a dataset as datasets of their own, in `<output>/<name>`.

    Args:
        root: the dataset's folder.
        output: the folder to make.
        splits: per name the episodes of that part: a fraction of all, which are taken in order, or
            their indices. All splits are given in the same way; episodes may be left over.
        on_progress: told how much is done, and how much there is to do.

    Raises:
        DatasetError: as `rewrite`; a split is empty, two overlap, or fractions exceed 1.
    """
    source = open_source(root)
    parts = _parts(root, source.reader.episodes, splits)
    datasets = {name: [open_source(root, episodes)] for name, episodes in parts.items()}
    return rewrite(output, datasets, on_progress=on_progress)


def merge(roots: Sequence[Path], output: Path, *, on_progress: OnProgress = _silent) -> Rewritten:
    """Write the episodes of several datasets, in the order given, as one dataset.

    Their features (names, shapes, kinds, names of elements) and frame rates are the same; tasks of
    the same text become one.

    Raises:
        DatasetError: as `rewrite`; frame rates differ.
        FeatureMismatchError: features differ; one line names both sides and every difference.
    """
    if not roots:
        raise DatasetError("there is nothing to merge; give at least one dataset")
    sources = [open_source(root) for root in roots]
    return rewrite(output, {"": sources}, on_progress=on_progress)[""]


def remove_features(
    root: Path, output: Path, features: Sequence[str], *, on_progress: OnProgress = _silent
) -> Rewritten:
    """Write a dataset without some of its features, cameras included.

    Raises:
        DatasetError: as `rewrite`; a feature does not exist or is needed, or none would be left.
    """
    source = open_source(root)
    removable = list(source.reader.features)
    if needed := [name for name in features if name in names.BOOKKEEPING]:
        raise DatasetError(f"{needed[0]!r} is part of every dataset and cannot be removed")
    if unknown := [name for name in features if name not in removable]:
        raise DatasetError(
            f"{root} has no feature {unknown[0]!r}; there are: {', '.join(removable)}"
        )
    options = RewriteOptions(without=frozenset(features))
    return rewrite(output, {"": [source]}, options, on_progress=on_progress)[""]


def rename_tasks(
    root: Path, output: Path, texts: Mapping[str, str], *, on_progress: OnProgress = _silent
) -> Rewritten:
    """Write a dataset with other texts of tasks; a text that exists already unites two tasks.

    Args:
        root: the dataset's folder.
        output: the folder to make.
        texts: new texts by the old ones.
        on_progress: told how much is done, and how much there is to do.

    Raises:
        DatasetError: as `rewrite`; a task does not exist, or a new text is empty.
    """
    source = open_source(root)
    if unknown := [task for task in texts if task not in source.metadata.tasks]:
        known = ", ".join(map(repr, source.metadata.tasks[:10])) or "none"
        raise DatasetError(f"{root} has no task {unknown[0]!r}; there are: {known}")
    _check_texts(texts.values())
    changed = replace(source, renamed_tasks=dict(texts))
    return rewrite(output, {"": [changed]}, on_progress=on_progress)[""]


def modify_tasks(
    root: Path,
    output: Path,
    new_task: str | None = None,
    episode_tasks: Mapping[int, str] | None = None,
    *,
    on_progress: OnProgress = _silent,
) -> Rewritten:
    """Write a dataset with a new task for all frames of some or all episodes.

    Args:
        root: the dataset's folder.
        output: the folder to make.
        new_task: the task of every episode that `episode_tasks` does not name; None leaves theirs.
        episode_tasks: tasks by episode index.
        on_progress: told how much is done, and how much there is to do.

    Raises:
        DatasetError: as `rewrite`; an episode does not exist, a text is empty, or nothing is given.
    """
    source = open_source(root)
    tasks = dict(episode_tasks or {})
    _check_episodes(root, source.reader.episodes, list(tasks))
    if new_task is not None:
        tasks = dict.fromkeys(source.reader.episodes, new_task) | tasks
    if not tasks:
        raise DatasetError("no task is given; give new_task or episode_tasks")
    _check_texts(tasks.values())
    changed = replace(source, episode_tasks=tasks)
    return rewrite(output, {"": [changed]}, on_progress=on_progress)[""]


def _check_episodes(root: Path, known: Sequence[int], wanted: Sequence[int]) -> None:
    if unknown := sorted(set(wanted).difference(known)):
        raise DatasetError(
            f"{root} has no episode {unknown[0]}; there are: {known[0]} to {known[-1]}"
            if known
            else f"{root} has no episodes"
        )


def _check_texts(texts: Iterable[str]) -> None:
    if any(not isinstance(text, str) or not text.strip() for text in texts):
        raise DatasetError("the text of a task must not be empty")


def _parts(
    root: Path, known: Sequence[int], splits: Mapping[str, float | Sequence[int]]
) -> dict[str, list[int]]:
    """Return the episodes of each split."""
    for name in splits:
        if not name or name in (".", "..") or len(PurePosixPath(name).parts) != 1 or "\0" in name:
            raise DatasetError(f"split {name!r} cannot be the name of a folder; rename it")
    fractions = [value for value in splits.values() if type(value) in (int, float)]
    lists = [value for value in splits.values() if _is_list_of_indices(value)]
    if not splits or len(splits) not in (len(fractions), len(lists)):
        raise DatasetError(
            "splits are all fractions or all lists of episodes, such as {train: 0.8, val: 0.2} or "
            f"{{train: [0, 1], val: [2]}}, not {dict(splits)}"
        )
    parts = _by_fractions(known, splits) if fractions else _by_lists(root, known, splits)
    if empty := [name for name, episodes in parts.items() if not episodes]:
        raise DatasetError(
            f"split {empty[0]!r} of {root} would be empty: there are {len(known)} episodes"
        )
    return parts


def _is_list_of_indices(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(index) is int for index in value)


def _by_fractions(known: Sequence[int], splits: Mapping[str, Any]) -> dict[str, list[int]]:
    fractions = np.array([float(fraction) for fraction in splits.values()])
    if not (fractions > 0).all() or fractions.sum() > 1 + 1e-9:
        raise DatasetError(f"fractions must be above 0 and sum to at most 1, not {dict(splits)}")
    ends = np.rint(np.cumsum(fractions) * len(known)).astype(int)
    parts = np.split(np.array(known, dtype=np.int64), ends)
    return {name: part.tolist() for name, part in zip(splits, parts, strict=False)}


def _by_lists(root: Path, known: Sequence[int], splits: Mapping[str, Any]) -> dict[str, list[int]]:
    owner: dict[int, str] = {}
    for name, episodes in splits.items():
        _check_episodes(root, known, episodes)
        for episode in episodes:
            if owner.setdefault(episode, name) != name:
                raise DatasetError(
                    f"episode {episode} is in two splits, {owner[episode]!r} and {name!r}"
                )
    return {name: sorted(set(episodes)) for name, episodes in splits.items()}
