"""The same updates by LeRobot's own training step and loader, printed as a JSON line.

Runs in the peer's own environment.
"""

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from measure_lerobot import forever, make_torchvision_importable


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["update", "end_to_end"])
    parser.add_argument("root")
    parser.add_argument("--policy", type=json.loads)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--warm_up", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    make_torchvision_importable()
    logging.disable(logging.WARNING)
    trainer = Trainer(arguments)
    if arguments.what == "update":
        batch = next(trainer.batches)
        trainer.batches = iter(lambda: dict(batch), None)
    for _ in range(arguments.warm_up):
        trainer.update()
    began = time.perf_counter()
    for _ in range(arguments.updates):
        trainer.update()
    rate = arguments.updates * arguments.batch_size / (time.perf_counter() - began)
    parameters = sum(p.numel() for p in trainer.policy.parameters())
    found = {"samples_per_s": rate, "loss": trainer.loss, "parameters": parameters}
    print(json.dumps(found), flush=True)
    os._exit(0)  # forked workers are daemons


class Trainer:
    """What `lerobot-train` builds, on the CPU."""

    def __init__(self, arguments) -> None:
        from accelerate import Accelerator
        from lerobot.datasets.factory import resolve_delta_timestamps
        from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
        from lerobot.datasets.sampler import EpisodeAwareSampler
        from lerobot.policies.factory import make_policy, make_policy_config
        from lerobot.policies.factory import make_pre_post_processors as make_processors

        options = dict(arguments.policy)
        config = make_policy_config(options.pop("type"), device="cpu", push_to_hub=False, **options)
        meta = LeRobotDatasetMetadata("local/data", root=arguments.root)
        windows = resolve_delta_timestamps(config, meta)
        dataset = LeRobotDataset("local/data", root=arguments.root, delta_timestamps=windows)
        torch.manual_seed(0)
        self.policy = make_policy(config, ds_meta=meta)
        self._preprocess, _ = make_processors(config, dataset_stats=meta.stats)
        preset = config.get_optimizer_preset()
        self._grad_clip_norm = preset.grad_clip_norm
        optimizer = preset.build(self.policy.get_optim_params())
        schedule = config.get_scheduler_preset()
        scheduler = schedule and schedule.build(optimizer, 100_000)
        episodes = meta.episodes
        sampler = EpisodeAwareSampler(
            episodes["dataset_from_index"],
            episodes["dataset_to_index"],
            drop_n_last_frames=getattr(config, "drop_n_last_frames", 0),
            shuffle=True,
        )
        workers = arguments.workers if arguments.what == "end_to_end" else 0
        loader = torch.utils.data.DataLoader(
            dataset,
            arguments.batch_size,
            sampler=sampler,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
        )
        self._accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=False)
        self.policy, self._optimizer, loader, self._scheduler = self._accelerator.prepare(
            self.policy, optimizer, loader, scheduler
        )
        self.batches = forever(loader)
        self.loss = 0.0

    def update(self) -> None:
        """Take the next batch and one update, as the loop of `lerobot-train` does."""
        from lerobot.scripts.lerobot_train import update_policy

        batch = self._preprocess(next(self.batches))
        figures = Figures()
        update_policy(
            figures,
            self.policy,
            batch,
            self._optimizer,
            self._grad_clip_norm,
            self._accelerator,
            lr_scheduler=self._scheduler,
        )
        self.loss = figures.loss


class Figures:
    """Takes what the training step reports."""


if __name__ == "__main__":
    main()
