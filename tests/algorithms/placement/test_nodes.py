"""What nodes offer and parts of a run ask for, and when waiting is given up."""

import logging

import pytest

from leray.algorithms.placement import nodes
from leray.algorithms.placement.nodes import Ask, wait_until_placed
from leray.errors import ConfigError

SIM = {"Alive": True, "Resources": {"CPU": 8.0, "memory": 1e9}, "Labels": {"role": "sim"}}
ARM = {"Alive": True, "Resources": {"CPU": 2.0, "robot": 1.0}, "Labels": {"site": "lab1"}}
ON_SIM = Ask("runner group sims", 4, {"CPU": 2.0}, {"role": "sim"})
ON_ARM = Ask("runner group arm", 1, {"CPU": 1.0, "robot": 1.0}, {})


@pytest.fixture
def cluster(monkeypatch):
    """Stand in for the cluster's nodes, and for the clock; returns how to set the nodes."""
    seconds = iter(range(10_000))
    monkeypatch.setattr(nodes.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(nodes, "_met", set())

    def have(*present):
        monkeypatch.setattr(nodes.ray, "nodes", lambda: list(present))

    have(SIM, ARM)
    return have


def until(count, ask):
    """Be pending that often."""
    left = [ask] * count
    return lambda timeout_s: [left.pop()] if left else []


@pytest.mark.parametrize(
    ("ask", "room"),
    [
        (ON_SIM, 4),
        (ON_ARM, 1),
        (Ask("a", 1, {"CPU": 3.0}, {}), 2),
        (Ask("a", 1, {"CPU": 3.0}, {"site": "lab1"}), 0),
        (Ask("a", 1, {"CPU": 0.5}, {"role": "!sim"}), 4),
        (Ask("a", 1, {"robot": 2.0}, {}), 0),
    ],
)
def test_room_is_counted_node_by_node(ask, room):
    assert ask.room([SIM, ARM, {**SIM, "Alive": False}]) == room


def test_what_needs_nothing_always_has_room():
    assert Ask("a", 9, {}, {}).room([SIM]) > 9


def test_an_error_says_what_is_asked_and_what_there_is(cluster):
    ask = Ask("runner group arm", 1, {"CPU": 1.0, "robot": 2.0}, {"site": "lab1"})
    with pytest.raises(ConfigError) as error:
        wait_until_placed([ask], until(100, ask))
    message = str(error.value)
    assert message.startswith(
        "runner group arm: asks for {CPU: 1, robot: 2} on nodes with labels {site: lab1} and no "
        "node has it; nodes offer {CPU: 8} with labels {role: sim}, "
        "{CPU: 2, robot: 1} with labels {site: lab1}: "
    )
    assert "\n" not in message


def test_an_error_says_how_many_there_is_room_for(cluster):
    ask = Ask("env runners", 9, {"CPU": 1.0}, {"role": "sim"})
    with pytest.raises(ConfigError, match=r"asks for 9 x .*CPU: 1.* there is room for 8; nodes"):
        wait_until_placed([ask], until(100, ask))


def test_a_long_list_of_nodes_is_cut(cluster):
    cluster(*[SIM] * 30)
    with pytest.raises(ConfigError, match=r"22 more: start a node"):
        wait_until_placed([ON_ARM], until(100, ON_ARM))


def test_a_node_that_joins_in_time_is_no_error(cluster, caplog):
    wait_until_placed([ON_ARM], until(3, ON_ARM))
    assert caplog.messages == []


def test_with_an_autoscaler_it_waits_and_says_so_once(cluster, caplog):
    head = {**SIM, "Labels": {nodes.LAUNCHED: "head"}}
    cluster(head)
    with caplog.at_level(logging.WARNING):
        wait_until_placed([ON_ARM], until(500, ON_ARM))
    waits, found = caplog.messages
    assert waits.startswith("runner group arm: waiting for {CPU: 1, robot: 1}: no node offers it")
    assert "autoscaler" in waits
    assert found.startswith("runner group arm: found room after")


def test_a_node_that_was_there_before_is_waited_for(cluster, caplog):
    wait_until_placed([ON_ARM], until(0, ON_ARM))
    cluster(SIM)
    with caplog.at_level(logging.WARNING):
        wait_until_placed([ON_ARM], until(500, ON_ARM))
    assert "the node that offered it is gone" in caplog.messages[0]


def test_busy_nodes_are_waited_for(cluster, caplog):
    with caplog.at_level(logging.WARNING):
        wait_until_placed([ON_SIM], until(500, ON_SIM))
    assert "the nodes that offer it are busy" in caplog.messages[0]
