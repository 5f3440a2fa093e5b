"""ACT's networks: names and shapes, the numbers of a second writing, masks and shortcuts."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from leray.algorithms.act.config import ACTPolicyConfig
from leray.algorithms.act.networks import ACTNetwork
from leray.algorithms.networks.positions import picture_sinusoids, sinusoids
from leray.data.features import Feature, Features
from leray.errors import FeatureMismatchError
from tests.algorithms.act.conftest import SMALL, features_of

D, F, K, L = 512, 3200, 100, 32
ATTENTION = {
    "in_proj_weight": (3 * D, D),
    "in_proj_bias": (3 * D,),
    "out_proj.weight": (D, D),
    "out_proj.bias": (D,),
}
LAYER = {
    **{f"self_attn.{name}": shape for name, shape in ATTENTION.items()},
    "linear1.weight": (F, D),
    "linear1.bias": (F,),
    "linear2.weight": (D, F),
    "linear2.bias": (D,),
    **{f"norm{i}.{name}": (D,) for i in (1, 2) for name in ("weight", "bias")},
}
DECODER_LAYER = {
    **LAYER,
    **{f"multihead_attn.{name}": shape for name, shape in ATTENTION.items()},
    "norm3.weight": (D,),
    "norm3.bias": (D,),
}


def _layers(prefix, count, layer):
    return {f"{prefix}.layers.{i}.{key}": s for i in range(count) for key, s in layer.items()}


def _linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


DEFAULT = {
    **_layers("encoder", 4, LAYER),
    **_layers("decoder", 1, DECODER_LAYER),
    "decoder.norm.weight": (D,),
    "decoder.norm.bias": (D,),
    "decoder_pos_embed.weight": (K, D),
    **_linear("encoder_latent_input_proj", D, L),
    **_linear("encoder_robot_state_input_proj", D, 14),
    "encoder_img_feat_input_proj.weight": (D, 512, 1, 1),
    "encoder_img_feat_input_proj.bias": (D,),
    "encoder_1d_feature_pos_embed.weight": (2, D),
    **_linear("action_head", 14, D),
    **_layers("vae_encoder", 4, LAYER),
    "vae_encoder_cls_embed.weight": (1, D),
    **_linear("vae_encoder_robot_state_input_proj", D, 14),
    **_linear("vae_encoder_action_input_proj", D, 14),
    **_linear("vae_encoder_latent_output_proj", 2 * L, D),
    "vae_encoder_pos_enc": (1, K + 2, D),
}
"""Tensors of LeRobot's default policy with a state and an action of 14 and one camera, without the
backbone's 100."""
PARAMETERS = 51_613_582


def _meta(inputs, **options):
    with torch.device("meta"):
        return ACTNetwork(ACTPolicyConfig(**options), features_of(inputs))


def _shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_default_names_shapes_and_count():
    vector = Feature("float32", (14,))
    camera = Feature("uint8", (480, 640, 3), ("height", "width", "channels"))
    features = Features(
        {"observation.state": vector, "observation.images.top": camera, "action": vector}
    )
    with torch.device("meta"):
        network = ACTNetwork(ACTPolicyConfig(), features)
    shapes = _shapes(network)
    backbone = {name for name in shapes if name.startswith("backbone.")}
    assert len(backbone) == 100
    assert {name: shape for name, shape in shapes.items() if name not in backbone} == DEFAULT
    assert len(shapes) == 234
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS


