import numpy as np
import pytest

from leray.envs.panda.tasks import TASKS, distance, distance_of_one

# What panda-gym 3.0.7 (PyBullet 3.2.7) starts with after reset(seed=0).
PUBLISHED_STARTS = {
    "reach": ((0.04108851, -0.06906398, 0.01229206), None),
    "push": ((0.04108851, -0.06906398, 0.02), (-0.1450417, 0.09398107, 0.02)),
    "pick_and_place": ((0.04108851, -0.06906398, 0.02), (0.09398107, 0.12382668, 0.02)),
}


@pytest.mark.parametrize("name", PUBLISHED_STARTS)
def test_a_seed_gives_the_published_start(name):
    goal, cube = PUBLISHED_STARTS[name]
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(TASKS[name].sample_goal(rng), goal, atol=1e-7)
    if cube is not None:
        np.testing.assert_allclose(TASKS[name].sample_object(rng), cube, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("reach", 0.0, 0.3), ("push", 0.02, 0.02), ("pick_and_place", 0.02, 0.22)],
)
def test_goals_fill_their_range(name, low, high):
    rng = np.random.default_rng(1)
    goals = np.array([TASKS[name].sample_goal(rng) for _ in range(2000)])
    assert np.abs(goals[:, :2]).max() <= 0.15
    assert np.abs(goals[:, :2]).max() > 0.149
    assert goals[:, 2].min() == pytest.approx(low, abs=1e-3)
    assert goals[:, 2].max() == pytest.approx(high, abs=1e-3)


def test_three_of_ten_pick_and_place_goals_lie_on_the_table():
    rng = np.random.default_rng(2)
    heights = [TASKS["pick_and_place"].sample_goal(rng)[2] for _ in range(4000)]
    # Standard deviation of the share: sqrt(0.3 * 0.7 / 4000) = 0.007.
    assert np.mean(np.array(heights) == 0.02) == pytest.approx(0.3, abs=0.03)


def test_cubes_lie_on_the_table_within_their_square():
    rng = np.random.default_rng(3)
    cubes = np.array([TASKS["push"].sample_object(rng) for _ in range(2000)])
    assert (cubes[:, 2] == 0.02).all()
    assert 0.149 < np.abs(cubes[:, :2]).max() <= 0.15


def test_distance_is_euclidean_over_the_last_axis():
    achieved = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]], np.float32)
    np.testing.assert_array_equal(distance(achieved, np.zeros(3)), [0.0, 3.0])
    assert distance(achieved[1], achieved[0]).shape == ()


def test_both_distances_agree_bit_for_bit():
    points = np.random.default_rng(4).uniform(-1, 1, (500, 2, 3)).astype(np.float32)
    one_by_one = [distance_of_one(a.tolist(), b.tolist()) for a, b in points]
    np.testing.assert_array_equal(distance(points[:, 0], points[:, 1]), one_by_one)
