"""Real training through a store: another machine goes on with it to the very same weights."""

from pathlib import Path

import pytest

from leray.platform.home.home import open_home
from leray.platform.home.index import read_index
from leray.platform.home.store import Store
from tests.platform.test_train_resume import PENDULUM, RUN, N, assert_equal_runs

JUDGED = {"eval__n_episodes": 1, "eval__max_episodes_rendered": 0, "policy__device": "cpu"}


@pytest.mark.ray
def test_a_run_that_goes_on_elsewhere_equals_one_in_one_go(train, leray, machine, shelf, tmp_path):
    with open_home(shelf) as home:
        assert train(output_dir=home.local, **PENDULUM, **RUN | {"steps": N}) == 0
        assert home.finish() == []
    assert read_index(Store(shelf)).resume == N

    machine("second")
    with open_home(shelf, resume=True) as home:
        assert leray("train", "--resume=true", output_dir=home.local, steps=2 * N) == 0
    there = home.local
    assert train(output_dir=tmp_path / "whole", **RUN, **PENDULUM) == 0
    assert_equal_runs(tmp_path / "whole", there)
    assert leray("eval", policy__path=Path(shelf), output_dir=tmp_path / "eval", **JUDGED) == 0
    assert (tmp_path / "eval/eval_info.json").is_file()
