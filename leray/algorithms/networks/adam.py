"""Adam over one flat block of parameters, in one fused call."""

import torch
from torch import Tensor


class FlatAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) on a flat parameter block.

    One kernel updates the whole block; nothing is synchronised with the host.
    """

    def __init__(self, parameters: Tensor, learning_rate: float) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.grad = torch.zeros_like(parameters)
        """Gradient to apply, written by the caller; same shape as the parameters."""
        self._exp_avg = torch.zeros_like(parameters)
        self._exp_avg_sq = torch.zeros_like(parameters)
        self._step = torch.zeros((), device=parameters.device)

    @torch.no_grad()
    def step(self, max_norm: float | None = None) -> None:
        """Apply `grad`, after clipping it to `max_norm` if one is given."""
        if max_norm is not None:
            norm = torch.linalg.vector_norm(self.grad)
            self.grad.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
        self._step += 1
        torch._fused_adam_(  # the kernel behind Adam(fused=True), minus its overhead
            [self.parameters],
            [self.grad],
            [self._exp_avg],
            [self._exp_avg_sq],
            [],
            [self._step],
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return moments and step count; the parameters belong to their network."""
        return {"exp_avg": self._exp_avg, "exp_avg_sq": self._exp_avg_sq, "step": self._step}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy moments and step count in place."""
        for name, own in self.state_dict().items():
            own.copy_(state[name])
