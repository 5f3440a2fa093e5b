"""Runs over several nodes of one cluster: who runs where, and nodes that die and come back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.platform.placement.helpers import TRAIN

SIM = {"num_cpus": 4, "labels": {"role": "sim"}}
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}
"""How soon a node that was killed counts as dead."""
CONFIG = """
import json, sys
from pathlib import Path
import ray
from leray.algorithms.learners import on_learners
from leray.algorithms.placement.groups import RunnerGroup
from leray.algorithms.sac.algorithm import SAC, SACConfig
from leray.algorithms.sac.config import MLPConfig

def node(_):
    return ray.get_runtime_context().get_node_id()

def where(algorithm):
    runners = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: (runner.worker_index, node(runner), runner._num_envs), local_env_runner=False
    )
    return {str(index): [place, envs] for index, place, envs in runners}

def config():
    network = MLPConfig(hidden_dims=[16, 16])
    config = SACConfig().environment("Pendulum-v1").debugging(seed=3)
    config.training(
        actor_network_kwargs=network,
        critic_network_kwargs=network,
        online_buffer_capacity=100_000,
        online_step_before_learning=40,
        train_batch_size_per_learner=16,
        device="cpu",
    )
    config.rollout_fragment_length = 4
    config.min_sample_timesteps_per_iteration = 40
    config.group_env_runners([
        RunnerGroup(name="sims", num_env_runners=2, num_envs_per_env_runner=3,
                    labels={"role": "sim"}),
        RunnerGroup(name="arm", resources={"robot": 1}, env_kwargs={"g": 9.0}),
    ])
    return config

def say(**facts):
    print(json.dumps(facts), flush=True)
"""
RUN = """
ray.init()
options = config().learners(num_learners=1, num_cpus_per_learner=1, num_gpus_per_learner=0)
algorithm = options.label_learners({"role": "learner"}).build_algo()
(learner,) = on_learners(algorithm.learner_group, node)
say(learner=learner)
while not Path(sys.argv[1]).exists():
    algorithm.train()
    say(steps=algorithm.env_steps, where=where(algorithm), **algorithm.runner_figures())
stored = on_learners(algorithm.learner_group, lambda learner: learner.online.total_steps)[0]
say(steps=algorithm.env_steps, stored=stored, due=algorithm.pacing.updates_due)
algorithm.stop()
"""
TUNE = """
from ray import tune

class Located(SAC):
    def step(self):
        return super().step() | {"where": json.dumps(where(self))}

