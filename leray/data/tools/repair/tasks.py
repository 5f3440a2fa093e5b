"""The table of tasks: put in order, and completed from what the episodes list."""

import json

import numpy as np

from leray.data import names
from leray.data.lerobot.schema import tasks_table
from leray.data.tools.check.contents import Contents, task_file
from leray.data.tools.check.tasks import is_indexed
from leray.data.tools.repair.columns import read_scalars
from leray.data.tools.repair.workshop import Workshop
from leray.errors import DatasetError


def mend_tasks(contents: Contents, workshop: Workshop) -> None:
    """Order the rows by index, and add those that follow from the episodes' own lists."""
    file = task_file(contents.version)
    stored = contents.task_rows or []
    known: dict[int, str] = {}
    for index, text in stored:
        if known.setdefault(index, str(text)) != str(text):
            workshop.give_up(f"{file}: task {index} stands there with two texts")
            return
    try:
        used = used_tasks(contents)
    except DatasetError as error:
        workshop.give_up(f"{file}: {error}")
        return
    lacking = set().union(*used) - set(known)
    known |= _derived(contents, used, known)
    if lacking - set(known) or sorted(known) != list(range(len(known))):
        workshop.give_up(f"{file}: the text of some task stands nowhere")
        return
    texts = [known[index] for index in range(len(known))]
    in_order = [index for index, _ in stored] == list(range(len(texts)))
    if in_order and (not contents.is_v3 or is_indexed(contents.root / file)):
        return
    if contents.is_v3:
        workshop.write_table(file, tasks_table(texts))
    else:
        rows = [{names.TASK_INDEX: index, names.TASK: text} for index, text in enumerate(texts)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        workshop.write_bytes(file, lines.encode())
    workshop.tell(f"{file}: {len(texts)} rows in order, {len(texts) - len(stored)} of them added")


def used_tasks(contents: Contents) -> list[set[int]]:
    """Return the task indices that each episode's frames have [episodes].

    Raises:
        DatasetError: a data file is damaged.
    """
    used: list[set[int]] = [set() for _ in range(len(contents.episodes))]
    for number, name in enumerate(contents.episodes.files):
        column = read_scalars(contents.root / name, [names.TASK_INDEX]).get(names.TASK_INDEX)
        if column is None or column.dtype.kind not in "iu":
            continue
        for position in contents.positions_in[number].tolist():
            start = int(contents.episodes.start[position])
            rows = column[start : start + int(contents.episodes.length[position])]
            used[position] = set(np.unique(rows).tolist())
    return used


def _derived(contents: Contents, used: list[set[int]], known: dict[int, str]) -> dict[int, str]:
    """Find texts by elimination: an episode with one unknown index and one text left over."""
    found: dict[int, str] = {}
    refuted: set[int] = set()
    progress = True
    while progress:
        progress = False
        texts = known | found
        for indices, listed in zip(used, contents.episodes.tasks, strict=True):
            unknown = [index for index in indices if index not in texts]
            left = set(listed) - {texts[index] for index in indices if index in texts}
            if len(unknown) != 1 or len(left) != 1 or unknown[0] in refuted:
                continue
            text = left.pop()
            if found.get(unknown[0], text) != text or text in known.values():
                refuted.add(unknown[0])
            elif unknown[0] not in found:
                found[unknown[0]], progress = text, True
    return {index: text for index, text in found.items() if index not in refuted}
