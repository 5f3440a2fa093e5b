"""The index of later observations, against a naive walk along the links."""

import numpy as np
import pytest

from leray.algorithms.replay.outcomes import OutcomeIndex
from leray.algorithms.replay.ring import OPEN, ReplayBuffer
from leray.data.names import OBSERVATION_STATE


def value(replay: ReplayBuffer, slots) -> np.ndarray:
    return replay.columns[OBSERVATION_STATE][slots, 0]


def later_of(replay: ReplayBuffer) -> dict[float, list[float]]:
    """Walk from every step of the window to the end of its episode; empty while it goes on."""
    numbers = np.arange(replay.window_start, replay.head)
    links = dict(
        zip(numbers.tolist(), replay.links(numbers % replay.num_slots).tolist(), strict=True)
    )
    open_rows = set(replay.open_rows().tolist())
    found = {}
    for row in links:
        walked, current = [], row
        while links[current] >= 0:
            current = links[current]
            walked.append(float(value(replay, current % replay.num_slots)))
        if links[row] >= 0:
            goes_on = links[current] == OPEN and current in open_rows
            found[float(value(replay, row % replay.num_slots))] = [] if goes_on else walked
    return found


def drawn_pairs(replay: ReplayBuffer, index: OutcomeIndex, size: int = 4000):
    later = index.draw(size, np.random.default_rng(0))
    return list(zip(value(replay, later.rows), value(replay, later.outcomes), strict=True))


def test_every_pair_is_a_step_and_what_its_own_episode_came_to(features, make_world):
    world, replay = make_world(3), ReplayBuffer(features, 400, slack=50)
    index = OutcomeIndex(replay)
    streams = [world.stream() for _ in range(3)]
    rng = np.random.default_rng(1)
    for _ in range(150):  # several times around the ring
        replay.add(world.fragment(streams, int(rng.integers(1, 9)), end=0.1))
        if rng.random() < 0.4:
            continue  # so that the index has more than one fragment to take in
        later = later_of(replay)
        pairs = drawn_pairs(replay, index, 600)
        assert all(outcome in later[step] for step, outcome in pairs)
    assert {step for step, _ in drawn_pairs(replay, index, 20_000)} == {
        step for step, outcomes in later_of(replay).items() if outcomes
    }


def test_each_later_observation_is_as_likely_as_the_others(features, make_line):
    replay = ReplayBuffer(features, 100)
    replay.add(make_line([0.0] * 4, truncated=[3], finals=[50.0]))
    pairs = drawn_pairs(replay, OutcomeIndex(replay), 40_000)
    from_first = [outcome for step, outcome in pairs if step == 0]
    assert set(from_first) == {1.0, 2.0, 3.0, 50.0}
    for outcome in set(from_first):  # 10,000 draws of 1/4: five standard deviations are 0.022
        assert np.mean(np.array(from_first) == outcome) == pytest.approx(0.25, abs=0.022)


def test_an_index_kept_up_to_date_equals_a_fresh_one(features, make_world):
    world, replay = make_world(5), ReplayBuffer(features, 300)
    kept = OutcomeIndex(replay)
    streams = [world.stream() for _ in range(4)]
    for _ in range(60):
        replay.add(world.fragment(streams, 3, end=0.1))
        assert drawn_pairs(replay, kept, 50) == drawn_pairs(replay, OutcomeIndex(replay), 50)


def test_a_running_episode_waits_and_one_that_nobody_continues_counts(features, make_line):
    replay = ReplayBuffer(features, 100)
    replay.add(make_line([0.0] * 5))
    index = OutcomeIndex(replay)
    assert drawn_pairs(replay, index) == []
    replay.close_streams()
    replay.add(make_line([0.0], first=70.0, stream=8))
    pairs = drawn_pairs(replay, index)
    assert {outcome for _, outcome in pairs} == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_after_a_rewind_nothing_of_what_was_taken_back_is_drawn(features, make_line):
    replay = ReplayBuffer(features, 100, slack=50)
    replay.add(make_line([0.0] * 5, truncated=[4], finals=[9.0]))
    index, state = OutcomeIndex(replay), replay.state_dict()
    replay.add(make_line([0.0] * 5, truncated=[4], first=20.0, finals=[29.0], stream=8))
    assert max(outcome for _, outcome in drawn_pairs(replay, index)) == 29
    replay.rewind(state)
    replay.add(make_line([0.0] * 5, truncated=[4], first=40.0, finals=[49.0], stream=8))
    outcomes = {outcome for _, outcome in drawn_pairs(replay, index)}
    assert not outcomes & set(range(20, 30))
    assert 49 in outcomes
