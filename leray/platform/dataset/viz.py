"""`leray dataset viz`: look at a dataset in a browser, videos and plots in step."""

from dataclasses import dataclass
from pathlib import Path

from leray.algorithms.config import require
from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.viz.page import write_page
from leray.errors import ConfigError
from leray.platform.progress import Progress

_SUFFIXES = (".html", ".htm")


@dataclass(kw_only=True)
class VizConfig:
    """Everything `leray dataset viz` is told."""

    root: Path | None = None
    """Local folder of the dataset (the one that holds `meta/info.json`)."""
    repo_id: str | None = None
    """Name of the dataset, `user/name`, looked up on this machine and then on the Hub; not used
    where `root` is given."""
    output: Path | None = None
    """The page to write, replaced if it exists; `null` takes `outputs/viz/<dataset name>.html`."""
    episodes: list[int] | None = None
    """Which episodes to embed; `null` takes the first `max_episodes`."""
    max_episodes: int = 20
    """How many episodes to embed when none are named."""
    width: int = 320
    """Width of the embedded videos in pixels; narrower ones keep their size."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            self.root is not None or self.repo_id is not None,
            "no dataset given: say --root=<folder>, or --repo_id=<user/name>",
        )
        require(
            self.episodes is None or len(self.episodes) > 0,
            "--episodes=[]: name at least one episode, such as --episodes=[0,3]",
        )
        require(
            self.max_episodes >= 1,
            f"--max_episodes={self.max_episodes}: give a whole number >= 1",
        )
        require(self.width >= 16, f"--width={self.width}: give a whole number >= 16")
        require(
            self.output is None or self.output.suffix.lower() in _SUFFIXES,
            f"--output={self.output}: give the name of an HTML file, such as page.html",
        )


def run(config: VizConfig) -> None:
    """Write the page and say where it is.

    Raises:
        LerayError: there is no such dataset or episode, it is damaged, or the page cannot be
            written.
    """
    root = _folder(config, config.episodes or [0])
    whole = DatasetReader.open(root)
    if not whole.num_episodes:
        raise ConfigError(f"{root} has no episodes: there is nothing to show")
    chosen = config.episodes or whole.episodes[: config.max_episodes]
    reader = DatasetReader.open(_folder(config, chosen), episodes=chosen)
    output = config.output or Path("outputs/viz") / f"{_file_name(config)}.html"
    notes = _notes(reader, whole.num_episodes, listed=config.episodes is not None)
    for note in notes:
        print(note)
    progress = Progress(reader.num_episodes)

    def report(done: int) -> None:
        if progress.is_live or done % max(1, reader.num_episodes // 10) == 0:
            progress.update(done, {})

    try:
        size = write_page(
            reader,
            output,
            name=_name(config),
            width=config.width,
            notes=notes,
            on_episode=report,
        )
    finally:
        progress.close()
    print(f"{output} is written, {_megabytes(size)}: open it in a browser")


def _folder(config: VizConfig, episodes: list[int]) -> Path:
    """Return the dataset's folder; what the episodes need is downloaded if it is not here."""
    if config.root is not None:
        return config.root
    from leray.data.hub.download import resolve

    assert config.repo_id is not None
    return resolve(config.repo_id, episodes=episodes)


def _name(config: VizConfig) -> str:
    if config.root is None:
        return str(config.repo_id)
    return config.root.resolve().name or "dataset"


def _file_name(config: VizConfig) -> str:
    return _name(config).replace("/", "_")


def _notes(reader: DatasetReader, total: int, *, listed: bool) -> tuple[str, ...]:
    """Say what of the dataset is not embedded."""
    if reader.num_episodes == total:
        return ()
    which = f"{reader.num_episodes:,} of {total:,} episodes are in this page"
    if listed:
        return (which,)
    return (
        f"the first {which}; choose with --episodes=[...], or embed more with --max_episodes=...",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
