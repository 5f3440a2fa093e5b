"""The simulator of `benchmarks/scaling`, by cases that can be reckoned by hand."""

import math
from dataclasses import replace

import pytest

from benchmarks.scaling.costs import Costs, derive, read_values
from benchmarks.scaling.simulate import (
    FETCH_TIMEOUT_S,
    REQUESTS_IN_FLIGHT,
    UPDATES_PER_STEP,
    Case,
    Cluster,
    Result,
    Simulation,
)

FREE = Costs()
"""Nothing takes time but what a test adds."""
QUIET = Costs(iteration_s=1e-4)
"""The clock moves on although nothing else costs anything."""


def case(**changes) -> Case:
    """One environment of 1,000 steps/s per runner, nothing learned from it, one runner a node."""
    options = {"step_s": 1e-3, "step_bytes": 0.0, "block_bytes": 0.0, "update_s": 0.0}
    options |= {"utd_ratio": 1e-9, "runners_per_node": 1, "envs": 1, "fragment": 10}
    return Case(**options | changes)


def simulated(case: Case, costs: Costs = QUIET, *, seconds: float = 5.0, **cluster) -> Result:
    return Simulation(case, Cluster(**{"nodes": 1} | cluster), costs, jitter=0.0).run(seconds)


def test_runners_alone_set_the_rate():
    result = simulated(case(), nodes=3)
    assert result.env_steps_per_s == pytest.approx(3000, rel=0.02)
    assert result.runner_busy == pytest.approx(1.0, rel=0.02)


def test_environments_of_a_robot_step_at_the_same_time():
    assert simulated(case(envs=4)).env_steps_per_s == pytest.approx(1000, rel=0.02)
    parallel = simulated(case(envs=4, parallel_envs=4))
    assert parallel.env_steps_per_s == pytest.approx(4000, rel=0.02)


def test_short_fragments_wait_for_the_driver_to_look():
    # two fragments of 1 ms are done at once; the driver looks when all four runners are ready, or
    # after 20 ms: one slow runner is what the others wait for
    slow = simulated(case(fragment=1), FREE, nodes=1)
    assert slow.env_steps_per_s == pytest.approx(1000, rel=0.02)
    long = Simulation(case(fragment=1), Cluster(nodes=2), QUIET, jitter=0.0)
    long._free_at[1] = 1000.0  # never done
    result = long.run(5.0)
    per_look = REQUESTS_IN_FLIGHT / (FETCH_TIMEOUT_S + QUIET.iteration_s)
    assert result.env_steps_per_s == pytest.approx(per_look, rel=0.02)


def test_the_learner_holds_the_replay_ratio():
    result = simulated(case(utd_ratio=1.0, update_s=0.01), FREE, nodes=2, seconds=20)
    assert result.env_steps_per_s == pytest.approx(100, rel=0.02)
    assert result.shares["update"] == pytest.approx(1.0, rel=0.02)


def test_collecting_runs_ahead_of_learning_by_what_was_asked_for():
    learning = case(utd_ratio=1.0, update_s=0.01, fragment=500)
    ahead = simulated(learning, FREE, nodes=4, seconds=20).ahead_steps
    slack = REQUESTS_IN_FLIGHT * 4 * 500
    assert slack - 600 < ahead <= slack


def test_appending_is_the_limit_where_it_is_slow():
    # ten runners hand in 20 fragments of 10 steps, which take 200 ms; then they are asked for more,
    # and the driver looks again after 20 ms
    slow = Costs(add_s=0.01)
    result = simulated(case(), slow, nodes=10)
    assert result.env_steps_per_s == pytest.approx(200 / 0.22, rel=0.02)
    assert result.shares["add"] == pytest.approx(0.2 / 0.22, rel=0.02)
    # five other processes take four each at the same time, in 40 ms
    helped = simulated(case(), slow, nodes=10, ingest_actors=5)
    assert helped.env_steps_per_s == pytest.approx(5000, rel=0.02)


def test_the_network_card_is_the_limit_where_steps_are_large():
    # 8 Gbit/s are 1,000 steps of a megabyte
    result = simulated(case(step_bytes=1e6), nodes=10, nic_gbit_s=8)
    assert result.env_steps_per_s == pytest.approx(1000, rel=0.02)
    assert result.in_gbit_s == pytest.approx(8, rel=0.02)


def test_every_node_fetches_weights_once_per_publication():
    learning = case(utd_ratio=1.0, update_s=1e-3, block_bytes=1e6, runners_per_node=2, fragment=16)
    result = simulated(learning, FREE, nodes=4, nic_gbit_s=1000)
    publications_per_s = result.updates_per_s / UPDATES_PER_STEP
    most = 4 * publications_per_s * 8e-3  # of a megabyte, in Gbit/s
    assert 0.2 * most < result.out_gbit_s <= 1.05 * most
    fast = replace(learning, update_s=1e-6)
    seldom = simulated(fast, QUIET, nodes=4, nic_gbit_s=1000, publish_period_s=1.0)
    assert seldom.out_gbit_s == pytest.approx(4 * 8e-3, rel=0.1)
    assert seldom.staleness_s == pytest.approx(0.5, rel=0.2)


