"""`leray record`: what lands in the dataset."""

import functools
import json

import gymnasium as gym
import numpy as np
import pytest

from leray.algorithms.imitation.inputs import policy_inputs
from leray.data.lerobot.reader import DatasetReader
from leray.envs.config import GymEnvConfig
from leray.envs.panda.rendering import rendering_available
from leray.envs.panda.tasks import TASKS
from leray.errors import ConfigError, DatasetError, EnvError, FeatureMismatchError
from leray.platform import record
from leray.platform.config import RecordConfig, RecordDatasetConfig, RecordPolicyConfig
from leray.platform.evaluation import check_env
from leray.platform.record import run

needs_gl = pytest.mark.skipif(
    not rendering_available(), reason="no OpenGL here: apt-get install libegl1 libosmesa6"
)
FRONT = "observation.images.front"
RANDOM = {"policy": {"type": "random"}}


def config(
    root, *, task="PandaReach-v3", episodes=3, policy=None, resume=False, kwargs=None, **options
):
    return RecordConfig(
        env=GymEnvConfig(task=task, kwargs=kwargs or {}),
        dataset=RecordDatasetConfig(root=root, num_episodes=episodes, **options),
        policy=RecordPolicyConfig(**(policy or {})),
        resume=resume,
    )


def columns(root):
    return DatasetReader.open(root).read()


def test_the_dataset_has_the_features_of_the_environment(tmp_path):
    run(config(tmp_path / "data"))
    reader = DatasetReader.open(tmp_path / "data")
    shapes = {key: (f.dtype, f.shape) for key, f in reader.features.items()}
    expected = {
        "observation.state": ("float32", (6,)),
        "observation.environment_state": ("float32", (12,)),
        "action": ("float32", (3,)),
        "next.reward": ("float32", (1,)),
        "next.done": ("bool", (1,)),
        "next.truncated": ("bool", (1,)),
        "next.success": ("bool", (1,)),
    }
    assert {key: shapes[key] for key in expected} == expected
    assert reader.num_episodes == 3
    assert reader.features["action"].high == (1.0,) * 3
    assert (reader.robot_type, reader.findings) == ("panda", [])
    assert len(reader.tasks) == 1


def test_rewards_ends_and_success_belong_to_their_frames(tmp_path):
    run(config(tmp_path / "data"))
    data = columns(tmp_path / "data")
    starts = [0, *data.episode_ends[:-1]]
    for start, end in zip(starts, data.episode_ends, strict=True):
        frames = slice(int(start), int(end))
        length = int(end - start)
        assert data["next.done"][frames].tolist() == [False] * (length - 1) + [True]
        assert data["next.success"][frames].tolist() == [False] * (length - 1) + [True]
        assert data["next.reward"][frames].tolist() == [-1.0] * (length - 1) + [0.0]
        assert not data["next.truncated"][frames].any()


def test_a_frame_is_the_observation_before_its_action(tmp_path):
    run(config(tmp_path / "data", episodes=1))
    data = columns(tmp_path / "data")
    env = gym.make("leray/PandaReach-v3")
    observation, _ = env.reset(seed=1000)
    for state, action in zip(data["observation.state"], data["action"], strict=True):
        np.testing.assert_allclose(state, observation["observation"], atol=1e-6)
        observation, *_ = env.step(action)
    env.close()


def seen(root, **kwargs):
    """Replay a recorded dataset's actions; return the pictures that were observed."""
    data, frames = columns(root), []
    env = gym.make("leray/PandaReachPixels-v3", **kwargs)
    starts = [0, *data.episode_ends[:-1]]
    for episode, (start, end) in enumerate(zip(starts, data.episode_ends, strict=True)):
        observation, _ = env.reset(seed=1_000_001_000 + episode)
        for action in data["action"][int(start) : int(end)]:
            frames.append(observation["pixels"])
            observation, *_ = env.step(action)
    env.close()
    return frames


