"""Changes pictures with torchvision, as LeRobot does; see `test_transforms_parity`."""

import sys

import torch
from safetensors.torch import load_file, save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as change

given = load_file(sys.argv[1])
x = given["pictures"]
kinds = {
    "brightness": change.adjust_brightness,
    "contrast": change.adjust_contrast,
    "saturation": change.adjust_saturation,
    "hue": change.adjust_hue,
    "sharpness": change.adjust_sharpness,
}
changed = {}
for kind, function in kinds.items():
    rows = zip(x, given[kind].tolist(), strict=True)
    changed[kind] = torch.stack([function(frames, factor) for frames, (factor,) in rows])
height, width = x.shape[-2:]
changed["affine"] = torch.stack(
    [
        change.affine(
            frames,
            angle=angle,
            translate=[round(right * width), round(down * height)],
            scale=1.0,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.NEAREST,
        )
        for frames, (angle, right, down) in zip(x, given["affine"].tolist(), strict=True)
    ]
)
save_file(changed, sys.argv[2])
