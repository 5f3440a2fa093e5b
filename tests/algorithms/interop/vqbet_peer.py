"""Runs LeRobot's VQ-BeT on the folders of `test_vqbet_parity`, for comparison; needs LeRobot 0.4.

Each folder has `ours` (a policy in its first phase), `stats.safetensors` and `data.safetensors`;
what LeRobot makes of it goes to `ours.safetensors`, and a policy of its own with the same options
to `theirs`, what that one makes to `theirs.safetensors`. `keys.json` lists its tensors, groups of
parameters and learning rates.
"""

import json
import sys
from pathlib import Path

import draccus
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy
from lerobot.policies.vqbet.processor_vqbet import make_vqbet_pre_post_processors
from safetensors.torch import load_file, save_file

SEED = 7


def seen_by_lerobot(data):
    """Return a batch as LeRobot's datasets give it: pictures are floats, channels first."""
    return {
        key: value.movedim(-1, -3).float() / 255 if "image" in key else value
        for key, value in data.items()
    }


def end_first_phase(policy):
    """Do what LeRobot does after the last update of the first phase."""
    vqvae = policy.vqbet.action_head.vqvae_model
    vqvae.discretized = torch.tensor(True)
    vqvae.vq_layer.freeze_codebook = torch.tensor(True)


def played(policy, preprocess, postprocess, frames):
    """Return the actions of some steps in environments that are played together."""
    policy.reset()
    torch.manual_seed(SEED)
    actions = []
    for step in range(len(frames["observation.state"])):
        frame = {key: value[step] for key, value in frames.items()}
        action = policy.select_action(preprocess(seen_by_lerobot(frame)))
        actions.append(postprocess(action))
    return torch.stack(actions)


def update(policy, batch, prefix):
    """Take one update, and return its figures, gradients and all tensors after it."""
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    policy.train()
    torch.manual_seed(SEED)
    loss, figures = policy.forward(batch)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
    optimizer.step()
    result = {"loss": loss.detach(), "norm": norm.detach()}
    result |= {f"figure/{name}": torch.as_tensor(float(value)) for name, value in figures.items()}
    for name, parameter in policy.named_parameters():
        if parameter.grad is not None:
            result[f"grad/{name}"] = parameter.grad
    result |= {f"after/{name}": tensor for name, tensor in policy.state_dict().items()}
    return {f"{prefix}/{name}": tensor.clone().contiguous() for name, tensor in result.items()}


def outcome(folder, preprocess, postprocess, data):
    """Return what the test compares: an update of each phase, a validation, played actions."""
    frames = {key[6:]: value for key, value in data.items() if key.startswith("frame/")}
    windows = {key: value for key, value in data.items() if key.startswith(("obs", "act"))}
    batch = preprocess(seen_by_lerobot(windows))
    result = update(VQBeTPolicy.from_pretrained(folder, strict=True), batch, "first")
    policy = VQBeTPolicy.from_pretrained(folder, strict=True)
    end_first_phase(policy)
    result["played"] = played(policy, preprocess, postprocess, frames)
    torch.manual_seed(SEED)
    result["validation"] = policy.forward(batch)[0].detach()
    return result | update(policy, batch, "second")


def learning_rates(config, updates):
    """Return the learning rate of each update of a run."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.optimizer_lr)
    scheduler = config.get_scheduler_preset().build(optimizer, updates)
    rates = []
    for _ in range(updates):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def listed(policy):
    """Return names and shapes of tensors, groups of parameters, and learning rates."""
    names = {id(p): name for name, p in policy.named_parameters()}
    return {
        "tensors": {name: list(tensor.shape) for name, tensor in policy.state_dict().items()},
        "groups": [[names[id(p)] for p in g["params"]] for g in policy.get_optim_params()],
        "learning_rates": learning_rates(policy.config, 1200),
        "defaults": draccus.encode(VQBeTConfig(device="cpu")),
    }


def scatter(policy):
    """Give every weight a value that shows where it is used."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in policy.state_dict().items():
        if tensor.is_floating_point() and not name.endswith(("pos_grid", "attn.bias", "initted")):
            noise = torch.randn(tensor.shape, generator=generator) * 0.02
            positive = "running_var" in name or "cluster_size" in name
            tensor.add_(noise.abs() if positive else noise)


def read_stats(folder):
    """Return the statistics of the dataset."""
    stats = {}
    for key, value in load_file(folder / "stats.safetensors").items():
        name, _, stat = key.rpartition(".")
        stats.setdefault(name, {})[stat] = value
    return stats


def run(folder):
    """Run both directions of one case."""
    keys_only = json.loads((folder / "case.json").read_text())["keys_only"]
    config = PreTrainedConfig.from_pretrained(folder / "ours")
    torch.manual_seed(0)
    theirs = VQBeTPolicy(config)
    (folder / "keys.json").write_text(json.dumps(listed(theirs)))
    if keys_only:
        return
    processors = make_vqbet_pre_post_processors(config, read_stats(folder))
    scatter(theirs)
    theirs.save_pretrained(folder / "theirs")
    for processor in processors:
        processor.save_pretrained(folder / "theirs")
    data = load_file(folder / "data.safetensors")
    save_file(outcome(folder / "theirs", *processors, data), folder / "theirs.safetensors")
    processors = make_pre_post_processors(config, pretrained_path=str(folder / "ours"))
    save_file(outcome(folder / "ours", *processors, data), folder / "ours.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sorted(Path(sys.argv[1]).iterdir()):
        run(case)
