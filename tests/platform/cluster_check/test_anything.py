"""Whatever stands in a launch file, the check ends with findings or one error."""

import copy
import random
from pathlib import Path

import pytest
import yaml

from leray.errors import ConfigError
from leray.platform.cluster_check.check import check_file

CLUSTER = Path(__file__).resolve().parents[3] / "cluster"
VALUES = (None, "x", 5, -1.5, [], {}, True, ["x", None], {"x": None, 5: [1]})


def places(value, path=()):
    """Yield the path of everything inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in inner:
        yield (*path, key)
        if isinstance(member, dict | list):
            yield from places(member, (*path, key))


@pytest.mark.parametrize("name", ["aws", "onprem", "rayjob"])
def test_wrong_values_anywhere_do_not_break_the_check(home, tmp_path, name):
    original = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    chance = random.Random(0)
    usable = 0
    for path in chance.sample(list(places(original)), 12):
        changed = copy.deepcopy(original)
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = chance.choice(VALUES)
        file = tmp_path / "file.yaml"
        file.write_text(yaml.safe_dump(changed))
        try:
            check_file(file, train_config=CLUSTER / "train.yaml")
        except ConfigError:
            continue
        usable += 1
    assert usable > 8
