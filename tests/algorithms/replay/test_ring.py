"""The replay ring: what goes in comes out, whatever was written, overwritten or taken back."""

from collections import Counter

import numpy as np
import pytest

from leray.algorithms.replay.ring import EMPTY, FINAL, OPEN, ReplayBuffer, replay_features
from leray.data.features import Feature, Features
from leray.data.names import ACTION, DONE, INTERVENTION, REWARD, TRUNCATED
from leray.envs.fragment import ANONYMOUS, Fragment
from leray.errors import CheckpointError

STATE = "observation.state"


def _equal(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype and np.array_equal(left[key], right[key])
        for key in left
    )


class ReplayContract:
    """What any replay of fragments must do; subclass it and provide `make`."""

    @pytest.fixture
    def make(self):
        """Return a function (capacity, slack=0) -> replay over the `features` fixture."""
        raise NotImplementedError

    def test_observations_are_stored_once_across_fragment_borders(self, make, make_line, stored):
        replay = make(100)
        replay.add(make_line([0.0, 1.0], first=0.0))
        replay.add(make_line([2.0, 3.0], first=2.0))
        assert replay.head == 5  # observations 0 to 4
        assert [(t.observation, t.following) for t in stored(replay)] == [
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 4),
        ]

    def test_true_last_observations_are_kept_and_reset_ones_begin_anew(
        self, make, make_line, stored
    ):
        replay = make(100)
        # step 1 terminates in 50 and step 2 truncates in 60; the counted observations are resets'
        replay.add(make_line([0.0] * 4, terminated=[1], truncated=[2], finals=[50.0, 60.0]))
        assert [(t.observation, t.following, t.terminated) for t in stored(replay)] == [
            (0, 1, False),
            (1, 50, True),
            (2, 60, False),
            (3, 4, False),
        ]
        assert (replay.live_columns()["next"] == FINAL).sum() == 2
        assert (replay.live_columns()["next"] == OPEN).sum() == 1

    def test_an_end_on_the_border_continues_with_the_reset_observation(
        self, make, make_line, stored
    ):
        replay = make(100)
        replay.add(make_line([0.0, 0.0], truncated=[1], finals=[90.0]))
        replay.add(make_line([0.0], first=2.0))
        assert [(t.observation, t.following) for t in stored(replay)] == [(0, 1), (1, 90), (2, 3)]

    def test_truncation_bootstraps_and_termination_does_not(self, make, make_line):
        replay = make(100)
        replay.add(make_line([1.0] * 3, terminated=[0], truncated=[1], finals=[50.0, 60.0]))
        drawn = replay.sample_rows(300, np.random.default_rng(0), discount=0.9)
        for row, following, bootstrap in zip(
            drawn.rows, drawn.next_rows, drawn.bootstrap, strict=True
        ):
            observation = replay.columns[STATE][row, 0]
            expected = {0: (50, 0.0), 1: (60, 0.9), 2: (3, 0.9)}[int(observation)]
            assert replay.columns[STATE][following, 0] == expected[0]
            assert bootstrap == np.float32(expected[1])

    def test_streams_that_interleave_do_not_mix(self, make, make_world, stored):
        world, replay = make_world(0), make(1000)
        streams = [world.stream() for _ in range(3)]
        replay.add(world.fragment(streams[:2], 3))
        replay.add(world.fragment(streams[2:], 2))
        replay.add(world.fragment([streams[1], streams[2]], 2))
        replay.add(world.fragment([streams[2], streams[0]], 1))
        assert Counter(stored(replay)) == Counter(world.transitions)

    def test_anonymous_streams_are_continued_by_nobody(self, make, make_world, stored):
        world, replay = make_world(0), make(1000)
        stream = world.stream()
        for _ in range(2):
            replay.add(world.fragment([stream], 2, end=0.0, anonymous=True))
        assert replay.head == 6  # two runs of two steps and a last observation each
        assert Counter(stored(replay)) == Counter(world.transitions)

    def test_after_a_lost_block_a_stream_begins_anew(self, make, make_line, stored):
        replay = make(100)
        replay.add(make_line([0.0], first=0.0))
        following = make_line([0.0], first=5.0)
        following.continues = False
        replay.add(following)
        replay.add(make_line([0.0], first=6.0))
        assert [(t.observation, t.following) for t in stored(replay)] == [(0, 1), (5, 6), (6, 7)]

    def test_closed_streams_begin_anew(self, make, make_line):
        replay = make(100)
        replay.add(make_line([0.0]))
        replay.close_streams()
        replay.add(make_line([0.0], first=10.0))
        assert replay.head == 4
        assert len(replay) == 2

    @pytest.mark.parametrize("slack", [0, 17])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_thousand_random_operations_equal_a_naive_list(
        self, make, make_world, stored, seed, slack
    ):
        world, replay = make_world(seed), make(64, slack)
        rng = np.random.default_rng(seed)
        streams = [world.stream() for _ in range(6)]
        for operation in range(1000):
            chosen = rng.choice(6, size=int(rng.integers(1, 4)), replace=False)
            steps = int(rng.integers(1, 6))
            if rng.random() < 0.1:
                replay.add(world.fragment([world.stream()], steps, anonymous=True))
            fragment = world.fragment([streams[i] for i in chosen], steps)
            if rng.random() < 0.1:  # a block of these streams is lost, and others follow
                world.transitions = world.transitions[: -steps * len(chosen)]
                fragment = world.fragment([streams[i] for i in chosen], steps)
                fragment.continues = False
            replay.add(fragment)
            if rng.random() < 0.05:
                replay.close_streams()
            found = stored(replay)
            assert len(replay) == len(found)
            assert replay.total_steps == len(world.transitions)
            if operation % 10 == 0:
                assert set(found) <= set(world.transitions)
                assert len(set(found)) == len(found)
                newest = world.transitions[-steps * len(chosen) :]
                assert set(newest) <= set(found)
                drawn = replay.sample_rows(32, rng)
                known = {t.observation: t for t in found}
                for row, following in zip(drawn.rows, drawn.next_rows, strict=True):
                    step = known[float(replay.columns[STATE][row, 0])]
                    assert step.following == replay.columns[STATE][following, 0]

    def test_the_ring_keeps_the_newest_rows_in_order(self, make, make_line, stored):
        replay = make(10)
        for first in range(0, 60, 3):
            replay.add(make_line([float(first)] * 3, first=float(first)))
        # 61 observations were written, rows 51 to 60 are left: 9 steps and the open one
        assert [t.observation for t in stored(replay)] == [51, 52, 53, 54, 55, 56, 57, 58, 59]
        assert len(replay) == 9
        assert replay.total_steps == 60

    def test_an_open_row_that_leaves_the_window_is_not_continued(self, make, make_line, stored):
        replay = make(8)
        replay.add(make_line([0.0], first=100.0, stream=1))  # rows 0 and 1; row 1 is open
        replay.add(make_line([0.0] * 5, first=200.0, stream=2))  # rows 2 to 7
        replay.add(make_line([0.0] * 2, first=101.0, stream=1))  # row 1 would leave with this
        assert (101.0, 102.0) in [(t.observation, t.following) for t in stored(replay)]
        assert len(replay) == len(stored(replay))

    def test_n_step_sums_by_hand(self, make, make_line):
        replay = make(100)
        # rewards 1 2 4 8 16 32; step 3 terminates, so observations 4 and 5 are another episode's
        replay.add(make_line([1, 2, 4, 8, 16, 32], terminated=[3], finals=[50.0]))
        drawn = replay.sample_rows(600, np.random.default_rng(0), n_step=3, discount=0.5)
        expected = {
            0: (1 + 2 / 2 + 4 / 4, 3, 0.125),
            1: (2 + 4 / 2 + 8 / 4, 50, 0.0),  # ends in the terminal state: nothing to bootstrap
            2: (4 + 8 / 2, 50, 0.0),  # stops at the episode's end
            3: (8.0, 50, 0.0),
            4: (16 + 32 / 2, 6, 0.25),  # stops at the open end of the stream after two steps
            5: (32.0, 6, 0.5),
        }
        seen = set()
        for row, following, reward, bootstrap in zip(
            drawn.rows, drawn.next_rows, drawn.reward, drawn.bootstrap, strict=True
        ):
            step = int(replay.columns[STATE][row, 0])
            seen.add(step)
            assert (reward, replay.columns[STATE][following, 0], bootstrap) == expected[step]
        assert seen == set(expected)

    def test_n_step_sums_bootstrap_at_a_time_limit(self, make, make_line):
        replay = make(100)
        replay.add(make_line([1, 2, 4, 8], truncated=[1], finals=[50.0]))
        drawn = replay.sample_rows(100, np.random.default_rng(0), n_step=3, discount=0.5)
        first = drawn.rows == 0  # 1 + 2 / 2, then discount^2 times the value of observation 50
        assert first.any()
        assert (drawn.reward[first] == 2.0).all()
        assert (drawn.bootstrap[first] == 0.25).all()
        assert (replay.columns[STATE][drawn.next_rows[first], 0] == 50).all()

    def test_sampling_is_uniform_over_steps(self, make, make_world):
        world, replay = make_world(1), make(60)
        streams = [world.stream() for _ in range(3)]
        for _ in range(20):
            replay.add(world.fragment(streams, 2))
        draws, steps = 200 * len(replay), len(replay)
        drawn = replay.sample_rows(draws, np.random.default_rng(3))
        counts = np.bincount(drawn.rows)
        counts = counts[counts > 0]
        assert len(counts) == steps
        # chi-square with k degrees of freedom has mean k and variance 2 k; five deviations
        chi_square = ((counts - 200) ** 2 / 200).sum()
        assert abs(chi_square - (steps - 1)) < 5 * np.sqrt(2 * (steps - 1))

    def test_sampling_depends_on_the_generator_alone(self, make, make_line):
        replay = make(100)
        replay.add(make_line([0.0] * 50))
        first = replay.sample_rows(64, np.random.default_rng(1), n_step=2)
        again = replay.sample_rows(64, np.random.default_rng(1), n_step=2)
        other = replay.sample_rows(64, np.random.default_rng(2), n_step=2)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not np.array_equal(first.rows, other.rows)

    def test_an_empty_replay_refuses_to_sample(self, make):
        with pytest.raises(ValueError, match="empty"):
            make(10).sample_rows(1, np.random.default_rng(0))

    def test_a_fragment_larger_than_the_replay_is_refused(self, make, make_line, stored):
        replay = make(10)
        replay.add(make_line([1.0]))
        with pytest.raises(ValueError, match=r"11 rows does not fit a replay of capacity 10"):
            replay.add(make_line([0.0] * 10))
        assert [t.reward for t in stored(replay)] == [1.0]

    @pytest.mark.parametrize("before", [3, 40])
    def test_rewinding_and_adding_again_is_exact(self, make, make_world, before):
        world, replay = make_world(2), make(64, 64)
        streams = [world.stream() for _ in range(2)]
        for _ in range(before):
            replay.add(world.fragment(streams, 3))
        then, state = replay.live_columns(), replay.state_dict()
        later = [world.fragment(streams, 2) for _ in range(6)]
        for fragment in later:
            replay.add(fragment)
        after = replay.live_columns()

        replay.rewind(state)
        assert _equal(replay.live_columns(), then)
        assert replay.state_dict() == state
        assert len(replay) == int((then["next"] >= 0).sum())
        for fragment in later:
            replay.add(fragment)
        assert _equal(replay.live_columns(), after)

    def test_rewinding_too_far_is_refused(self, make, make_world):
        world, replay = make_world(2), make(32, 8)
        stream = world.stream()
        for _ in range(15):
            replay.add(world.fragment([stream], 3, end=0.0))
        state = replay.state_dict()
        for _ in range(2):
            replay.add(world.fragment([stream], 4, end=0.0))  # 8 rows: just what the slack holds
        replay.rewind(state)
        for _ in range(3):
            replay.add(world.fragment([stream], 3, end=0.0))
        with pytest.raises(CheckpointError, match="cannot go back to rows 14 to 46"):
            replay.rewind(state)

    def test_rewinding_forward_is_refused(self, make, make_line):
        replay, other = make(10), make_line([0.0] * 3)
        replay.add(other)
        with pytest.raises(CheckpointError, match="cannot go back"):
            replay.rewind(replay.state_dict() | {"head": 5})

    def test_rewinding_to_nothing_empties_the_replay(self, make, make_line):
        replay = make(10)
        replay.add(make_line([0.0] * 3))
        replay.rewind(EMPTY)
        assert len(replay) == replay.head == replay.total_steps == 0

    def test_columns_can_be_carried_to_another_replay(self, make, make_world, stored):
        world, source = make_world(4), make(64)
        streams = [world.stream() for _ in range(3)]
        for _ in range(30):
            source.add(world.fragment(streams, 2))
        target = make(80)
        target.load_columns(source.live_columns())
        assert stored(target) == stored(source)
        assert len(target) == len(source)
        target.add(world.fragment(streams, 2))  # anew: the streams were not carried over
        assert set(world.transitions[-6:]) <= set(stored(target))
        with pytest.raises(ValueError, match="do not fit a replay of capacity 8"):
            make(8).load_columns(source.live_columns())


