"""Sinusoids by hand."""

import math

import pytest
import torch

from leray.algorithms.networks.positions import picture_sinusoids, sinusoids

CPU = torch.device("cpu")


def test_one_axis_by_hand():
    table = sinusoids(3, 4)
    assert table.dtype == torch.float32
    assert table.shape == (3, 4)
    assert table[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    # entries 0, 1 turn by 1 per position, entries 2, 3 by 10000^(-2/4) = 0.01
    expected = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    assert table[2].tolist() == pytest.approx(expected, abs=1e-7)


def test_two_axes_by_hand():
    grid = picture_sinusoids(2, 4, 8, CPU)
    assert grid.dtype == torch.float32
    assert grid.shape == (8, 8)
    # pixel of row 1 (the 2nd of 2: a full turn) and column 2 (the 3rd of 4: three quarters)
    y, x = 2 * math.pi * 2 / (2 + 1e-6), 2 * math.pi * 3 / (4 + 1e-6)
    expected = [
        *(math.sin(y), math.cos(y), math.sin(y / 100), math.cos(y / 100)),
        *(math.sin(x), math.cos(x), math.sin(x / 100), math.cos(x / 100)),
    ]
    assert grid[1 * 4 + 2].tolist() == pytest.approx(expected, abs=2e-6)


def test_rows_and_columns_are_in_their_halves():
    grid = picture_sinusoids(3, 5, 16, CPU).unflatten(0, (3, 5))
    assert torch.equal(grid[:, :1, :8].expand(-1, 5, -1), grid[..., :8])
    assert torch.equal(grid[:1, :, 8:].expand(3, -1, -1), grid[..., 8:])
    assert len(set(map(tuple, grid.flatten(0, 1).tolist()))) == 15


def test_positions_made_while_acting_serve_training():
    with torch.inference_mode():
        grid = picture_sinusoids(2, 7, 12, CPU)
    assert not grid.is_inference()
    assert picture_sinusoids(2, 7, 12, CPU) is grid
    weight = torch.ones(12, requires_grad=True)
    (weight * grid).sum().backward()
    assert torch.allclose(weight.grad, grid.sum(0))
