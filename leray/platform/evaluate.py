"""`leray eval`: judge a trained policy from its checkpoint folder."""

import datetime
from pathlib import Path

from leray.envs.config import EnvConfig
from leray.errors import ConfigError
from leray.platform.cluster import connect
from leray.platform.config import EvalRunConfig, TrainConfig
from leray.platform.evaluation import evaluate_checkpoint
from leray.platform.parsing import load
from leray.platform.run_directory import resolve_pretrained_model


def run(config: EvalRunConfig) -> None:
    """Evaluate, write `eval_info.json` and videos, and print the outcome."""
    folder = resolve_pretrained_model(config.policy.path)
    if config.env is None:
        config.env = _trained_env(folder)
    now = datetime.datetime.now()
    output = config.output_dir or Path("outputs/eval") / (
        f"{now:%Y-%m-%d}/{now:%H-%M-%S}_{config.env.task.replace('/', '_')}"
    )
    if config.eval.num_env_runners:
        connect()
    evaluation = evaluate_checkpoint(
        folder,
        config.env,
        config.eval,
        seed=config.seed,
        video_folder=output / "videos" if config.eval.max_episodes_rendered else None,
        device=config.policy.device,
    )
    path = evaluation.save(output, config.env)
    overall = evaluation.info(config.env)["overall"]
    reported = "eval/success_rate" in evaluation.metrics
    success = f"{overall['pc_success']:.1f} %" if reported else "not reported"
    print(
        f"success {success}   return {overall['avg_sum_reward']:.2f}   "
        f"{overall['n_episodes']} episodes in {evaluation.seconds:.1f} s   "
        f"{evaluation.metrics['eval/act_ms_p50']:.3g} ms per action   -> {path}"
    )
    for video in overall["video_paths"]:
        print(f"video {video}")


def _trained_env(folder: Path) -> EnvConfig:
    """Return the environment a policy was trained with.

    Raises:
        ConfigError: the folder does not say, or it is not ours to read, as LeRobot's.
    """
    trained = folder / "train_config.json"
    reason = ""
    try:
        env = load(TrainConfig, trained).env if trained.exists() else None
    except ConfigError as error:
        env, reason = None, f" ({error})"
    if env is None:
        raise ConfigError(
            f"{folder} does not say which environment it was trained on: give --env.type=... "
            f"--env.task=...{reason}"
        )
    return env
