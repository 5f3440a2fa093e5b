"""A run in a store: brought there whole, gone on with elsewhere, by one process at a time."""

import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from leray.errors import ConfigError
from leray.platform.home import mirror
from leray.platform.home.fetch import fetch_policy
from leray.platform.home.home import Home, StoreHome, open_home, resumed_config
from leray.platform.home.index import Index, read_index
from leray.platform.home.lock import LOCK, RunLock
from leray.platform.home.loose import LooseFiles
from leray.platform.home.store import Store
from leray.platform.run_directory import RunDirectory, resolve_pretrained_model
from tests.platform.home.conftest import Trainer, expected_weights, weights_of
from tests.platform.home.shelf import Shelf


def wait_for(condition, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def live(trainer: Trainer) -> dict:
    return trainer.replay.live_columns()


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for key, values in left.items():
        assert np.array_equal(values, right[key]), key


def trained(url: str, checkpoints: int = 2, **options) -> Trainer:
    """Train a run to its end; its last checkpoint is at 5 steps times `checkpoints`."""
    with open_home(url, **options) as home:
        trainer = Trainer(home.local)
        for _ in range(checkpoints):
            trainer.collect()
            trainer.save(options.get("keep"))
        assert home.finish() == []
    return trainer


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_folder_is_its_own_home(tmp_path, form):
    for place in (form.format(tmp_path / "run"), Path(form.format(tmp_path / "run"))):
        with open_home(place) as home:
            assert type(home) is Home
            assert home.local == tmp_path / "run"
            assert home.finish() == []
    assert not (tmp_path / "run").exists()


def test_a_run_comes_home_and_goes_on_on_another_machine(url, machine, capsys):
    first = trained(url)
    first.run.mark_best(5)
    store = Store(url)
    assert set(store.top()) >= {"run.json", "train_config.yaml", "logs", "checkpoints", "replay"}
    assert LOCK not in store.top()
    expected = live(first)

    machine("second")
    assert resumed_config(url).read_text() == "seed: 1\n"
    with open_home(url, resume=True) as home:
        assert home.local != first.run.root
        second = Trainer(home.local, resume=True)
        assert second.step == 10
        assert_same(live(second), expected)
        assert (second.run.logs / "metrics.jsonl").read_text().count("\n") == 2
        first.collect()  # what the first machine would have gone on with
        second.collect()
        assert_same(live(second), live(first))
        second.save()
    assert read_index(store).last == 15
    assert "to go on from step 10" in capsys.readouterr().out


def test_on_the_same_machine_the_local_folder_is_used(url):
    first = trained(url)
    first.collect()  # never brought
    with open_home(url, resume=True) as home:
        assert home.local == first.run.root
        again = RunDirectory.create(home.local, resume=True)
        assert (again.logs / "metrics.jsonl").read_text().count("\n") == 3
        home.finish()
    assert Store(url).read("logs/metrics.jsonl").count(b"\n") == 3


def test_a_local_folder_that_was_left_behind_is_fetched_anew(url, machine, capsys):
    first = trained(url)
    with open_home(url, resume=True):  # killed: more was collected and never brought
        first.save()
    state = next(first.run.root.parent.glob("*.json"))
    state.write_text(state.read_text().replace('"at_home": true', '"at_home": false'))
    machine("second")
    with open_home(url, resume=True) as home:
        second = Trainer(home.local, resume=True)
        second.collect()
        second.save()
    machine("first")
    with open_home(url, resume=True) as home:
        third = Trainer(home.local, resume=True)
        assert third.step == second.step
        assert_same(live(third), live(second))
    aside = [path for path in home.local.parent.iterdir() if ".aside-" in path.name]
    assert len(aside) == 1
    assert (aside[0] / "train_config.yaml").is_file()
    assert "went on elsewhere" in capsys.readouterr().out


def test_a_run_that_is_gone_from_the_store_is_brought_there_again(url, machine):
    first = trained(url)
    store = Store(url)
    store._filesystem.rm(store._root, recursive=True)
    with pytest.raises(ConfigError, match=r"holds a run that is not there any more; remove"):
        open_home(url)
    with open_home(url, resume=True) as home:
        assert home.local == first.run.root
    machine("second")
    with open_home(url, resume=True) as home:
        assert Trainer(home.local, resume=True).step == 10


def test_a_place_in_use_is_refused_and_resuming_needs_a_run(url, machine):
    for _ in range(2):
        with pytest.raises(ConfigError, match="no run to resume is there, nor here"):
            open_home(url, resume=True)
    with pytest.raises(ConfigError, match="no run to resume is there"):
        resumed_config(url)
    with open_home(url):
        pass  # failed before it had a config
    trained(url)
    machine("second")
    with pytest.raises(ConfigError, match=r"exists and is not empty; .* --resume=true"):
        open_home(url)


def test_pruned_checkpoints_leave_after_the_index_has(url):
    trained(url, 6, keep=2)
    store = Store(url)
    index = read_index(store)
    assert sorted(index.checkpoints) == [25, 30]
    present = set(store.files("checkpoints")) | set(store.files("replay"))
    assert present == index.names()
    assert weights_of(fetch_policy(url)) == expected_weights(30)
    assert weights_of(fetch_policy(f"{url}/checkpoints/000025")) == expected_weights(25)


def test_the_best_checkpoint_stays_and_is_found(url, machine):
    with open_home(url, keep=1) as home:
        trainer = Trainer(home.local)
        for step in range(4):
            trainer.collect()
            trainer.save(1)
            if step == 0:
                trainer.run.mark_best(5)
        home.finish()
    assert sorted(read_index(Store(url)).checkpoints) == [5, 20]
    best = Path(f"{url}/checkpoints/best")  # as the command line gives it, one slash lost
    assert weights_of(resolve_pretrained_model(best)) == expected_weights(5)
    machine("second")
    with open_home(url, resume=True) as home:
        assert RunDirectory(home.local).best_checkpoint()[0] == 5


def test_a_checkpoint_written_again_never_overwrites_the_one_in_force(shelf):
    with open_home(shelf) as home:
        trainer = Trainer(home.local)
        trainer.collect()
        trainer.save()
        wait_for(lambda: 5 in read_index(Store(shelf)).checkpoints)
        with trainer.run.writing_checkpoint(5) as folder:
            (folder / "pretrained_model").mkdir()
            (folder / "pretrained_model/config.json").write_text("{}")
            (folder / "pretrained_model/model.safetensors").write_bytes(b"other")
        home.finish()
    assert read_index(Store(shelf)).checkpoints[5].folder == "checkpoints/000005.2"
    assert weights_of(fetch_policy(shelf)) == b"other"
    assert len([name for name in Shelf.names if "000005/pretrained_model/m" in name]) == 2


def test_a_newer_checkpoint_that_is_not_there_yet_is_not_the_last(shelf, tmp_path):
    store, trainer = Store(shelf), Trainer(tmp_path / "run")
    bringing = mirror.Mirror(store, RunLock(store), Index("run", "writer"), trainer.run, keep=None)
    for step in (5, 10):
        trainer.collect()
        trainer.save()
        [(found, folder), *_] = bringing._pending()
        assert found == step
        trainer.collect()
        trainer.save()  # while the one before is being brought
        bringing._bring_checkpoint(step, folder)
        assert (read_index(store).last, read_index(store).resume) == (step, step)
        trainer.step -= 5
        shutil.rmtree(trainer.run.checkpoint(step + 5))


def test_only_blocks_that_changed_travel(shelf, monkeypatch):
    from leray.platform.home import replay

    monkeypatch.setattr(replay, "BLOCK_BYTES", 256)
    with open_home(shelf) as home:
        trainer = Trainer(home.local)
        trainer.collect(10)
        trainer.save()
        wait_for(lambda: read_index(Store(shelf)).resume == 10)
        before = {name for name in Shelf.names if "/blocks/" in name}
        trainer.collect(1)
        trainer.save()
        home.finish()
    more = {name for name in Shelf.names if "/blocks/" in name} - before
    assert 0 < len(more) < len(before) / 2


def test_training_never_waits_for_the_store(shelf):
    with open_home(shelf) as home:
        trainer = Trainer(home.local)
        Shelf.held = "runs/1"
        began_s = time.monotonic()
        for _ in range(3):
            trainer.collect()
            trainer.save(1)
        assert time.monotonic() - began_s < 2
        Shelf.opened.set()
        assert home.finish() == []
    assert weights_of(fetch_policy(shelf)) == expected_weights(15)


def test_a_store_that_fails_is_told_once_and_tried_again(shelf, caplog):
    with open_home(shelf) as home, caplog.at_level(logging.WARNING):
        trainer = Trainer(home.local)
        wait_for(lambda: Store(shelf).top().get("train_config.yaml"))
        Shelf.fails_from = Shelf.writes + 1
        trainer.collect()
        trainer.save()
        wait_for(lambda: Shelf.writes > Shelf.fails_from + 3)
        Shelf.fails_from = None
        wait_for(lambda: read_index(Store(shelf)).last == 5)
        assert home.finish() == []
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "the shelf is broken" in told[0]
    assert "is back; nothing was lost" in told[1]


def test_what_could_not_be_brought_is_told_with_where_it_is(shelf, machine, caplog):
    with open_home(shelf) as home:
        trainer = Trainer(home.local)
        Shelf.fails_from = Shelf.writes + 1
        trainer.collect()
        trainer.save()
        left = home.finish()
    assert left[0] == "checkpoint 000005"
    told = caplog.records[-1].getMessage()
    for part in ("checkpoint 000005", "the shelf is broken", str(home.local), "--resume=true"):
        assert part in told
    Shelf.fails_from = None
    with open_home(shelf, resume=True) as home:  # on this machine nothing is lost
        assert home.finish() == []
    machine("second")
    with open_home(shelf, resume=True) as home:
        assert Trainer(home.local, resume=True).step == 5


def test_a_replay_that_was_overwritten_is_not_taken_for_whole(shelf, machine, caplog, capsys):
    with open_home(shelf, keep=1) as home:
        trainer = Trainer(home.local)
        trainer.collect()
        trainer.save(1)
        wait_for(lambda: read_index(Store(shelf)).resume == 5)
        Shelf.held = "000010"
        trainer.collect()
        trainer.save(1)
        wait_for(lambda: any("000010" in name for name in Shelf.names))
        trainer.collect(40)  # more than the slack
        Shelf.opened.set()
        wait_for(lambda: read_index(Store(shelf)).last == 10)
        home.finish()
    assert "lacks a replay of step 10" in caplog.text
    index = read_index(Store(shelf))
    assert (index.resume, sorted(index.checkpoints)) == (5, [5, 10])
    machine("second")
    with open_home(shelf, resume=True) as home:
        assert Trainer(home.local, resume=True).step == 5
    assert "to go on from step 5; the replay of step 10 is not there" in capsys.readouterr().out


def test_a_stored_mark_never_points_behind_the_end_of_the_stored_log(tmp_path, shelf):
    run = RunDirectory.create(tmp_path / "run")
    log, mark = run.logs / "metrics.jsonl", run.logs / "metrics.delivered"
    store = Store(shelf)

    def write(lines: int) -> None:
        with log.open("ab") as file:
            file.write(b"line\n" * lines)
        mark.write_text(str(log.stat().st_size))

    class Growing(Store):
        def upload(self, *arguments) -> None:
            super().upload(*arguments)
            write(1)  # as training does meanwhile

    loose = LooseFiles(Growing(shelf), run.root, lambda num_bytes: None)
    write(1)
    loose.bring(at_once=True)
    assert (store.read("logs/metrics.delivered"), loose.left()) == (b"5", ["logs/metrics.jsonl"])
    loose._not_before_s["logs/metrics.jsonl"] = time.monotonic() + 100
    write(5)
    loose.bring(at_once=False)
    assert store.read("logs/metrics.delivered") == b"5"
    loose.bring(at_once=True)
    assert store.read("logs/metrics.delivered") == b"%d" % len(store.read("logs/metrics.jsonl"))


def test_passing_and_hidden_files_stay_here(url):
    with open_home(url) as home:
        run = RunDirectory.create(home.local)
        run.save_config("seed: 1\n")
        for name in ("eval/step_1/policy/model.safetensors", "eval/best.json", "logs/.x.tmp"):
            (run.root / name).parent.mkdir(parents=True, exist_ok=True)
            (run.root / name).write_text("{}")
        home.finish()
    assert Store(url).files("eval") == ["eval/best.json"]
    assert Store(url).files("logs") == []


def test_local_folders_of_finished_runs_do_not_pile_up(url, monkeypatch):
    from leray.platform.home import scratch

    first = trained(url)
    other = url[:-1] + "2"
    trained(other, 1)
    assert first.run.root.exists()
    monkeypatch.setattr(scratch, "UNUSED_S", -1.0)
    trained(url[:-1] + "3", 1)
    assert not first.run.root.exists()


def test_keyboard_interrupt_while_waiting_tells_what_is_left(shelf, caplog, monkeypatch):
    def interrupted(self, say) -> None:
        raise KeyboardInterrupt

    home = open_home(shelf)
    assert isinstance(home, StoreHome)
    trainer = Trainer(home.local)
    Shelf.fails_from = 1
    trainer.save()
    monkeypatch.setattr(mirror.Mirror, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        home.finish()
    assert "lacks checkpoint 000000" in caplog.records[-1].getMessage()
    assert LOCK not in Store(shelf).top()


def test_the_command_line_finds_the_config_of_a_stored_run(url, machine):
    from leray.platform.config import TrainConfig
    from leray.platform.parsing import parse

    with open_home(url) as home:
        run = RunDirectory.create(home.local, address=home.address)
        run.save_config("policy: {type: sac}\nenv: {type: gym, task: Pendulum-v1}\nseed: 7\n")
        assert run.address == url
    machine("second")
    given = ["--resume=true", f"--output_dir={url}"]
    config = parse(TrainConfig, given, command="train")
    assert (config.seed, config.output_dir) == (7, Path(url))
    with open_home(config.output_dir, resume=config.resume) as home:
        assert RunDirectory.create(home.local, resume=True).last_checkpoint() is None
    with pytest.raises(ConfigError, match="no run to resume is there"):
        parse(TrainConfig, [*given[:1], f"{given[1]}0"], command="train")
