"""Random changes of pictures: each kind by hand, and what is drawn for whom."""

import math

import pytest
import torch

from leray.algorithms.imitation import transforms
from leray.algorithms.imitation.config import ImageTransformsConfig
from leray.algorithms.imitation.transforms import KINDS, ImageTransforms
from leray.errors import ConfigError

COLOURS = [key for key in KINDS if key != "affine"]
STILL = dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), (1.0, 1.0))
STILL |= {"hue": (0.0, 0.0), "affine": (0.0, 0.0), "translate": (0.0, 0.0)}


def picture(*pixels, width=1):
    """A picture [1, 1, 3, n / width, width] from RGB pixels, row by row."""
    return torch.tensor(pixels).T.reshape(1, 1, 3, -1, width)


def pixels(changed):
    return changed[0, 0].flatten(1).T.tolist()


def change(kind, x, *strengths):
    return KINDS[kind](x, torch.tensor([strengths]))


def only(kind, **options):
    """Transforms that do one kind to every picture."""
    weights = {other: float(other == kind) for other in KINDS}
    return ImageTransforms(ImageTransformsConfig(enable=True, weights=weights, **options))


def test_brightness_by_hand():
    changed = pixels(change("brightness", picture([0.2, 0.4, 0.8], [1.0, 0.0, 0.5]), 1.5))
    assert changed[0] == pytest.approx([0.3, 0.6, 1.0])
    assert changed[1] == pytest.approx([1.0, 0.0, 0.75])


def test_contrast_by_hand():
    # grey of (0.4, 0.4, 0.4) and (1, 0, 0): 0.99996 * 0.4 = 0.3999..., 0.2989; 0.9999 is all three
    mean = (0.9999 * 0.4 + 0.2989) / 2
    changed = pixels(change("contrast", picture([0.4, 0.4, 0.4], [1.0, 0.0, 0.0]), 0.5))
    assert changed[0] == pytest.approx([(0.4 + mean) / 2] * 3)
    assert changed[1] == pytest.approx([(1 + mean) / 2, mean / 2, mean / 2])
    harder = pixels(change("contrast", picture([0.4, 0.4, 0.4], [1.0, 0.0, 0.0]), 2.0))
    assert harder[1] == pytest.approx([1.0, 0.0, 0.0])  # clipped at both ends
    assert harder[0] == pytest.approx([0.8 - mean] * 3)


def test_contrast_takes_the_mean_of_each_frame():
    frames = torch.stack([torch.full((3, 2, 2), 0.25), torch.full((3, 2, 2), 0.75)])[None]
    assert torch.allclose(change("contrast", frames, 0.5), frames, atol=1e-4)


def test_saturation_by_hand():
    grey = 0.2989 * 0.5 + 0.587 * 0.25 + 0.114 * 1.0
    changed = pixels(change("saturation", picture([0.5, 0.25, 1.0]), 0.0))
    assert changed[0] == pytest.approx([grey] * 3)
    changed = pixels(change("saturation", picture([0.5, 0.25, 1.0]), 1.5))
    assert changed[0] == pytest.approx([1.5 * 0.5 - grey / 2, 1.5 * 0.25 - grey / 2, 1.0])


