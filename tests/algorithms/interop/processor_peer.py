"""Runs LeRobot's processors on the folders of `test_processor_parity`; needs LeRobot 0.4.

Each folder has `ours` (processor files), `config.json` (a policy's), `stats.safetensors`,
`data.safetensors` and `rename.json`. What LeRobot makes of the data with `ours` goes to
`ours.safetensors`; files of its own for the same policy and statistics go to `theirs`.
"""

import json
import sys
from pathlib import Path

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_file, save_file


def run(folder):
    data = load_file(folder / "data.safetensors")
    config = PreTrainedConfig.from_pretrained(folder)
    stats = {}
    for key, value in load_file(folder / "stats.safetensors").items():
        name, _, stat = key.rpartition(".")
        stats.setdefault(name, {})[stat] = value
    pre, post = make_pre_post_processors(config, dataset_stats=stats)
    pre.steps[0].rename_map = json.loads((folder / "rename.json").read_text())
    for pipeline in (pre, post):
        pipeline.save_pretrained(folder / "theirs")
    pre, post = make_pre_post_processors(config, pretrained_path=str(folder / "ours"))
    told = pre(dict(data))
    result = {f"into.{key}": value for key, value in told.items() if torch.is_tensor(value)}
    result["back"] = post(data["action"])
    wanted = {key: value.clone() for key, value in result.items() if value.dim() > 1}
    save_file(wanted, folder / "ours.safetensors")


for name in sys.argv[1:]:
    run(Path(name))
