"""What `leray sweep` may be told: files, flags, checks, and the configs of its trials."""

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from leray.errors import ConfigError
from leray.platform.parsing import dump, load, parse
from leray.tune.base import Base
from leray.tune.config import ResourcesConfig, SchedulerConfig, SweepConfig, trial_config

TRAIN: dict[str, Any] = {
    "policy": {"type": "sac"},
    "env": {"type": "gym", "task": "Reach-v0"},
    "steps": 1000,
    "eval_freq": 100,
}
OFFLINE: dict[str, Any] = {
    "policy": {"type": "act"},
    "dataset": {"root": "data"},
    "validation": {"fraction": 0.1},
    "steps": 1000,
    "eval_freq": 100,
}
SPACE: dict[str, Any] = {"policy.actor_lr": {"loguniform": [1e-4, 1e-2]}}


def sweep(**options: Any) -> SweepConfig:
    return SweepConfig(**{"train": TRAIN, "space": SPACE, **options})


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_file_and_flags(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(
        """
train: {policy: {type: sac}, env: {type: gym, task: PandaReach-v3}, steps: 20000, eval_freq: 1000}
space: {policy: {actor_lr: {loguniform: [1e-4, 1e-3]}}, seed: {grid: [0, 1, 2]}}
metric: eval/success_rate
num_trials: 12
search: optuna
scheduler: {type: asha, grace_steps: 4000}
resources: {cpu: 1, gpu: 0, custom: {sim: 1}}
"""
    )
    flags = [f"--config_path={file}", "--train.steps=5000", "--train.policy.utd_ratio=0.5"]
    flags += ["--space.batch_size={choice: [64, 128]}", "--search=random", "--num_trials=3"]
    config = parse(SweepConfig, flags, command="sweep")
    assert config.num_trials == 3
    assert config.scheduler == SchedulerConfig(type="asha", grace_steps=4000)
    assert config.resources == ResourcesConfig(custom={"sim": 1.0})
    trials = config.search_space().sample(3, seed=0)
    assert len(trials) == 9
    train = trial_config(config, trials[-1])
    assert (train.steps, train.eval_freq, train.policy.utd_ratio) == (5000, 1000, 0.5)
    assert train.batch_size in (64, 128)
    assert 1e-4 <= train.policy.actor_lr <= 1e-3
    assert train.seed == 2


def test_flags_alone():
    flags = ["--train.policy.type=sac", "--train.env.type=gym", "--train.env.task=Reach-v0"]
    flags += ["--train.steps=100", "--train.eval_freq=10", "--scheduler.type=asha"]
    flags += ["--space.policy.actor_lr={uniform: [0.1, 0.2]}", "--metric=eval/return_mean"]
    config = parse(SweepConfig, [*flags, "--space.batch_size", "{int: [8, 9]}"], command="sweep")
    assert [variable.key for variable in config.search_space().variables] == [
        "policy.actor_lr",
        "batch_size",
    ]
    assert config.job_name == "Reach-v0_sac"
    assert config.metrics == ["eval/return_mean"]


@pytest.mark.parametrize(
    ("scheduler", "eval_freq"),
    [
        (SchedulerConfig(type="asha"), 500),
        (SchedulerConfig(type="asha", grace_steps=400), 400),
        (SchedulerConfig(type="pbt", perturbation_steps=300), 300),
        (SchedulerConfig(), 20_000),
    ],
)
def test_schedulers_see_trials_on_the_way(tmp_path, scheduler, eval_freq):
    train = {**{k: v for k, v in TRAIN.items() if k != "eval_freq"}, "steps": 5e3}
    config = sweep(train=train, scheduler=scheduler)
    assert trial_config(config, {}).eval_freq == eval_freq
    file = tmp_path / "sweep_config.yaml"
    file.write_text(dump(config))
    assert load(SweepConfig, file) == config


def test_a_flag_replaces_a_domain_of_the_file(tmp_path):
    file = write(
        tmp_path / "s.yaml", {"train": TRAIN, "space": {"policy": {"actor_lr": {"choice": [1.0]}}}}
    )
    flags = [f"--config_path={file}", "--space.policy.actor_lr={choice: [0.5]}"]
    config = parse(SweepConfig, flags, command="sweep")
    assert config.search_space().sample(1, seed=0) == [{"policy.actor_lr": 0.5}]


@pytest.mark.parametrize("metric", ["[eval/success_rate, eval/episode_length]", "eval/return_mean"])
def test_one_metric_or_several_from_a_flag_and_from_a_file(tmp_path, metric):
    several = yaml.safe_load(metric)
    mode: Any = ["max", "min"] if isinstance(several, list) else "max"
    content = {"train": TRAIN, "space": SPACE, "search": "optuna", "mode": mode}
    file = write(tmp_path / "sweep.yaml", content)
    config = parse(SweepConfig, [f"--config_path={file}", f"--metric={metric}"], command="sweep")
    assert config.metric == several
    assert load(SweepConfig, write(file, {**content, "metric": several})) == config


def test_what_is_saved_is_read_back(tmp_path):
    config = sweep(
        space={
            "policy.type": {"grid": ["sac", "ppo"]},
            "policy.actor_lr": {"loguniform": [1e-4, 1e-2], "when": {"policy.type": "sac"}},
        },
        scheduler=SchedulerConfig(type="median"),
        output_dir=Path("out"),
    )
    file = tmp_path / "sweep_config.yaml"
    file.write_text(dump(config))
    assert load(SweepConfig, file) == config


def test_going_on_reads_the_sweeps_own_config(tmp_path):
    (tmp_path / "sweep_config.yaml").write_text(dump(sweep(num_trials=5)))
    flags = ["--resume=true", f"--output_dir={tmp_path}", "--max_failures=7"]
    config = parse(SweepConfig, flags, command="sweep")
    assert (config.num_trials, config.max_failures, config.resume) == (5, 7, True)
    assert config.output_dir == tmp_path
    flags = ["--resume=true", f"--config_path={tmp_path / 'sweep_config.yaml'}"]
    assert parse(SweepConfig, flags, command="sweep").output_dir == tmp_path


def test_going_on_with_nothing_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"no run to resume, sweep_config\.yaml is not there"):
        parse(SweepConfig, ["--resume=true", f"--output_dir={tmp_path}"], command="sweep")


