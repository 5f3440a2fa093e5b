"""The page of a sweep in a real browser, opened from disk: what it shows and how it answers."""

import json

import numpy as np
import pytest

from leray.tune.report.page import write_page
from tests.browser import headless_browser
from tests.tune.report.sweeps import HOSTILE, METRIC, record, sweep

IMPORTANCE = {"policy.actor_lr": 0.8, "policy.layer_norm": 0.2, "seed": 0.0}
VISIBLE_ROWS = "[...document.querySelectorAll('#trials tbody tr')].filter(r => !r.hidden)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def show(browser, tmp_path):
    """Return a function that writes the page of trials and opens it; no error may be logged."""

    def show(records, *, mode="max", importance=IMPORTANCE, title="a sweep", **window):
        path = tmp_path / "results.html"
        write_page(records, path, metric=METRIC, mode=mode, title=title, importance=importance)
        browser.requests.clear()
        browser.open(path, **{"width": 1400, "height": 1800, **window})
        browser.wait("!!parallel.lines && (!!curves.lines || $('curves').hidden)")
        return browser

    browser.errors.clear()
    yield show
    assert browser.errors == []


def column(page, name):
    """Return a column's texts in the order of the rows."""
    index = page.js(f"table.columns.findIndex(column => column.label === {json.dumps(name)})")
    return page.js(f"{VISIBLE_ROWS}.map(row => row.cells[{index}].textContent)")


def sort_by(page, name):
    index = page.js(f"table.columns.findIndex(column => column.label === {json.dumps(name)})")
    page.click_on(f"#trials th:nth-child({index + 1}) button")


def middle(page, expression):
    """Return where the middle of an element is in the window."""
    x, y, width, height = page.js(
        f"(r => [r.x, r.y, r.width, r.height])({expression}.getBoundingClientRect())"
    )
    return x + width / 2, y + height / 2


def drag_axis(page, name, low, high):
    """Brush an axis between two of its values; return the ids of the trials that stay."""
    index = page.js(f"parallel.axes.findIndex(axis => axis.label === {json.dumps(name)})")
    axis = f"parallel.axes[{index}]"
    x, _ = middle(page, f"document.querySelectorAll('.axis .grip')[{index}]")
    top = page.js("parallel.stage.getBoundingClientRect().y")
    places = [page.js(f"{axis}.place({json.dumps(value)})") for value in (low, high)]
    page.drag(x, top + max(places) + 10, x, top + min(places) - 10)
    return page.js("trials.filter(trial => !trial.out).map(trial => trial.id)")


