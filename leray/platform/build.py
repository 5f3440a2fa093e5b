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
from leray.envs.spaces import from_spaces, to_spaces
from leray.errors import FeatureMismatchError
from leray.platform.config import TrainConfig
from leray.platform.evaluation import check_env
from leray.platform.run_directory import RunDirectory, resolve_pretrained_model
from leray.platform.source import open_source


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
    gpus = gpus_per_learner(config)
    reader, source = open_source(config) or (None, None)
    if reader is not None:
        notes += [f"dataset {reader.root}: {finding}" for finding in reader.findings]
    algorithm = algorithm_config(config.policy)
    algorithm.seed = config.seed
    algorithm.prepare(options, config.batch_size or config.policy.default_batch_size)
    algorithm.place(
        online=bool(config.use_online_training),
        replay_folder=str(run.replay.resolve()),
        replay_slack=_slack(config),
        dataset=source,
        total_steps=config.steps,
    )
    algorithm.learners(
        num_learners=config.learners.num_learners,
        num_cpus_per_learner=config.learners.num_cpus_per_learner,
        num_gpus_per_learner=gpus,
        custom_resources_per_learner=config.learners.custom_resources_per_learner,
    )
    algorithm.label_learners(config.learners.labels)
    if config.use_online_training and config.env is not None:
        _add_runners(algorithm, config)
        if reader is not None:
            _check_dataset(env_features(config.env), config.env, reader)
    elif reader is not None:
        if config.policy.learns_online:  # else it finds out by itself what it reads
            observations, action = to_spaces(_vectors(reader))
            algorithm.environment(None, observation_space=observations, action_space=action)
        if config.env is not None:
            algorithm.validate()
            features = from_spaces(algorithm.observation_space, algorithm.action_space)
            name = f"the {config.policy.type} policy of dataset {reader.root}"
            check_env(features, config.env, name=name)
    built: Trainable = algorithm.build_algo()
    return built


def evaluation_device(config: TrainConfig) -> str | None:
    """Return where the training process evaluates; it need not have the GPUs that learners have."""
    device = config.policy.device
    elsewhere = config.learners.num_learners > 0 and device is not None
    return None if elsewhere and not str(device).startswith("cpu") else device


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
    if groups := runners.runner_groups():
        algorithm.group_env_runners(groups)
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


def _vectors(reader: DatasetReader) -> Features:
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


def gpus_per_learner(config: TrainConfig) -> float:
    """Return the Ray GPUs of each learner; a device that is used in this process must be there."""
    asked, device = config.learners.num_gpus_per_learner, config.policy.device
    if config.learners.num_learners == 0 or device is None:
        device = pick_device(device).type
    if asked is not None:
        return asked
    return 1 if device.startswith("cuda") else 0


def _slack(config: TrainConfig) -> int:
    """Return the rows that may be written between two checkpoints: a step writes two at most."""
    runners = config.runners
    return 2 * (config.save_freq + runners.total_envs * (runners.fragment_length + 1))
