"""Normalisation maps, and the vector that networks read."""

import numpy as np
import pytest
import torch

from leray.algorithms.networks.encoder import STD_FLOOR, Affine, VectorEncoder
from leray.data.features import Feature, Features
from leray.errors import FeatureMismatchError


def test_mean_std_maps_mean_to_zero_and_a_deviation_to_one():
    affine = Affine.mean_std([1.0, -2.0], [2.0, 0.5])
    x = torch.tensor([[1.0, -2.0], [3.0, -1.5]])
    torch.testing.assert_close(affine(x), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(affine.inverse(affine(x)), x)


def test_a_vanishing_deviation_is_floored():
    affine = Affine.mean_std([5.0], [0.0])
    assert affine(torch.tensor([[5.0 + STD_FLOOR]])).item() == pytest.approx(1.0, rel=1e-4)


def test_min_max_maps_the_range_to_plus_minus_one():
    affine = Affine.min_max([-2.0, 0.0], [2.0, 16.0])
    x = torch.tensor([[-2.0, 16.0], [0.0, 8.0]])
    assert affine(x).tolist() == [[-1.0, 1.0], [0.0, 0.0]]
    assert affine.inverse(affine(x)).tolist() == x.tolist()


def test_ranges_that_are_empty_or_infinite_are_left_alone():
    affine = Affine.min_max([3.0, -np.inf, -2.0], [3.0, np.inf, 2.0])
    assert affine(torch.tensor([[3.0, 7.0, 1.0]])).tolist() == [[3.0, 7.0, 0.5]]


def test_the_identity_copies_nothing():
    x = torch.randn(2, 3)
    identity = Affine.identity(3)
    assert identity.is_identity
    assert identity(x) is x
    assert identity.inverse(x) is x
    assert Affine.min_max([-1.0], [1.0]).is_identity


def _features() -> Features:
    return Features(
        {
            "observation.environment_state": Feature("float64", (2,)),
            "observation.state": Feature("float32", (3,)),
            "observation.flag": Feature("bool", (1,)),
        }
    )


def test_vectors_are_concatenated_in_the_features_order_and_normalised_apart():
    encoder = VectorEncoder(
        _features(), {"observation.state": Affine.mean_std([1.0] * 3, [2.0] * 3)}
    )
    batch = {
        "observation.state": torch.tensor([[1.0, 3.0, 5.0]]),
        "observation.environment_state": torch.tensor([[7.0, 8.0]], dtype=torch.float64),
        "observation.flag": torch.tensor([True]),  # a scalar feature has no axis of its own
    }
    vector = encoder(batch)
    assert encoder.size == 6
    assert vector.dtype == torch.float32
    assert vector.tolist() == [[7.0, 8.0, 0.0, 1.0, 2.0, 1.0]]


def test_the_prefix_selects_the_next_observation():
    encoder = VectorEncoder(Features({"observation.state": Feature("float32", (2,))}), {})
    batch = {
        "observation.state": torch.zeros(1, 2),
        "next.observation.state": torch.ones(1, 2),
    }
    assert encoder(batch, "next.").tolist() == [[1.0, 1.0]]
    assert encoder(batch) is batch["observation.state"]


def test_a_single_scalar_feature_gets_its_axis():
    encoder = VectorEncoder(Features({"observation.state": Feature("float32", (1,))}), {})
    assert encoder({"observation.state": torch.tensor([1.0, 2.0])}).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"observation.images.front": Feature("video", (3, 4, 4))}, "video"),
        ({"observation.grid": Feature("float32", (2, 2))}, r"float32\[2, 2\]"),
        ({"observation.note": Feature("string", (1,))}, "string"),
        ({}, "at least one"),
    ],
)
def test_what_is_not_a_vector_is_refused(features, message):
    with pytest.raises(FeatureMismatchError, match=message):
        VectorEncoder(Features(features), {})