@needs_gl
def test_pictures_of_image_columns_are_what_was_seen(tmp_path):
    kwargs = {"cameras": ["front", "wrist"], "observation_width": 48}
    run(config(tmp_path / "data", task="PandaReachPixels-v3", kwargs=kwargs, video=False))
    reader = DatasetReader.open(tmp_path / "data")
    assert reader.features[FRONT].dtype == "image"
    assert reader.features["observation.state"].shape == (6,)
    assert "observation.environment_state" not in reader.features
    expected = seen(tmp_path / "data", **kwargs)
    for camera in ("front", "wrist"):
        stored = reader.read_frames(f"observation.images.{camera}", np.arange(reader.num_frames))
        np.testing.assert_array_equal(stored, [frame[camera] for frame in expected])


@needs_gl
def test_pictures_become_video_and_can_be_trained_on(tmp_path):
    run(config(tmp_path / "data", task="PandaReachPixels-v3"))
    reader = DatasetReader.open(tmp_path / "data")
    assert reader.findings == []
    assert reader.features[FRONT].dtype == "video"
    assert reader.features[FRONT].names == ("height", "width", "channels")
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["features"][FRONT]["info"]["video.codec"] == "av1"
    assert info["fps"] == 25
    stored = reader.read_frames(FRONT, np.arange(reader.num_frames)).astype(float)
    expected = np.array([frame["front"] for frame in seen(tmp_path / "data")], float)
    assert np.abs(stored - expected).mean() < 4
    inputs = policy_inputs(reader.features)
    assert {key: feature.shape for key, feature in inputs.items()} == {
        "observation.state": (6,),
        FRONT: (64, 64, 3),
        "action": (3,),
    }
    check_env(inputs, GymEnvConfig(task="PandaReachPixels-v3"), name="a policy")
    with pytest.raises(FeatureMismatchError, match=r"images\.front"):
        check_env(inputs, GymEnvConfig(task="PandaReach-v3"), name="a policy")


@needs_gl
def test_pictures_of_failures_are_left_out(tmp_path):
    options = {"task": "PandaReachPixels-v3", "policy": {"type": "random"}, "video": False}
    run(config(tmp_path / "data", episodes=2, **options))
    reader = DatasetReader.open(tmp_path / "data")
    assert reader.read(["next.success"])["next.success"].sum() == 2
    assert len(reader.read_frames(FRONT, np.arange(reader.num_frames))) == reader.num_frames
    assert reader.findings == []


def test_a_detour_is_recorded_on_both_sides(tmp_path):
    run(config(tmp_path / "data", task="PandaDetour-v3", episodes=12))
    data = columns(tmp_path / "data")
    starts = [0, *data.episode_ends[:-1]]
    sides = [
        TASKS["detour"].pillar.side(data["observation.state"][int(start) : int(end), :3])
        for start, end in zip(starts, data.episode_ends, strict=True)
    ]
    assert set(sides) == {"left", "right"}
    run(config(tmp_path / "again", task="PandaDetour-v3", episodes=12))
    assert np.array_equal(columns(tmp_path / "again")["action"], data["action"])


def test_observations_of_double_precision_are_stored_as_declared(tmp_path):
    run(config(tmp_path / "data", task="Reacher-v5", episodes=1, **RANDOM))
    assert columns(tmp_path / "data")["observation.state"].dtype == np.float32


def test_random_actions_do_not_tell_where_the_goal_is(tmp_path):
    run(config(tmp_path / "data", episodes=40, **RANDOM, only_successes=False))
    data = columns(tmp_path / "data")
    first = [0, *(int(end) for end in data.episode_ends[:-1])]
    goals = data["observation.environment_state"][first, 3:6]
    for goal, action in zip(goals.T, data["action"][first].T, strict=True):
        # A correlation of chance has a standard deviation of 1 / sqrt(40) = 0.16.
        assert abs(np.corrcoef(goal, action)[0, 1]) < 0.6


