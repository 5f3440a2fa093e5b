"""Diffusion Policy as a whole: losses, acting with memory, its folder."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.diffusion.policy import DiffusionPolicy
from leray.algorithms.imitation.learner import ImitationLearner
from leray.algorithms.processor import Processor
from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features
from leray.errors import CheckpointError, ConfigError, FeatureMismatchError

CASES = [
    pytest.param(("env",), {}, id="vectors"),
    pytest.param(("left",), {"crop_shape": (34, 36)}, id="camera"),
    pytest.param(
        ("left", "right", "env"),
        {
            "n_obs_steps": 1,
            "use_group_norm": False,
            "use_separate_rgb_encoder_per_camera": True,
            "prediction_type": "sample",
            "noise_scheduler_type": "DDIM",
            "resize_shape": (36, 40),
            "crop_ratio": 0.95,
        },
        id="separate cameras",
    ),
]
FAST = {"num_inference_steps": 3}


def _frames(policy: DiffusionPolicy, steps: int, envs: int, seed: int = 0) -> list[dict]:
    rng, frames = np.random.default_rng(seed), []
    for _ in range(steps):
        frame = {}
        for name, feature in policy.features.items():
            if name != "action":
                values = rng.uniform(0, 1, (envs, *feature.shape)).astype(np.float32)
                picture = feature.dtype == "uint8"
                frame[name] = (values * 255).astype(np.uint8) if picture else values
        frames.append(frame)
    return frames


def test_the_loss_compares_with_the_noise_or_with_the_actions(make_policy, make_batch):
    for kind in ("epsilon", "sample"):
        policy = make_policy(prediction_type=kind)
        batch = policy.prepare(make_batch(policy, 3))
        noise, timesteps = torch.randn(3, 16, 2), torch.tensor([0, 40, 99])
        model = policy.model
        noisy = model.schedule.add_noise(batch["action"], noise, timesteps)
        told = model.diffusion.unet(noisy, timesteps, model.diffusion.condition(batch))
        wanted = noise if kind == "epsilon" else batch["action"]
        loss, figures = model.loss(batch, noise, timesteps)
        torch.testing.assert_close(loss, ((told - wanted) ** 2).mean())
        assert figures == {}


def test_random_numbers_of_the_loss_follow_from_the_seed(make_policy, make_batch):
    policy = make_policy("left", crop_shape=(34, 36))
    batch = policy.prepare(make_batch(policy, 2))
    policy.model.train()
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        losses.append(float(policy.model.loss(batch)[0].detach()))
    assert losses[0] == losses[1] != losses[2]


class Told(torch.nn.Module):
    """In the place of the U-Net: tells the same for every sample, and keeps the conditions."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values, self.conditions = values, []

    def forward(self, actions, timesteps, condition):
        self.conditions.append(condition)
        return self.values.expand(actions.shape)


@pytest.mark.parametrize(("masked", "loss"), [(False, 1.0), (True, 10 / 16)])
def test_padded_actions_count_only_where_they_are_not_masked(make_policy, make_batch, masked, loss):
    policy = make_policy(do_mask_loss_for_padding=masked)
    policy.model.diffusion.unet = Told(torch.zeros(1, 1, 1))
    windows = make_batch(policy, 4)
    windows["action_is_pad"][:, 10:] = True
    found, _ = policy.model.loss(policy.prepare(windows), noise=torch.ones(4, 16, 2))
    assert float(found) == pytest.approx(loss)


@pytest.mark.parametrize(("n_obs_steps", "n_action_steps"), [(1, 8), (2, 8), (3, 14), (2, 1)])
def test_actions_are_taken_from_the_present_on(
    make_policy, make_batch, n_obs_steps, n_action_steps
):
    policy = make_policy(
        n_obs_steps=n_obs_steps,
        n_action_steps=n_action_steps,
        prediction_type="sample",
        noise_scheduler_type="DDIM",
    )
    ramp = torch.linspace(-0.9, 0.9, 16)
    policy.model.diffusion.unet = Told(ramp[:, None])
    batch = make_batch(policy, 3)
    windows = {key: batch[key] for key in policy.features if key != "action"}
    chunks = policy.predict(windows)
    assert chunks.shape == (3, n_action_steps, 2)
    start = n_obs_steps - 1
    expected = 2 * ramp[start : start + n_action_steps]  # -1 .. 1 is -2 .. 2 in their units
    for row in range(3):
        for number in range(2):
            np.testing.assert_allclose(chunks[row, :, number], expected, atol=1e-5)


