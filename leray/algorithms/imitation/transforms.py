"""Random changes of training pictures: kinds, ranges and order are LeRobot's.

With x a picture within 0 and 1 and f the factor drawn, results clipped to 0 and 1:

* brightness: f x.
* contrast: m + f (x - m), with m the mean of the grey picture.
* saturation: g + f (x - g), with g the grey picture, 0.2989 red + 0.587 green + 0.114 blue.
* hue: the colour wheel of hue, saturation and value turned by f turns.
* sharpness: b + f (x - b), with b the picture blurred: all pixels but those at the border are means
  of themselves, counted five times, and of their eight neighbours.
* affine: turned clockwise about the centre and shifted by whole pixels; each pixel is that nearest
  to where it comes from, and black where that is outside.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from leray.algorithms.imitation.config import ImageTransformsConfig

RGB = 3
CHUNK = 1 << 18
"""Numbers that are changed at a time on a CPU, so that what lies between stays in its cache."""


class ImageTransforms:
    """Changes each picture of a batch in its own way; the frames of one sample alike.

    Each picture gets `max_num_transforms` kinds, drawn by their weights, none of them twice, and a
    strength for each, drawn evenly from its range. The cameras of a sample are drawn for apart.
    Pictures with other than three channels, such as depth, stay as they are.

    Args:
        config: what is drawn from.
    """

    def __init__(self, config: ImageTransformsConfig) -> None:
        weights = [max(0.0, config.weights.get(kind, 1.0)) for kind in KINDS]
        self._weights = torch.tensor(weights)
        drawable = sum(weight > 0 for weight in weights)
        self._count = min(config.max_num_transforms, drawable) if config.enable else 0
        self._random_order = config.random_order
        ranges = [getattr(config, kind) for kind in KINDS]
        ranges += [(-share, share) for share in config.translate]
        self._low, self._high = torch.tensor(ranges).unbind(1)

    def __call__(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return changed pictures; those given stay as they are.

        Args:
            pictures: [B, ..., channels, height, width] within 0 and 1, of one camera.
            generator: of the random numbers, by default torch's of the CPU. One on another device
                makes this wait for it.
        """
        if not self._count or pictures.shape[-3] != RGB:
            return pictures
        changed = pictures.clone()
        samples, *times = pictures.shape[:-3]
        frames = changed.view(samples, math.prod(times), *pictures.shape[-3:])
        kinds, strengths = self._draw(samples, generator)
        strengths = strengths.to(frames)
        for kind, rows in self._turns(kinds):
            first = list(KINDS).index(kind)
            own = strengths[:, first:] if kind == "affine" else strengths[:, first : first + 1]
            for part in _parts(rows, frames):
                frames[part] = KINDS[kind](frames[part], own[part])
        return changed

    def _draw(self, size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return kinds [size, count] by number, and strengths [size, columns], on the CPU."""
        device = "cpu" if generator is None else generator.device
        weights = self._weights.to(device).expand(size, -1)
        kinds = torch.multinomial(weights, self._count, generator=generator).cpu()
        shape = (size, len(self._low))
        uniform = torch.rand(shape, generator=generator, device=device).cpu()
        return kinds, self._low + (self._high - self._low) * uniform

    def _turns(self, kinds: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield kinds in the order they are applied, each with the samples that get it."""
        steps = kinds.unbind(1) if self._random_order else [kinds]
        for chosen in steps:
            for number, kind in enumerate(KINDS):
                mask = chosen == number
                rows = (mask if mask.dim() == 1 else mask.any(1)).nonzero()[:, 0]
                if len(rows):
                    yield kind, rows


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Return pictures [n, T, 3, height, width], made brighter by factors [n, 1]."""
    return (x * _per_sample(factor)).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Return pictures further from their mean grey by factors [n, 1]."""
    return _away(x, _grey(x).mean((-2, -1), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Return pictures further from grey by factors [n, 1]."""
    return _away(x, _grey(x), factor)


def hue(x: Tensor, turns: Tensor) -> Tensor:
    """Return pictures with the colour wheel turned by [n, 1] turns: a third makes red green.

    A colour's place h on the wheel is counted in sixths. With v the largest channel and v - c the
    smallest, each channel is v - c min(max(min(k, 4 - k), 0), 1), where k is h + 5 for red, h + 3
    for green and h + 1 for blue, modulo 6.
    """
    red, green, blue = x.unbind(-3)
    value = x.amax(-3)
    chroma = value - x.amin(-3)
    by = torch.where(chroma == 0, 1, chroma)
    place = torch.where(value == green, (blue - red) / by + 2, (red - green) / by + 4)
    place = torch.where(value == red, (green - blue) / by, place)
    place += 6 * turns[:, :, None, None]
    turned = torch.empty_like(x)
    for channel, offset in enumerate((5, 3, 1)):
        k = place + offset
        k -= (k / 6).floor_().mul_(6)  # the remainder, which torch itself is slow at
        share = torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma)
        torch.sub(value, share, out=turned[..., channel, :, :])
    return turned.clamp_(0, 1)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Return pictures further from themselves blurred by factors [n, 1]; borders stay."""
    if min(x.shape[-2:]) < RGB:
        return x
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = x[..., 1:-1, 1:-1]
    blurred = around.add_(inner, alpha=4).div_(13)
    sharper = x.clone()
    sharper[..., 1:-1, 1:-1] = _away(inner, blurred, factor)
    return sharper


def affine(x: Tensor, moves: Tensor) -> Tensor:
    """Return pictures moved by [n, 3]: degrees clockwise, and shares of width and height."""
    count, frames, _, height, width = x.shape
    angle = moves[:, 0] * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    # of the place a pixel comes from, in half widths and heights from the centre
    right = (moves[:, 1] * width).round() * (2 / width)
    down = (moves[:, 2] * height).round() * (2 / height)
    tall, wide = height / width, width / height
    place = torch.stack(
        [
            torch.stack([cos, sin * tall, -cos * right - sin * tall * down], -1),
            torch.stack([-sin * wide, cos, sin * wide * right - cos * down], -1),
        ],
        -2,
    )
    grid = functional.affine_grid(place, [count, 1, height, width], align_corners=False)
    flat = x.reshape(count, frames * RGB, height, width)
    return functional.grid_sample(flat, grid, "nearest", align_corners=False).view_as(x)


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
    "sharpness": sharpness,
    "affine": affine,
}


def _away(x: Tensor, origin: Tensor, factor: Tensor) -> Tensor:
    """Return origin + factor (x - origin), clipped."""
    return (x - origin).mul_(_per_sample(factor)).add_(origin).clamp_(0, 1)


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(-3)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)


def _per_sample(factor: Tensor) -> Tensor:
    return factor[:, :, None, None, None]


def _parts(rows: Tensor, frames: Tensor) -> list[Tensor]:
    """Return the rows in parts that are changed at a time; all of them where there is a GPU."""
    if frames.device.type == "cpu":
        size = max(1, CHUNK // frames[0].numel())
        return [rows[start : start + size] for start in range(0, len(rows), size)]
    return [rows.to(frames.device, non_blocking=True)]
