"""RLlib's APPO learner, whose thread can be waited for."""

import threading
import time
from typing import Any

from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
from ray.rllib.algorithms.appo.utils import CircularBuffer
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_TRAINED_LIFETIME

POLL_S = 0.001
"""Time between two looks into an empty buffer."""
SETTLE_TIMEOUT_S = 600.0
"""How long the thread may take for the batches that wait."""


class CountingBuffer(CircularBuffer):  # type: ignore[misc]
    """RLlib's buffer of batches between two threads, which knows when all of them are done."""

    def __init__(self, num_batches: int, iterations_per_batch: int) -> None:
        super().__init__(num_batches=num_batches, iterations_per_batch=iterations_per_batch)
        self._gate = threading.Lock()
        self._in_hand = 0

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - RLlib's signature
        """Wait for a batch, and take it together with the duty to call `task_done`."""
        while True:
            with self._gate:
                if len(self):
                    self._in_hand += 1
                    return super().get(block, timeout)
            time.sleep(POLL_S)

    def task_done(self) -> None:
        """Say that a batch has been learned from."""
        with self._gate:
            self._in_hand -= 1

    @property
    def is_done(self) -> bool:
        """Whether every batch has been learned from."""
        with self._gate:
            return not self._in_hand and not len(self)


class SettlingAPPOLearner(APPOTorchLearner):  # type: ignore[misc]
    """The stock learner; what it adds is `settle`, and the target network's age."""

    def build(self) -> None:
        """Make the buffer, then everything else (RLlib's name)."""
        self._trained_steps = 0
        self._buffer = CountingBuffer(
            self.config.circular_buffer_num_batches,
            self.config.circular_buffer_iterations_per_batch,
        )
        super().build()

    @property
    def _learner_thread_in_queue(self) -> CountingBuffer:
        return self._buffer

    @_learner_thread_in_queue.setter
    def _learner_thread_in_queue(self, buffer: CircularBuffer) -> None:
        """Keep the own buffer; the one that the base class makes cannot be waited for."""

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Note how far training is (RLlib's name)."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._trained_steps = int(timesteps.get(NUM_ENV_STEPS_TRAINED_LIFETIME, 0))

    def settle(self) -> None:
        """Wait until the thread has learned from every batch it was given.

        Raises:
            RuntimeError: the thread has died, or does not come to an end.
        """
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while not self._buffer.is_done:
            if not self._learner_thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the learner's thread has stopped; its error is in the log")
            time.sleep(POLL_S)

    @property
    def target_age(self) -> int:
        """Trained environment steps since the target network was last updated."""
        return int(self._trained_steps - self._last_update_ts_by_mid[DEFAULT_MODULE_ID])

    @target_age.setter
    def target_age(self, steps: int) -> None:
        self._last_update_ts_by_mid[DEFAULT_MODULE_ID] = self._trained_steps - steps