def test_each_input_and_option_brings_its_tensors():
    base = _shapes(_meta("state front"))
    assert _shapes(_meta("state front top wrist")) == base  # one backbone for all cameras
    env = _shapes(_meta("state env"))
    pictures = {name for name in base if "backbone" in name or "img_feat" in name}
    added = {f"encoder_env_state_input_proj.{part}" for part in ("weight", "bias")}
    assert base.keys() - env.keys() == pictures
    assert env.keys() - base.keys() == added
    assert env["encoder_1d_feature_pos_embed.weight"] == (3, D)

    bare = _shapes(_meta("env"))
    assert {n for n in env if n not in bare} == {
        f"{where}_robot_state_input_proj.{part}"
        for where in ("encoder", "vae_encoder")
        for part in ("weight", "bias")
    }
    assert bare["vae_encoder_pos_enc"] == (1, K + 1, D)
    assert bare["encoder_1d_feature_pos_embed.weight"] == (2, D)

    without = _shapes(_meta("state front", use_vae=False))
    assert without == {name: s for name, s in base.items() if "vae" not in name}
    before = _shapes(_meta("state front", pre_norm=True))
    assert before.keys() - base.keys() == {
        f"{where}.norm.{part}"
        for where in ("encoder", "vae_encoder")
        for part in ("weight", "bias")
    }
    wide = _shapes(_meta("state front", vision_backbone="resnet50"))
    assert wide["encoder_img_feat_input_proj.weight"] == (D, 2048, 1, 1)


def test_fresh_weights_have_lerobots_distributions():
    torch.manual_seed(0)
    network = ACTNetwork(ACTPolicyConfig(n_vae_encoder_layers=1), features_of("state env"))
    xavier = (2 / (D + F)) ** 0.5
    for weight in (
        network.encoder.layers[1].linear1.weight,
        network.decoder.layers[0].linear2.weight,
    ):
        assert weight.std().item() == pytest.approx(xavier, rel=0.02)
    packed = (2 / (4 * D)) ** 0.5
    assert network.encoder.layers[0].self_attn.in_proj_weight.std().item() == pytest.approx(
        packed, rel=0.02
    )
    plain = network.vae_encoder.layers[0].linear1.weight  # torch's own: uniform to 1 / sqrt(D)
    assert plain.std().item() == pytest.approx(1 / (3 * D) ** 0.5, rel=0.02)
    assert network.decoder_pos_embed.weight.std().item() == pytest.approx(1, rel=0.02)
    assert network.vae_encoder.layers[0].self_attn.in_proj_bias.abs().max() == 0
    assert torch.equal(network.vae_encoder_pos_enc[0], sinusoids(K + 2, D))


