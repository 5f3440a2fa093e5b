"""Runs LeRobot's Diffusion Policy on the folders of `test_diffusion_parity`; needs LeRobot 0.4.

Each folder has `ours` (a policy), `stats.safetensors` and `data.safetensors`; what LeRobot makes of
it goes to `ours.safetensors`, and a policy of its own with the same options to `theirs`, what that
one makes to `theirs.safetensors`. `keys.json` lists its tensors.
"""

import json
import sys
from pathlib import Path

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_file, save_file

SEED = 7


def seen_by_lerobot(data):
    """Return a batch as LeRobot's datasets give it: pictures are floats, channels first."""
    return {
        key: value.movedim(-1, -3).float() / 255 if "image" in key else value
        for key, value in data.items()
    }


def played(policy, preprocess, postprocess, frames):
    """Return the actions of some steps in environments that are played together."""
    policy.reset()
    torch.manual_seed(SEED)
    steps = len(next(iter(frames.values())))
    actions = []
    for step in range(steps):
        frame = {key: value[step] for key, value in frames.items()}
        action = policy.select_action(preprocess(seen_by_lerobot(frame)))
        actions.append(postprocess(action))
    return torch.stack(actions)


def outcome(policy, preprocess, postprocess, data):
    """Return what the test compares: played actions, a chunk, the losses, and one update."""
    frames = {key[6:]: value for key, value in data.items() if key.startswith("frame/")}
    windows = {key: value for key, value in data.items() if key.startswith(("obs", "act"))}
    result = {"played": played(policy, preprocess, postprocess, frames)}
    policy.reset()
    frame = {key: value[0] for key, value in frames.items()}
    first = policy.select_action(preprocess(seen_by_lerobot(frame)), noise=data["noise"].clone())
    result["first"] = postprocess(first)
    torch.manual_seed(SEED)
    result["validation"] = policy.forward(preprocess(seen_by_lerobot(windows)))[0].detach()
    policy.train()
    torch.manual_seed(SEED)
    loss, _ = policy.forward(preprocess(seen_by_lerobot(windows)))
    result["loss"] = loss.detach()
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
    result["norm"] = norm.detach()
    optimizer.step()
    for name, parameter in policy.named_parameters():
        if parameter.grad is not None:
            result[f"grad/{name}"] = parameter.grad.clone()
    for name, tensor in policy.state_dict().items():
        result[f"after/{name}"] = tensor.clone()
    return {key: value.contiguous() for key, value in result.items()}


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


def scatter(policy):
    """Give every weight a value that shows where it is used."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in policy.state_dict().items():
        if tensor.is_floating_point() and "pos_grid" not in name:
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(
                noise.abs() * 0.2 + 0.9 if "running_var" in name else tensor + noise * 0.02
            )


def read_stats(folder):
    """Return the statistics of the dataset."""
    stats = {}
    for key, value in load_file(folder / "stats.safetensors").items():
        name, _, stat = key.rpartition(".")
        stats.setdefault(name, {})[stat] = value
    return stats


def run(folder):
    """Run both directions of one case."""
    spec = json.loads((folder / "case.json").read_text())
    config = PreTrainedConfig.from_pretrained(folder / "ours")
    for name, value in spec["set"].items():
        setattr(config, name, value)
    torch.manual_seed(0)
    theirs = DiffusionPolicy(config)
    keys = {
        "tensors": {name: list(tensor.shape) for name, tensor in theirs.state_dict().items()},
        "parameters": [name for name, _ in theirs.named_parameters()],
        "learning_rates": learning_rates(config, 1200),
    }
    (folder / "keys.json").write_text(json.dumps(keys))
    if spec["keys_only"]:
        return

    processors = make_diffusion_pre_post_processors(config, read_stats(folder))
    scatter(theirs)
    theirs.save_pretrained(folder / "theirs")
    for processor in processors:
        processor.save_pretrained(folder / "theirs")
    if spec["set"]:
        return

    data = load_file(folder / "data.safetensors")
    theirs = DiffusionPolicy.from_pretrained(folder / "theirs", strict=True)
    save_file(outcome(theirs, *processors, data), folder / "theirs.safetensors")
    ours = DiffusionPolicy.from_pretrained(folder / "ours", strict=True)
    processors = make_pre_post_processors(config, pretrained_path=str(folder / "ours"))
    save_file(outcome(ours, *processors, data), folder / "ours.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sorted(Path(sys.argv[1]).iterdir()):
        run(case)