def test_the_default_folder():
    now = datetime.datetime(2026, 1, 2, 3, 4, 5)
    assert sweep().default_output_dir(now) == Path("outputs/sweep/2026-01-02/03-04-05_Reach-v0_sac")
    assert sweep(job_name="lr").job_name == "lr"


def test_options_of_the_base_stay_with_their_kind():
    train = {**TRAIN, "policy": {"type": "sac", "actor_lr": 0.5, "device": "cpu"}}
    config = sweep(train=train, space={"policy.type": {"grid": ["sac", "ppo"]}})
    sac, ppo = (trial_config(config, {"policy.type": kind}).policy for kind in ("sac", "ppo"))
    assert (sac.type, sac.actor_lr, sac.device) == ("sac", 0.5, "cpu")
    assert (ppo.type, ppo.device) == ("ppo", "cpu")


def test_the_kind_of_policy_may_be_given_by_the_space_alone():
    train = {key: value for key, value in TRAIN.items() if key != "policy"}
    config = sweep(train=train, space={"policy.type": {"grid": ["sac", "ppo"]}})
    assert trial_config(config, {"policy.type": "ppo"}).policy.type == "ppo"


def test_values_of_nested_options_and_entries_of_mappings():
    space = {
        "policy.actor_network_kwargs.hidden_dims": {"choice": [[64, 64], [128]]},
        "env": {"kwargs": {"reward_type": {"choice": ["sparse", "dense"]}}},
        "policy.grad_clip_norm": {"choice": [None, 10]},
    }
    config = sweep(train={**TRAIN, "env": {**TRAIN["env"], "kwargs": {"speed": 2}}}, space=space)
    values = {
        "policy.actor_network_kwargs.hidden_dims": [128],
        "env.kwargs.reward_type": "dense",
        "policy.grad_clip_norm": None,
    }
    train = trial_config(config, values)
    assert train.policy.actor_network_kwargs.hidden_dims == [128]
    assert train.env.kwargs == {"speed": 2, "reward_type": "dense"}
    assert train.policy.grad_clip_norm is None