def cpu_s(page, action):
    """Return the seconds of its own that the page's thread spends on an action."""

    def spent():
        metrics = page.call("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    page.call("Performance.enable", timeDomain="threadTicks")
    before = spent()
    page.js(action)
    return spent() - before


@pytest.mark.parametrize("number", [12, 300])
def test_it_shows_every_trial_and_asks_for_nothing_else(show, number):
    page = show(sweep(number))
    assert page.js("location.protocol") == "file:"
    assert len(page.requests) == 1
    assert page.js(f"{VISIBLE_ROWS}.length") == number
    assert page.js("document.querySelectorAll('#parallel .lines path').length") == number
    reported = sum(bool(one.history) for one in sweep(number))
    assert page.js("document.querySelectorAll('#curves .lines path').length") == reported
    assert page.js("document.querySelectorAll('.axis').length") == 9  # 8 keys vary, and the metric
    facts = page.js("$('facts').innerText").split("\n")
    assert {str(number), "trials", "finished", "failed", "running"} <= set(facts)
    screen = page.screenshot()
    for part in ("#parallel .stage", "#curves .stage", "#bars"):
        x, y, width, height = map(round, page.box(part))
        drawn = screen[y : y + height, x : x + width].reshape(-1, 3)
        assert len(np.unique(drawn, axis=0)) > 10, part


def test_the_table_starts_with_the_best_and_sorts_by_any_column(show):
    records = sweep(24)
    page = show(records)
    valued = sum(one.best is not None for one in records)
    assert column(page, "rank") == [*map(str, range(1, valued + 1)), *["-"] * (24 - valued)]
    sort_by(page, "actor_lr")
    expected = sorted(records, key=lambda one: one.values["policy.actor_lr"])
    assert column(page, "trial") == [one.trial_id for one in expected]
    sort_by(page, "actor_lr")
    assert column(page, "trial") == [one.trial_id for one in expected[::-1]]
    heads = "[...document.querySelectorAll('#trials th[aria-sort]')].map(h => h.ariaSort)"
    assert page.js(heads) == ["descending"]
    for _ in range(2):  # those without a value stay last, both ways
        sort_by(page, "momentum")
        momentum = column(page, "momentum")
        present = [text for text in momentum if text != "-"]
        assert 0 < len(present) < 24
        assert momentum[len(present) :] == ["-"] * (24 - len(present))
        assert present in (sorted(present, key=float), sorted(present, key=float)[::-1])


def test_values_of_all_kinds_are_text(show):
    page = show(sweep(24), title=HOSTILE)
    assert set(column(page, "optimizer")) == {"adam", "sgd", HOSTILE}
    assert set(column(page, "layer_norm")) == {"true", "false"}
    assert set(column(page, "clip")) == {"null", "1.0", "10.0"}
    assert set(column(page, "hidden_dims")) == {"[64, 64]", "[256, 256]"}
    assert f"LearnerError: {HOSTILE} out of memory" in column(page, "error")
    assert page.js("document.title") == page.js("$('name').textContent") == HOSTILE
    assert page.js("[...document.scripts].filter(s => !s.type).length") == 1


def test_brushing_an_axis_filters_lines_and_rows(show):
    records = sweep(60)
    page = show(records)
    kept = drag_axis(page, "actor_lr", 1e-4, 1e-3)
    margin = 10 ** (3 * 11 / 250)  # the pixels by which the brush is longer, and its tolerance
    for one in records:
        inside = 1e-4 <= one.values["policy.actor_lr"] <= 1e-3
        near = 1e-4 / margin <= one.values["policy.actor_lr"] <= 1e-3 * margin
        assert not inside or one.trial_id in kept
        assert near or one.trial_id not in kept
    assert 0 < len(kept) < 60
    assert sorted(column(page, "trial")) == sorted(kept)
    out = page.js("document.querySelectorAll('#parallel .lines path.out').length")
    assert out == 60 - len(kept)
    assert page.js("$('matching').textContent") == f"{len(kept)} of 60 trials"

    both = drag_axis(page, "optimizer", "sgd", "sgd")
    names = {one.trial_id: one.values["policy.optimizer"] for one in records}
    assert both == [one for one in kept if names[one] == "sgd"]
    assert 0 < len(both) < len(kept)

    page.click_on("#clear")
    assert page.js(f"{VISIBLE_ROWS}.length") == 60
    assert page.js("$('clear').hidden")


def test_a_brush_keeps_those_that_lack_a_value_and_a_click_lets_go(show):
    records = sweep(24)
    page = show(records)
    kept = drag_axis(page, "momentum", None, None)
    lacking = {one.trial_id for one in records if "policy.momentum" not in one.values}
    assert set(kept) == lacking
    index = page.js("parallel.axes.findIndex(axis => axis.label === 'momentum')")
    page.click(*middle(page, f"document.querySelectorAll('.axis .grip')[{index}]"))
    assert page.js(f"{VISIBLE_ROWS}.length") == 24


def test_hovering_lights_a_trial_everywhere(show):
    page = show(sweep(12))
    page.js("document.querySelectorAll('#trials tbody tr')[2].scrollIntoView()")
    row = "document.querySelectorAll('#trials tbody tr')[2]"
    page.move_to(*middle(page, row))
    trial = page.js("state.lit.id")
    assert trial == page.js(f"{row}.cells[1].textContent")
    assert page.js(f"{row}.className") == "lit"
    for plot in ("parallel", "curves"):
        assert page.js(f"document.querySelectorAll('#{plot} .above path').length") == 2
        behind = page.js(f"document.querySelectorAll('#{plot} .lines path.behind').length")
        assert behind == page.js(f"{plot}.lines.entries.length") - 1
    page.move_to(2, 2)
    assert page.js("state.lit") is None
    assert page.js("document.querySelectorAll('.above path, .behind').length") == 0


def test_pointing_at_a_curve_reads_it_out(show):
    history = [(0, 0.0), (500, 0.25), (1000, 0.75)]
    page = show([record("alone", 0.75, values={"x": 1}, history=history)])
    page.js("scrollTo(0, 0)")
    x, y, *_ = page.box("#curves .stage")
    page.move_to(x + page.js("curves.x(500)") + 2, y + page.js("curves.y(0.25)"))
    assert page.js("$('tip').textContent") == "alone · step 500: 0.25"
    assert page.js("$('tip').hidden") is False
    page.move_to(2, 2)
    assert page.js("$('tip').hidden") is True


def test_a_picked_trial_stays_and_shows_all_it_has(show):
    page = show(sweep(12))
    failed = page.js("trials.find(trial => trial.status === 'failed').id")
    position = page.js(f"table.lines.findIndex(line => line.row.id === '{failed}')") + 1
    page.click_on(f"#trials tbody tr:nth-child({position}) button")
    assert page.js("$('picked-title').textContent") == f"Trial {failed}"
    text = page.js("$('picked').innerText")
    for part in ("policy.actor_lr", "loss/critic", "0.1", f"trials/{failed}", HOSTILE):
        assert part in text
    page.key("Escape")
    assert page.js("$('picked').hidden")


def test_colours_follow_the_metric_whichever_way_is_better(show):
    records = [record(str(i), float(i), values={"x": i}) for i in range(5)]
    for mode, best in (("max", "4"), ("min", "0")):
        page = show(records, mode=mode)
        assert page.js("trials[0].id") == best
        ratings = page.js("trials.map(trial => trial.rating)")
        assert ratings == [1, 0.75, 0.5, 0.25, 0]
        assert page.js("[$('worst').textContent, $('best').textContent]")[1] == best


def test_one_trial_far_behind_does_not_make_the_others_alike(show):
    values = [-5000.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    page = show([record(str(i), value, values={"x": i}) for i, value in enumerate(values)])
    assert page.js("trials.map(trial => trial.rating)")[-2:] == [0, 0]
    assert page.js("trials[2].rating") == pytest.approx(0.5)


def test_importance_is_drawn_to_scale(show):
    page = show(sweep(12))
    assert page.js("$('bars').innerText.split('\\n')") == [
        "actor_lr", "80 %", "layer_norm", "20 %", "seed", "0 %",
    ]  # fmt: skip
    widths = page.js("[...document.querySelectorAll('.fill')].map(f => f.clientWidth)")
    assert widths[0] == pytest.approx(4 * widths[1], abs=3)
    assert widths[2] == 0
    assert "at least four trials" in show(sweep(3), importance={}).js("$('bars').innerText")


def test_repeats_have_a_table_of_their_own(show):
    runs = [
        record(f"{lr}{seed}", lr + seed / 10, values={"lr": lr, "seed": seed})
        for lr in (1.0, 2.0) for seed in range(3)
    ]  # fmt: skip
    page = show(runs)
    rows = "[...document.querySelectorAll('#repeats tbody tr')].map(r => r.innerText.split('\\t'))"
    assert page.js(rows) == [["1", "2.1", "0.1", "3", "2"], ["2", "1.1", "0.1", "3", "1"]]
    assert show(sweep(2)).js("$('repeats').hidden")


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record("a", status="pending")],
        [record("a", 0.5, values={"x": 1})],
        [record("a", 0.5, values={"x": 1}, history=[(0, 0.5)]), record("b", 0.5, values={"x": 1})],
    ],
    ids=["none", "waiting", "one", "alike"],
)
def test_a_sweep_that_has_just_begun(show, records):
    page = show(records, importance={})
    assert page.js(f"{VISIBLE_ROWS}.length") == len(records)
    assert "NaN" not in page.js("document.body.innerHTML")
    assert "undefined" not in page.js("document.body.innerText")


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_fits_every_width(show, width):
    page = show(sweep(12), width=width)
    inside = page.js("document.documentElement.clientWidth")
    assert page.js("document.documentElement.scrollWidth") <= inside


def test_it_follows_the_dark_scheme(show):
    brightness = [show(sweep(3), dark=dark).screenshot()[-5:, :5].mean() for dark in (False, True)]
    assert brightness[0] > 200
    assert brightness[1] < 60


def test_three_hundred_trials_answer_at_once(show):
    page = show(sweep(300))
    for action in (
        "parallel.draw(); curves.draw();",
        "for (let i = 0; i < 10; i++) light(trials[i]);",
        "for (let i = 0; i < 10; i++) filter();",
        "table.sort();",
    ):
        assert 0 < cpu_s(page, action) < 1, action