class TestInMemory(ReplayContract):
    """The ring in plain memory."""

    @pytest.fixture
    def make(self, features):
        return lambda capacity, slack=0: ReplayBuffer(features, capacity, slack=slack)


class TestMemoryMapped(ReplayContract):
    """The ring in files."""

    @pytest.fixture
    def make(self, features, tmp_path):
        folders = iter(range(100))

        def build(capacity, slack=0):
            folder = tmp_path / str(next(folders))
            return ReplayBuffer(features, capacity, folder=folder, slack=slack)

        return build


def test_images_stay_bytes():
    features = replay_features(
        Features({"observation.images.front": Feature("uint8", (4, 5, 3))}),
        Feature("float32", (2,)),
    )
    replay = ReplayBuffer(features, 10)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 1, 4, 5, 3), dtype=np.uint8)
    replay.add(
        Fragment(
            columns={
                "observation.images.front": frames[:3],
                ACTION: np.zeros((3, 1, 2), np.float32),
                REWARD: np.zeros((3, 1), np.float32),
                DONE: np.zeros((3, 1), np.bool_),
                TRUNCATED: np.zeros((3, 1), np.bool_),
            },
            tail={"observation.images.front": frames[3]},
            final={"observation.images.front": frames[:0, 0]},
            streams=np.zeros(1, np.int64),
        )
    )
    column = replay.columns["observation.images.front"]
    assert column.dtype == np.uint8
    assert replay.head == 4
    assert np.array_equal(column[:4], frames[:, 0])


