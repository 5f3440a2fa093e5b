"""The dataset card: the `README.md` that the Hub shows as a dataset's page."""

from collections.abc import Sequence

import yaml

from leray.data.lerobot.metadata import Metadata

TAGS = ("LeRobot", "leray")
"""Tags every card has; others are added."""
TASK_CATEGORIES = ("robotics",)
DATA_FILES = "data/*/*.parquet"
"""What the Hub's own viewer shows: the frames' numbers and text."""
_TASKS_SHOWN = 20


def dataset_card(
    metadata: Metadata, repo_id: str, *, license_name: str, tags: Sequence[str] = ()
) -> str:
    """Return the card of a dataset as Markdown with YAML front matter.

    Args:
        metadata: what the dataset says about itself.
        repo_id: its name on the Hub, `user/name`.
        license_name: its licence by the Hub's identifier, such as `apache-2.0`.
        tags: further tags.
    """
    front = {
        "license": license_name,
        "task_categories": list(TASK_CATEGORIES),
        "tags": list(dict.fromkeys([*TAGS, *tags])),
        "configs": [{"config_name": "default", "data_files": DATA_FILES}],
    }
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {repo_id}",
        "Robot demonstrations in the "
        f"[LeRobot](https://github.com/huggingface/lerobot) dataset format {metadata.version}, "
        "published with LeRay.",
        _facts(metadata),
        "## Features",
        _features(metadata),
        "## How to open it",
        _usage(repo_id),
    ]
    return "\n\n".join(sections) + "\n"


def _facts(metadata: Metadata) -> str:
    cameras = [name for name, feature in metadata.features.items() if feature.is_visual]
    tasks = [_cell(task) for task in metadata.tasks[:_TASKS_SHOWN]]
    if more := len(metadata.tasks) - len(tasks):
        tasks.append(f"and {more} more")
    facts = {
        "Robot": _cell(metadata.robot_type or "not stated"),
        "Episodes": str(len(metadata.episodes)),
        "Frames": str(metadata.episodes.frames),
        "Frames per second": f"{metadata.fps:g}",
        "Cameras": ", ".join(f"`{_cell(name)}`" for name in cameras) or "none",
        "Tasks": "; ".join(tasks) or "not stated",
    }
    return _table(("", ""), list(facts.items()))


def _features(metadata: Metadata) -> str:
    declared = {**metadata.features, **metadata.bookkeeping}
    rows = [
        (
            f"`{_cell(name)}`",
            feature.dtype,
            " x ".join(map(str, feature.shape)),
            _cell(", ".join(feature.names or ())),
        )
        for name, feature in declared.items()
    ]
    return _table(("name", "dtype", "shape", "names"), rows)


def _usage(repo_id: str) -> str:
    return (
        f"```bash\nleray dataset pull --repo_id={repo_id} --root=<folder>\n```\n\n"
        "```python\n"
        "from leray.data.hub.download import resolve\n"
        "from leray.data.lerobot.reader import DatasetReader\n\n"
        f'dataset = DatasetReader.open(resolve("{repo_id}"))\n'
        'actions = dataset.read(["action"])["action"]  # one row per frame\n'
        "```"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Keep text inside its cell: one line, no bars, no markup."""
    one_line = " ".join(text.split())
    return one_line.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
