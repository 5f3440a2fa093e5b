"""The block of experience: its shape, ends and counts."""

import numpy as np
import pytest

from leray.data.names import ACTION, DONE, INTERVENTION, REWARD, TRUNCATED
from leray.envs.fragment import ANONYMOUS, Fragment

STATE = "observation.state"


def fragment(steps=4, envs=2, **columns):
    """Observations count 10 t + n; nothing ends unless the columns say so."""
    time, env = np.meshgrid(np.arange(steps), np.arange(envs), indexing="ij")
    flags = {name: np.zeros((steps, envs), np.bool_) for name in (DONE, TRUNCATED)}
    rows = {
        STATE: (10 * time + env)[..., None].astype(np.float32),
        ACTION: np.zeros((steps, envs, 1), np.float32),
        REWARD: time.astype(np.float32),
        **flags,
        **columns,
    }
    ended = rows[DONE] | rows[TRUNCATED]
    return Fragment(
        columns=rows,
        tail={STATE: (10 * steps + np.arange(envs))[:, None].astype(np.float32)},
        final={STATE: -np.arange(1, ended.sum() + 1, dtype=np.float32)[:, None]},
        streams=np.arange(envs),
    )


def test_shape_and_counts():
    block = fragment(steps=5, envs=3)
    assert block.shape == (5, 3)
    assert block.env_steps() == block.agent_steps() == 15


def test_an_end_is_a_termination_or_a_truncation():
    done, truncated = np.zeros((4, 2), np.bool_), np.zeros((4, 2), np.bool_)
    done[1, 0] = truncated[2, 1] = True
    block = fragment(**{DONE: done, TRUNCATED: truncated})
    assert np.argwhere(block.ended).tolist() == [[1, 0], [2, 1]]
    assert not block.columns[DONE][2, 1]  # never merged


def test_defaults_say_nothing_of_provenance():
    block = fragment()
    assert (block.policy_version, block.runner, block.sequence) == (0, 0, 0)
    assert block.statistics == []


def test_two_fragments_do_not_share_their_statistics():
    first, second = fragment(), fragment()
    first.statistics.append({"return": 1.0})
    assert second.statistics == []


@pytest.mark.parametrize("flags", [None, np.zeros((4, 2), np.bool_)])
def test_without_intervention_nothing_is_cut(flags):
    block = fragment() if flags is None else fragment(**{INTERVENTION: flags})
    assert list(block.interventions()) == []


def test_an_intervention_is_cut_out_as_a_stream_of_its_own():
    flags = np.zeros((4, 2), np.bool_)
    flags[1:3, 1] = True
    (cut,) = fragment(**{INTERVENTION: flags}).interventions()
    assert cut.columns[STATE][:, 0, 0].tolist() == [11, 21]
    assert cut.tail[STATE].tolist() == [[31]]  # what followed the last step
    assert cut.streams.tolist() == [ANONYMOUS]
