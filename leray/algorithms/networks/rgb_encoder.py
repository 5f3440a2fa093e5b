"""Pictures to a vector of keypoint coordinates: the encoder of Diffusion Policy and VQ-BeT.

Resize, crop, a ResNet, and a spatial softmax (Finn et al. 2015, arXiv 1509.06113) that turns each
map of features into the mean position of what it responds to.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from leray.algorithms.config import require
from leray.algorithms.networks.resnet import ResNet

Size = tuple[int, int]
"""Height and width in pixels."""

STRIDE = 32
"""Pixels per step of the map of features; what is left over at the end counts as one more."""


class SpatialSoftmax(nn.Module):
    """Means of the positions on a map, weighted by the softmax of each of K learned maps.

    Positions go from -1 to 1; x is along the width.

    Args:
        channels: of the map that comes in.
        size: of the map.
        num_keypoints: K.
    """

    pos_grid: Tensor

    def __init__(self, channels: int, size: Size, num_keypoints: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, num_keypoints, 1)
        height, width = size
        y = torch.linspace(-1, 1, height, dtype=torch.float64)
        x = torch.linspace(-1, 1, width, dtype=torch.float64)
        grid = torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1)
        self.register_buffer("pos_grid", grid.to(torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """Return keypoints [N, K, 2] as (x, y) of a map [N, C, H, W]."""
        weights = self.nets(features).flatten(2).softmax(-1)
        return torch.matmul(weights, self.pos_grid.to(weights.dtype))


class RgbEncoder(nn.Module):
    """Encodes pictures as 2K numbers.

    Args:
        image_shape: height, width, channels of the pictures that come in.
        vision_backbone: kind of ResNet; see `resnet.KINDS`.
        group_norm: normalise groups of channels instead of the batch.
        num_keypoints: K of the spatial softmax.
        resize: what pictures are resized to first; None leaves them.
        crop: what is cut out of them then; None leaves them.
        random_crop: cut at a random place while training, the same in all pictures of a call;
            in the centre otherwise.

    Raises:
        ConfigError: the pictures are smaller than the crop, or have other than three channels.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        *,
        vision_backbone: str = "resnet18",
        group_norm: bool = True,
        num_keypoints: int = 32,
        resize: Size | None = None,
        crop: Size | None = None,
        random_crop: bool = True,
    ) -> None:
        super().__init__()
        size = resize or image_shape[:2]
        require(
            image_shape[2] == 3,
            f"pictures have {image_shape[2]} channels: --policy.vision_backbone needs 3",
        )
        require(
            crop is None or (crop[0] <= size[0] and crop[1] <= size[1]),
            f"--policy.crop_shape={crop}: pictures are {size[0]}x{size[1]}; give at most that",
        )
        height, width = crop or size
        backbone = ResNet(vision_backbone, "group" if group_norm else "batch")
        self.resize, self.crop, self.random_crop = resize, crop, random_crop
        self.backbone = backbone.numbered()
        steps = (-(-height // STRIDE), -(-width // STRIDE))
        self.pool = SpatialSoftmax(backbone.channels, steps, num_keypoints)
        self.output_size = 2 * num_keypoints
        self.out = nn.Linear(self.output_size, self.output_size)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return features [N, 2K] of pictures [N, 3, H, W]."""
        if self.resize is not None:
            pictures = resized(pictures, self.resize)
        if self.crop is not None:
            pictures = cropped(pictures, self.crop, at_random=self.training and self.random_crop)
        keypoints: Tensor = self.pool(self.backbone(pictures))
        return functional.relu(self.out(keypoints.flatten(1)))


def resized(pictures: Tensor, size: Size) -> Tensor:
    """Return pictures [N, C, H, W] in another size, bilinear and without aliasing."""
    if pictures.shape[-2:] == size:
        return pictures
    return functional.interpolate(
        pictures, size, mode="bilinear", antialias=True, align_corners=False
    )


def cropped(pictures: Tensor, size: Size, *, at_random: bool) -> Tensor:
    """Return a part of pictures [..., H, W], the same of each.

    Args:
        pictures: at least as large as `size`.
        size: of the part.
        at_random: at a place drawn from torch's generator (first the row, then the column), not
            in the centre; nothing is drawn where the sizes are equal.
    """
    margins = [have - want for have, want in zip(pictures.shape[-2:], size, strict=True)]
    if not any(margins):
        return pictures
    if at_random:
        top, left = (int(torch.randint(0, margin + 1, (1,))) for margin in margins)
    else:
        top, left = (round(margin / 2) for margin in margins)  # halves go to the even number
    return pictures[..., top : top + size[0], left : left + size[1]]
