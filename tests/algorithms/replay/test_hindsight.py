"""Hindsight relabelling, by hand: a walker on a line whose goal is a place."""

import numpy as np
import pytest
import torch

from leray.algorithms.replay.hindsight import Hindsight
from leray.algorithms.replay.ring import ReplayBuffer
from leray.algorithms.replay.sampler import BOOTSTRAP, NEXT, ReplaySampler
from leray.data.features import Feature, Features
from leray.data.names import ACTION, DONE, ENVIRONMENT_STATE, OBSERVATION_STATE, REWARD, TRUNCATED
from leray.envs.fragment import Fragment
from leray.envs.goals import GoalLayout, GoalTask

GOAL = 1000.0
"""What was asked for, and never reached."""
LAYOUT = GoalLayout(
    key=ENVIRONMENT_STATE, achieved=slice(0, 1), desired=slice(1, 2), offset=slice(2, 3)
)
FEATURES = Features(
    {
        OBSERVATION_STATE: Feature("float32", (1,)),
        ENVIRONMENT_STATE: Feature("float32", (3,)),
        ACTION: Feature("float32", (1,)),
    }
)


def task(*, ends: bool = True, layout: GoalLayout = LAYOUT) -> GoalTask:
    """Reward 0 where the goal is reached, else -1."""

    def reached(achieved, desired):
        return (achieved == desired)[:, 0]

    return GoalTask(
        layout=layout,
        reward=lambda a, d: np.where(reached(a, d), 0.0, -1.0).astype(np.float32),
        terminated=lambda a, d: reached(a, d) & ends,
    )


def walk(first: float, steps: int, stream: int) -> Fragment:
    """Return an episode that visits first, first + 1, ... and is cut off after `steps` steps."""
    places = first + np.arange(steps + 1, dtype=np.float32)[:, None]
    goals = np.full_like(places, GOAL)
    environment = np.concatenate([places, goals, goals - places], 1)
    truncated = np.zeros((steps, 1), np.bool_)
    truncated[-1] = True
    last = {OBSERVATION_STATE: places[-1:], ENVIRONMENT_STATE: environment[-1:]}
    return Fragment(
        columns={
            OBSERVATION_STATE: places[:-1, None],
            ENVIRONMENT_STATE: environment[:-1, None],
            ACTION: np.ones((steps, 1, 1), np.float32),
            REWARD: np.full((steps, 1), -1, np.float32),
            DONE: np.zeros((steps, 1), np.bool_),
            TRUNCATED: truncated,
        },
        tail=last,
        final=last,
        streams=np.array([stream], np.int64),
    )


@pytest.fixture
def replay() -> ReplayBuffer:
    """Two episodes: places 0 to 10, and 100 to 110."""
    buffer = ReplayBuffer(FEATURES, 100)
    buffer.add(walk(0.0, 10, 0))
    buffer.add(walk(100.0, 10, 1))
    return buffer


def sample(replay: ReplayBuffer, hindsight: Hindsight | None, size: int = 2000, *, n_step: int = 1):
    sampler = ReplaySampler(
        replay,
        None,
        batch_size=size,
        online_ratio=0.5,
        n_step=n_step,
        discount=0.9,
        seed=0,
        device=torch.device("cpu"),
        hindsight=hindsight,
    )
    return sampler.sample()


def test_a_goal_is_a_later_place_of_the_same_episode(replay):
    batch = sample(replay, Hindsight(task(), ratio=1.0, n_step=1, discount=0.9))
    place, goal = batch[OBSERVATION_STATE], batch[ENVIRONMENT_STATE][:, 1]
    ahead = goal - place
    assert ahead.min() == 1
    assert (goal <= torch.where(place < 50, 10.0, 110.0)).all()
    assert set(ahead.tolist()) == set(range(1, 11))
    for prefix in ("", NEXT):
        parts = batch[prefix + ENVIRONMENT_STATE]
        torch.testing.assert_close(parts[:, 1], goal)
        torch.testing.assert_close(parts[:, 2], goal - parts[:, 0])
    torch.testing.assert_close(batch[REWARD], torch.where(ahead == 1, 0.0, -1.0))
    torch.testing.assert_close(batch[BOOTSTRAP], torch.where(ahead == 1, 0.0, 0.9))


def test_three_step_rewards_by_hand(replay):
    hindsight = Hindsight(task(), ratio=1.0, n_step=3, discount=0.9)
    batch = sample(replay, hindsight, n_step=3)
    place, goal = batch[OBSERVATION_STATE], batch[ENVIRONMENT_STATE][:, 1]
    ahead = goal - place
    expected = {  # steps to the goal: reward, bootstrap, steps taken
        1: (0.0, 0.0, 1),
        2: (-1.0, 0.0, 2),
        3: (-1.9, 0.0, 3),
        4: (-2.71, 0.729, 3),
        9: (-2.71, 0.729, 3),
    }
    for distance, (reward, bootstrap, steps) in expected.items():
        chosen = ahead == distance
        assert chosen.any()
        torch.testing.assert_close(batch[REWARD][chosen], torch.full((chosen.sum(),), reward))
        torch.testing.assert_close(batch[BOOTSTRAP][chosen], torch.full((chosen.sum(),), bootstrap))
        taken = batch[NEXT + OBSERVATION_STATE][chosen] - place[chosen]
        assert (taken == steps).all()
        assert (batch[NEXT + ENVIRONMENT_STATE][chosen, 1] == goal[chosen]).all()