@pytest.mark.parametrize(
    ("turns", "before", "after"),
    [
        (1 / 3, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        (1 / 3, [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]),
        (1 / 3, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]),
        (0.5, [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]),
        (-0.5, [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]),
        (0.25, [1.0, 0.0, 0.0], [0.5, 1.0, 0.0]),  # 1.5 sixths: half way from yellow to green
        (-1 / 12, [1.0, 0.0, 0.0], [1.0, 0.0, 0.5]),
        (1 / 12, [0.8, 0.2, 0.2], [0.8, 0.5, 0.2]),  # half of the chroma 0.6 above 0.2
        (0.4, [0.3, 0.3, 0.3], [0.3, 0.3, 0.3]),
        (0.4, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        (1 / 6, [1.0, 1.0, 0.2], [0.2, 1.0, 0.2]),
        (1 / 6, [0.2, 0.9, 0.9], [0.2, 0.2, 0.9]),
        (1 / 6, [0.9, 0.2, 0.9], [0.9, 0.2, 0.2]),
    ],
)
def test_hue_by_hand(turns, before, after):
    assert pixels(change("hue", picture(before), turns))[0] == pytest.approx(after, abs=1e-6)


def test_sharpness_by_hand():
    x = torch.zeros(1, 1, 3, 3, 4)
    x[..., 1, 1] = 1.0
    softer = change("sharpness", x, 0.0)
    expected = torch.zeros(3, 4)
    expected[1, 1], expected[1, 2] = 5 / 13, 1 / 13  # borders stay
    assert torch.allclose(softer[0, 0], expected.expand(3, 3, 4))
    x = x * 0.5 + 0.25
    sharper = change("sharpness", x, 1.5)
    blurred = 0.25 + 0.5 * 5 / 13
    assert sharper[0, 0, 0, 1, 1].item() == pytest.approx(1.5 * 0.75 - 0.5 * blurred)
    blurred = 0.25 + 0.5 / 13
    assert sharper[0, 0, 2, 1, 2].item() == pytest.approx(1.5 * 0.25 - 0.5 * blurred)
    assert torch.equal(sharper[..., 0, :], x[..., 0, :])


def test_sharpness_leaves_pictures_that_are_all_border():
    x = torch.rand(1, 1, 3, 2, 5)
    assert torch.equal(change("sharpness", x, 0.0), x)


def test_affine_by_hand():
    rows = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]) / 10
    x = rows.expand(1, 2, 3, 3, 3)
    turned = change("affine", x, 90.0, 0.0, 0.0)
    assert torch.allclose(turned, x.rot90(-1, (-2, -1)))  # rot90 turns the other way
    shifted = change("affine", x, 0.0, 1 / 3, 0.0)
    assert torch.allclose(shifted[0, 1, 2] * 10, torch.tensor([[0.0, 1, 2], [0, 4, 5], [0, 7, 8]]))
    shifted = change("affine", x, 0.0, 0.4, -0.6)  # 1.2 and -1.8 pixels
    assert torch.allclose(shifted[0, 0, 0] * 10, torch.tensor([[0.0, 7, 8], [0, 0, 0], [0, 0, 0]]))


def test_affine_turns_about_the_centre_then_shifts_whatever_the_shape():
    x = torch.zeros(1, 1, 3, 5, 9)
    x[..., 2, 6] = 1.0  # two to the right of the centre
    turned = change("affine", x, 90.0, 0.0, 0.0)
    assert turned[0, 0, 0].nonzero().tolist() == [[4, 4]]
    shifted = change("affine", x, 90.0, 3 / 9, -1 / 5)
    assert shifted[0, 0, 0].nonzero().tolist() == [[3, 7]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_of_each_range_changes_nothing(kind):
    x = torch.rand(3, 2, 3, 6, 7)
    strengths = torch.zeros(3, 3) if kind in ("hue", "affine") else torch.ones(3, 1)
    assert torch.allclose(
        KINDS[kind](x, strengths[:, : 3 if kind == "affine" else 1]), x, atol=1e-6
    )


def test_with_ranges_of_nothing_pictures_stay():
    x = torch.rand(4, 3, 8, 8)
    config = ImageTransformsConfig(enable=True, max_num_transforms=9, **STILL)
    assert torch.allclose(ImageTransforms(config)(x), x, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 3, 8, 9), (5, 2, 3, 8, 9), (0, 3, 8, 9)])
