"""`leray dataset convert` and `leray dataset edit`: their options and what they print."""

import importlib.util
import io
from pathlib import Path

import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.video.options import VideoOptions
from leray.data.video.reader import VideoReader
from leray.errors import ConfigError, DatasetError
from leray.platform import progress
from leray.platform.dataset import convert, edit
from leray.platform.dataset.convert import ConvertConfig
from leray.platform.dataset.edit import EditConfig
from leray.platform.dataset.steps import Steps
from leray.platform.help import help_text
from leray.platform.parsing import parse

_PATH = Path(__file__).parents[2] / "data/tools/v21.py"
_SPEC = importlib.util.spec_from_file_location("v21", _PATH)
v21 = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(v21)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return v21.make(tmp_path_factory.mktemp("old") / "old", cameras=[v21.FRONT], total_frames=1)


def converted(*arguments: str) -> None:
    convert.run(parse(ConvertConfig, arguments, command="dataset convert"))


def edited(*arguments: str) -> None:
    edit.run(parse(EditConfig, arguments, command="dataset edit"))


def test_convert_prints_progress_findings_and_the_outcome(old, tmp_path, capsys):
    converted(f"--root={old}", f"--output={tmp_path / 'new'}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 1/9 (11%)  left 0:00:")
    assert lines[-3].startswith("step 9/9 (100%)")
    assert lines[-2:] == [
        "note: meta/info.json says total_frames 1, there are 44",
        f"{tmp_path / 'new'}: 3 episodes, 44 frames, v3.0",
    ]


def test_convert_in_place_says_where_the_old_one_is(tmp_path, capsys):
    root = v21.make(tmp_path / "data", cameras=[])
    converted(f"--root={root}", "--in_place=true")
    assert f"is at {root}_old; delete it when you are content" in capsys.readouterr().out
    assert DatasetReader.open(root).version == "v3.0"


def test_convert_passes_its_options_on(old, tmp_path):
    converted(f"--root={old}", f"--output={tmp_path / 'new'}")
    with pytest.raises(DatasetError, match=r"give --repack=true"):
        converted(f"--root={tmp_path / 'new'}", f"--output={tmp_path / 'newer'}")
    more = ["--repack", "--vcodec=h264", "--g=3", "--video_files_size_in_mb=5", "--retime"]
    converted(f"--root={tmp_path / 'new'}", f"--output={tmp_path / 'newer'}", *more)
    with VideoReader(next((tmp_path / "newer").rglob("*.mp4"))) as video:
        assert video.keyframes[:3].tolist() == [0, 3, 6]
    assert DatasetReader.open(tmp_path / "newer").metadata.info["video_files_size_in_mb"] == 5


def test_convert_finds_a_dataset_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    v21.make(tmp_path / "lab/demo", cameras=[])
    converted("--repo_id=lab/demo", f"--output={tmp_path / 'new'}")
    assert DatasetReader.open(tmp_path / "new").num_episodes == 3


@pytest.mark.parametrize(
    ("arguments", "encoding"),
    [
        ([], None),
        (["--g=2"], VideoOptions()),
        (["--vcodec=h264", "--crf=20"], VideoOptions(vcodec="h264", crf=20)),
    ],
)
def test_videos_are_encoded_only_on_demand(arguments, encoding):
    config = parse(ConvertConfig, ["--root=a", "--output=b", *arguments], command="convert")
    assert config.encoding() == encoding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=b"], r"no dataset given"),
        (["--root=a"], r"either --output=<new folder> or --in_place=true"),
        (["--root=a", "--output=b", "--in_place"], r"either --output"),
        (["--repo_id=a/b", "--in_place"], r"--in_place=true needs --root"),
        (["--root=a", "--output=b", "--vcodec=vp9"], r"vcodec 'vp9' is unknown; one of"),
        (["--root=a", "--output=b", "--crf=99"], r"crf must be an integer from 1 to 63"),
    ],
)
def test_wrong_options_of_convert(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(ConvertConfig, arguments, command="dataset convert")


@pytest.mark.parametrize(
    ("operation", "folders"),
    [
        (["--operation.type=delete_episodes", "--operation.episode_indices=[0,2]"], {"": 1}),
        (
            ["--operation.type", "split", "--operation.splits", '{"train": 0.7, "val": 0.3}'],
            {"train": 2, "val": 1},
        ),
        (
            ["--operation.type=split", "--operation.splits={train: [0, 1], val: [2]}"],
            {"train": 2, "val": 1},
        ),
        (["--operation.type=remove_feature", "--operation.feature_names=[action]"], {"": 3}),
        (
            ["--operation.type=rename_task", "--operation.old=pick", "--operation.new=place"],
            {"": 3},
        ),
        (["--operation.type=modify_tasks", '--operation.episode_tasks={"0": "fold"}'], {"": 3}),
    ],
)
def test_edit(old, tmp_path, capsys, operation, folders):
    edited(f"--root={old}", f"--output={tmp_path / 'out'}", *operation)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("note: ") for line in lines) == 1
    for line, (name, episodes) in zip(lines[-len(folders) :], folders.items(), strict=True):
        folder = tmp_path / "out" / name
        assert DatasetReader.open(folder).num_episodes == episodes
        assert line.startswith(f"{folder}: {episodes} episodes, ")


def test_merge_takes_folders_and_names(old, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    v21.make(tmp_path / "lab/demo", cameras=[v21.FRONT])
    merge = ["--operation.type=merge", f"--operation.roots=[{old}]"]
    edited(*merge, "--operation.repo_ids=[lab/demo]", f"--output={tmp_path / 'out'}")
    assert DatasetReader.open(tmp_path / "out").num_episodes == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operation.type=split", "--operation.splits={a: 1.0}"], r"no dataset given"),
        (["--operation.type=merge"], r"nothing to merge: give --operation.roots"),
        (
            ["--operation.type=merge", "--operation.roots=[a]", "--root=b"],
            r"merge takes its datasets from --operation.roots",
        ),
        (
            ["--operation.type=delete"],
            r"unknown; allowed are delete_episodes, .*did you mean|allowed",
        ),
        (["--operation.type=rename_task", "--operation.old=a"], r"--operation.new is missing"),
        ([], r"--operation.type is missing: choose one of delete_episodes"),
    ],
)
def test_wrong_options_of_edit(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(EditConfig, [*arguments, "--output=out"], command="dataset edit")


@pytest.mark.parametrize("config", [ConvertConfig, EditConfig])
def test_every_option_is_explained(config):
    text = help_text(config, [], command="dataset convert", about="What it does.")
    assert "--output" in text
    assert "v3.0 dataset" in text


def test_progress_prints_at_most_some_lines(capsys):
    with Steps() as steps:
        for done in range(1, 1001):
            steps(done, 1000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("step 1,000/1,000 (100%)")


def test_a_live_display_is_not_redrawn_for_every_step(monkeypatch):
    drawn = []

    class Live(progress.Progress):
        def __init__(self, total):
            super().__init__(total, stream=io.StringIO(), is_tty=True)

        def update(self, step, metrics):
            drawn.append(step)

    monkeypatch.setattr("leray.platform.dataset.steps.Progress", Live)
    with Steps() as steps:
        for done in range(1, 1001):
            steps(done, 1000)
    assert drawn[0] == 1
    assert drawn[-1] == 1000
    assert len(drawn) < 20
