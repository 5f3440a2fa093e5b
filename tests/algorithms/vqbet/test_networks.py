import pytest
import torch

from leray.algorithms.vqbet.config import VQBeTPolicyConfig
from leray.algorithms.vqbet.gpt import GPT
from leray.algorithms.vqbet.policy import VQBeT
from leray.data.features import Feature, Features
from leray.errors import ConfigError, FeatureMismatchError

AXES = ("height", "width", "channels")
ACTION = {"action": Feature("float32", (2,))}
STATE = {"observation.state": Feature("float32", (2,))}
IMAGE = {"observation.image": Feature("uint8", (96, 96, 3), AXES)}
ENVIRONMENT = {"observation.environment_state": Feature("float32", (4,))}


def shapes(*parts, **options):
    """Return the shapes of all tensors; nothing is allocated."""
    features = Features({name: feature for part in parts for name, feature in part.items()})
    with torch.device("meta"):
        model = VQBeT(VQBeTPolicyConfig(**options), features)
    return {name: (tuple(v.shape), v.dtype) for name, v in model.state_dict().items()}, model


def linear(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def expected_shapes():
    """Return LeRobot's names and shapes of all but the ResNet, of the default policy."""
    expected = {
        "action_token": (1, 1, 512),
        "select_target_actions_indices": (7, 5),
        "rgb_encoder.pool.nets.weight": (32, 512, 1, 1),
        "rgb_encoder.pool.nets.bias": (32,),
        "rgb_encoder.pool.pos_grid": (9, 2),
        **linear("rgb_encoder.out", 64, 64),
        **linear("rgb_feature_projector.0", 512, 64),
        **linear("state_projector.0", 512, 2),
        **linear("policy.transformer.wte", 512, 512),
        "policy.transformer.wpe.weight": (500, 512),
        "policy.transformer.ln_f.weight": (512,),
        "policy.transformer.ln_f.bias": (512,),
        "policy.lm_head.weight": (512, 512),
        **linear("action_head.map_to_cbet_preds_bin.0", 32, 512),
        **linear("action_head.map_to_cbet_preds_offset.0", 320, 512),
        "action_head.vqvae_model.discretized": (),
        "action_head.vqvae_model.vq_layer.freeze_codebook": (),
    }
    for block in range(8):
        name = f"policy.transformer.h.{block}"
        expected |= linear(f"{name}.attn.c_attn", 1536, 512)
        expected |= linear(f"{name}.attn.c_proj", 512, 512)
        expected |= linear(f"{name}.mlp.0", 2048, 512) | linear(f"{name}.mlp.2", 512, 2048)
        expected[f"{name}.attn.bias"] = (1, 1, 500, 500)
        for norm in ("ln_1", "ln_2"):
            expected |= {f"{name}.{norm}.weight": (512,), f"{name}.{norm}.bias": (512,)}
    widths = {"encoder": (10, 128, 128, 256), "decoder": (256, 128, 128, 10)}
    for part, sizes in widths.items():
        for layer in range(3):
            name = f"action_head.vqvae_model.{part}.{2 * layer}"
            expected |= linear(name, sizes[layer + 1], sizes[layer])
    for level in range(2):
        name = f"action_head.vqvae_model.vq_layer.layers.{level}._codebook"
        expected |= {f"{name}.initted": (1,), f"{name}.cluster_size": (1, 16)}
        expected |= {f"{name}.embed": (1, 16, 256), f"{name}.embed_avg": (1, 16, 256)}
    return {f"vqbet.{name}": shape for name, shape in expected.items()}


def test_names_and_shapes_are_lerobots():
    found, model = shapes(STATE, IMAGE, ACTION)
    rest = {k: shape for k, (shape, _) in found.items() if ".backbone." not in k}
    assert rest == expected_shapes()
    assert len(found) == 207
    assert sum(p.numel() for p in model.parameters()) == 37_515_530
    kinds = {k.rpartition(".")[2]: kind for k, (_, kind) in found.items() if kind != torch.float32}
    assert kinds == {
        "select_target_actions_indices": torch.int64,
        "discretized": torch.bool,
        "freeze_codebook": torch.bool,
    }


def test_sequential_heads_are_lerobots():
    joint, _ = shapes(STATE, IMAGE, ACTION)
    found, _ = shapes(STATE, IMAGE, ACTION, sequentially_select=True)
    head = "vqbet.action_head.map_to_cbet_preds_"
    own = linear(f"{head}primary_bin.0", 16, 512) | linear(f"{head}secondary_bin.0", 16, 528)
    assert {k: found[k][0] for k in found.keys() - joint.keys()} == own
    assert joint.keys() - found.keys() == {f"{head}bin.0.weight", f"{head}bin.0.bias"}


def test_states_alone_have_no_picture_encoder():
    found, _ = shapes(STATE, ENVIRONMENT, ACTION)
    assert not [name for name in found if "rgb" in name]
    assert found["vqbet.environment_state_projector.0.weight"][0] == (512, 4)
    found, _ = shapes(ENVIRONMENT, ACTION)
    assert "vqbet.state_projector.0.weight" not in found


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (STATE | {"observation.force": Feature("float32", (2,))}, "observation.force"),
        ({}, "cannot observe nothing"),
        (
            IMAGE | {"observation.images.b": Feature("uint8", (48, 96, 3), AXES)},
            "observation.images.b [48, 96, 3]",
        ),
    ],
)
def test_features_that_do_not_fit_are_one_clear_error(features, message):
    with pytest.raises(FeatureMismatchError) as error:
        shapes(features, ACTION)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_too_many_tokens_are_refused():
    # 5 steps of 3 tokens, and 2 more queries
    with pytest.raises(ConfigError, match=r"gpt_block_size=16.*17 tokens"):
        shapes(STATE, IMAGE, ACTION, gpt_block_size=16)