ray.init()
tuner = tune.Tuner(
    Located,
    param_space=config(),
    run_config=tune.RunConfig(storage_path=sys.argv[1], stop={"training_iteration": 1}),
)
(result,) = tuner.fit()
say(error=str(result.error), where=json.loads(result.metrics["where"]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head for learners, a node for simulators, a node with a robot."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # else other tests' `ray.init()` would join this cluster
        patch.setattr(ray._private.utils, "write_ray_address", lambda *_: None)
        head = {"num_cpus": 2, "labels": {"role": "learner"}, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head | {"_system_config": HEALTH})
    try:
        nodes.sim = nodes.add_node(**SIM)
        nodes.arm = nodes.add_node(num_cpus=1, resources={"robot": 1}, labels={"site": "lab1"})
        yield nodes
    finally:
        nodes.shutdown()


def places(cluster) -> dict[str, list[Any]]:
    """Return where the runners of `CONFIG` belong, and how many environments each has."""
    sim, arm = cluster.sim.node_id, cluster.arm.node_id
    return {"1": [sim, 3], "2": [sim, 3], "3": [arm, 1]}


pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def test_runners_return_to_a_node_that_died_and_no_step_is_lost_or_counted_twice(
    cluster, drive, tmp_path
):
    stop = tmp_path / "stop"
    driver = drive(cluster.address, "-c", CONFIG + RUN, str(stop))
    driver.wait(lambda: len(driver.facts()) > 3)
    learner, first, *_ = driver.facts()
    assert learner["learner"] == cluster.head_node.node_id
    assert first["where"] == places(cluster)
    assert first["train/runners"] == 3

    cluster.remove_node(cluster.sim, allow_graceful=False)
    driver.wait(lambda: driver.facts()[-1]["train/runners"] == 1)
    steps = driver.facts()[-1]["steps"]
    driver.wait(lambda: driver.facts()[-1]["steps"] > steps + 100)  # it goes on
    assert driver.said("runner group sims: 2 of 2 runners lost")

    cluster.sim = cluster.add_node(**SIM)
    driver.wait(lambda: driver.facts()[-1]["where"] == places(cluster))
    assert driver.facts()[-1]["train/runner_restarts"] == 2
    steps = driver.facts()[-1]["steps"]
    driver.wait(lambda: driver.facts()[-1]["steps"] > steps + 100)
    assert driver.said("of 2 runners are back")

    stop.touch()
    assert driver.end() == 0, driver.lines
    last = driver.facts()[-1]
    assert last["stored"] == last["steps"]


@pytest.mark.slow
def test_tune_reserves_the_nodes_of_all_groups(cluster, drive, tmp_path):
    driver = drive(cluster.address, "-c", CONFIG + TUNE, str(tmp_path))
    assert driver.end() == 0, driver.lines
    assert driver.facts()[-1] == {"error": "None", "where": places(cluster)}


@pytest.mark.slow
def test_the_command_line_places_groups_and_ends_with_the_exact_steps(cluster, drive, tmp_path):
    groups = [
        {"name": "sims", "num_env_runners": 2, "num_envs_per_env_runner": 2}
        | {"labels": {"role": "sim"}},
        {"name": "arm", "resources": {"robot": 1}},
    ]
    run = tmp_path / "run"
    options = [f"--runners.groups={json.dumps(groups)}", "--runners.rollout_fragment_length=4"]
    driver = drive(cluster.address, *TRAIN, f"--output_dir={run}", *options)
    assert driver.end() == 0, driver.lines
    state = run / "checkpoints/last/training_state/training_step.json"
    counters = json.loads(state.read_text())
    assert 300 <= counters["env_steps"] < 360
    assert counters["pacing_updates"] == pytest.approx(counters["env_steps"] - 50, abs=60)
    assert "role: sim" in (run / "train_config.yaml").read_text()


@pytest.mark.slow
def test_a_learner_returns_to_a_node_that_died(cluster, drive, tmp_path):
    trainer = {"num_cpus": 1, "labels": {"role": "trainer"}}
    node, run = cluster.add_node(**trainer), tmp_path / "run"
    options = ["--learners.num_learners=1", "--learners.labels={role: trainer}"]
    options += ["--steps=1500", "--save_freq=100"]
    driver = drive(cluster.address, *TRAIN, f"--output_dir={run}", *options)
    driver.wait(lambda: driver.said("checkpoint "))
    cluster.remove_node(node, allow_graceful=False)
    driver.wait(lambda: driver.said("learners: waiting for {CPU: 1} on nodes with labels"))
    assert driver.said("learner 0 of 1 was lost")
    assert "the node that offered it is gone" in driver.said("learners: waiting")[0]

    node = cluster.add_node(**trainer)
    assert driver.end() == 0, driver.lines
    cluster.remove_node(node)
    state = json.loads((run / "checkpoints/last/training_state/training_step.json").read_text())
    assert state["env_steps"] == 1500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--runners.groups=[{name: sims, num_env_runners: 2, labels: {role: simulator}}]"],
            "runner group sims: asks for 2 x {CPU: 1} on nodes with labels {role: simulator} and "
            "no node has it; nodes offer ",
        ),
        pytest.param(
            ["--learners.num_learners=1", "--learners.labels={role: trainer}"],
            "learners: asks for {CPU: 1} on nodes with labels {role: trainer} and no node has it; ",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["runners", "learners"],
)
def test_a_label_that_no_node_has_is_one_line(cluster, drive, tmp_path, options, message):
    driver = drive(cluster.address, *TRAIN, f"--output_dir={tmp_path}/run", *options)
    assert driver.end() == 2, driver.lines
    (line,) = driver.said("error:")
    assert line.startswith(f"leray train: error: {message}")
    assert "{CPU: 4} with labels {role: sim}" in line
    assert not driver.said("Traceback")
