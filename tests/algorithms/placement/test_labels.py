"""Label selectors: which nodes they mean, and how they are written."""

import pytest

from leray.algorithms.placement.labels import check_selector, selects
from leray.errors import ConfigError

NODE = {"role": "sim", "site": "lab1"}


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ({}, True),
        ({"role": "sim"}, True),
        ({"role": "sim", "site": "lab1"}, True),
        ({"role": "sim", "site": "lab2"}, False),
        ({"role": "simulator"}, False),
        ({"role": "!sim"}, False),
        ({"role": "!learner"}, True),
        ({"role": "in(learner, sim)"}, True),
        ({"role": "in(learner,robot)"}, False),
        ({"role": "!in(learner, sim)"}, False),
        ({"role": "!in(learner, robot)"}, True),
        ({"gpu": "h100"}, False),
        ({"gpu": "!h100"}, True),  # a node without the label is none with that value
    ],
)
def test_a_selector_means_the_nodes_that_ray_would_take(selector, meant):
    check_selector(selector, "--x")
    assert selects(selector, NODE) is meant


@pytest.mark.parametrize(
    "selector",
    [
        {"role": 3},
        {"role": True},
        {"role": None},
        {"role": "a sim"},
        {"role": "in()"},
        {"role": "in(a"},
        {"role": "!!a"},
        {"-role": "sim"},
        {"": "sim"},
        "role=sim",
    ],
)
def test_what_ray_would_not_take_is_refused_with_the_option_named(selector):
    with pytest.raises(ConfigError, match=r"^--runners\.groups: a: labels"):
        check_selector(selector, "--runners.groups: a: labels")


@pytest.mark.parametrize(
    ("selector", "valid"),
    [
        ({"role": "in(a, b)"}, True),
        ({"role": "!in(a,b)"}, True),
        ({"ray.io/node-group": "!small_4"}, True),
        ({"role": "a sim"}, False),
        ({"role": "in()"}, False),
        ({"-role": "sim"}, False),
    ],
)
def test_ray_draws_the_same_line(selector, valid):
    from ray._private.label_utils import validate_label_selector

    assert (validate_label_selector(selector) is None) is valid
    if valid:
        check_selector(selector, "--x")