def test_a_value_that_needs_another_is_right_beside_it():
    space = {
        "policy.chunk_size": {"choice": [20, 50]},
        "policy.n_action_steps": {"choice": [10, 20]},
    }
    config = sweep(train=OFFLINE, space=space, metric="validation/loss", mode="min")
    assert len(config.search_space().sample(10, seed=0)) == 4


def test_a_trial_with_a_wrong_value_names_the_key():
    with pytest.raises(ConfigError) as caught:
        trial_config(sweep(), {"policy.actor_lr": "fast"})
    assert str(caught.value) == "train: policy.actor_lr=fast: wanted a number"


POPULATION = {"scheduler": SchedulerConfig(type="pbt")}
PB2 = {"scheduler": SchedulerConfig(type="pb2")}
ASHA = {"scheduler": SchedulerConfig(type="asha")}
TWO = ["eval/success_rate", "eval/return_mean"]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown option of train": (
        {"train": {**TRAIN, "policyx": {"type": "sac"}}},
        "train: policyx.type: unknown key; did you mean policy.type? "
        "`leray train --help` lists all",
    ),
    "unknown option of the space": (
        {"space": {"policy.actr_lr": {"uniform": [0, 1]}}},
        "space: policy.actr_lr: unknown key; did you mean policy.actor_lr? "
        "`leray train --help` lists all",
    ),
    "unknown option in a condition": (
        {"space": {"policy.actor_lr": {"uniform": [0.1, 1], "when": {"policyx.type": "sac"}}}},
        "space: policyx.type: unknown key; did you mean policy.type? "
        "`leray train --help` lists all",
    ),
    "wrong base": (
        {"train": {**TRAIN, "steps": 0}},
        "--train: --steps=0: give a whole number >= 1",
    ),
    "wrong type in the base": (
        {"train": {**TRAIN, "steps": "many"}},
        "--train: steps=many: wanted a whole number",
    ),
    "incomplete base": (
        {"train": {"policy": {"type": "sac"}}},
        "--train: --use_online_training=false needs a dataset: give --dataset.root=<folder>",
    ),
    "folder of the trials": (
        {"train": {**TRAIN, "output_dir": "out"}},
        "--train.output_dir: each trial has its own; drop it",
    ),
    "name in the space": (
        {"space": {"job_name": {"choice": ["a", "b"]}}},
        "--space.job_name: the sweep decides it; drop it",
    ),
    "recording in the space": (
        {"space": {"mlflow.experiment": {"choice": ["a", "b"]}}},
        "--space.mlflow.experiment: the sweep decides it; drop it",
    ),
    "wrong type of a choice": (
        {"space": {"batch_size": {"choice": [64, "many"]}}},
        "--space.batch_size: batch_size=many: wanted a whole number or null",
    ),
    "an end that is refused": (
        {"space": {"policy.actor_lr": {"uniform": [-1, 1]}}},
        "--space.policy.actor_lr: --policy.actor_lr=-1.0: give a number > 0",
    ),
    "the other end": (
        {"space": {"policy.discount": {"uniform": [0.5, 1.5]}}},
        "--space.policy.discount: --policy.discount=1.5: give a number from 0 to 1",
    ),
    "an option of another policy": (
        {"space": {"policy.clip_param": {"uniform": [0.1, 0.3]}}},
        "--space.policy.clip_param: policy.clip_param=0.1: policy.clip_param belongs to "
        "--policy.type=appo or ppo, not to sac",
    ),
    "fractions of a whole number": (
        {"space": {"batch_size": {"uniform": [64, 128]}}},
        "--space.batch_size: uniform: the option is a whole number or null; give int instead",
    ),
    "nothing varies": (
        {"space": {"batch_size": 64}},
        "--space: nothing varies; give at least one domain, such as batch_size: "
        "{choice: [64, 256]}",
    ),
    "no grid": (
        {"search": "grid"},
        "--search=grid: the space holds no grid; write `grid:` for domains of which each value is "
        "to be tried, or give --search=random",
    ),
    "nothing for optuna": (
        {"search": "optuna", "space": {"seed": {"grid": [0, 1]}}},
        "--search=optuna: there is nothing to choose; give a domain other than `grid`, or "
        "--search=grid",
    ),
    "optuna beside a condition on the grid": (
        {
            "search": "optuna",
            "space": {
                "policy.type": {"grid": ["sac", "ppo"]},
                "policy.actor_lr": {"uniform": [0.1, 1], "when": {"policy.type": "sac"}},
            },
        },
        "--space.policy.actor_lr: with --search=optuna each configuration runs at every point of "
        "the grid, so its condition cannot be on policy.type; write `choice` instead of `grid`",
    ),
    "trials that cannot be": (
        {
            "train": OFFLINE,
            "metric": "validation/loss",
            "mode": "min",
            "space": {
                "policy.chunk_size": {"grid": [10, 50]},
                "policy.n_action_steps": {"grid": [10, 20]},
            },
        },
        "--space: policy.chunk_size=10 policy.n_action_steps=20 do not go together: "
        "--policy.n_action_steps=20: give 1 to chunk_size=10; a condition (`when`) can keep them "
        "apart",
    ),
    "unknown metric": (
        {"metric": "eval/sucess_rate"},
        "--metric=eval/sucess_rate: unknown figure; allowed are eval/success_rate, "
        "eval/return_mean, eval/episode_length, eval/act_ms_p50, eval/act_ms_p95, validation/loss, "
        "and what the policy reports as train/, loss/, time/, buffer/, validation/...; did you "
        "mean eval/success_rate?",
    ),
    "no environment": (
        {"train": OFFLINE, "space": {"batch_size": {"choice": [8]}}},
        "--metric=eval/success_rate: needs an environment to judge the policy in; give "
        "--train.env.type=... --train.env.task=..., or --metric=validation/loss",
    ),
    "nothing held out": (
        {"metric": "validation/loss", "mode": "min"},
        "--metric=validation/loss: needs episodes that are held out; give "
        "--train.validation.fraction=0.1",
    ),
    "the highest loss": (
        {"metric": "loss/critic"},
        "--mode=max: the sweep would look for the highest loss/critic; give --mode=min",
    ),
    "unknown mode": ({"mode": "up"}, "--mode=up: allowed are max, min"),
    "a mode for each": (
        {"metric": TWO, "search": "optuna"},
        "--mode=max: give one of max, min for each of the 2 metrics",
    ),
    "several metrics": (
        {"metric": TWO, "mode": ["max", "max"]},
        "--metric=['eval/success_rate', 'eval/return_mean']: several need --search=optuna, not "
        "random",
    ),
    "several metrics and a scheduler": (
        {"metric": TWO, "mode": ["max", "max"], "search": "optuna", **ASHA},
        "--scheduler.type=asha: compares by one metric, and there are 2; give "
        "--scheduler.type=none",
    ),
    "grace beyond the end": (
        {"scheduler": SchedulerConfig(type="asha", grace_steps=1000)},
        "--scheduler.grace_steps=1000: give less than --train.steps=1000",
    ),
    "no reports on the way": (
        {"train": {**TRAIN, "eval_freq": 0}, **ASHA},
        "--train.eval_freq=0: --scheduler.type=asha compares trials while they run; give 1 to less "
        "than --train.steps=1000",
    ),
    "trials of other lengths": (
        {"space": {"steps": {"choice": [500, 1000]}}, **ASHA},
        "--space.steps: --scheduler.type=asha compares trials of the same steps; give it under "
        "`train`",
    ),
    "pbt of a network's shape": (
        {"space": {"policy.num_critics": {"int": [2, 5]}}, **POPULATION},
        "--space.policy.num_critics: pbt varies values while trials run, and this one is settled "
        "when they start; allowed are batch_size, policy.actor_lr, policy.bc_weight, "
        "policy.critic_lr, policy.critic_target_update_weight, policy.grad_clip_norm, "
        "policy.temperature_lr",
    ),
    "pbt of a grid": (
        {"space": {**SPACE, "seed": {"grid": [0, 1]}}, **POPULATION},
        "--space.seed: pbt varies values while trials run; write `choice` instead of `grid`",
    ),
    "pbt of a condition": (
        {
            "space": {
                "batch_size": {"choice": [8, 16]},
                "policy.actor_lr": {"uniform": [0.1, 1], "when": {"batch_size": 8}},
            },
            **POPULATION,
        },
        "--space.policy.actor_lr: pbt cannot keep to a condition; drop its `when`",
    ),
    "pbt and optuna": (
        {"search": "optuna", **POPULATION},
        "--scheduler.type=pbt: varies values by itself; give --search=random, not optuna",
    ),
    "pbt of one": (
        {"num_trials": 1, **POPULATION},
        "--scheduler.type=pbt: exchanges between trials; give --num_trials of 2 or more",
    ),
    "pb2 of a choice": (
        {"space": {"batch_size": {"choice": [8, 16]}}, **PB2},
        "--space.batch_size: choice: pb2 varies continuous values only; give uniform or "
        "loguniform, or --scheduler.type=pbt",
    ),
    "no trials": ({"num_trials": 0}, "--num_trials=0: give a whole number >= 1"),
    "no time": ({"time_budget_s": 0}, "--time_budget_s=0: give a number > 0, or null"),
}


