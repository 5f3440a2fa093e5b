"""Statistics of pictures: exact where frames are counted, and which stored ones are impossible."""

import numpy as np
import pytest

from leray.data.image_statistics import ImageStatistics, is_std_possible, sampled_frames


def gathered(frames: np.ndarray) -> dict[str, np.ndarray]:
    statistics = ImageStatistics(frames.shape[-1])
    for frame in frames:
        statistics.add(frame)
    return statistics.result()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_they_are_those_of_all_pixels(channels):
    rng = np.random.default_rng(channels)
    frames = rng.integers(0, 256, (7, 20, 30, channels), dtype=np.uint8)
    frames[..., 0] //= 3
    found = gathered(frames)
    pixels = frames.reshape(-1, channels) / 255.0
    for key, expected in {
        "min": pixels.min(axis=0),
        "max": pixels.max(axis=0),
        "mean": pixels.mean(axis=0),
        "std": pixels.std(axis=0),
    }.items():
        np.testing.assert_allclose(found[key], expected[:, None, None], atol=1e-12)
    for key, fraction in {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}.items():
        expected = np.quantile(pixels, fraction, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(found[key], expected[:, None, None], atol=1e-12)
    assert found["count"].tolist() == [7]
    assert is_std_possible(found)


def test_one_colour_has_no_spread():
    found = gathered(np.full((2, 4, 4, 3), 51, np.uint8))
    assert found["std"].reshape(-1).tolist() == [0.0, 0.0, 0.0]
    for key in ("min", "max", "mean", "q01", "q50", "q99"):
        np.testing.assert_allclose(found[key], 0.2)
    assert is_std_possible(found)


def test_no_frame_no_statistics():
    with pytest.raises(ValueError, match="at least one frame"):
        ImageStatistics(3).result()


@pytest.mark.parametrize(
    ("size", "step"), [((299, 100), 1), ((300, 100), 2), ((480, 640), 4), ((100, 1000), 6)]
)
def test_large_pictures_are_thinned_out_to_about_150_pixels(size, step):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (*size, 1), dtype=np.uint8)
    np.testing.assert_allclose(
        gathered(frame[None])["mean"].item(), frame[::step, ::step].mean() / 255
    )


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (99, 99), (100, 100), (464, 100), (1000, 177), (10**6, 10_000)]
)
def test_frames_of_an_episode_are_spread_from_first_to_last(length, count):
    frames = sampled_frames(length)
    assert len(frames) == count  # length^0.75, at least 100, at most 10,000
    assert frames[0] == 0
    assert frames[-1] == length - 1
    assert (np.diff(frames) > 0).all()
    if count > 2:
        assert np.diff(frames).max() - np.diff(frames).min() <= 1


def entry(std: float, **quantiles: float) -> dict[str, np.ndarray]:
    values = {"std": std, **quantiles}
    return {key: np.full((3, 1, 1), value) for key, value in values.items()}


def test_squares_that_overflowed_are_recognised():
    noise = gathered(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    assert is_std_possible(noise)
    assert not is_std_possible({**noise, "std": np.full((3, 1, 1), 0.0006)})
    one_channel = {**noise, "std": noise["std"].copy()}
    one_channel["std"][1] = 0.001
    assert not is_std_possible(one_channel)


def test_the_bound_is_the_one_of_two_tenths_far_apart():
    """A tenth of the values at 0, a tenth at 1, the others in the middle: std is 0.2236."""
    values = np.repeat([0.0, 0.5, 1.0], [10, 80, 10])
    assert np.isclose(values.std(), 1 / np.sqrt(20))
    assert is_std_possible(entry(values.std(), q10=0.0, q90=1.0))
    assert not is_std_possible(entry(0.19, q10=0.0, q90=1.0))
    assert not is_std_possible(entry(0.05, q01=0.0, q99=1.0))
    assert is_std_possible(entry(0.08, q01=0.0, q99=1.0))
    assert is_std_possible(entry(0.0))  # without quantiles nothing can be said
