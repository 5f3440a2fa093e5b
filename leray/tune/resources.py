"""What a trial needs of the cluster, as Ray Tune reserves it."""

from ray import tune

from leray.platform.config import TrainConfig
from leray.tune.config import ResourcesConfig


def bundles(resources: ResourcesConfig, train: TrainConfig) -> list[dict[str, float]]:
    """Return the bundles of a trial's placement group: its own, runners, evaluators, learners.

    Args:
        resources: of the trial's own process.
        train: says how many other processes there are.
    """
    runners, learners = train.runners, train.learners
    own = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
    learner = {"CPU": learners.num_cpus_per_learner, "GPU": learners.num_gpus_per_learner or 0.0}
    learner |= learners.custom_resources_per_learner
    decoders = train.num_workers * max(1, learners.num_learners)
    return [
        own,
        *[kind.needs for kind in runners.kinds() for _ in range(kind.num_env_runners)],
        *[{"CPU": 1.0}] * train.eval.num_env_runners,
        *[learner] * learners.num_learners,
        *[{"CPU": 1.0}] * decoders,
    ]


def request(resources: ResourcesConfig, train: TrainConfig) -> tune.PlacementGroupFactory:
    """Return what Tune reserves for a trial: its bundles, on nodes with the labels asked for."""
    parts = bundles(resources, train)
    labels: list[dict[str, str]] = [{} for _ in parts]
    runners = [kind.labels for kind in train.runners.kinds() for _ in range(kind.num_env_runners)]
    labels[1 : 1 + len(runners)] = runners
    first = 1 + len(runners) + train.eval.num_env_runners
    learners = train.learners.num_learners
    labels[first : first + learners] = [train.learners.labels] * learners
    if not any(labels):
        return tune.PlacementGroupFactory(parts)
    head_is_empty = not any(parts[0].values())  # Tune leaves it out then
    return tune.PlacementGroupFactory(parts, bundle_label_selector=labels[head_is_empty:])
