"""From a training config to a built algorithm: spaces, dataset checks, RLlib config."""

import dataclasses
from pathlib import Path

import numpy as np

from leray.algorithms.registry import algorithm_config, pick_device
from leray.algorithms.trainable import Trainable, TrainableConfig
from leray.data.features import Features, check_compatible
from leray.data.lerobot.reader import DatasetReader
from leray.data.names import ACTION
from leray.envs.config import EnvConfig
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap, action_feature
from leray.envs.spaces import to_spaces
from leray.errors import ConfigError, FeatureMismatchError
from leray.platform.config import DatasetConfig, TrainConfig
from leray.platform.run_directory import RunDirectory, resolve_pretrained_model


def build_algorithm(
    config: TrainConfig, run: RunDirectory, *, pretrained: Path | None, notes: list[str]
) -> Trainable:
    """Build the RLlib algorithm of a run.

    Args:
        config: the resolved config.
        run: the run's folder, for replay.
        pretrained: checkpoint folder the weights come from, or None for fresh ones.
        notes: findings about the dataset are appended.

    Raises:
        LerayError: environment, dataset and policy do not exist or do not fit together.
    """
    options = {f.name: getattr(config.policy, f.name) for f in dataclasses.fields(config.policy)}
    options["pretrained_path"] = None if pretrained is None else str(pretrained)
    device = pick_device(config.policy.device)
    reader = open_dataset(config.dataset) if config.dataset is not None else None
    if reader is not None:
        notes += [f"dataset {reader.root}: {finding}" for finding in reader.findings]
    algorithm = algorithm_config(config.policy)
    algorithm.seed = config.seed
    algorithm.prepare(options, config.batch_size or config.policy.default_batch_size)
    algorithm.place(
        online=bool(config.use_online_training),
        replay_folder=str(run.replay.resolve()),
        replay_slack=_slack(config),
        dataset_root=None if reader is None else str(reader.root.resolve()),
        dataset_episodes=None if config.dataset is None else config.dataset.episodes,
    )
    algorithm.learners(num_learners=0, num_gpus_per_learner=1 if device.type == "cuda" else 0)
    if config.use_online_training and config.env is not None:
        _add_runners(algorithm, config)
        if reader is not None:
            _check_dataset(env_features(config.env), config.env, reader)
    elif reader is not None:
        observations, action = to_spaces(_trainable_features(reader))
        algorithm.environment(None, observation_space=observations, action_space=action)
    built: Trainable = algorithm.build_algo()
    return built


def pretrained_folder(config: TrainConfig) -> Path | None:
    """Return the folder that `--policy.pretrained_path` means."""
    path = config.policy.pretrained_path
    return None if path is None else resolve_pretrained_model(Path(path))


def env_features(config: EnvConfig) -> Features:
    """Return an environment's observations and action."""
    env = make_env(config)
    try:
        observations = ObservationMap(env, goal_relative=config.goal_relative).features
        return Features({**observations, ACTION: action_feature(env)})
    finally:
        env.close()


def open_dataset(config: DatasetConfig) -> DatasetReader:
    """Open the dataset a config names.

    Raises:
        ConfigError: neither root nor repo_id is given.
        DatasetError: it is missing or damaged.
    """
    return DatasetReader.open(dataset_root(config), episodes=config.episodes)


def dataset_root(config: DatasetConfig) -> Path:
    """Return the local folder of a dataset: its root, else that of its repo id, fetched if needed.

    Raises:
        ConfigError: neither is given.
        DatasetError: it is neither here nor on the Hub.
    """
    if config.repo_id is None:
        if config.root is None:
            raise ConfigError(
                "the dataset has neither root nor repo_id: give --dataset.root=<folder>"
            )
        return config.root
    if config.root is not None and (config.root / "meta" / "info.json").is_file():
        return config.root
    from leray.data.hub.download import resolve  # the Hub's client only where it is asked for

    return resolve(
        config.repo_id,
        root=config.root,
        revision=config.revision,
        episodes=config.episodes,
        download_videos=False,
    )


def _add_runners(algorithm: TrainableConfig, config: TrainConfig) -> None:
    assert config.env is not None
    runners = config.runners
    algorithm.environment(config.env.task)
    algorithm.env_options = config.env
    algorithm.goal_relative = config.env.goal_relative
    algorithm.env_runners(
        num_env_runners=runners.num_env_runners,
        num_envs_per_env_runner=runners.num_envs_per_env_runner,
        num_cpus_per_env_runner=runners.num_cpus_per_env_runner,
        num_gpus_per_env_runner=runners.num_gpus_per_env_runner,
        custom_resources_per_env_runner=runners.custom_resources_per_env_runner,
    )
    algorithm.fault_tolerance(
        restart_failed_env_runners=True,
        max_num_env_runner_restarts=runners.max_restarts,
        delay_between_env_runner_restarts_s=0,
    )
    algorithm.pace(runners.resolved_clock, runners.fragment_length)


def _check_dataset(features: Features, env: EnvConfig, reader: DatasetReader) -> None:
    check_compatible(
        features,
        reader.features,
        left_name=f"environment {env.task}",
        right_name=f"dataset {reader.root}",
        keys=list(features),
    )


def _trainable_features(reader: DatasetReader) -> Features:
    """Return a dataset's numeric observations and its action, with bounds for the action."""
    features = {
        key: feature
        for key, feature in reader.features.items()
        if key.startswith("observation.") and feature.is_numeric and len(feature.shape) == 1
    }
    if ACTION not in reader.features or not features:
        raise FeatureMismatchError(
            f"dataset {reader.root} has {', '.join(reader.features)}; training needs `action` "
            "and at least one observation.* vector"
        )
    action = reader.features[ACTION]
    bounds = (action.low, action.high)
    if any(bound is None or not np.isfinite(bound).all() for bound in bounds):
        stats = reader.stats[ACTION]
        action = dataclasses.replace(
            action,
            low=tuple(float(x) for x in stats["min"].reshape(-1)),
            high=tuple(float(x) for x in stats["max"].reshape(-1)),
        )
    return Features({**features, ACTION: action})


def _slack(config: TrainConfig) -> int:
    """Return the rows that may be written between two checkpoints: a step writes two at most."""
    runners = config.runners
    envs = max(1, runners.num_env_runners) * runners.num_envs_per_env_runner
    return 2 * (config.save_freq + envs * (runners.fragment_length + 1))
