"""A run's folder: created once, checkpoints whole or absent, `last` always valid."""

import errno
from pathlib import Path

import pytest

from leray.errors import CheckpointError, ConfigError
from leray.platform.run_directory import RunDirectory, resolve_pretrained_model, run_of


def save(run: RunDirectory, step: int, content: str = "weights") -> Path:
    with run.writing_checkpoint(step) as folder:
        (folder / "pretrained_model").mkdir()
        (folder / "pretrained_model" / "config.json").write_text("{}")
        (folder / "pretrained_model" / "model.safetensors").write_text(content)
    return run.checkpoint(step)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "run")
    run.save_config("seed: 1\n")
    return run


def names(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_create_makes_the_layout(run: RunDirectory) -> None:
    found = sorted(path.name for path in run.root.iterdir())
    assert found == ["checkpoints", "eval", "logs", "replay", "train_config.yaml"]
    assert run.config_file.read_text() == "seed: 1\n"


def test_an_empty_folder_may_be_used_and_a_full_one_not(tmp_path: Path, run: RunDirectory) -> None:
    (tmp_path / "empty").mkdir()
    RunDirectory.create(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"exists and is not empty; .* --resume=true"):
        RunDirectory.create(run.root)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another folder"):
        RunDirectory.create(tmp_path / "file")


def test_resuming_needs_a_run(tmp_path: Path, run: RunDirectory) -> None:
    assert RunDirectory.create(run.root, resume=True).config_file.is_file()
    with pytest.raises(ConfigError, match="no run to resume"):
        RunDirectory.create(tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


def test_steps_are_padded_to_six_digits_and_sorted_as_numbers(run: RunDirectory) -> None:
    for step in (20_000, 1_000_000, 900):
        save(run, step)
    assert [folder.name for _, folder in run.list_checkpoints()] == ["000900", "020000", "1000000"]
    assert [step for step, _ in run.list_checkpoints()] == [900, 20_000, 1_000_000]


def test_last_is_a_relative_link_to_the_checkpoint_written_last(run: RunDirectory) -> None:
    assert run.last_checkpoint() is None
    save(run, 200)
    save(run, 100)
    link = run.checkpoints / "last"
    assert link.is_symlink()
    assert link.readlink() == Path("000100")
    assert run.last_checkpoint() == (100, run.checkpoint(100))
    moved = run.root.rename(run.root.with_name("moved"))
    assert (moved / "checkpoints" / "last" / "pretrained_model" / "config.json").is_file()


def test_a_dangling_or_missing_last_falls_back_to_the_newest(run: RunDirectory) -> None:
    save(run, 100)
    save(run, 200)
    link = run.checkpoints / "last"
    link.unlink()
    assert run.last_checkpoint() == (200, run.checkpoint(200))
    link.symlink_to("000300")
    assert run.last_checkpoint() == (200, run.checkpoint(200))


def test_a_checkpoint_being_written_is_hidden_and_a_failed_one_leaves_nothing(
    run: RunDirectory,
) -> None:
    save(run, 100)
    with pytest.raises(RuntimeError), run.writing_checkpoint(200) as folder:  # noqa: PT012
        (folder / "half").write_text("x")
        assert folder.name.startswith(".tmp-")
        assert [step for step, _ in run.list_checkpoints()] == [100]
        raise RuntimeError("killed")
    assert names(run) == ["000100", "last"]
    assert run.last_checkpoint() == (100, run.checkpoint(100))


def test_a_full_disk_is_a_checkpoint_error(run: RunDirectory) -> None:
    save(run, 100)
    with (
        pytest.raises(CheckpointError, match=r"000200: checkpoint not written: No space left"),
        run.writing_checkpoint(200),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(run) == ["000100", "last"]


def test_the_same_step_written_again_replaces_the_first(run: RunDirectory) -> None:
    save(run, 100, "old")
    save(run, 100, "new")
    assert (run.checkpoint(100) / "pretrained_model/model.safetensors").read_text() == "new"
    assert names(run) == ["000100", "last"]


def test_reopening_clears_leftovers_and_restores_what_was_being_replaced(run: RunDirectory) -> None:
    save(run, 100)
    save(run, 200)
    (run.checkpoints / ".tmp-000300-abc").mkdir()
    (run.checkpoints / ".tmp-last-abc").symlink_to("000100")
    run.checkpoint(200).rename(run.checkpoints / ".replaced-000200")  # killed between two renames
    RunDirectory.create(run.root, resume=True)
    assert names(run) == ["000100", "000200", "last"]
    assert run.last_checkpoint() == (200, run.checkpoint(200))


def test_prune_keeps_the_newest_and_what_last_points_to(run: RunDirectory) -> None:
    for step in (100, 200, 300, 400):
        save(run, step)
    assert run.prune(None) == []
    assert run.prune(3) == [run.checkpoint(100)]
    save(run, 200)
    assert run.prune(1) == [run.checkpoint(300)]
    assert names(run) == ["000200", "000400", "last"]


def test_best_is_a_relative_link_that_prune_spares(run: RunDirectory) -> None:
    assert run.best_checkpoint() is None
    for step in (100, 200, 300, 400):
        save(run, step)
    run.mark_best(200)
    run.mark_best(100)
    link = run.checkpoints / "best"
    assert (link.is_symlink(), link.readlink()) == (True, Path("000100"))
    assert run.best_checkpoint() == (100, run.checkpoint(100))
    assert run.prune(1) == [run.checkpoint(200), run.checkpoint(300)]
    assert names(run) == ["000100", "000400", "best", "last"]
    run.mark_best(400)
    assert run.prune(1) == [run.checkpoint(100)]
    model = run.checkpoint(400) / "pretrained_model"
    assert resolve_pretrained_model(link).samefile(model)


def test_a_dangling_best_is_none(run: RunDirectory) -> None:
    save(run, 100)
    run.mark_best(200)
    assert run.best_checkpoint() is None


def test_resolve_pretrained_model(run: RunDirectory) -> None:
    with pytest.raises(CheckpointError, match="no complete checkpoint yet"):
        resolve_pretrained_model(run.root)
    save(run, 100)
    model = run.checkpoint(100) / "pretrained_model"
    for path in (run.root, run.checkpoint(100), run.checkpoints / "last", model):
        assert resolve_pretrained_model(path).samefile(model)
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_pretrained_model(run.root / "missing")
    with pytest.raises(CheckpointError, match="holds no policy"):
        resolve_pretrained_model(run.logs)


def test_run_of_a_config_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_of(run.config_file) == run.root
    inside = run.checkpoints / "last" / "pretrained_model" / "train_config.json"
    assert run_of(inside) == run.root
    assert run_of(run.root / "other.yaml") is None
    save(run, 100)
    monkeypatch.chdir(run.checkpoint(100) / "pretrained_model")
    assert run_of(Path("train_config.json")) == run.root