@pytest.mark.parametrize(("names", "options"), CASES)
def test_each_environment_is_acted_in_as_if_it_were_alone(make_policy, make_batch, names, options):
    policy = make_policy(*names, **{**options, **FAST, "noise_scheduler_type": "DDIM"})
    policy.model.eval()
    batch = policy.prepare(make_batch(policy, 3))
    noise = torch.randn(3, 16, 2)
    with torch.inference_mode():
        together = policy.model.denoise(batch, noise, torch.Generator())
        for row in range(3):
            own = {key: value[row : row + 1] for key, value in batch.items()}
            alone = policy.model.denoise(own, noise[row : row + 1], torch.Generator())
            torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_past_observations_are_remembered_by_environment(make_policy):
    policy = make_policy(n_obs_steps=3, n_action_steps=2, **FAST)
    told = policy.model.diffusion.unet = Told(torch.zeros(1, 1, 1))
    frames = _frames(policy, 4, 2)

    def seen(env: int, steps: list[int]) -> list[float]:
        parts = [
            part
            for step in steps
            for part in (
                frames[step]["observation.state"][env] / 2,  # a range of -2 .. 2 becomes -1 .. 1
                frames[step]["observation.environment_state"][env],  # not normalised by default
            )
        ]
        return np.concatenate(parts).tolist()

    def told_last() -> list[list[float]]:
        return [pytest.approx(row, abs=1e-6) for row in told.conditions[-1].tolist()]

    policy.reset()
    policy.act(frames[0])
    assert told_last() == [seen(0, [0, 0, 0]), seen(1, [0, 0, 0])]
    calls = len(told.conditions)
    policy.act(frames[1])
    assert len(told.conditions) == calls  # actions are left
    policy.reset([1])
    policy.act(frames[2])
    assert told_last() == [seen(0, [0, 1, 2]), seen(1, [2, 2, 2])]
    policy.act({key: value[1:] for key, value in frames[3].items()}, envs=[1])
    policy.reset([0])
    policy.act({key: value[:1] for key, value in frames[3].items()}, envs=[0])
    assert told_last() == [seen(0, [3, 3, 3])]


def test_seeds_decide_what_is_done(make_policy):
    policy = make_policy(**FAST)
    frames = _frames(policy, 9, 2)

    def played(seed: int) -> np.ndarray:
        policy.reset()
        policy.seed(seed)
        torch.manual_seed(len(frames))  # of no effect
        return np.stack([policy.act(frame) for frame in frames])

    assert np.array_equal(played(1), played(1))
    assert not np.array_equal(played(1), played(2))


@pytest.mark.parametrize(("names", "options"), CASES)
def test_a_folder_gives_back_the_same_policy(make_policy, tmp_path, names, options):
    policy = make_policy(*names, **{**options, **FAST})
    policy.save_pretrained(tmp_path)
    again = load_policy(tmp_path, "cpu")
    assert isinstance(again, DiffusionPolicy)
    assert again.config == policy.config
    assert again.features == policy.features
    own, other = policy.model.state_dict(), again.model.state_dict()
    assert own.keys() == other.keys() == load_file(tmp_path / "model.safetensors").keys()
    assert all(torch.equal(own[key], other[key]) for key in own)
    frames = _frames(policy, 3, 2)
    for one in (policy, again):
        one.seed(5)
    for frame in frames:
        assert np.array_equal(policy.act(frame), again.act(frame))


def test_weights_of_a_compiled_network_are_read(make_policy, tmp_path):
    policy, other = make_policy(seed=0), make_policy(seed=1)
    state = policy.model.state_dict()
    renamed = {k.replace(".unet.", ".unet._orig_mod."): v for k, v in state.items()}
    policy.model.state_dict = lambda: renamed
    policy.save_pretrained(tmp_path)
    other.load_weights(tmp_path)
    assert all(torch.equal(value, state[key]) for key, value in other.model.state_dict().items())


def test_weights_of_other_options_are_refused(make_policy, tmp_path):
    make_policy(down_dims=(16, 48)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"mid_modules\.0\.conv1.*use the options"):
        make_policy().load_weights(tmp_path)


