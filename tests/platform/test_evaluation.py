"""Judging a checkpoint, and LeRobot's `eval_info.json`."""

import json
import math

import pytest

from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features
from leray.envs.config import GymEnvConfig
from leray.envs.episodes import EpisodeResult
from leray.errors import CheckpointError, FeatureMismatchError
from leray.platform.evaluation import Evaluation, check_env, evaluate_checkpoint
from leray.platform.sections import EvalConfig

REACH = GymEnvConfig(task="PandaReach-v3")


def result(index, *, reward=1.0, success=None, video=None):
    return EpisodeResult(
        index=index,
        seed=100 + index,
        sum_reward=reward,
        max_reward=reward / 2,
        length=10 * (index + 1),
        success=success,
        video_path=video,
    )


def test_figures_are_means_over_the_episodes():
    episodes = [result(0, reward=2.0, success=True), result(1, reward=4.0, success=False)]
    assert Evaluation(episodes, 3.0).metrics == {
        "eval/return_mean": 3.0,
        "eval/episode_length": 15.0,
        "eval/success_rate": 0.5,
    }


def test_how_long_acting_takes_is_told_in_milliseconds_and_in_seconds():
    times = [0.001 * number for number in range(1, 101)]
    evaluation = Evaluation([result(0)], 1.0, times)
    metrics = evaluation.metrics
    assert metrics["eval/act_ms_p50"] == pytest.approx(50.5)
    assert metrics["eval/act_ms_p95"] == pytest.approx(95.05)
    overall = evaluation.info(REACH)["overall"]
    assert overall["act_s_p50"] == pytest.approx(0.0505)
    assert overall["act_s_p95"] == pytest.approx(0.09505)


def test_success_that_is_not_reported_is_no_figure():
    assert "eval/success_rate" not in Evaluation([result(0)], 1.0).metrics


def test_the_table_is_laid_out_as_lerobots(tmp_path):
    episodes = [
        result(0, reward=2.0, success=True, video="videos/eval_episode_0.mp4"),
        result(1, reward=4.0, success=False),
    ]
    path = Evaluation(episodes, 3.0).save(tmp_path, REACH)
    info = json.loads(path.read_text())
    assert path.name == "eval_info.json"
    overall = {
        "avg_sum_reward": 3.0,
        "avg_max_reward": 1.5,
        "pc_success": 50.0,
        "n_episodes": 2,
        "eval_s": 3.0,
        "eval_ep_s": 1.5,
        "video_paths": ["videos/eval_episode_0.mp4"],
    }
    assert info["overall"] == overall
    assert info["per_group"] == {"gym": overall}
    assert info["per_task"] == [
        {
            "task_group": "gym",
            "task_id": 0,
            "metrics": {
                "sum_rewards": [2.0, 4.0],
                "max_rewards": [1.0, 2.0],
                "successes": [True, False],
                "video_paths": ["videos/eval_episode_0.mp4"],
            },
        }
    ]
    assert [episode["seed"] for episode in info["per_episode"]] == [100, 101]


@pytest.fixture(scope="module")
def checkpoint(train, tmp_path_factory):
    """The `pretrained_model` folder of an untrained policy that reaches."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    assert train(output_dir=run, steps=10, env__type="gym", env__task="PandaReach-v3") == 0
    return run / "checkpoints/last/pretrained_model"


def evaluate(folder, env=REACH, *, video_folder=None, rendered=0, **options):
    config = EvalConfig(**{"n_episodes": 3, "max_episodes_rendered": rendered, **options})
    return evaluate_checkpoint(folder, env, config, seed=7, video_folder=video_folder, device="cpu")


def test_the_same_seed_judges_alike(checkpoint):
    first, again = evaluate(checkpoint, batch_size=1), evaluate(checkpoint, batch_size=1)
    assert first.episodes == again.episodes
    assert [episode.seed for episode in first.episodes] == [7, 8, 9]
    assert all(math.isfinite(episode.sum_reward) for episode in first.episodes)


def test_side_by_side_episodes_find_the_same_success(checkpoint):
    alone, together = evaluate(checkpoint, batch_size=1), evaluate(checkpoint, batch_size=3)
    assert [e.success for e in alone.episodes] == [e.success for e in together.episodes]


class Remembering:
    """A stand-in for a policy with memory, over a real one: it notes who is told what."""

    def __init__(self, policy):
        self._policy = policy
        self.features = policy.features
        self.calls = []
        self.steps = {}

    def seed(self, seed):
        self.calls.append(("seed", seed))

    def reset(self, envs=None):
        self.calls.append(("reset", envs))
        self.steps |= dict.fromkeys(envs or [], 0)

    def act(self, observations, *, deterministic, envs):
        assert deterministic
        for env in envs:
            self.steps[env] += 1
        return self._policy.act(observations, deterministic=True, envs=envs)


def test_policies_with_memory_are_told_of_each_episode(checkpoint, monkeypatch):
    policies = []

    def load(folder, device):
        policies.append(Remembering(load_policy(folder, device)))
        return policies[-1]

    monkeypatch.setattr("leray.platform.evaluation.load_policy", load)
    evaluation = evaluate(checkpoint, batch_size=2)
    (policy,) = policies
    assert policy.calls[:2] == [("reset", None), ("seed", 7)]
    begun = [envs for name, envs in policy.calls[2:]]
    assert begun[:2] == [[0], [1]]
    assert len(begun) == 3
    assert len(evaluation.act_s) >= max(episode.length for episode in evaluation.episodes)
    last = max(evaluation.episodes, key=lambda episode: episode.index)
    assert policy.steps[begun[2][0]] == last.length


def test_without_opengl_episodes_run_without_video(checkpoint, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("leray.platform.evaluation.rendering_available", lambda: False)
    evaluation = evaluate(checkpoint, video_folder=tmp_path, rendered=2, n_episodes=1)
    assert evaluation.episodes[0].video_path is None
    assert "evaluating without video" in caplog.text


def test_an_environment_the_policy_cannot_read_is_refused(checkpoint):
    with pytest.raises(FeatureMismatchError, match=r"the policy and environment Pendulum-v1 do"):
        evaluate(checkpoint, GymEnvConfig(task="Pendulum-v1"))


def test_actions_are_compared_too(checkpoint, monkeypatch):
    features = load_policy(checkpoint, "cpu").features
    wider = Features({**features, "action": Feature("float32", (7,))})
    with pytest.raises(FeatureMismatchError, match=r"a policy and environment PandaReach-v3 do"):
        check_env(wider, REACH, name="a policy")
    check_env(features, REACH, name="a policy")


def test_an_error_on_a_ray_actor_is_as_short_as_here(checkpoint):
    with pytest.raises(FeatureMismatchError) as caught:
        evaluate(checkpoint, GymEnvConfig(task="Pendulum-v1"), num_env_runners=1)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("the policy and environment Pendulum-v1")


def test_a_folder_without_policy_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is missing or damaged"):
        evaluate(tmp_path)