class Plain:
    """A second writing of the network over torch's own attention, tokens first, from tensors."""

    def __init__(self, policy):
        self.tensors = {
            name.removeprefix("model."): tensor
            for name, tensor in policy.model.state_dict(keep_vars=True).items()
        }
        self.config = policy.config

    def linear(self, name, x):
        return functional.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def norm(self, name, x):
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias)

    def attend(self, name, query, key, value, is_pad=None):
        module = nn.MultiheadAttention(self.config.dim_model, self.config.n_heads)
        parameters = {k: self.tensors[f"{name}.{k}"] for k in module.state_dict()}
        return torch.func.functional_call(
            module, parameters, (query, key, value), {"key_padding_mask": is_pad}
        )[0]

    def feed_forward(self, name, x):
        kinds = {"relu": torch.relu, "gelu": functional.gelu}
        hidden = kinds[self.config.feedforward_activation](self.linear(f"{name}.linear1", x))
        return self.linear(f"{name}.linear2", hidden)

    def parts(self, name, x, parts):
        for number, part in enumerate(parts, 1):
            if self.config.pre_norm:
                x = x + part(self.norm(f"{name}.norm{number}", x))
            else:
                x = self.norm(f"{name}.norm{number}", x + part(x))
        return x

    def encode(self, name, count, x, positions, is_pad=None):
        for number in range(count):
            at = f"{name}.layers.{number}"

            def look(x, at=at):
                placed = x + positions
                return self.attend(f"{at}.self_attn", placed, placed, x, is_pad)

            x = self.parts(at, x, [look, lambda x, at=at: self.feed_forward(at, x)])
        return self.norm(f"{name}.norm", x) if self.config.pre_norm else x

    def decode(self, memory, memory_positions):
        positions = self.tensors["decoder_pos_embed.weight"].unsqueeze(1)
        x = positions.new_zeros(len(positions), memory.shape[1], positions.shape[2])
        for number in range(self.config.n_decoder_layers):
            at = f"decoder.layers.{number}"

            def look(x, at=at):
                return self.attend(f"{at}.self_attn", x + positions, x + positions, x)

            def cross(x, at=at):
                key = memory + memory_positions
                return self.attend(f"{at}.multihead_attn", x + positions, key, memory)

            x = self.parts(at, x, [look, cross, lambda x, at=at: self.feed_forward(at, x)])
        return self.linear("action_head", self.norm("decoder.norm", x)).transpose(0, 1)

    def posterior(self, batch):
        count = len(batch["action"])
        tokens = [self.tensors["vae_encoder_cls_embed.weight"].expand(count, -1)[None]]
        if "observation.state" in batch:
            state = batch["observation.state"]
            tokens.append(self.linear("vae_encoder_robot_state_input_proj", state)[None])
        is_pad = torch.zeros(count, len(tokens), dtype=torch.bool)
        actions = self.linear("vae_encoder_action_input_proj", batch["action"])
        x = torch.cat([*tokens, actions.transpose(0, 1)])
        is_pad = torch.cat([is_pad, batch["action_is_pad"]], 1)
        positions = self.tensors["vae_encoder_pos_enc"].transpose(0, 1)
        layers = self.config.n_vae_encoder_layers
        first = self.encode("vae_encoder", layers, x, positions, is_pad)[0]
        return self.linear("vae_encoder_latent_output_proj", first).chunk(2, 1)

    def actions(self, batch, latent, maps):
        tokens = [self.linear("encoder_latent_input_proj", latent)]
        for key, name in (("state", "robot_state"), ("environment_state", "env_state")):
            if f"observation.{key}" in batch:
                name = f"encoder_{name}_input_proj"
                tokens.append(self.linear(name, batch[f"observation.{key}"]))
        positions = [self.tensors["encoder_1d_feature_pos_embed.weight"]]
        tokens = [torch.stack(tokens)]
        for one in maps:
            weight = self.tensors["encoder_img_feat_input_proj.weight"]
            pixels = functional.conv2d(
                one, weight, self.tensors["encoder_img_feat_input_proj.bias"]
            )
            tokens.append(pixels.flatten(2).permute(2, 0, 1))
            size = pixels.shape[1:]
            positions.append(picture_sinusoids(size[1], size[2], size[0], one.device))
        positions = torch.cat(positions).unsqueeze(1)
        memory = self.encode("encoder", self.config.n_encoder_layers, torch.cat(tokens), positions)
        return self.decode(memory, positions)


def _scattered(policy):
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, tensor in policy.model.state_dict().items():
            if "backbone" not in name:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return policy


VARIANTS = [
    ("state env", {}),
    ("env", {"pre_norm": True, "n_decoder_layers": 2}),
    ("state front top wrist env", {"feedforward_activation": "gelu"}),
    ("front", {"n_vae_encoder_layers": 1}),
]