def _policy(features: dict[str, Feature], **options) -> DiffusionPolicy:
    config = DiffusionPolicyConfig(down_dims=(8,), **options)
    return DiffusionPolicy(config, Processor(features=Features(features), norm_map={}))


STATE, ACTION = Feature("float32", (2,)), Feature("float32", (2,))
PICTURE = Feature("uint8", (40, 44, 3), ("height", "width", "channels"))
SMALLER = Feature("uint8", (40, 40, 3), ("height", "width", "channels"))


@pytest.mark.parametrize(
    ("features", "named"),
    [
        ({"observation.state": STATE}, "observation.environment_state"),
        ({"observation.image": PICTURE}, "observation.state"),
        ({"observation.environment_state": STATE}, "observation.state"),
        (
            {
                "observation.state": STATE,
                "observation.images.a": PICTURE,
                "observation.images.b": SMALLER,
            },
            "one shape",
        ),
    ],
)
def test_features_that_do_not_fit_are_one_clear_error(features, named):
    with pytest.raises(FeatureMismatchError, match=named) as error:
        _policy({**features, "action": ACTION})
    assert "\n" not in str(error.value)


def test_pictures_smaller_than_the_crop_are_refused():
    features = {"observation.state": STATE, "observation.image": PICTURE, "action": ACTION}
    with pytest.raises(ConfigError, match=r"--policy\.crop_shape=.*40x44"):
        _policy(features, crop_shape=(42, 42))


def test_what_batch_normalisation_learns_is_shared(make_policy):
    assert make_policy("left").model.synchronized() == []
    model = make_policy("left", use_group_norm=False).model
    shared = model.synchronized()
    assert len(shared) == 2 * 20
    names = {name for name, buffer in model.named_buffers() if any(buffer is s for s in shared)}
    assert all("running_" in name for name in names)


def test_bfloat16_changes_little(make_policy, make_batch):
    losses = []
    for use_amp in (False, True):
        policy = make_policy("left", crop_shape=(34, 34), use_amp=use_amp)
        policy.model.eval()
        batch = policy.prepare(make_batch(policy, 4))
        torch.manual_seed(0)
        with policy.precision():
            loss, _ = policy.model.loss(batch)
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(p.grad.dtype == torch.float32 for p in policy.model.parameters())
        losses.append(float(loss.detach()))
        policy.reset()
        assert np.isfinite(policy.act(_frames(policy, 1, 2)[0])).all()
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_learner_begins_with_the_learning_rate_0(make_policy, make_batch):
    policy = make_policy("left", crop_shape=(34, 36), scheduler_warmup_steps=2)
    learner = ImitationLearner(policy, total_updates=10, seed=0)
    batches = iter([make_batch(policy, 2, seed) for seed in range(2)])
    states = [{key: value.clone() for key, value in policy.model.state_dict().items()}]
    for factor in (0, 0.5):
        learner.update(batches)
        states.append({k: value.clone() for k, value in policy.model.state_dict().items()})
        metrics = learner.metrics()
        assert metrics["train/lr"] == pytest.approx(factor * 1e-4)
        assert metrics["loss/total"] > 0
    moved = [key for key in states[0] if not torch.equal(states[0][key], states[1][key])]
    assert moved == []
    moved = [key for key in states[0] if not torch.equal(states[1][key], states[2][key])]
    still = set(states[0]) - set(moved)
    assert still <= {"diffusion.rgb_encoder.pool.pos_grid"}


def test_it_learns_one_batch_by_heart(make_policy, make_batch):
    policy = make_policy(
        prediction_type="sample", noise_scheduler_type="DDIM", num_inference_steps=5
    )
    rng = np.random.default_rng(0)
    windows = make_batch(policy, 8)
    ramp = np.linspace(-1, 1, 16)[:, None] * rng.uniform(-1.5, 1.5, (8, 1, 2))
    batch = policy.prepare({**windows, "action": ramp.astype(np.float32)})
    observed = {key: windows[key] for key in policy.features if key != "action"}
    optimizer = torch.optim.Adam(policy.model.parameters(), 3e-3)
    torch.manual_seed(0)
    errors = [np.abs(policy.predict(observed) - ramp[:, 1:9]).mean()]
    for _ in range(80):
        optimizer.zero_grad()
        policy.model.loss(batch)[0].backward()
        optimizer.step()
    errors.append(np.abs(policy.predict(observed) - ramp[:, 1:9]).mean())
    assert errors[1] < 0.1 < 0.3 < errors[0]
