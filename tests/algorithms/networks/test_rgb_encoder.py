"""The encoder of pictures: crops, keypoints, names."""

import pytest
import torch

from leray.algorithms.networks.rgb_encoder import (
    RgbEncoder,
    SpatialSoftmax,
    cropped,
    resized,
)
from leray.errors import ConfigError


def _numbered(height: int, width: int) -> torch.Tensor:
    """Return pictures [2, 3, H, W] whose pixels tell their row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (rows * 1000 + columns).float().expand(2, 3, height, width)


def _corner(pictures: torch.Tensor) -> tuple[int, int]:
    corner = int(pictures[0, 0, 0, 0])
    return corner // 1000, corner % 1000


@pytest.mark.parametrize(
    ("size", "part", "corner"),
    [
        ((96, 96), (84, 84), (6, 6)),
        ((96, 96), (85, 83), (6, 6)),  # margins of 5.5 and 6.5 go to the even number
        ((96, 96), (83, 85), (6, 6)),
        ((97, 96), (84, 96), (6, 0)),
    ],
)
def test_the_centre_is_cut_out(size, part, corner):
    pictures = cropped(_numbered(*size), part, at_random=False)
    assert pictures.shape == (2, 3, *part)
    assert _corner(pictures) == corner


def test_a_random_part_is_the_same_of_all_pictures_and_drawn_row_first():
    corners = set()
    for seed in range(30):
        torch.manual_seed(seed)
        pictures = cropped(_numbered(10, 12), (9, 8), at_random=True)
        assert torch.equal(pictures[0], pictures[1])
        assert pictures.shape == (2, 3, 9, 8)
        torch.manual_seed(seed)
        expected = int(torch.randint(0, 2, (1,))), int(torch.randint(0, 5, (1,)))
        assert _corner(pictures) == expected
        corners.add(expected)
    assert {row for row, _ in corners} == {0, 1}
    assert {column for _, column in corners} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("at_random", [False, True])
def test_pictures_of_the_size_are_left_without_a_draw(at_random):
    pictures, before = _numbered(10, 12), torch.get_rng_state()
    assert cropped(pictures, (10, 12), at_random=at_random) is pictures
    assert torch.equal(torch.get_rng_state(), before)


def test_resizing_averages_what_comes_together():
    pictures = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]]).expand(1, 3, 2, 4)
    # each new pixel sees 4 old ones around its centre, by the weights 1, 3, 3, 1 of 8, or what is
    # left of them at the edge: 0 0 8 by 3, 3, 1 of 7
    found = resized(pictures, (1, 2))[0, 0, 0]
    assert found.tolist() == pytest.approx([8 / 7, 48 / 7])
    assert resized(pictures, (2, 4)) is pictures


def test_keypoints_are_the_mean_positions_of_what_responds():
    pool = SpatialSoftmax(2, (2, 3), 2)
    with torch.no_grad():
        pool.nets.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        pool.nets.bias.zero_()
    features = torch.full((1, 2, 2, 3), -1e4)
    features[0, 0, 0, 2] = 0  # one place: the upper right corner
    features[0, 1, 1, 0] = features[0, 1, 1, 1] = 0  # two places of the lower row
    assert pool(features).tolist() == [[[1.0, -1.0], [-0.5, 1.0]]]
    positions = [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]
    assert pool.pos_grid.tolist() == positions


@pytest.mark.parametrize(
    ("size", "options", "steps"),
    [
        ((96, 96), {"crop": (84, 84)}, 9),
        ((120, 160), {"crop": (115, 115)}, 16),
        ((64, 96), {}, 6),
        ((64, 96), {"resize": (33, 32)}, 2),
        ((64, 96), {"resize": (60, 60), "crop": (32, 32)}, 1),
    ],
)
def test_any_size_of_pictures_becomes_keypoints(size, options, steps):
    encoder = RgbEncoder((*size, 3), num_keypoints=5, **options).eval()
    assert encoder.pool.pos_grid.shape == (steps, 2)
    found = encoder(torch.rand(2, 3, *size))
    assert found.shape == (2, 10)
    assert encoder.output_size == 10
    assert (found >= 0).all()


def test_names_are_numbered_and_norms_of_groups_or_of_the_batch():
    groups = RgbEncoder((32, 32, 3)).state_dict()
    batch = RgbEncoder((32, 32, 3), group_norm=False).state_dict()
    own = {"pool.nets.weight", "pool.nets.bias", "pool.pos_grid", "out.weight", "out.bias"}
    assert {name for name in groups if not name.startswith("backbone.")} == own
    assert {"backbone.0.weight", "backbone.1.weight", "backbone.1.bias"} <= groups.keys()
    assert {"backbone.4.0.conv1.weight", "backbone.5.0.downsample.1.bias"} <= groups.keys()
    assert len(groups) == 60 + len(own)
    statistics = {name for name in batch if "running" in name or "num_batches" in name}
    assert batch.keys() - statistics == groups.keys()
    assert len(statistics) == 3 * 20


def test_parts_are_random_in_training_only():
    encoder = RgbEncoder((40, 40, 3), num_keypoints=4, crop=(34, 34))
    pictures = torch.rand(1, 3, 40, 40)

    def different(encoder: RgbEncoder) -> int:
        torch.manual_seed(0)
        return len({encoder(pictures).sum().item() for _ in range(6)})

    assert different(encoder.train()) > 1
    assert different(encoder.eval()) == 1
    fixed = RgbEncoder((40, 40, 3), num_keypoints=4, crop=(34, 34), random_crop=False)
    assert different(fixed.train()) == 1


@pytest.mark.parametrize(
    ("shape", "options", "named"),
    [
        ((80, 96, 3), {"crop": (84, 84)}, "--policy.crop_shape="),
        ((96, 96, 3), {"resize": (64, 64), "crop": (60, 65)}, "--policy.crop_shape="),
        ((96, 96, 1), {}, "1 channels"),
        ((96, 96, 3), {"vision_backbone": "vgg"}, "vision_backbone=vgg"),
    ],
)
def test_errors_name_what_does_not_fit(shape, options, named):
    with pytest.raises(ConfigError, match=named):
        RgbEncoder(shape, **options)
