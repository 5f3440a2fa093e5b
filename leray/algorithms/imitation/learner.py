"""The update of imitation policies in plain torch: no Ray, no host synchronisation."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from leray.algorithms.imitation.ema import MovingAverage
from leray.algorithms.imitation.figures import Figures
from leray.algorithms.imitation.inputs import Batch, RawBatch
from leray.algorithms.imitation.optimizers import (
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    scale_learning_rates,
)
from leray.algorithms.imitation.policy import ImitationPolicy
from leray.algorithms.imitation.randomness import TRAINING, VALIDATION, seeded
from leray.algorithms.imitation.state import TrainingState, fitting


class ImitationLearner:
    """Updates an imitation policy in place, alone or as one of several that share each batch.

    What an update draws at random follows from the seed, the learner's rank and the number of the
    update alone, so that evaluation beside it, or a restart, changes nothing.

    Example:
        >>> learner = ImitationLearner(policy, total_updates=1000, seed=0)  # doctest: +SKIP
        >>> batches = stream.batches()  # doctest: +SKIP
        >>> while learner.num_updates < 1000:  # doctest: +SKIP
        ...     learner.update(batches)  # doctest: +SKIP
        >>> policy.save_pretrained(folder, learner.weights())  # doctest: +SKIP

    Args:
        policy: whose model is trained; it stays on its device from now on.
        total_updates: length of the run, for the schedule of the learning rate.
        seed: of the random numbers.
        rank: of this learner among several.
        all_reduce: averages tensors over all learners, in place; None is for one alone.
        transforms: random changes of training pictures, float32 [B, ..., channels, height, width]
            within 0 and 1, drawn from torch's default generator.

    Raises:
        ConfigError: the policy asks for an optimiser that does not exist.
    """

    def __init__(
        self,
        policy: ImitationPolicy,
        *,
        total_updates: int,
        seed: int,
        rank: int = 0,
        all_reduce: Callable[[list[Tensor]], None] | None = None,
        transforms: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.policy = policy
        self.num_updates = 0
        config = policy.config
        self._preset = config.optimizer
        self._optimizer = make_optimizer(policy.model.parameter_groups(), self._preset)
        trained = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        self._parameters = {
            name: p for name, p in policy.model.named_parameters() if id(p) in trained
        }
        decay = config.ema_decay
        self._average = None if decay is None else MovingAverage(self._parameters, decay)
        self._total_updates = total_updates
        self._seed, self._rank = seed, rank
        self._all_reduce = all_reduce
        self._transforms = transforms
        self._figures = Figures()
        self._metrics: dict[str, float] = {}

    def update(self, batches: Iterator[RawBatch]) -> None:
        """Take one update, on as many batches as are accumulated for it."""
        model = self.policy.model
        if not model.training:
            model.train()
        with seeded(self.policy.device, TRAINING, self._seed, self._rank, self.num_updates):
            for _ in range(self.policy.config.gradient_accumulation_steps):
                self._backward(next(batches))
            self._step()
            if self._all_reduce is not None and (learnt := model.synchronized()):
                self._all_reduce(learnt)
            self.num_updates += 1
            model.after_update(self.num_updates)
        if self._average is not None:
            self._average.update(self.num_updates)

    def validate(self, batches: Iterable[RawBatch]) -> dict[str, float]:
        """Return the mean figures of batches as `validation/...`; see `validation_figures`."""
        return validation_metrics([self.validation_figures(batches)])

    @torch.no_grad()
    def validation_figures(
        self, batches: Iterable[RawBatch], *, rank: int = 0, learners: int = 1
    ) -> Figures:
        """Return the figures of batches for the weights that act, each sample counted once.

        Nothing is dropped out, cropped or changed at random; what else the loss draws depends on
        the seed and the number of the batch alone.

        Args:
            batches: the batches numbered rank, rank + learners, rank + 2 learners, ...
            rank: of the learner.
            learners: how many share the batches.
        """
        figures, model = Figures(), self.policy.model
        acting = nullcontext() if self._average is None else self._average.acting()
        training = model.training
        model.eval()
        try:
            with acting:
                for position, raw in enumerate(batches):
                    batch, number = self.policy.prepare(raw), rank + position * learners
                    with seeded(self.policy.device, VALIDATION, self._seed, number):
                        loss, parts = self._loss(batch)
                    figures.add({"loss": loss, **parts}, weight=len(next(iter(raw.values()))))
        finally:
            model.train(training)
        return figures

    def metrics(self) -> dict[str, float]:
        """Return the mean figures since the last call; this waits for the device.

        `loss/total` and the parts `loss/...`, `train/grad_norm` before clipping, and the newest
        `train/lr` of the first parameter group. Without an update since then, the same as before.
        """
        if self._figures.sums:
            self._metrics = self._figures.means()
            self._metrics["train/lr"] = float(self._optimizer.param_groups[0]["lr"])
            self._figures = Figures()
        return dict(self._metrics)

    def weights(self) -> dict[str, Tensor]:
        """Return what acts, by name: the moving average where there is one."""
        own: dict[str, Tensor] = self.policy.model.state_dict()
        return own if self._average is None else {**own, **self._average.tensors}

    def save_state(self, folder: Path) -> None:
        """Write what resuming needs beside `weights`; see `TrainingState`."""
        self.state().save(folder)

    def load_state(self, folder: Path) -> None:
        """Go back to a saved state; without a moving average, the model must have its weights.

        Raises:
            CheckpointError: a file is missing or damaged, or of another policy.
        """
        state = TrainingState.load(folder)
        with fitting(folder):
            self.set_state(state)

    def state(self) -> TrainingState:
        """Return what resuming needs beside `weights`, not copied."""
        moments, groups = optimizer_state(self._optimizer)
        average, averaged = {}, {}
        if self._average is not None:
            average = self._average.tensors
            averaged = {name: p.detach() for name, p in self._parameters.items()}
        return TrainingState(
            num_updates=self.num_updates,
            moments=moments,
            groups=groups,
            average=average,
            averaged=averaged,
        )

    @torch.no_grad()
    def set_state(self, state: TrainingState) -> None:
        """Take over what `state` returned.

        Raises:
            ValueError, KeyError, IndexError, RuntimeError: it is of another policy.
        """
        if bool(state.average) != (self._average is not None):
            raise ValueError("one has a moving average of the weights, the other has not")
        load_optimizer_state(self._optimizer, state.moments, state.groups)
        if self._average is not None:
            for name, parameter in self._parameters.items():
                parameter.copy_(state.averaged[name])
                self._average.tensors[name].copy_(state.average[name])
        self.num_updates = state.num_updates
        self._figures = Figures()

    def _backward(self, raw: RawBatch) -> None:
        """Add the gradients of one batch."""
        batch = self.policy.prepare(raw, self._transforms)
        loss, parts = self._loss(batch)
        (loss / self.policy.config.gradient_accumulation_steps).backward()
        self._figures.add({"loss/total": loss, **{f"loss/{key}": parts[key] for key in parts}})

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with self.policy.precision():
            return self.policy.model.loss(batch)

    def _step(self) -> None:
        """Turn gradients into an update of the parameters."""
        used = [p for p in self._parameters.values() if p.grad is not None]
        if self._all_reduce is not None:
            self._all_reduce([p.grad for p in used if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(used, self._preset.grad_clip_norm or math.inf)
        self._figures.add({"train/grad_norm": norm})
        factor = self.policy.config.lr_factor(self.num_updates, self._total_updates)
        scale_learning_rates(self._optimizer, factor)
        self._optimizer.step()
        for parameter in used:
            parameter.grad = None


def validation_metrics(parts: Iterable[Figures]) -> dict[str, float]:
    """Return the mean figures of all learners' shares of the held-out batches."""
    return {f"validation/{name}": value for name, value in Figures.merged(parts).means().items()}