def test_where_success_goes_on_n_steps_stop_at_the_end_of_the_episode(replay):
    hindsight = Hindsight(task(ends=False), ratio=1.0, n_step=3, discount=0.9)
    batch = sample(replay, hindsight, n_step=3)
    last = batch[OBSERVATION_STATE] == 9  # one step from the end, which is its goal
    assert (batch[REWARD][last] == 0).all()
    assert (batch[BOOTSTRAP][last] == np.float32(0.9)).all()
    before = (batch[OBSERVATION_STATE] == 8) & (batch[ENVIRONMENT_STATE][:, 1] == 9)
    torch.testing.assert_close(batch[REWARD][before], torch.full((before.sum(),), -0.9))
    torch.testing.assert_close(batch[BOOTSTRAP][before], torch.full((before.sum(),), 0.81))


def test_the_rest_of_a_batch_stays_as_it_was(replay):
    batch = sample(replay, Hindsight(task(), ratio=0.75, n_step=1, discount=0.9), 400)
    told_again = batch[ENVIRONMENT_STATE][:, 1] != GOAL
    assert told_again.tolist() == [True] * 300 + [False] * 100
    assert (batch[REWARD][300:] == -1).all()
    assert (batch[BOOTSTRAP][300:] == np.float32(0.9)).all()
    assert (replay.columns[ENVIRONMENT_STATE][:22, 1] == GOAL).all()  # and so does the replay


def test_a_task_that_goes_on_after_success_bootstraps(replay):
    batch = sample(replay, Hindsight(task(ends=False), ratio=1.0, n_step=1, discount=0.9))
    assert set(batch[REWARD].tolist()) == {0.0, -1.0}
    assert (batch[BOOTSTRAP] == np.float32(0.9)).all()


def standing(places: list[float], stream: int) -> Fragment:
    """Return an episode that visits the given places."""
    fragment = walk(0.0, len(places) - 1, stream)
    for key, column in ((ENVIRONMENT_STATE, 0), (OBSERVATION_STATE, None)):
        values = np.array(places, np.float32)
        rows, ends = fragment.columns[key], (fragment.tail[key], fragment.final[key])
        if column is None:
            rows[:, 0, 0] = values[:-1]
        else:
            rows[:, 0, column] = values[:-1]
        for end in ends:
            end[0, 0] = values[-1]
    return fragment


def test_steps_that_begin_at_their_goal_are_passed_over():
    replay = ReplayBuffer(FEATURES, 100)
    replay.add(standing([5.0] * 30 + [6.0, 6.0], 0))  # one step moves, at the end
    batch = sample(replay, Hindsight(task(), ratio=0.5, n_step=1, discount=0.9), 200)
    goals = batch[ENVIRONMENT_STATE][:, 1]
    told = goals != GOAL
    assert 50 < told.sum() <= 100
    assert (goals[told] == 6).all()
    assert (batch[OBSERVATION_STATE][told] == 5).all()
    torch.testing.assert_close(
        batch[REWARD][told], torch.where(batch[NEXT + OBSERVATION_STATE][told] == 6, 0.0, -1.0)
    )


def test_where_nothing_moves_nothing_is_told_again():
    replay = ReplayBuffer(FEATURES, 100)
    replay.add(standing([5.0] * 30, 0))
    batch = sample(replay, Hindsight(task(), ratio=0.8, n_step=1, discount=0.9), 200)
    assert (batch[ENVIRONMENT_STATE][:, 1] == GOAL).all()
    assert (batch[REWARD] == -1).all()


def test_without_goal_relative_features_only_the_goal_changes(replay):
    layout = GoalLayout(
        key=ENVIRONMENT_STATE, achieved=slice(0, 1), desired=slice(1, 2), offset=None
    )
    plain = task(layout=layout)
    batch = sample(replay, Hindsight(plain, ratio=1.0, n_step=1, discount=0.9))
    parts = batch[ENVIRONMENT_STATE]
    torch.testing.assert_close(parts[:, 2], GOAL - parts[:, 0])


def test_relabelling_depends_on_the_seed_alone(replay):
    hindsight = Hindsight(task(), ratio=0.8, n_step=1, discount=0.9)
    first = {key: value.clone() for key, value in sample(replay, hindsight).items()}
    second = sample(replay, hindsight)
    assert all(torch.equal(first[key], second[key]) for key in first)
