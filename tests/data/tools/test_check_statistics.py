"""Stored statistics against the frames: what is wrong is named, what is approximate is noted."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data import statistics
from leray.data.tools.check.dataset import check
from leray.data.tools.check.values import Moments

_PATH = Path(__file__).parent / "fuzz" / "sample_datasets.py"
_SPEC = importlib.util.spec_from_file_location("sample_datasets", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

VIDEO, EPISODES = samples.VIDEO, samples.EPISODES_PARQUET


@pytest.fixture
def v30(tmp_path):
    return samples.build(tmp_path / "v30", "v3.0")


def edit_stats(root, change) -> None:
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    change(stats)
    path.write_text(json.dumps(stats))


def found(root, code="statistics") -> list:
    return [(f.severity, f.column, f.message) for f in check(root).findings if f.code == code]


def test_moments_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(1e6, 1, (50, 3)) * rng.choice((1e-3, 1.0, 1e3))
        cuts = np.sort(rng.integers(1, 49, 3))
        parts = [Moments.of(part) for part in np.split(values, cuts) if len(part)]
        total = parts[0]
        for part in parts[1:]:
            total.add(part)
        exact = statistics.compute(values)
        assert total.count == 50
        np.testing.assert_array_equal(total.low, exact["min"])
        np.testing.assert_array_equal(total.high, exact["max"])
        np.testing.assert_allclose(total.mean, exact["mean"], rtol=1e-12)
        np.testing.assert_allclose(total.std, exact["std"], rtol=1e-6)


def set_value(feature, key, value):
    return lambda stats: stats[feature].update({key: value})


@pytest.mark.parametrize(
    ("change", "severity", "column", "message"),
    [
        (set_value("action", "min", [-9.0, -9.0]), "error", "action", "min of element 0 is -9"),
        (set_value("action", "max", [9.0, 9.0]), "error", "action", "max of element 0 is 9"),
        (set_value("action", "mean", [0.5, 0.5]), "error", "action", "mean of element 0 is 0.5"),
        (set_value("next.reward", "std", [3.0]), "error", "next.reward", "std is 3, the frames"),
        (set_value("next.reward", "std", [-3.0]), "error", "next.reward", "std is below 0"),
        (set_value("next.done", "count", [7]), "error", "next.done", "count is 7, there are 40"),
        (set_value("action", "q10", [9.0, 9.0]), "error", "action", "q10 is above q50"),
        (set_value("action", "mean", [0.5]), "error", "action", "mean has shape [1], it must be"),
        (set_value("action", "mean", ["x", 1]), "error", "action", "mean holds no numbers"),
        (set_value("grid", "q50", [[12] * 3] * 2), "note", "grid", "q50 is an estimate of elem"),
        (lambda s: s["action"].pop("min"), "error", "action", "min are missing"),
        (lambda s: s["action"].pop("q01"), "note", "action", "q01 are missing; datasets before"),
        (lambda s: s.pop("action"), "warning", "action", "there are none"),
        (lambda s: s.pop("index"), "note", "index", "there are none"),
        (lambda s: s.update(action=[1]), "error", "action", "must be an object"),
        (
            set_value(VIDEO, "std", [[[1e-4]]] * 3),
            "warning",
            VIDEO,
            "std is below what the quantiles allow: LeRobot 0.4.0 to 0.5.1 computed it wrongly",
        ),
        (set_value(VIDEO, "max", [[[200]]] * 3), "error", VIDEO, "max is [200.0, 200.0, 200.0]; l"),
        (set_value(VIDEO, "mean", [0.5] * 3), "error", VIDEO, "mean has shape [3], it must be [3"),
    ],
)
def test_statistics_of_the_dataset(v30, change, severity, column, message):
    edit_stats(v30, change)
    report = check(v30)
    there = [f for f in report.findings if f.code == "statistics"]
    assert any(f.message.startswith(message) for f in there), report.text()
    assert {(f.severity, f.column) for f in there} >= {(severity, column)}
    assert all(f.repairable for f in there)
    assert report.exit_code == (0 if severity == "note" else 1)


def test_small_errors_of_other_writers_are_no_findings(v30):
    def change(stats):
        stats["action"]["mean"] = [v + 1e-5 for v in stats["action"]["mean"]]
        stats["action"]["std"] = [v * 1.0005 for v in stats["action"]["std"]]

    edit_stats(v30, change)
    assert check(v30).findings == []


def test_extremes_rounded_to_single_precision_are_only_noted(v30):
    def change(stats):
        stats["action"]["min"] = [v * (1 + 1e-8) for v in stats["action"]["min"]]

    edit_stats(v30, change)
    assert found(v30) == [("note", "action", "min is rounded to single precision")]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_unreadable_statistics(v30, content):
    (v30 / "meta/stats.json").write_bytes(content)
    report = check(v30)
    assert report.exit_code == 1
    assert {f.code for f in report.findings} == {"statistics"}


def test_missing_statistics(tmp_path):
    root = samples.build(tmp_path / "v20", "v2.0")
    (root / "meta/stats.json").unlink()
    assert found(root) == [("error", None, "is missing")]
    root = samples.build(tmp_path / "v21", "v2.1")
    (root / "meta/episodes_stats.jsonl").unlink()
    assert found(root, "episode-statistics") == [
        ("error", None, "there are no statistics of single episodes")
    ]


def test_statistics_of_single_episodes(v30):
    path = v30 / EPISODES
    table = pq.read_table(path)
    place = table.column_names.index("stats/action/mean")
    values = table["stats/action/mean"].to_pylist()
    values[1] = [0.5, 0.5]
    pq.write_table(table.set_column(place, "stats/action/mean", pa.array(values)), path)
    (finding,) = check(v30).findings
    assert (finding.code, finding.severity) == ("episode-statistics", "error")
    assert (finding.episode, finding.column) == (1, "action")
    assert finding.message.startswith("mean of element 0 is 0.5, the frames give")


def test_statistics_of_single_episodes_in_lines(tmp_path):
    root = samples.build(tmp_path / "v21", "v2.1")
    path = root / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["stats"]["action"]["max"] = [7.0, 7.0]
    for row in rows:
        del row["stats"]["next.reward"]["q50"]
    del rows[0]
    path.write_text("\n".join(map(json.dumps, rows)))
    there = [(f.severity, f.episode, f.column, f.message) for f in check(root).findings]
    assert there[0] == (
        "error",
        2,
        "action",
        f"max of element 0 is 7, the frames give {samples.columns(2)['action'].max(axis=0)[0]:.6g}",
    )
    assert there[1] == ("warning", 0, None, "there are none")
    assert there[2][3] == "q50 are missing; datasets before v3.0 lack them (2 episodes)"
    assert len(there) == 3


def test_statistics_of_numbers_with_nan(tmp_path, v30):
    path = v30 / samples.DATA_PARQUET
    table = pq.read_table(path)
    values = table["next.reward"].to_pylist()
    values[3] = float("nan")
    place = table.column_names.index("next.reward")
    table = table.set_column(place, "next.reward", pa.array(values, pa.float32()))
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table[:12])
        writer.write_table(table[12:])
    messages = [m for _, column, m in found(v30) if column == "next.reward"]
    assert messages[0].endswith("the frames give nan")
    nan = float("nan")
    edit_stats(v30, lambda s: s["next.reward"].update(min=[nan], max=[nan], mean=[nan], std=[nan]))
    assert found(v30) == []
