"""The networks of Diffusion Policy: names and shapes of LeRobot's files, and what they compute."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.diffusion.networks import Denoiser, ResidualBlock, StepEmbedding, UNet
from leray.algorithms.networks.rgb_encoder import RgbEncoder
from leray.data.features import Feature, Features

PUSHT = Features(
    {
        "observation.image": Feature("uint8", (96, 96, 3), ("height", "width", "channels")),
        "observation.state": Feature("float32", (2,)),
        "action": Feature("float32", (2,)),
    }
)
CONDITION = 128 + 2 * (2 + 64)


def _block(inputs: int, outputs: int) -> dict[str, list[int]]:
    shapes = {
        "conv1.block.0.weight": [outputs, inputs, 5],
        "conv1.block.0.bias": [outputs],
        "conv1.block.1.weight": [outputs],
        "conv1.block.1.bias": [outputs],
        "cond_encoder.1.weight": [2 * outputs, CONDITION],
        "cond_encoder.1.bias": [2 * outputs],
        "conv2.block.0.weight": [outputs, outputs, 5],
        "conv2.block.0.bias": [outputs],
        "conv2.block.1.weight": [outputs],
        "conv2.block.1.bias": [outputs],
    }
    if inputs != outputs:
        shapes["residual_conv.weight"] = [outputs, inputs, 1]
        shapes["residual_conv.bias"] = [outputs]
    return shapes


def _unet() -> dict[str, list[int]]:
    shapes = {
        "diffusion_step_encoder.1.weight": [512, 128],
        "diffusion_step_encoder.1.bias": [512],
        "diffusion_step_encoder.3.weight": [128, 512],
        "diffusion_step_encoder.3.bias": [128],
        "down_modules.0.2.weight": [512, 512, 3],
        "down_modules.0.2.bias": [512],
        "down_modules.1.2.weight": [1024, 1024, 3],
        "down_modules.1.2.bias": [1024],
        "up_modules.0.2.weight": [1024, 1024, 4],
        "up_modules.0.2.bias": [1024],
        "up_modules.1.2.weight": [512, 512, 4],
        "up_modules.1.2.bias": [512],
        "final_conv.0.block.0.weight": [512, 512, 5],
        "final_conv.0.block.0.bias": [512],
        "final_conv.0.block.1.weight": [512],
        "final_conv.0.block.1.bias": [512],
        "final_conv.1.weight": [2, 512, 1],
        "final_conv.1.bias": [2],
    }
    blocks = {
        "down_modules.0.0": (2, 512),
        "down_modules.0.1": (512, 512),
        "down_modules.1.0": (512, 1024),
        "down_modules.1.1": (1024, 1024),
        "down_modules.2.0": (1024, 2048),
        "down_modules.2.1": (2048, 2048),
        "mid_modules.0": (2048, 2048),
        "mid_modules.1": (2048, 2048),
        "up_modules.0.0": (4096, 1024),
        "up_modules.0.1": (1024, 1024),
        "up_modules.1.0": (2048, 512),
        "up_modules.1.1": (512, 512),
    }
    for name, (inputs, outputs) in blocks.items():
        shapes |= {f"{name}.{key}": shape for key, shape in _block(inputs, outputs).items()}
    return shapes


def test_names_and_shapes_of_the_default_policy_are_lerobots():
    with torch.device("meta"):
        denoiser = Denoiser(DiffusionPolicyConfig(crop_shape=(84, 84)), PUSHT)
    shapes = {name: list(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    unet = {f"unet.{name}": shape for name, shape in _unet().items()}
    assert {k: v for k, v in shapes.items() if k.startswith("unet.")} == unet
    encoder = {k: v for k, v in shapes.items() if k.startswith("rgb_encoder.")}
    assert sum(name.startswith("rgb_encoder.backbone.") for name in encoder) == 60
    assert {k: v for k, v in encoder.items() if ".backbone." not in k} == {
        "rgb_encoder.pool.nets.weight": [32, 512, 1, 1],
        "rgb_encoder.pool.nets.bias": [32],
        "rgb_encoder.pool.pos_grid": [9, 2],
        "rgb_encoder.out.weight": [64, 64],
        "rgb_encoder.out.bias": [64],
    }
    assert len(shapes) == len(unet) + len(encoder) == 213
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 262_709_026


def test_cameras_share_an_encoder_or_have_their_own():
    cameras = {f"observation.images.{name}": PUSHT["observation.image"] for name in ("b", "a")}
    features = Features({**cameras, **PUSHT.select(["observation.state", "action"])})
    options = {"down_dims": (8,), "spatial_softmax_num_keypoints": 4}
    shared = Denoiser(DiffusionPolicyConfig(**options), features)
    own = Denoiser(
        DiffusionPolicyConfig(**options, use_separate_rgb_encoder_per_camera=True), features
    )
    assert isinstance(shared.rgb_encoder, RgbEncoder)
    names = {name.split(".")[1] for name in own.state_dict() if name.startswith("rgb_encoder")}
    assert names == {"0", "1"}
    # 2 steps of a state of 2 numbers and 2 cameras with 8 each, and the embedding
    for denoiser in (shared, own):
        assert denoiser.unet.mid_modules[0].cond_encoder[1].in_features == 128 + 2 * (2 + 16)


@pytest.mark.parametrize("separate", [False, True])
def test_conditions_are_state_cameras_environment_step_by_step(separate):
    picture = Feature("uint8", (8, 8, 3), ("height", "width", "channels"))
    features = Features(
        {
            "observation.environment_state": Feature("float32", (1,)),
            "observation.images.left": picture,
            "observation.state": Feature("float32", (2,)),
            "observation.images.right": picture,
            "action": Feature("float32", (2,)),
        }
    )
    config = DiffusionPolicyConfig(
        down_dims=(8,),
        spatial_softmax_num_keypoints=1,
        use_separate_rgb_encoder_per_camera=separate,
    )
    denoiser = Denoiser(config, features)

    class Corner(nn.Module):  # tells the first and the last number of each picture
        def forward(self, pictures):
            return torch.stack([pictures[:, 0, 0, 0], pictures[:, -1, -1, -1]], dim=1)

    denoiser.rgb_encoder = nn.ModuleList([Corner(), Corner()]) if separate else Corner()
    pictures = torch.arange(2 * 2 * 3 * 8 * 8.0).view(2, 2, 3, 8, 8)
    batch = {
        "observation.state": torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]),
        "observation.images.left": pictures,
        "observation.images.right": -pictures,
        "observation.environment_state": torch.tensor([[[9.0], [10.0]], [[11.0], [12.0]]]),
    }
    size = 3 * 8 * 8
    firsts = [[number * size, (number + 1) * size - 1] for number in range(4)]
    steps = [
        [*state, *first, -first[0], -first[1], env]
        for state, first, env in zip(
            [(1, 2), (3, 4), (5, 6), (7, 8)], firsts, (9, 10, 11, 12), strict=True
        )
    ]
    expected = [[*steps[0], *steps[1]], [*steps[2], *steps[3]]]
    assert denoiser.condition(batch).tolist() == expected


def test_steps_are_embedded_as_sines_then_cosines():
    embedded = StepEmbedding(6)(torch.tensor([0, 3]))
    frequencies = [1, 10_000**-0.5, 10_000**-1]
    expected = [
        [0, 0, 0, 1, 1, 1],
        [math.sin(3 * f) for f in frequencies] + [math.cos(3 * f) for f in frequencies],
    ]
    torch.testing.assert_close(embedded, torch.tensor(expected))


@pytest.mark.parametrize("scales", [True, False])
def test_the_condition_scales_then_shifts(scales):
    config = DiffusionPolicyConfig(down_dims=(8,), use_film_scale_modulation=scales)
    block = ResidualBlock(3, 8, 4, config)
    x, condition = torch.randn(2, 3, 6), torch.randn(2, 4)
    told = functional.linear(condition, block.cond_encoder[1].weight, block.cond_encoder[1].bias)
    y = block.conv1.block(x)
    scale, shift = (told[:, :8, None], told[:, 8:, None]) if scales else (1, told[:, :, None])
    y = scale * y + shift
    expected = block.conv2.block(y) + block.residual_conv(x)
    torch.testing.assert_close(block(x, condition), expected)


@pytest.mark.parametrize(("dims", "horizon"), [((8,), 2), ((8, 16), 8), ((8, 16, 24, 32), 16)])
def test_any_number_of_stages_keeps_the_shape(dims, horizon):
    config = DiffusionPolicyConfig(
        down_dims=dims, horizon=horizon, n_obs_steps=1, n_action_steps=1, n_groups=4
    )
    unet = UNet(3, 5, config)
    told = unet(torch.randn(2, horizon, 3), torch.tensor([0, 99]), torch.randn(2, 5))
    assert told.shape == (2, horizon, 3)
    told.sum().backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())


def test_each_sample_depends_on_its_own_step_and_condition_alone():
    unet = UNet(3, 5, DiffusionPolicyConfig(down_dims=(8, 16)))
    actions, condition = torch.randn(2, 16, 3), torch.randn(2, 5)
    both = unet(actions, torch.tensor([3, 70]), condition)
    alone = unet(actions[1:], torch.tensor([70]), condition[1:])
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(both[1:], unet(actions[1:], torch.tensor([71]), condition[1:]))