@pytest.mark.parametrize(("options", "line"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(options, line):
    with pytest.raises(ConfigError) as caught:
        sweep(**options)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"type": "pbt", "grace_steps": 10},
            "--scheduler.grace_steps=10: belongs to --scheduler.type=asha or median, not to pbt",
        ),
        (
            {"type": "asha", "perturbation_steps": 10},
            "--scheduler.perturbation_steps=10: belongs to --scheduler.type=pbt or pb2, not to "
            "asha",
        ),
        (
            {"type": "asha", "reduction_factor": 1},
            "--scheduler.reduction_factor=1: give a number above 1",
        ),
        (
            {"type": "pbt", "quantile_fraction": 0.6},
            "--scheduler.quantile_fraction=0.6: give a number above 0, up to 0.5",
        ),
    ],
)
def test_schedulers_refuse_what_does_not_fit(options, line):
    with pytest.raises(ConfigError) as caught:
        SchedulerConfig(**options)
    assert str(caught.value) == line


def test_unknown_kinds_of_search_offer_the_nearest():
    flags = ["--train.policy.type=sac", "--space.batch_size={choice: [1]}", "--search=optun"]
    with pytest.raises(ConfigError, match="did you mean optuna"):
        parse(SweepConfig, flags, command="sweep")


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ("ppo", {"policy.lr", "policy.entropy_coeff", "policy.clip_param", "policy.vf_loss_coeff"}),
        ("act", {"policy.optimizer_lr", "policy.optimizer_lr_backbone", "policy.kl_weight"}),
        ("vqbet", {"policy.optimizer_vqvae_lr", "policy.offset_loss_weight"}),
        ("bc", {"policy.optimizer_lr"}),
    ],
)
def test_what_a_running_trial_can_change(policy, allowed):
    changeable = set(Base(TRAIN).changeable(policy))
    assert allowed < changeable
    settled = {"policy.kl_coeff", "policy.discount", "policy.type", "policy.hidden_dims", "seed"}
    assert not changeable & {*settled, "policy.dim_model", "policy.dropout", "steps"}