def test_pictures_keep_their_shape_and_range_and_those_given_stay(shape):
    x = torch.rand(shape)
    before = x.clone()
    changed = ImageTransforms(ImageTransformsConfig(enable=True))(x)
    assert changed.shape == x.shape
    assert torch.equal(x, before)
    if len(x):
        assert not torch.equal(changed, x)
        assert changed.min() >= 0
        assert changed.max() <= 1


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"enable": False}, (5, 3, 8, 8)),
        ({"enable": True, "weights": dict.fromkeys(KINDS, 0.0)}, (5, 3, 8, 8)),
        ({"enable": True}, (5, 1, 8, 8)),
        ({"enable": True}, (5, 2, 4, 8, 8)),
    ],
)
def test_what_is_not_asked_for_or_no_colour_stays(options, shape):
    x = torch.rand(shape)
    state = torch.get_rng_state()
    assert ImageTransforms(ImageTransformsConfig(**options))(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_each_sample_has_its_own_strength_and_its_frames_share_it():
    x = torch.full((50, 3, 3, 4, 4), 0.5)
    changed = only("brightness")(x, torch.Generator().manual_seed(0))
    factors = changed / x
    assert torch.equal(factors.amin((1, 2, 3, 4)), factors.amax((1, 2, 3, 4)))
    factors = factors[:, 0, 0, 0, 0]
    assert len(factors.unique()) == 50
    assert factors.min() >= 0.8
    assert factors.max() <= 1.2
    assert factors.mean().item() == pytest.approx(1, abs=0.05)


def test_the_same_seed_changes_alike():
    x = torch.rand(6, 3, 8, 8)
    change_ = ImageTransforms(ImageTransformsConfig(enable=True))
    first, again, other = (change_(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(change_(x), first)  # torch's own generator is the default


def test_a_sample_changes_alike_in_whatever_part_it_is_computed(monkeypatch):
    x = torch.rand(9, 2, 3, 8, 8)
    change_ = ImageTransforms(ImageTransformsConfig(enable=True))
    together = change_(x, torch.Generator().manual_seed(3))
    monkeypatch.setattr(transforms, "CHUNK", 1)
    assert torch.allclose(change_(x, torch.Generator().manual_seed(3)), together, atol=1e-6)


@pytest.fixture
def applied(monkeypatch):
    """A list of the kinds in the order they are applied to a batch of one."""
    done = []
    for kind in KINDS:
        monkeypatch.setitem(KINDS, kind, lambda x, _, kind=kind: (done.append(kind), x)[1])
    return done


def test_kinds_come_in_order_none_twice_and_as_many_as_asked(applied):
    change_ = ImageTransforms(ImageTransformsConfig(enable=True, max_num_transforms=4))
    seen = set()
    for seed in range(40):
        applied.clear()
        change_(torch.rand(1, 3, 4, 4), torch.Generator().manual_seed(seed))
        assert len(set(applied)) == 4
        assert applied == [kind for kind in KINDS if kind in applied]
        seen.add(tuple(applied))
    assert len(seen) > 8  # of 15


def test_the_order_is_random_if_that_is_asked_for(applied):
    config = ImageTransformsConfig(enable=True, max_num_transforms=2, random_order=True)
    orders = set()
    for seed in range(100):
        applied.clear()
        ImageTransforms(config)(torch.rand(1, 3, 4, 4), torch.Generator().manual_seed(seed))
        assert len(set(applied)) == 2
        orders.add(tuple(applied))
    assert len(orders) == 30


def test_kinds_are_drawn_by_their_weights(applied):
    weights = {"brightness": 3.0, "hue": 1.0}
    weights = dict.fromkeys(KINDS, 0.0) | weights
    config = ImageTransformsConfig(enable=True, max_num_transforms=1, weights=weights)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        ImageTransforms(config)(torch.rand(1, 3, 4, 4), generator)
    assert set(applied) == {"brightness", "hue"}
    assert applied.count("hue") == pytest.approx(100, abs=30)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("hue", (0.0, 0.6)), ("brightness", (1.2, 0.8)), ("affine", (-200.0, 0.0))],
)
def test_ranges_are_checked(kind, value):
    with pytest.raises(ConfigError, match=f"--dataset.image_transforms.{kind}="):
        ImageTransformsConfig(**{kind: value})
    with pytest.raises(ConfigError, match=r"--dataset.image_transforms.translate=.*0 to 1"):
        ImageTransformsConfig(translate=(0.0, math.nan))
