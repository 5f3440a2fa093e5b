"""The replay ratio, exact to the update."""

import pytest

from leray.algorithms.offpolicy.pacing import Pacing


@pytest.mark.parametrize(
    ("ratio", "steps", "expected"),
    [
        (1.0, 7, 7),
        (4.0, 3, 12),
        (0.5, 3, 1),
        (2.5, 3, 7),
        (0.1, 10, 1),
        (0.1, 9, 0),
        (0.29, 100, 29),  # 100 * 0.29 is 28.999999999999996 in floating point
        (0.7, 10, 7),
        (1 / 3, 3, 1),
        (1 / 3, 3_000_000, 1_000_000),
        (1e-9, 1_000_000_000, 1),
    ],
)
def test_updates_due_are_exact(ratio, steps, expected):
    pacing = Pacing(ratio, 0, env_steps=steps)
    assert pacing.updates_due == expected
    pacing.updates = expected
    assert pacing.updates_due == 0


@pytest.mark.parametrize("ratio", [0.1, 0.3, 1 / 7, 1.0, 1.7, 20.0])
def test_step_by_step_the_ratio_is_never_exceeded_and_never_short(ratio):
    pacing = Pacing(ratio, 50)
    for step in range(1, 2000):
        pacing.env_steps += 1
        pacing.updates += pacing.updates_due
        exact = max(0, step - 50) * ratio
        assert exact - 1 < pacing.updates + 1e-9
        assert pacing.updates <= exact + 1e-9


def test_steps_before_learning_are_not_made_up_for():
    pacing = Pacing(2.0, 100, env_steps=100)
    assert pacing.updates_due == 0
    pacing.env_steps = 101
    assert pacing.updates_due == 2


def test_warm_up_updates_are_due_at_once_and_beyond_the_ratio():
    pacing = Pacing(0.5, 100, warmup_updates=30, env_steps=100)
    assert pacing.updates_due == 0
    pacing.env_steps = 101
    assert pacing.updates_due == 30
    pacing.updates = 20
    assert pacing.steps_allowed(0, 4) == 1 + 4  # the next update by the ratio needs two steps
    pacing.updates = 30
    pacing.env_steps = 104
    assert pacing.updates_due == 2
    assert pacing.steps_allowed(0, 4) == 100 + 2 + 4 - 104


def test_more_updates_than_due_ask_for_none():
    assert Pacing(1.0, 0, env_steps=5, updates=9).updates_due == 0


def test_steps_allowed_by_hand():
    # 10 updates at 2 per step use 5 steps, the 11th needs a 6th; 4 more may run ahead
    pacing = Pacing(2.0, 100, env_steps=104, updates=10)
    assert pacing.steps_allowed(0, 4) == 100 + 6 + 4 - 104
    assert pacing.steps_allowed(3, 4) == 3
    assert pacing.steps_allowed(99, 4) == 0


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.3, 1.0, 2.5, 20.0])
@pytest.mark.parametrize("fragment", [1, 3, 64])
@pytest.mark.parametrize("before", [0, 10])
@pytest.mark.parametrize("warmup", [0, 7])
def test_neither_side_ever_waits_for_the_other(ratio, fragment, before, warmup):
    pacing = Pacing(ratio, before, warmup)
    slack = fragment
    for _ in range(3000):
        if pacing.updates_due:
            pacing.updates += 1
        else:
            assert pacing.steps_allowed(0, slack) >= fragment
            pacing.env_steps += fragment
        ahead = pacing.env_steps - before - max(0, pacing.updates - warmup) / ratio
        assert ahead <= 1 / ratio + slack + fragment
