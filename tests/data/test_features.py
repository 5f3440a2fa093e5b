"""Features: the schema of `info.json` in both directions, and the comparison of two sides."""

import math
import pickle

import numpy as np
import pytest

from leray.data.features import Feature, Features, check_compatible
from leray.errors import DatasetError, FeatureMismatchError

STATE = Feature("float32", (2,), ("x", "y"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "y"], ("x", "y")),
        ({"motors": ["x", "y"]}, ("x", "y")),
        ({"delta_y": 1, "delta_x": 0}, ("delta_x", "delta_y")),
        ([["x", "y"]], ("x", "y")),
        (None, None),
    ],
)
def test_every_spelling_of_names_is_read(names, expected):
    features = Features.from_info({"action": {"dtype": "float32", "shape": [2], "names": names}})
    assert features["action"] == Feature("float32", (2,), expected)


def test_absent_names_and_unknown_keys_are_accepted():
    entry = {"dtype": "int64", "shape": [1], "fps": 10, "video_info": {}}
    assert Features.from_info({"a": entry})["a"] == Feature("int64", (1,))


def test_info_round_trip_keeps_bounds():
    bounded = Feature("float32", (2,), ("x", "y"), low=(-1.0, -math.inf), high=(1.0, math.inf))
    features = Features({"observation.state": bounded, "next.done": Feature("bool", (1,))})
    info = features.to_info()
    assert info["observation.state"]["low"] == [-1.0, None]
    assert info["next.done"] == {"dtype": "bool", "shape": [1], "names": None}
    assert Features.from_info(info) == features


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "float32"},
        {"dtype": "complex64", "shape": [1]},
        {"dtype": "nonsense", "shape": [1]},
        {"dtype": "float32", "shape": [0]},
        {"dtype": "float32", "shape": ["2"]},
        {"dtype": "float32", "shape": [2], "names": 5},
        {"dtype": 3, "shape": [1]},
        "float32",
    ],
)
def test_malformed_entry_is_one_error_naming_the_feature(entry):
    with pytest.raises(DatasetError, match="'action'"):
        Features.from_info({"action": entry})


def test_bad_names_and_bounds_are_refused():
    with pytest.raises(ValueError, match="a/b"):
        Features({"a/b": STATE})
    with pytest.raises(DatasetError, match="a/b"):
        Features.from_info({"a/b": {"dtype": "float32", "shape": [1]}})
    with pytest.raises(ValueError, match="low has 1 values"):
        Feature("float32", (2,), low=(0.0,))


def test_select_keeps_the_order_asked_for():
    features = Features({"a": STATE, "b": STATE, "c": STATE})
    assert list(features.select(["c", "a"])) == ["c", "a"]
    with pytest.raises(FeatureMismatchError, match=r"no feature 'd'; there are: a, b, c"):
        features.select(["d"])


def test_numpy_dtypes():
    features = Features(
        {
            "a": Feature("float64", (2,)),
            "b": Feature("bool", (1,)),
            "v": Feature("video", (4, 4, 3)),
            "t": Feature("string", (1,)),
        }
    )
    assert features.numpy_dtype("a") == np.float64
    assert features.numpy_dtype("b") == np.bool_
    assert features.numpy_dtype("v") == np.uint8
    assert features.numpy_dtype("t") == np.dtypes.StringDType()


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((48, 64, 3), ("height", "width", "channels")),
        ((48, 64, 3), ("height", "width", "channel")),
        ((3, 48, 64), ("channels", "height", "width")),
        ((3, 48, 64), None),
        ((48, 64, 3), None),
    ],
)
def test_image_axes_are_understood_in_both_orders(shape, names):
    feature = Feature("video", shape, names)
    assert feature.image_shape == (48, 64, 3)
    assert feature.is_channels_first == (shape[0] == 3)


def test_equal_kinds_are_compatible():
    left = Features({"a": Feature("float32", (2,)), "i": Feature("video", (48, 64, 3))})
    right = Features({"a": Feature("float64", (2,)), "i": Feature("image", (3, 48, 64))})
    check_compatible(left, right, left_name="env", right_name="dataset")


def test_mismatch_names_both_sides_and_every_feature_in_one_line():
    left = Features({"a": STATE, "b": STATE, "c": Feature("bool", (1,)), "same": STATE})
    right = Features({"a": Feature("float32", (3,)), "c": Feature("int64", (1,)), "same": STATE})
    with pytest.raises(FeatureMismatchError) as caught:
        check_compatible(left, right, left_name="env Reach", right_name="dataset demo")
    assert str(caught.value) == (
        "env Reach and dataset demo do not fit together: a (shape [2] against [3]); "
        "b (missing in dataset demo); c (bool against int64)"
    )


def test_only_the_keys_asked_for_are_compared():
    left, right = Features({"a": STATE, "b": STATE}), Features({"a": STATE})
    check_compatible(left, right, left_name="l", right_name="r", keys=["a"])
    with pytest.raises(FeatureMismatchError, match=r"z \(missing in l and r\)"):
        check_compatible(left, right, left_name="l", right_name="r", keys=["a", "z"])


def test_features_travel_between_processes():
    features = Features({"a": STATE})
    assert pickle.loads(pickle.dumps(features)) == features
