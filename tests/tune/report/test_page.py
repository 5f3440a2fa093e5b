"""What the page of a sweep holds; how it looks and answers is tested in a browser."""

import base64
import errno
import hashlib
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from leray.errors import ConfigError
from leray.tune.report.page import write_page
from tests.tune.report.sweeps import HOSTILE, METRIC, record, sweep

OPTIONS = {"metric": METRIC, "mode": "max", "importance": {}}


class Page(HTMLParser):
    """A page as a browser reads it: its tags, and the content of scripts, style and title."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.style, self.title, self.policy = [], [], "", "", ""
        self.sweep = None
        self._inside = ("", {})
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = (tag, dict(attrs))
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]

    def handle_endtag(self, tag):
        self._inside = ("", {})

    def handle_data(self, data):
        tag, attrs = self._inside
        if tag == "script" and "type" in attrs:
            self.sweep = json.loads(data)
        elif tag == "script":
            self.scripts.append(data)
        elif tag in ("style", "title"):
            setattr(self, tag, data)


@pytest.fixture
def written(tmp_path):
    def write(records, **options):
        path = tmp_path / "sweep" / "results.html"
        write_page(records, path, **{**OPTIONS, "title": "a sweep", **options})
        return Page(path.read_text("utf-8"))

    return write


def test_only_our_script_and_style_may_run_and_nothing_is_fetched(written):
    page = written(sweep(3))
    assert len(page.scripts) == 1
    for kind, text in (("script", page.scripts[0]), ("style", page.style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none'; ")
    assert "unsafe" not in page.policy
    addresses = set(re.findall(r"https?://[^\"]+", page.scripts[0] + page.style))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a namespace
    assert not {"link", "img", "iframe"} & set(page.tags)


def test_texts_end_no_element(written, tmp_path):
    hostile = f"</script></style></title>{HOSTILE}"
    records = [record(hostile, 0.5, values={hostile: hostile}, status="failed", error=hostile)]
    page = written(records, title=hostile, metric=hostile, importance={hostile: 1.0})
    assert page.tags.count("script") == 2
    assert page.title == hostile
    assert page.sweep["trials"][0]["values"] == {hostile: hostile}
    assert page.sweep["trials"][0]["id"] == hostile
    text = (tmp_path / "sweep" / "results.html").read_text("utf-8")
    assert "<script>alert" not in text


def test_trials_stand_best_first_with_all_they_have(written):
    records = sweep(24)
    trials = written(records).sweep["trials"]
    best = [trial["best"] for trial in trials if trial["best"] is not None]
    assert best == sorted(best, reverse=True)
    assert len(trials) == 24
    assert all(trial["best"] is None for trial in trials[len(best) :])
    by_id = {trial["id"]: trial for trial in trials}
    for one in records:
        shown = by_id[one.trial_id]
        assert shown["values"]["policy.actor_lr"] == one.values["policy.actor_lr"]
        assert shown["values"]["batch_size"] == one.values["batch_size"]
        assert shown["values"]["policy.layer_norm"] == json.dumps(one.values["policy.layer_norm"])
        assert ("policy.momentum" in shown["values"]) is ("policy.momentum" in one.values)
        assert len(shown["history"]) == len(one.history)
        assert "\n" not in shown["error"]
    assert by_id["t00001"]["history"][4] == [5000, None]  # not a number


def test_the_axes_fit_the_values(written):
    content = written(sweep(24)).sweep
    axes = {key["name"]: key for key in content["keys"]}
    assert axes["policy.actor_lr"] == {
        "name": "policy.actor_lr", "label": "actor_lr", "kind": "number", "log": True,
    }  # fmt: skip
    assert axes["batch_size"]["log"]
    assert not axes["policy.momentum"]["log"]
    assert axes["policy.clip"]["categories"] == ["null", "1.0", "10.0"]
    assert axes["policy.layer_norm"]["categories"] == ["false", "true"]
    assert axes["policy.optimizer"]["categories"] == [HOSTILE, "adam", "sgd"]
    assert axes["policy.hidden_dims"]["categories"] == ["[256, 256]", "[64, 64]"]
    assert "steps" not in axes
    assert content["fixed"] == [["steps", "20000"]]


def test_the_search_may_say_which_axes_are_logarithmic(written):
    keys = written(sweep(24), log_keys=["policy.momentum"]).sweep["keys"]
    assert [key["name"] for key in keys if key.get("log")] == ["policy.momentum"]


def test_repeats_are_summed_up_where_there_are_any(written):
    runs = [record(f"{i}", i / 4, values={"lr": 0.1, "seed": i}) for i in range(3)]
    assert written(runs).sweep["repeats"] == [
        {"ids": ["2", "1", "0"], "mean": 0.25, "std": 0.25, "number": 3, "values": {"lr": 0.1}}
    ]
    assert written(runs[:1]).sweep["repeats"] == []


@pytest.mark.parametrize("records", [[], [record("a")]], ids=["none", "no value"])
def test_a_sweep_that_has_just_begun(written, records):
    assert len(written(records).sweep["trials"]) == len(records)


def test_numbers_that_json_lacks(written):
    records = [
        record("a", float("inf"), values={"x": float("nan")}, metrics={"loss": float("nan")}),
        record("b", 1.0, values={"x": 1.0}),
    ]
    page = written(records)
    assert page.sweep["keys"][0]["categories"] == ["1.0", "NaN"]
    assert [trial["best"] for trial in page.sweep["trials"]] == [1.0, None]


def test_numbers_as_ray_reports_them(written):
    history = [(np.int64(3), np.float32(0.5))]
    best = record("a", np.float32(0.5), step=np.int64(3), best_step=np.int64(3), history=history)
    trial = written([best]).sweep["trials"][0]
    assert (trial["best"], trial["bestStep"], trial["history"]) == (0.5, 3, [[3, 0.5]])


def test_a_read_only_disk_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "results.html"
    write_page([], path, title="old", **OPTIONS)

    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConfigError, match=r"results\.html: not written: Read-only file system"):
        write_page([], path, title="new", **OPTIONS)
    assert Page(path.read_text()).title == "old"
