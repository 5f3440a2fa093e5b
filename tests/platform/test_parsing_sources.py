"""Configs that come from elsewhere: a run that is resumed, a checkpoint, an installed plugin."""

import json
from pathlib import Path
from typing import Any

import pytest

from leray.algorithms import plugins
from leray.algorithms.sac.config import SACPolicyConfig
from leray.envs.config import GymEnvConfig
from leray.errors import CheckpointError, ConfigError
from leray.platform.config import TrainConfig
from leray.platform.parsing import dump, encode, load, parse

BASE = ["--policy.type=sac", "--env.type=gym", "--env.task=Reach-v0"]


def message(config_class: type, *flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(config_class, flags, command="train")
    text = str(caught.value)
    assert "\n" not in text
    return text


# Resume


def make_run(root: Path, **changes: Any) -> Path:
    """Lay out a run with one checkpoint, as training leaves it."""
    config = TrainConfig(
        policy=SACPolicyConfig(utd_ratio=4),
        env=GymEnvConfig(task="Reach-v0"),
        output_dir=Path("where/it/was/made"),
        **changes,
    )
    model = root / "checkpoints" / "000100" / "pretrained_model"
    model.mkdir(parents=True)
    (root / "checkpoints" / "last").symlink_to("000100")
    (root / "train_config.yaml").write_text(dump(config))
    (model / "train_config.json").write_text(json.dumps(encode(config)))
    stored = {**encode(config.policy), "input_features": {"observation.state": {"shape": [3]}}}
    (model / "config.json").write_text(json.dumps(stored))
    return root


def test_resume_by_output_dir_takes_the_run_s_config(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    config = parse(
        TrainConfig, ["--resume=true", f"--output_dir={run}", "--steps=9"], command="train"
    )
    assert config.resume is True
    assert config.output_dir == run
    assert config.steps == 9
    assert isinstance(config.policy, SACPolicyConfig)
    assert config.policy.utd_ratio == 4


def test_resume_by_config_path_finds_the_run_it_is_in(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for file in (
        run / "checkpoints/last/pretrained_model/train_config.json",
        run / "train_config.yaml",
    ):
        config = parse(TrainConfig, [f"--config_path={file}", "--resume=true"], command="train")
        assert config.output_dir == run


def test_a_stored_resume_does_not_leak_into_a_new_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", resume=True)
    flags = [f"--config_path={run / 'train_config.yaml'}", "--output_dir=new"]
    assert parse(TrainConfig, flags, command="train").resume is False


def test_resume_without_a_run_says_what_to_give(tmp_path: Path) -> None:
    assert message(TrainConfig, "--resume=true").startswith("--resume=true: which run?")
    text = message(TrainConfig, "--resume", f"--output_dir={tmp_path}")
    assert text == f"--output_dir={tmp_path}: no run to resume, train_config.yaml is not there"


# --policy.path


@pytest.mark.parametrize("inside", ["", "checkpoints/last", "checkpoints/last/pretrained_model"])
def test_policy_path_takes_options_and_weights_of_a_checkpoint(tmp_path: Path, inside: str) -> None:
    run = make_run(tmp_path / "run")
    flags = [f"--policy.path={run / inside}", "--policy.actor_lr=1e-5", *BASE[1:]]
    policy = parse(TrainConfig, flags, command="train").policy
    assert isinstance(policy, SACPolicyConfig)
    assert policy.utd_ratio == 4
    assert policy.actor_lr == 1e-5
    assert policy.pretrained_path is not None
    assert (Path(policy.pretrained_path) / "config.json").is_file()


def test_policy_path_replaces_the_file_s_policy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    file = tmp_path / "base.yaml"
    file.write_text("policy: {type: sac, actor_lr: 0.5}\nenv: {type: gym, task: Reach-v0}")
    flags = [f"--config_path={file}", f"--policy.path={run}"]
    policy = parse(TrainConfig, flags, command="train").policy
    assert isinstance(policy, SACPolicyConfig)
    assert (policy.utd_ratio, policy.actor_lr) == (4, 3e-4)


def test_policy_path_may_stand_in_a_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    file = tmp_path / "base.yaml"
    file.write_text(f"policy: {{path: {run}, actor_lr: 0.5}}\nenv: {{type: gym, task: Reach-v0}}")
    parsed = parse(TrainConfig, [f"--config_path={file}"], command="train")
    assert isinstance(parsed.policy, SACPolicyConfig)
    assert (parsed.policy.utd_ratio, parsed.policy.actor_lr) == (4, 0.5)
    assert load(TrainConfig, file) == parsed


def test_policy_path_excludes_policy_type(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "drop --policy.type" in message(TrainConfig, *BASE, f"--policy.path={run}")


def test_policy_path_to_nothing_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        parse(TrainConfig, [f"--policy.path={tmp_path / 'no'}", *BASE[1:]], command="train")


# Plugins


class FakeEntryPoint:
    name, value, dist = "toy", "toy_package.config", None

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.loaded = 0

    def load(self) -> None:
        self.loaded += 1
        if self.error:
            raise self.error


def test_plugins_of_both_groups_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"leray.policies": [FakeEntryPoint()], "leray.envs": [FakeEntryPoint()]}
    monkeypatch.setattr(plugins, "entry_points", lambda group: found[group])
    plugins.register_plugins()
    assert [found[group][0].loaded for group in found] == [1, 1]


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [FakeEntryPoint(ImportError("no module toy"))]
    monkeypatch.setattr(plugins, "entry_points", lambda group: broken)
    with pytest.raises(
        ConfigError, match=r"plugin toy of .* does not load: ImportError: no module"
    ):
        plugins.register_plugins()