def test_provenance_and_interventions_are_stored_per_step(features, make_line):
    replay = ReplayBuffer(features, 10)
    fragment = make_line([0.0, 0.0])
    fragment.policy_version, fragment.runner = 12, 3
    fragment.columns[INTERVENTION] = np.array([[False], [True]])
    replay.add(fragment)
    assert replay.columns["policy_version"][:3].tolist() == [12, 12, 0]
    assert replay.columns["runner"][:3].tolist() == [3, 3, 0]
    assert replay.columns[INTERVENTION][:3].tolist() == [False, True, False]


def test_a_fragment_without_an_action_is_refused(features, make_line):
    fragment = make_line([0.0])
    del fragment.columns[ACTION]
    with pytest.raises(KeyError, match="action"):
        ReplayBuffer(features, 10).add(fragment)


def _intervened(make_world, flags, seed=0):
    """Return a fragment of two streams whose first has the given flags, and its transitions."""
    world = make_world(seed)
    fragment = world.fragment([world.stream(), world.stream()], len(flags), end=0.0)
    fragment.columns[INTERVENTION] = np.zeros((len(flags), 2), np.bool_)
    fragment.columns[INTERVENTION][:, 0] = flags
    return fragment, world.transitions[::2]


@pytest.mark.parametrize(
    ("flags", "runs"),
    [
        ([0, 0, 0], []),
        ([1, 1, 1], [[0, 1, 2]]),
        ([0, 1, 1, 0, 1], [[1, 2], [4]]),
        ([1, 0, 0, 1], [[0], [3]]),
    ],
)
def test_interventions_are_cut_out_run_by_run(features, make_world, stored, flags, runs):
    fragment, transitions = _intervened(make_world, flags)
    cuts = list(fragment.interventions())
    assert [cut.env_steps() for cut in cuts] == [len(run) for run in runs]
    for cut, run in zip(cuts, runs, strict=True):
        assert cut.streams.tolist() == [ANONYMOUS]
        replay = ReplayBuffer(features, 100)
        replay.add(cut)
        assert stored(replay) == [transitions[step] for step in run]


def test_interventions_keep_true_last_observations(features, make_line, stored):
    fragment = make_line([0.0] * 4, terminated=[0, 2], truncated=[1], finals=[50.0, 60.0, 70.0])
    fragment.columns[INTERVENTION] = np.array([[False], [True], [True], [True]])
    replay = ReplayBuffer(features, 100)
    for cut in fragment.interventions():
        replay.add(cut)
    assert [(t.observation, t.following, t.terminated) for t in stored(replay)] == [
        (1, 60, False),
        (2, 70, True),
        (3, 4, False),
    ]
