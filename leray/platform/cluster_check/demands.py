"""What a training run asks of a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from leray.platform.config import TrainConfig
from leray.platform.sections import RunnersConfig


@dataclass(frozen=True)
class Demand:
    """Actors of one kind."""

    name: str
    """`runners`, `learners`, ..."""
    count: int
    resources: Mapping[str, float]
    """What each needs, on one node; nothing that is 0."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes they may run on, in Ray's notation."""

    def __str__(self) -> str:
        """Say it in words."""
        amounts = [f"{amount:g} {name}" for name, amount in self.resources.items()]
        amounts += [f"nodes with {name}={value}" for name, value in self.labels.items()]
        return f"{self.count} {self.name} ask for {', '.join(amounts)}"


def demands_of(config: TrainConfig) -> list[Demand]:
    """Return the actors of a training run; its own process reserves nothing."""
    learners = config.learners
    gpus = learners.num_gpus_per_learner
    if gpus is None:
        gpus = 1 if (config.policy.device or "").startswith("cuda") else 0
    per_learner = {
        "CPU": learners.num_cpus_per_learner,
        "GPU": gpus,
        **learners.custom_resources_per_learner,
    }
    readers = config.num_workers * max(1, learners.num_learners)
    found = [
        Demand("learners", learners.num_learners, per_learner, learners.labels),
        *_runners(config.runners),
        Demand("evaluation runners", config.eval.num_env_runners, {"CPU": 1}),
        Demand("readers of pictures", readers, {"CPU": 1}),
    ]
    return [
        replace(each, resources={k: amount for k, amount in each.resources.items() if amount})
        for each in found
        if each.count
    ]


def _runners(runners: RunnersConfig) -> list[Demand]:
    """Return runners by their groups, or all as one where they are alike."""
    groups = [
        Demand(f"runners of group {group.name}", group.num_env_runners, group.needs, group.labels)
        for group in runners.runner_groups()
    ]
    alike = {
        "CPU": runners.num_cpus_per_env_runner,
        "GPU": runners.num_gpus_per_env_runner,
        **runners.custom_resources_per_env_runner,
    }
    return groups or [Demand("runners", runners.num_env_runners, alike)]


def wants_gpu_in_head(config: TrainConfig) -> bool:
    """Tell whether the training process itself, which runs on the head, needs a GPU."""
    return config.learners.num_learners == 0 and (config.policy.device or "").startswith("cuda")
