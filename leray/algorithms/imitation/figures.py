"""Figures of many batches, summed where they were computed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Figures:
    """Weighted sums of figures by name; nothing waits for the device until means are asked for."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def add(self, figures: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add the figures of one batch.

        Args:
            figures: tensors of one number.
            weight: how much the batch counts.
        """
        for name, value in figures.items():
            weighted = value.detach().to(torch.float32) * weight
            self.sums[name] = self.sums[name] + weighted if name in self.sums else weighted
            self.weights[name] = self.weights.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        """Return the weighted means; this waits for the device, once."""
        if not self.sums:
            return {}
        sums = torch.stack(list(self.sums.values())).tolist()
        return {
            name: value / self.weights[name] for name, value in zip(self.sums, sums, strict=True)
        }

    def cpu(self) -> "Figures":
        """Return a copy that other processes can read."""
        return Figures({name: value.cpu() for name, value in self.sums.items()}, dict(self.weights))

    @classmethod
    def merged(cls, parts: Iterable["Figures"]) -> "Figures":
        """Return the figures of all batches that several have seen."""
        merged = cls()
        for part in parts:
            for name, value in part.sums.items():
                merged.sums[name] = merged.sums[name] + value if name in merged.sums else value
                merged.weights[name] = merged.weights.get(name, 0.0) + part.weights[name]
        return merged
