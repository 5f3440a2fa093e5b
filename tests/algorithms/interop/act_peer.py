"""Runs LeRobot's ACT on the folders of `test_act_parity`, for comparison; needs LeRobot 0.4.

Each folder has `ours` (a policy), `stats.safetensors` and `data.safetensors`; what LeRobot makes of
it goes to `ours.safetensors`, and a policy of its own with the same options to `theirs`, what that
one makes to `theirs.safetensors`. `keys.json` lists its tensors.
"""

import json
import sys
from pathlib import Path

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.act.processor_act import make_act_pre_post_processors
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_file, save_file

SEED = 7


def seen_by_lerobot(data):
    """Return a batch as LeRobot's datasets give it: pictures are floats, channels first."""
    return {
        key: value.movedim(-1, -3).float() / 255 if "image" in key else value
        for key, value in data.items()
    }


def outcome(policy, preprocess, postprocess, data, spec):
    """Return what the test compares: chunks, a played sequence, the loss, and one update."""
    observations = {key: value for key, value in data.items() if key.startswith("observation")}
    result = {}
    chunk = policy.predict_action_chunk(preprocess(seen_by_lerobot(observations)))
    result["chunk"] = postprocess(chunk)
    policy.reset()
    played = []
    for shift in range(7):
        rolled = {key: value.roll(shift, 0) for key, value in observations.items()}
        action = policy.select_action(preprocess(seen_by_lerobot(rolled)))
        played.append(postprocess(action))
    result["played"] = torch.stack(played)
    batch = preprocess(seen_by_lerobot(data))
    policy.train()
    if spec["double"]:
        policy.double()
        batch = {
            key: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
            for key, value in batch.items()
        }
    torch.manual_seed(SEED)
    loss, figures = policy.forward(batch)
    result["loss"] = loss.detach()
    result["parts"] = torch.tensor(list(figures.values()))
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
    result["norm"] = norm.detach()
    optimizer.step()
    for name, parameter in policy.named_parameters():
        if "backbone" not in name or any(part in name for part in spec["watched"]):
            result[f"grad/{name}"] = parameter.grad.clone()
            result[f"after/{name}"] = parameter.detach().clone()
    return {key: value.contiguous() for key, value in result.items()}


def scatter(policy):
    """Give every tensor values that show where it is used."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in policy.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(noise.abs() * 0.2 + 0.9 if "running_var" in name else tensor + noise * 0.02)


def run(folder):
    """Run both directions of one case."""
    spec = json.loads((folder / "case.json").read_text())
    config = PreTrainedConfig.from_pretrained(folder / "ours")
    torch.manual_seed(0)
    theirs = ACTPolicy(config)
    keys = {
        "tensors": {name: list(tensor.shape) for name, tensor in theirs.state_dict().items()},
        "parameters": [name for name, _ in theirs.named_parameters()],
        "groups": [len(group["params"]) for group in theirs.get_optim_params()],
    }
    (folder / "keys.json").write_text(json.dumps(keys))
    if spec["keys_only"]:
        return

    data = load_file(folder / "data.safetensors")
    ours = ACTPolicy.from_pretrained(folder / "ours", strict=True)
    processors = make_pre_post_processors(config, pretrained_path=str(folder / "ours"))
    save_file(outcome(ours, *processors, data, spec), folder / "ours.safetensors")

    scatter(theirs)
    stats = {}
    for key, value in load_file(folder / "stats.safetensors").items():
        name, _, stat = key.rpartition(".")
        stats.setdefault(name, {})[stat] = value
    processors = make_act_pre_post_processors(config, stats)
    theirs.save_pretrained(folder / "theirs")
    for processor in processors:
        processor.save_pretrained(folder / "theirs")
    theirs = ACTPolicy.from_pretrained(folder / "theirs", strict=True)
    save_file(outcome(theirs, *processors, data, spec), folder / "theirs.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sorted(Path(sys.argv[1]).iterdir()):
        run(case)
