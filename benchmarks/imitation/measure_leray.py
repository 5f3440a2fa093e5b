"""Updates of one LeRay policy, alone or with its loader, printed as a JSON line."""

import argparse
import json
import os
import time
from pathlib import Path

import torch

from leray.algorithms.config import PolicyConfig
from leray.algorithms.imitation.feed import Feed
from leray.algorithms.imitation.learner import ImitationLearner
from leray.algorithms.imitation.source import source_processor
from leray.algorithms.plugins import register_plugins
from leray.algorithms.registry import policy_class
from leray.algorithms.trainable import DataSource


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["update", "end_to_end"])
    parser.add_argument("root", type=Path)
    parser.add_argument("--policy", type=json.loads)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--warm_up", type=int, default=3)
    arguments = parser.parse_args()
    register_plugins()
    options = dict(arguments.policy)
    config = PolicyConfig.get_choice_class(options.pop("type"))(**options)
    source = DataSource(root=str(arguments.root))
    torch.manual_seed(0)
    processor = source_processor(source, config)
    policy = policy_class(config.type)(config, processor)
    learner = ImitationLearner(policy, total_updates=100_000, seed=0)
    feed = Feed(source, config, policy.features, batch_size=arguments.batch_size, seed=0)
    if arguments.what == "update":
        batch = {name: torch.as_tensor(values).clone() for name, values in next(feed).items()}
        feed.close()
        batches = iter(lambda: batch, None)
    else:
        batches = feed
    for _ in range(arguments.warm_up):
        learner.update(batches)
    times, began = [], time.perf_counter()
    for _ in range(arguments.updates):
        learner.update(batches)
        times.append(time.perf_counter())
    loss = learner.metrics()["loss/total"]
    parameters = sum(p.numel() for p in policy.model.parameters())
    rate = arguments.updates * arguments.batch_size / (times[-1] - began)
    print(json.dumps({"samples_per_s": rate, "loss": loss, "parameters": parameters}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