@pytest.mark.parametrize(("inputs", "options"), VARIANTS)
def test_numbers_of_a_second_writing(make_policy, make_batch, inputs, options):
    policy = _scattered(make_policy(inputs, **options))
    network, plain = policy.model.model, Plain(policy)
    batch = policy.prepare(make_batch(policy))
    for mine, theirs in zip(network.posterior(batch), plain.posterior(batch), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    latent = torch.randn(4, 4)
    maps = [network.backbone(batch[camera]) for camera in network.cameras]
    expected = plain.actions(batch, latent, maps)
    torch.testing.assert_close(network(batch, latent), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        network(batch), plain.actions(batch, torch.zeros(4, 4), maps), rtol=1e-4, atol=1e-5
    )


def test_what_is_padded_is_not_read(make_policy, make_batch):
    policy = make_policy()
    raw = make_batch(policy)
    raw["action_is_pad"][:] = [False, False, True, True, True]
    changed = raw | {"action": raw["action"].copy()}
    changed["action"][:, 2:] += 100
    with torch.no_grad():
        losses = []
        for one in (raw, changed):
            torch.manual_seed(0)
            losses.append(policy.model.loss(policy.prepare(one))[0].item())
        assert losses[0] == losses[1]
        changed["action"][:, 1] += 1
        torch.manual_seed(0)
        assert policy.model.loss(policy.prepare(changed))[0].item() != losses[0]


def test_cameras_of_one_size_go_through_the_backbone_together(make_policy, make_batch):
    policy = make_policy("front top")
    network, seen = policy.model.model, []
    network.backbone.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    network(policy.prepare(make_batch(policy)))
    assert seen == [(8, 3, 32, 48)]
    policy = make_policy("front wrist")
    network, seen = policy.model.model, []
    network.backbone.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    network(policy.prepare(make_batch(policy)))
    assert seen == [(4, 3, 32, 48), (4, 3, 40, 32)]


def test_every_input_changes_the_actions(make_policy, make_batch):
    policy = make_policy("state env front wrist top")
    raw = make_batch(policy, actions=False)
    with torch.no_grad():
        before = policy.model.model(policy.prepare(raw))
        for name in raw:
            other = raw | {name: raw[name][::-1].copy()}
            assert not torch.allclose(policy.model.model(policy.prepare(other)), before), name


def test_samples_of_a_batch_drop_different_things(make_policy, make_batch):
    policy = make_policy(dropout=0.5, use_vae=False)
    shapes, layer = [], policy.model.model.decoder.layers[0]
    layer.self_attn.register_forward_hook(lambda _, __, y: shapes.append(y.shape[0]))
    batch = {
        key: value[:1].expand(4, *value.shape[1:])
        for key, value in policy.prepare(make_batch(policy)).items()
    }
    policy.model.train()
    actions = policy.model.model(batch)
    assert len(actions.flatten(1).unique(dim=0)) == 4
    policy.model.eval()
    actions = policy.model.model(batch)
    torch.testing.assert_close(actions, actions[:1].expand_as(actions))
    assert shapes == [4, 1]  # without dropout the first layer is the same for all of them


def test_dropout_leaves_the_mean_of_attention(make_policy):
    attention = make_policy(dropout=0.3).model.model.encoder.layers[0].self_attn
    torch.manual_seed(0)
    x = torch.randn(2, 6, 16)
    is_pad = torch.tensor([[False] * 6, [False] * 3 + [True] * 3])
    with torch.no_grad():
        expected = attention.eval()(x, x, x, is_pad=is_pad)
        many = torch.stack([attention.train()(x, x, x, is_pad=is_pad) for _ in range(4000)])
    assert many[0].ne(many[1]).all()
    torch.testing.assert_close(many.mean(0), expected, atol=0.03, rtol=0)


def test_every_parameter_learns(make_policy, make_batch):
    policy = make_policy("state env front", dropout=0.1)
    policy.model.train()
    policy.model.loss(policy.prepare(make_batch(policy)))[0].backward()
    assert [n for n, p in policy.model.named_parameters() if p.grad is None] == []


def _with(**changed):
    features = dict(features_of("state front"))
    return Features({**features, **changed})


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            features_of("state"),
            "the policy's features are observation.state, action; ACT needs a picture or "
            "observation.environment_state",
        ),
        (
            features_of("state front").select(["observation.state"]),
            "the policy's features are observation.state; ACT needs action",
        ),
        (
            _with(
                **{
                    "observation.images.front": Feature(
                        "uint8", (8, 9, 1), ("height", "width", "channels")
                    )
                }
            ),
            "observation.images.front is [8, 9, 1] (height, width, channels); ACT needs 3 channels",
        ),
        (
            _with(**{"observation.state": Feature("float32", (2, 3))}),
            "observation.state is float32[2, 3]; ACT needs a vector",
        ),
    ],
)
def test_features_that_cannot_be_worked_with_get_one_line(features, message):
    with pytest.raises(FeatureMismatchError) as caught:
        ACTNetwork(ACTPolicyConfig(**SMALL), features)
    assert str(caught.value) == message
