"""What a trial needs of the cluster, as Ray Tune reserves it."""

import itertools

from ray import tune

from leray.platform.config import TrainConfig
from leray.tune.config import ResourcesConfig

Bundle = dict[str, float]
Labels = dict[str, str]


def bundles(resources: ResourcesConfig, train: TrainConfig) -> list[Bundle]:
    """Return the bundles of a trial's placement group: its own, runners, evaluators, learners.

    Args:
        resources: of the trial's own process.
        train: says how many other processes there are.
    """
    return [bundle for bundle, _ in _parts(resources, train)]


def request(resources: ResourcesConfig, train: TrainConfig) -> tune.PlacementGroupFactory:
    """Return what Tune reserves for a trial: its bundles, on nodes with the labels asked for."""
    parts = _parts(resources, train)
    needs, labels = [bundle for bundle, _ in parts], [asked for _, asked in parts]
    if not any(labels):
        return tune.PlacementGroupFactory(needs)
    head_is_empty = not any(needs[0].values())  # Tune leaves it out then
    return tune.PlacementGroupFactory(needs, bundle_label_selector=labels[head_is_empty:])


def _parts(resources: ResourcesConfig, train: TrainConfig) -> list[tuple[Bundle, Labels]]:
    """Return each bundle with the labels of the node that it has to be on."""
    learners = train.learners
    own = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
    learner = {"CPU": learners.num_cpus_per_learner, "GPU": learners.num_gpus_per_learner or 0.0}
    learner |= learners.custom_resources_per_learner
    decoders = train.num_workers * max(1, learners.num_learners)
    runners = [[(kind.needs, kind.labels)] * kind.num_env_runners for kind in train.runners.kinds()]
    process: tuple[Bundle, Labels] = ({"CPU": 1.0}, {})
    return [
        (own, {}),
        *itertools.chain.from_iterable(runners),
        *[process] * train.eval.num_env_runners,
        *[(learner, learners.labels)] * learners.num_learners,
        *[process] * decoders,
    ]