def test_every_parameter_is_in_one_group():
    _, model = shapes(STATE, IMAGE, ACTION)
    names = {id(p): name.removeprefix("vqbet.") for name, p in model.named_parameters()}
    decay, vqvae, others = ([names[id(p)] for p in g["params"]] for g in model.parameter_groups())
    assert len(decay) + len(vqvae) + len(others) == len(names)
    assert {name.split(".")[1] for name in vqvae} == {"vqvae_model"}
    assert all(n.startswith("policy.") and n.endswith((".bias", "weight")) for n in others)
    assert "policy.transformer.wpe.weight" in others
    assert "policy.transformer.h.0.ln_1.weight" in others
    assert "policy.lm_head.weight" in decay
    assert "rgb_encoder.out.bias" in decay
    assert "action_head.map_to_cbet_preds_bin.0.bias" in decay
    first, second, third = model.parameter_groups()
    assert (second["lr"], second["weight_decay"], third["weight_decay"]) == (1e-3, 1e-4, 0.0)
    assert first.keys() == {"params"}
    assert third.keys() == {"params", "weight_decay"}


def make_gpt(dropout=0.0):
    torch.manual_seed(0)
    return GPT(
        input_size=3,
        width=8,
        output_size=5,
        num_layers=2,
        num_heads=2,
        block_size=6,
        dropout=dropout,
    )


def test_tokens_see_only_those_before_them():
    gpt, tokens = make_gpt(), torch.randn(2, 6, 3)
    before = gpt(tokens)
    tokens[:, 4] += 1
    after = gpt(tokens)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_attention_is_the_masked_softmax():
    attention = make_gpt().transformer["h"][0].attn
    torch.nn.init.normal_(attention.c_attn.weight)
    x = torch.randn(1, 3, 8)
    query, key, value = attention.c_attn(x)[0].split(8, dim=-1)
    gathered = torch.zeros(3, 8)
    for head in (slice(0, 4), slice(4, 8)):
        for position in range(3):
            scores = query[position, head] @ key[: position + 1, head].T / 2
            gathered[position, head] = scores.softmax(-1) @ value[: position + 1, head]
    torch.testing.assert_close(attention(x)[0], attention.c_proj(gathered), atol=1e-6, rtol=1e-5)


def test_dropout_works_while_training_only():
    gpt, tokens = make_gpt(dropout=0.5), torch.randn(2, 6, 3)
    gpt.train()
    assert not torch.equal(gpt(tokens), gpt(tokens))
    gpt.eval()
    assert torch.equal(gpt(tokens), gpt(tokens))
