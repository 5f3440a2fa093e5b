"""Which checkpoint is best, and how that is remembered."""

import math
from pathlib import Path

import pytest

from leray.platform.run_directory import RunDirectory
from leray.platform.scores import SCORES, Scores

LOSS, SUCCESS, RETURN = "validation/loss", "eval/success_rate", "eval/return_mean"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def judge(run: RunDirectory, scores: Scores, step: int, **figures: float) -> bool:
    """Judge a step as training does; `loss` and `success` stand for their figures."""
    named = {{"loss": LOSS, "success": SUCCESS, "total": RETURN}[k]: v for k, v in figures.items()}
    best = scores.is_best(named)
    if best:
        with run.writing_checkpoint(step):
            pass
        run.mark_best(step)
    scores.note(named, step, best=best)
    return best


def test_lower_losses_and_higher_rates_are_better(run):
    scores = Scores(run, None, step=0)
    assert [judge(run, scores, n, loss=x) for n, x in enumerate([2.0, 3.0, 1.0, 1.0])] == [
        True,
        False,
        True,
        False,
    ]
    scores = Scores(run, SUCCESS, step=0)
    assert [judge(run, scores, n, success=x) for n, x in enumerate([0.2, 0.1, 0.3])] == [
        True,
        False,
        True,
    ]


def test_success_decides_before_the_loss_unless_the_user_says(run):
    scores = Scores(run, None, step=0)
    assert judge(run, scores, 1, loss=1.0, success=0.5)
    assert not judge(run, scores, 2, loss=0.1, success=0.5)
    assert scores.metric == SUCCESS
    asked = Scores(run, LOSS, step=2)
    assert judge(run, asked, 3, loss=0.1, success=0.0)
    assert not judge(run, asked, 4, loss=0.2, success=1.0)


def test_no_figure_and_no_number_is_never_best(run):
    scores = Scores(run, None, step=0)
    assert not judge(run, scores, 1)
    assert not judge(run, scores, 2, total=5.0)
    assert not judge(run, scores, 3, loss=math.nan)
    assert judge(run, scores, 4, loss=1.0)


def test_the_best_value_survives_a_restart(run):
    judge(run, Scores(run, None, step=0), 100, loss=1.0)
    again = Scores(run, None, step=100)
    assert (again.judged, again.metric, again.value) == (100, LOSS, 1.0)
    assert not judge(run, again, 200, loss=1.5)
    assert judge(run, Scores(run, None, step=200), 300, loss=0.5)


def test_what_was_judged_beyond_the_checkpoint_is_judged_again(run):
    scores = Scores(run, None, step=0)
    judge(run, scores, 100, loss=1.0)
    judge(run, scores, 140, loss=2.0)
    assert Scores(run, None, step=100).judged == 100


def test_a_best_checkpoint_that_is_gone_is_not_compared_with(run):
    scores = Scores(run, None, step=0)
    judge(run, scores, 100, loss=1.0)
    run.checkpoint(100).rmdir()
    again = Scores(run, None, step=0)
    assert again.metric is None
    assert judge(run, again, 200, loss=5.0)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"judged": "x"}', '{"judged": 3, "metric": "a", "value": []}']
)
def test_a_damaged_record_is_as_none(run, text):
    (run.eval / SCORES).write_text(text)
    scores = Scores(run, None, step=10)
    assert (scores.judged, scores.metric) == (0, None)