def test_a_tree_takes_two_copies_from_the_head():
    simulation = Simulation(case(block_bytes=1e9), Cluster(nodes=7, nic_gbit_s=8, tree=True), FREE)
    ready = [simulation._weights_at(node) for node in range(7)]
    assert ready == [1, 2, 4, 4, 4, 4, 6]
    assert simulation._out_bytes == 2e9
    assert [simulation._weights_at(node) for node in range(7)] == ready
    alone = Simulation(case(block_bytes=1e9), Cluster(nodes=7, nic_gbit_s=8), FREE)
    assert [alone._weights_at(node) for node in range(7)] == [1, 2, 3, 4, 5, 6, 7]


def test_looking_at_pairs_of_runners_grows_with_their_square():
    costs = Costs(ask_pair_s=1e-6, iteration_s=1e-3)
    for nodes, look_s in ((10, 4e-4), (100, 4e-2)):
        simulation = Simulation(case(), Cluster(nodes=nodes), costs, jitter=0.0)
        simulation._turn()
        assert simulation._spent["ask"] == pytest.approx(look_s)
    counted = Simulation(case(), Cluster(nodes=100, counted=True), costs, jitter=0.0)
    counted._turn()
    assert counted._spent["ask"] == 0


def test_the_driver_stands_still_while_it_asks_for_lost_runners():
    # 20 nodes that fail every 200 s each, once in 10 s, and are away for 5 s: as in a queue with
    # room for all, at least one is away for 1 - exp(-5 / 10) of the time
    often = {"nodes": 20, "failures_per_node_h": 18.0, "restart_s": 5.0}
    slow, away = Costs(iteration_s=0.1), 1 - math.exp(-0.5)
    asked = simulated(case(), slow, seconds=400, **often)
    assert asked.shares["probe"] == pytest.approx(away * 0.5, rel=0.3)
    always = simulated(case(), slow, seconds=400, **often, probe_every_s=0.0, probe_timeout_s=30)
    assert always.shares["probe"] == pytest.approx(away, rel=0.3)
    never = simulated(case(), slow, seconds=100, **often, probe_timeout_s=0.0)
    assert never.shares["probe"] == 0


def test_it_is_the_loop_of_the_algorithm():
    from leray.algorithms.offpolicy import algorithm

    assert algorithm.UPDATES_PER_ASYNC_STEP == UPDATES_PER_STEP
    assert algorithm.REQUESTS_IN_FLIGHT == REQUESTS_IN_FLIGHT
    assert algorithm.FETCH_TIMEOUT_S == FETCH_TIMEOUT_S


def test_costs_per_unit_are_lines_through_what_was_measured():
    values = {("ask_full", 10): 22e-6, ("ask_full", 3000): 1.8, ("ask_free", 10): 42e-6}
    values |= {("fetch_state", 50): 1.05e-3, ("fetch_state", 2000): 3e-3, ("fetch_images", 4): 2e-3}
    values |= {("add_first", 1): 1e-4, ("add_images_first", 4): 1.7e-4}
    values |= {("fragment_bytes", 1): 1e3, ("fragment_bytes_images", 4): 8e3}
    values |= {
        ("publish", 100): 1e-3,
        ("publish", 1100): 2e-3,
        ("load", 0): 0.0,
        ("load", 10): 1e-6,
    }
    values |= {("wait", 1000): 1e-3, ("wait", 10_000): 1e-2, ("submit", 1): 3e-4}
    values |= {("iteration", 0): 2e-3, ("round_trip", 0): 1e-3}
    costs = derive(values)
    assert costs.ask_pair_s == pytest.approx(1e-7)
    assert costs.ask_runner_s == pytest.approx(1e-7)
    assert costs.ask_free_s == pytest.approx(1e-6)
    assert (costs.fetch_s, costs.index_ref_s) == pytest.approx((1e-3, 1e-6))
    assert (costs.add_s, costs.add_byte_s) == pytest.approx((9e-5, 1e-8))
    assert (costs.publish_s, costs.publish_byte_s) == pytest.approx((9e-4, 1e-6))
    assert costs.load_byte_s == pytest.approx(1e-7)
    assert costs.wait_ref_s == pytest.approx(1e-6)


def test_the_measured_table_has_all_that_is_needed():
    costs = derive(read_values())
    assert all(value >= 0 for value in vars(costs).values())
    assert costs.submit_s > 0
    assert costs.ask_pair_s > 0