def test_resuming_gives_what_recording_at_once_gives(tmp_path):
    noisy = {"noise": 0.3}
    run(config(tmp_path / "whole", episodes=4, policy=noisy))
    run(config(tmp_path / "parts", episodes=2, policy=noisy))
    run(config(tmp_path / "parts", episodes=2, policy=noisy, resume=True))
    whole, parts = columns(tmp_path / "whole"), columns(tmp_path / "parts")
    for key in ("observation.state", "action", "next.reward"):
        assert np.array_equal(whole[key], parts[key]), key
    assert whole.episode_ends.tolist() == parts.episode_ends.tolist()


def test_noise_stays_within_the_bounds_and_varies_the_actions(tmp_path):
    run(config(tmp_path / "plain", episodes=1))
    run(config(tmp_path / "noisy", episodes=1, policy={"noise": 0.5}))
    plain, noisy = columns(tmp_path / "plain")["action"], columns(tmp_path / "noisy")["action"]
    assert not np.array_equal(plain[0], noisy[0])
    assert np.abs(noisy).max() <= 1


def test_a_truncated_episode_is_marked_as_such(tmp_path):
    options = {"task": "Pendulum-v1", "policy": {"type": "random"}, "episodes": 2}
    run(config(tmp_path / "data", **options))  # reports no success, so all are kept
    data = columns(tmp_path / "data")
    assert not data["next.done"].any()
    assert np.flatnonzero(data["next.truncated"]).tolist() == [199, 399]
    assert not data["next.success"].any()


def test_failures_are_left_out_and_their_seeds_not_used_again(tmp_path, monkeypatch):
    seeds = []

    def episode(*args, seed, original=record._run_episode, **options):
        seeds.append(seed)
        original(*args, seed=seed, **options)
        return len(seeds) not in (2, 3)

    monkeypatch.setattr(record, "_run_episode", episode)
    run(config(tmp_path / "data", episodes=3))
    assert len(set(seeds)) == len(seeds) == 5
    assert DatasetReader.open(tmp_path / "data").num_episodes == 3
    # far from the seeds 1000, 1001, ... that episodes of an evaluation begin from
    assert [seeds[0], seeds[-1]] == [1_000_001_000, 1_000_001_002]


def test_a_policy_that_never_succeeds_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MAX_FAILURES", 5)
    hopeless = config(tmp_path / "data", task="PandaPickAndPlace-v3", policy={"type": "random"})
    with pytest.raises(ConfigError, match=r"5 episodes in a row .*only_successes=false"):
        run(hopeless)


def test_failures_are_recorded_on_request(tmp_path):
    options = {"task": "PandaPickAndPlace-v3", "policy": {"type": "random"}}
    run(config(tmp_path / "data", episodes=1, only_successes=False, **options))
    assert len(columns(tmp_path / "data")["action"]) == 50


def test_a_task_without_expert_is_one_clear_error(tmp_path):
    with pytest.raises(EnvError, match="HalfCheetah") as caught:
        run(config(tmp_path / "data", task="HalfCheetah-v5"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="exists and is not empty"):
        run(config(tmp_path / "data"))
    assert (tmp_path / "data/notes.txt").read_text() == "mine"


def test_a_trained_policy_records_too(tmp_path, train):
    code = train(output_dir=tmp_path / "run", steps=10, env__type="gym", env__task="PandaReach-v3")
    assert code == 0
    by_policy = functools.partial(config, policy={"path": tmp_path / "run"}, only_successes=False)
    run(by_policy(tmp_path / "data", episodes=1))
    assert DatasetReader.open(tmp_path / "data").num_episodes == 1
    with pytest.raises(FeatureMismatchError, match=r"the policy and environment PandaPush-v3"):
        run(by_policy(tmp_path / "other", task="PandaPush-v3"))
