"""Command lines and files to configs; each wrong input is one exact line."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import draccus
import pytest
import yaml

from leray.algorithms.config import PolicyConfig
from leray.algorithms.plugins import register_plugins
from leray.algorithms.sac.config import MLPConfig, SACPolicyConfig
from leray.envs.config import EnvConfig, GymEnvConfig
from leray.errors import ConfigError
from leray.platform.config import (
    DatasetConfig,
    EvalPolicyConfig,
    EvalRunConfig,
    RecordConfig,
    RecordDatasetConfig,
    TrainConfig,
)
from leray.platform.info import InfoConfig
from leray.platform.parsing import dump, encode, load, parse
from leray.platform.ui import UiConfig

BASE = ["--policy.type=sac", "--env.type=gym", "--env.task=Reach-v0"]


@dataclass(kw_only=True)
class Shape(draccus.ChoiceRegistry):
    """A choice of kinds that only these tests know."""

    colour: str = "red"
    """Colour of the shape."""


@dataclass(kw_only=True)
class Layout:
    """A nested section."""

    rows: int = 1
    columns: int = 1


@Shape.register_subclass("circle")
@dataclass(kw_only=True)
class Circle(Shape):
    radius: float = 1.0
    """Radius in metres."""


@Shape.register_subclass("square")
@dataclass(kw_only=True)
class Square(Shape):
    side: float
    """Side in metres."""


@Shape.register_subclass("dot")
@dataclass(kw_only=True)
class Dot(Shape):
    """A kind without options of its own."""


@dataclass(kw_only=True)
class Drawing:
    shape: Shape = field(default_factory=Circle)
    layout: Layout = field(default_factory=lambda: Layout(rows=3, columns=4))
    scale: float | None = None
    label: str | None = None
    flat: bool = False


def train(*flags: str) -> TrainConfig:
    return parse(TrainConfig, [*BASE, *flags], command="train")


def draw(*flags: str) -> Drawing:
    return parse(Drawing, flags, command="draw")


def message(config_class: type, *flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(config_class, flags, command="train")
    text = str(caught.value)
    assert "\n" not in text
    return text


# What is accepted


def test_flags_with_equals_and_with_space_give_the_same() -> None:
    assert train("--steps=5", "--seed=7") == train("--steps", "5", "--seed", "7")


def test_values_take_the_types_of_their_fields() -> None:
    config = train(
        "--policy.actor_lr=1e-4",
        "--policy.actor_network_kwargs.hidden_dims=[64, 32]",
        "--env.kwargs={threshold: 1e-3, mode: rgb}",
        "--output_dir=out",
        "--policy.target_entropy=-3",
        "--keep_checkpoints=null",
        "--steps=1e6",
    )
    assert isinstance(config.policy, SACPolicyConfig)
    assert config.policy.actor_lr == 1e-4
    assert config.policy.actor_network_kwargs.hidden_dims == [64, 32]
    assert config.env is not None
    assert config.env.kwargs == {"threshold": 1e-3, "mode": "rgb"}
    assert config.output_dir == Path("out")
    assert config.policy.target_entropy == -3
    assert config.keep_checkpoints is None
    assert config.steps == 1_000_000
    assert isinstance(config.steps, int)


def test_a_negative_number_may_follow_a_space() -> None:
    assert draw("--scale", "-2.5").scale == -2.5


@pytest.mark.parametrize("text", ["true", "on", "5", "1e5", "[a]", "include.txt"])
def test_text_options_keep_the_text_as_written(text: str) -> None:
    assert draw(f"--label={text}").label == text


def test_a_tilde_is_the_home_folder() -> None:
    assert train("--output_dir=~/runs").output_dir == Path.home() / "runs"


def test_a_bare_switch_means_true_and_does_not_swallow_the_next_flag() -> None:
    drawing = draw("--flat", "--scale=2")
    assert drawing.flat is True
    assert drawing.scale == 2


def test_the_last_of_a_repeated_flag_counts() -> None:
    assert train("--steps=1", "--steps=2").steps == 2


def test_entries_of_a_mapping_can_be_given_one_by_one() -> None:
    config = train("--env.kwargs={a: 1}", "--env.kwargs.b=2")
    assert config.env is not None
    assert config.env.kwargs == {"a": 1, "b": 2}


def test_a_partly_given_section_keeps_the_defaults_of_its_owner() -> None:
    assert draw("--layout.columns=9").layout == Layout(rows=3, columns=9)
    assert draw("--shape.radius=2").shape == Circle(radius=2)
    assert draw("--shape.type=square", "--shape.side=2").shape == Square(side=2)


def test_null_leaves_an_optional_section_out(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(dump(train("--dataset.root=data")))
    flags = [f"--config_path={file}", "--env=null", "--use_online_training=false"]
    assert parse(TrainConfig, flags, command="train").env is None


# What is refused, in which words

WRONG = [
    ("--stepz=5", "--stepz: unknown flag; did you mean --steps? `leray train --help` lists all"),
    ("--batch-size=5", "--batch-size: unknown flag; did you mean --batch_size?"),
    ("--task=Reach", "--task: unknown flag; did you mean --env.task?"),
    ("--polcy.type=sac", "--polcy.type: unknown flag; did you mean --policy.type?"),
    ("--qqqqqq=5", "--qqqqqq: unknown flag; `leray train --help` lists all"),
    (
        "--policy.utd_ration=5",
        "--policy.utd_ration: unknown flag; did you mean --policy.utd_ratio?",
    ),
    (
        "steps=5",
        "steps=5: not an option; options are written --name=value; did you mean --steps=5?",
    ),
    ("-steps=5", "-steps=5: not an option; options are written --name=value; did you mean"),
    ("--steps=abc", "--steps=abc: wanted a whole number"),
    ("--steps=1.5", "--steps=1.5: wanted a whole number"),
    ("--steps=true", "--steps=true: wanted a whole number"),
    ("--steps=null", "--steps=null: wanted a whole number"),
    ("--steps=", "--steps=: wanted a whole number"),
    ("--steps", "--steps: needs a value: --steps=<a whole number>"),
    ("--batch_size=x", "--batch_size=x: wanted a whole number or null"),
    ("--save_checkpoint=maybe", "--save_checkpoint=maybe: wanted true or false"),
    ("--policy.actor_lr=[1]", "--policy.actor_lr=[1]: wanted a number"),
    ("--policy.actor_lr=[1", "--policy.actor_lr=[1: wanted a number"),
    ("--env.kwargs=3", "--env.kwargs=3: wanted a mapping such as '{a: 1}'"),
    ("--env.kwargs.a=[1", "--env.kwargs.a=[1: not readable as YAML"),
    (
        "--dataset=folder",
        "--dataset=folder: dataset is a group of options; give --dataset.<option>=",
    ),
    ("--eval", "--eval: needs a value, or an option of this group: --eval.<option>="),
    ("--runners.clock=asink", "unknown; allowed are sync, async, null; did you mean async?"),
    ("--policy.precision=fp8", "--policy.precision=fp8: unknown; allowed are float32, bfloat16"),
    ("--steps=0", "--steps=0: give a whole number >= 1"),
    ("--policy.actor_network_kwargs.hidden_dims=[0]", "hidden_dims=[0]: give at least one width"),
]


@pytest.mark.parametrize(("flag", "expected"), WRONG, ids=[flag for flag, _ in WRONG])
def test_wrong_flags_say_what_is_wrong(flag: str, expected: str) -> None:
    assert expected in message(TrainConfig, *BASE, flag)


def test_unknown_choice_names_the_allowed_and_the_nearest() -> None:
    text = message(TrainConfig, "--policy.type=sacc")
    allowed = ", ".join(sorted(PolicyConfig.get_known_choices()))
    assert text == f"--policy.type=sacc: unknown; allowed are {allowed}; did you mean sac?"


def test_missing_required_options_are_named() -> None:
    assert message(TrainConfig).startswith("--policy.type is missing: choose one of ")
    assert message(TrainConfig, "--policy.type=sac", "--env.task=Reach") == (
        "--env.type is missing: choose one of gym, panda_gym"
    )
    assert message(EvalRunConfig).startswith("--policy.path is missing: give a path. Checkpoint")
    assert message(Drawing, "--shape.type=square") == (
        "--shape.side is missing: give a number. Side in metres."
    )


def test_an_option_of_another_choice_is_refused_by_name() -> None:
    text = message(Drawing, "--shape.type=square", "--shape.side=1", "--shape.radius=2")
    assert text == "--shape.radius=2: shape.radius belongs to --shape.type=circle, not to square"
    text = message(Drawing, "--shape.side=2")
    assert text == "--shape.side=2: shape.side belongs to --shape.type=square, not to circle"
    text = message(Drawing, "--shape.type=dot", "--shape.side=2")
    assert text == "--shape.side=2: shape.side belongs to --shape.type=square, not to dot"


def test_a_section_and_its_option_contradict_each_other() -> None:
    assert message(TrainConfig, *BASE, "--env=null") == (
        "--env=null contradicts --env.type: give one of them"
    )


# Files


def test_flags_override_the_file_and_the_file_overrides_defaults(tmp_path: Path) -> None:
    for file, text in (
        (tmp_path / "a.yaml", "shape: {type: square, side: 2}\nscale: 1e-3\n"),
        (tmp_path / "a.json", '{"shape": {"type": "square", "side": 2}, "scale": 0.001}'),
    ):
        file.write_text(text)
        drawing = draw(f"--config_path={file}", "--shape.side=5")
        assert drawing == Drawing(shape=Square(side=5), scale=1e-3)


BAD_FILES = [
    ("scael: 2", "scael: unknown key; did you mean scale?"),
    ("layout: {rwos: 2}", "layout.rwos: unknown key; did you mean layout.rows?"),
    ("scale: fast", "scale=fast: wanted a number or null"),
    ("label: yes", "label=True: wanted text or null"),
    ("layout: null", "layout=null: layout is a group of options"),
    ("layout: 5", "layout=5: layout is a group of options; give --layout.<option>=<value>"),
    (
        "shape: {type: squar}",
        "shape.type=squar: unknown; allowed are circle, dot, square; did you mean",
    ),
    ("shape: {type: circle, side: 1}", "shape.side belongs to --shape.type=square, not to circle"),
    ("a: [1", "damaged, not readable as YAML or JSON"),
    ("", "holds no options"),
    ("- 1", "holds no options"),
]


@pytest.mark.parametrize(("text", "expected"), BAD_FILES, ids=[text for text, _ in BAD_FILES])
def test_wrong_files_say_file_and_key(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "drawing.yaml"
    file.write_text(text)
    found = message(Drawing, f"--config_path={file}")
    assert found.startswith(f"{file}: ")
    assert expected in found


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    missing = message(Drawing, f"--config_path={tmp_path / 'no.yaml'}")
    assert missing == f"{tmp_path / 'no.yaml'}: no such config file; give a YAML or JSON file"
    assert "cannot be read" in message(Drawing, f"--config_path={tmp_path}")
    (tmp_path / "cut.json").write_text('{"scale": ')
    assert "damaged" in message(Drawing, f"--config_path={tmp_path / 'cut.json'}")
    (tmp_path / "noise.yaml").write_bytes(b"\xff\xfe\x00\x81")
    assert "cannot be read" in message(Drawing, f"--config_path={tmp_path / 'noise.yaml'}")
    assert message(Drawing, "--config_path").startswith("--config_path: needs a value")


def test_a_yaml_file_cannot_run_code(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("label: !!python/object/apply:os.getcwd []")
    assert "damaged" in message(Drawing, f"--config_path={file}")


# Round trip

CONFIGS: list[Any] = [
    TrainConfig(policy=SACPolicyConfig(), env=GymEnvConfig(task="Reach-v0")),
    TrainConfig(
        policy=SACPolicyConfig(
            actor_lr=1e-5,
            num_subsample_critics=2,
            actor_network_kwargs=MLPConfig(hidden_dims=[8], layer_norm=True),
        ),
        dataset=DatasetConfig(root=Path("a b/ä"), episodes=[1, 2]),
        output_dir=Path("/tmp/run"),
        job_name="5: yes",
        resume=True,
        batch_size=3,
    ),
    EvalRunConfig(policy=EvalPolicyConfig(path=Path("run"))),
    RecordConfig(
        env=GymEnvConfig(task="Reach-v0", kwargs={"a": {"b": [1, None, "x"]}}),
        dataset=RecordDatasetConfig(root=Path("data")),
    ),
    UiConfig(port=5001),
    InfoConfig(json=True),
    Drawing(shape=Square(side=3)),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_dump_and_load_round_trip(tmp_path: Path, config: Any) -> None:
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load(type(config), tmp_path / "config.yaml") == config
    (tmp_path / "config.json").write_text(json.dumps(encode(config)))
    assert load(type(config), tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("root", "config"),
    [(PolicyConfig, SACPolicyConfig(utd_ratio=20)), (EnvConfig, GymEnvConfig(task="Reach-v0"))],
)
def test_a_choice_alone_round_trips_with_its_type(tmp_path: Path, root: type, config: Any) -> None:
    (tmp_path / "config.yaml").write_text(dump(config))
    assert yaml.safe_load(dump(config))["type"] == config.type
    assert load(root, tmp_path / "config.yaml") == config


def test_every_known_policy_round_trips_with_its_defaults(tmp_path: Path) -> None:
    register_plugins()
    for name, policy in PolicyConfig.get_known_choices().items():
        (tmp_path / f"{name}.yaml").write_text(dump(policy()))
        assert load(PolicyConfig, tmp_path / f"{name}.yaml") == policy()
