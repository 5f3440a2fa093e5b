"""The CSV file, read back."""

import csv
import errno
import os

import pytest

from leray.errors import ConfigError
from leray.tune.report.csv_file import write_csv
from tests.tune.report.sweeps import HOSTILE, METRIC, record, sweep


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_nothing_is_lost(tmp_path):
    records = sweep(24)
    write_csv(records, tmp_path / "new" / "results.csv", metric=METRIC)
    rows = read(tmp_path / "new" / "results.csv")
    assert [row["trial_id"] for row in rows] == [one.trial_id for one in records]
    for row, one in zip(rows, records, strict=True):
        assert row["status"] == one.status
        assert int(row["step"]) == one.step
        assert float(row["duration_s"]) == one.duration_s
        assert row[f"best {METRIC}"] == ("" if one.best is None else repr(one.best))
        assert row["best_step"] == ("" if one.best_step is None else str(one.best_step))
        assert float(row["config/policy.actor_lr"]) == one.values["policy.actor_lr"]
        assert row["config/policy.optimizer"] == one.values["policy.optimizer"]
        assert row["config/policy.layer_norm"] == str(one.values["policy.layer_norm"]).lower()
        assert row["loss/critic"] == ("0.1" if one.metrics else "")
        assert row["run"] == str(one.run)
    assert {row["config/policy.hidden_dims"] for row in rows} == {"[64, 64]", "[256, 256]"}
    assert {row["config/policy.clip"] for row in rows} == {"null", "1.0", "10.0"}
    assert rows[3]["error"] == f"LearnerError: {HOSTILE} out of memory"


def test_a_key_that_a_trial_lacks_is_empty(tmp_path):
    records = [record("a", 1.0, values={"x": None, "y": 'say "so", twice\n'}), record("b", 2.0)]
    write_csv(records, tmp_path / "r.csv", metric="m")
    one, other = read(tmp_path / "r.csv")
    assert (one["config/x"], other["config/x"]) == ("null", "")
    assert (one["config/y"], other["config/y"]) == ('say "so", twice\n', "")


def test_no_trials_leave_a_header(tmp_path):
    write_csv([], tmp_path / "r.csv", metric="m")
    assert (tmp_path / "r.csv").read_text().startswith("trial_id,status,step,best m,")


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.csv"
    write_csv([record("a", 1.0)], path, metric="m")
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"r\.csv: not written: No space left on device; "):
        write_csv([record("b", 1.0)], path, metric="m")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match=r"not written: .*--output_dir") as raised:
        write_csv([], tmp_path / "taken" / "r.csv", metric="m")
    assert "\n" not in str(raised.value)
