"""Temporal ensembling against all live predictions weighted at once, and by hand."""

import math

import numpy as np
import pytest

from leray.algorithms.act.ensemble import TemporalEnsemble


def test_two_predictions_by_hand():
    ensemble = TemporalEnsemble(math.log(2.0), 2)  # weights 1, 1/2
    ensemble.add([0], np.array([[[1.0], [4.0]]]))
    assert ensemble.take([0]).tolist() == [[1.0]]
    ensemble.add([0], np.array([[[10.0], [20.0]]]))
    # for this step: 4 (older) and 10: (4 + 10 / 2) / 1.5
    assert ensemble.take([0]).tolist() == pytest.approx(np.array([[6.0]]))
    ensemble.add([0], np.array([[[5.0], [0.0]]]))
    assert ensemble.take([0]).item() == pytest.approx((20 + 5 / 2) / 1.5)


@pytest.mark.parametrize("coeff", [0.0, 0.01, 0.5, -0.3])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_every_action_is_the_weighted_mean_of_what_was_predicted_for_it(coeff, size):
    rng = np.random.default_rng(0)
    ensemble, steps = TemporalEnsemble(coeff, size), 20
    chunks = rng.normal(size=(steps, 1, size, 3)).astype(np.float32)
    for step in range(steps):
        assert ensemble.due([0]) == [0]
        ensemble.add([0], chunks[step])
        live = [chunks[made, 0, step - made] for made in range(max(0, step - size + 1), step + 1)]
        weights = np.exp(-coeff * np.arange(len(live)))
        expected = (np.stack(live) * weights[:, None]).sum(0) / weights.sum()
        np.testing.assert_allclose(ensemble.take([0])[0], expected, atol=1e-5)


def _run(ensemble, envs, chunks):
    ensemble.add(envs, chunks)
    return ensemble.take(envs)


def test_environments_are_averaged_by_themselves_and_reset_by_themselves():
    rng = np.random.default_rng(1)
    together, alone = TemporalEnsemble(0.1, 4), [TemporalEnsemble(0.1, 4) for _ in range(6)]
    for step in range(15):
        if step in (3, 4, 9):
            over = [[2, 5], [0], None][(3, 4, 9).index(step)]
            together.forget(over)
            for env in range(6) if over is None else over:
                alone[env].forget([0])
        envs = [5, 2, 0] if step % 2 else [0, 1, 2, 5]
        chunks = rng.normal(size=(len(envs), 4, 2)).astype(np.float32)
        actions = _run(together, envs, chunks)
        singles = [
            _run(alone[env], [0], chunk[None])[0] for env, chunk in zip(envs, chunks, strict=True)
        ]
        np.testing.assert_allclose(actions, singles, atol=1e-6)
        assert actions.dtype == np.float32


def test_the_first_action_after_a_reset_is_the_prediction_itself():
    rng = np.random.default_rng(2)
    ensemble = TemporalEnsemble(0.3, 3)
    for _ in range(4):
        _run(ensemble, [0, 1], rng.normal(size=(2, 3, 2)).astype(np.float32))
    ensemble.forget([1])
    chunks = rng.normal(size=(2, 3, 2)).astype(np.float32)
    actions = _run(ensemble, [0, 1], chunks)
    assert np.array_equal(actions[1], chunks[1, 0])
    assert not np.allclose(actions[0], chunks[0, 0])


def test_returned_actions_stay_as_they_were():
    ensemble = TemporalEnsemble(0.0, 2)
    first = _run(ensemble, [0], np.ones((1, 2, 1), np.float32))
    _run(ensemble, [0], np.full((1, 2, 1), 5, np.float32))
    assert first.tolist() == [[1.0]]


def test_forgetting_what_was_never_there_is_fine():
    ensemble = TemporalEnsemble(0.0, 2)
    ensemble.forget([3])
    ensemble.forget(None)
    assert _run(ensemble, [1], np.full((1, 2, 1), 2, np.float32)).tolist() == [[2.0]]
