"""The RLModule that lets RLlib carry a policy: its parameters are a few flat buffers."""

from pathlib import Path
from typing import Any

import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from leray.algorithms.config import PolicyConfig
from leray.algorithms.processor import Processor, make_processor
from leray.algorithms.registry import policy_class
from leray.envs.spaces import from_spaces


class PolicyModule(TorchRLModule):  # type: ignore[misc]
    """Holds `policy`; acting and learning call that directly, not `forward_*`."""

    def setup(self) -> None:
        """Build the policy from the spaces and the model config (RLlib's name)."""
        config: PolicyConfig = self.model_config["policy"]
        features = from_spaces(self.observation_space, self.action_space)
        kind = policy_class(config.type)
        if config.pretrained_path is not None:
            processor = Processor.load(Path(config.pretrained_path), features)
        else:
            processor = make_processor(
                features, config.normalization_mapping, self.model_config["dataset_stats"]
            )
        self.policy = kind(config, processor)
        blocks = self.policy.blocks()
        for name in ["acting"] if self.inference_only else list(blocks):
            self.register_buffer(name, blocks[name])

    def place(self, device: torch.device) -> None:
        """Move policy and buffers to a device."""
        self.policy.to(device)
        for name, block in self.policy.blocks().items():
            if name in self._buffers:
                self._buffers[name] = block

    def get_state(self, *args: Any, inference_only: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Return the blocks as numpy arrays; only the acting one for inference (RLlib's name)."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        return {"acting": state["acting"]} if inference_only else state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over blocks in place (RLlib's name)."""
        super().set_state(state)
        self.policy.refresh()
