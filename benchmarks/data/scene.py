"""Pictures for the measurements: smooth, textured, moving, a little noisy, as a camera's are.

Pure noise would be unfair to every codec and flat shapes too kind. A scene is a background whose
amplitudes fall with spatial frequency as 1/f, as those of photographs do, blurred as by a lens,
under a camera that sways by a few pixels; in front of it a few shaded, textured discs move on
smooth curves; Gaussian noise of one grey level stands for the sensor's.
"""

import numpy as np

_OBJECTS = 4
_NOISE_LEVELS = 1.0
_SWAY_PIXELS = 12
_LENS_PIXELS = 1.2
"""Standard deviation of the blur."""
_COLOUR = 0.25
"""Contrast of colours, relative to that of brightness."""


class Scene:
    """One episode's pictures.

    Args:
        seed: of the scene; each episode has another.
        height: of a picture, in pixels.
        width: of a picture, in pixels.
    """

    def __init__(self, seed: int, *, height: int = 480, width: int = 640) -> None:
        self._rng = np.random.default_rng(seed)
        self._size = (height, width)
        margin = 2 * _SWAY_PIXELS
        self._background = _texture(self._rng, height + margin, width + margin, 30.0)
        self._noise = self._rng.normal(0, _NOISE_LEVELS, (height + 64, width + 64, 3))
        self._noise = self._noise.astype(np.float32)
        self._discs = [self._disc() for _ in range(_OBJECTS)]

    def picture(self, time_s: float) -> np.ndarray:
        """Return the picture at a time: uint8 [height, width, 3], RGB."""
        height, width = self._size
        sway = _SWAY_PIXELS * (1 + np.sin([0.5 * time_s, 0.7 * time_s + 1]))
        top, left = sway.astype(int)
        frame = self._background[top : top + height, left : left + width].copy()
        for pixels, mask, phase, speed in self._discs:
            side = len(mask)
            y = int((height - side) * (0.5 + 0.5 * np.sin(speed[0] * time_s + phase[0])))
            x = int((width - side) * (0.5 + 0.5 * np.sin(speed[1] * time_s + phase[1])))
            under = frame[y : y + side, x : x + side]
            under += mask * (pixels - under)
        top, left = self._rng.integers(0, 64, 2)
        frame += self._noise[top : top + height, left : left + width]
        return np.clip(frame, 0, 255).astype(np.uint8)

    def _disc(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return an object: pixels, opacity with a soft edge, phases and speeds in rad/s."""
        side = int(self._rng.integers(self._size[0] // 6, self._size[0] // 3))
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        mask = np.clip((1 - np.hypot(y, x)) * side / 4, 0, 1)[..., None]
        shade = 60 * (1 - np.hypot(y + 0.4, x + 0.4))[..., None]
        pixels = _texture(self._rng, side, side, 20.0) + shade + self._rng.normal(0, 40, 3)
        phase, speed = self._rng.uniform(0, 6.28, 2), self._rng.uniform(0.3, 1.2, 2)
        return pixels.astype(np.float32), mask.astype(np.float32), phase, speed


def _texture(rng: np.random.Generator, height: int, width: int, contrast: float) -> np.ndarray:
    """Return a field [height, width, 3] around grey: 1/f amplitudes, blurred as by a lens."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    lens = np.exp(-0.5 * (2 * np.pi * frequency * _LENS_PIXELS) ** 2)
    spectrum = np.fft.rfft2(rng.normal(size=(4, height, width))) * lens / frequency
    field = np.fft.irfft2(spectrum, (height, width))
    field *= contrast / field.std(axis=(1, 2), keepdims=True)
    coloured = field[:1] + _COLOUR * field[1:]
    return (128 + np.moveaxis(coloured, 0, -1)).astype(np.float32)
