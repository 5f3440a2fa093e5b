"""Datasets that tests only read, built once."""

import numpy as np
import pytest

from tests.data.stream import datasets


@pytest.fixture(scope="session")
def numeric(tmp_path_factory):
    """Numbers only: episodes of 7, 12 and 4 frames."""
    return datasets.make(tmp_path_factory.mktemp("numeric") / "dataset")


@pytest.fixture(scope="session")
def filmed(tmp_path_factory):
    """Two cameras of v3.0: one with a long group of pictures and B-frames, one with short ones."""
    cameras = {
        datasets.FRONT: datasets.Camera(options=dict(datasets.LONG), files=(2, 1)),
        datasets.WRIST: datasets.Camera(files=(1, 2), first=True),
    }
    return datasets.make(
        tmp_path_factory.mktemp("filmed") / "dataset", lengths=(40, 25, 30), cameras=cameras
    )


@pytest.fixture
def same():
    """Compares batches bit for bit."""

    def compare(left: dict, right: dict) -> None:
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert value.dtype == right[key].dtype, key
            np.testing.assert_array_equal(value, right[key], err_msg=key)

    return compare
