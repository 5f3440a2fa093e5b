"""`leray eval`: judge a trained policy from its checkpoint folder."""

import datetime
from pathlib import Path

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
        trained = folder / "train_config.json"
        env = load(TrainConfig, trained).env if trained.exists() else None
        if env is None:
            raise ConfigError(
                f"{folder} does not say which environment it was trained on: give --env.type=... "
                "--env.task=..."
            )
        config.env = env
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
        f"{overall['n_episodes']} episodes in {evaluation.seconds:.1f} s   -> {path}"
    )
    for video in overall["video_paths"]:
        print(f"video {video}")
