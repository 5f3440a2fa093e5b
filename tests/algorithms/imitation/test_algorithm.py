"""Imitation through RLlib: build, train, checkpoint, tune; one learner, several, and lost ones."""

import contextlib
import dataclasses
import json
import os
import signal
import time

import numpy as np
import pytest
import torch
from ray import cloudpickle, tune
from ray.rllib.algorithms.algorithm import Algorithm

from leray.algorithms.bc.algorithm import BC, BCConfig
from leray.algorithms.imitation.config import ImageTransformsConfig
from leray.algorithms.registry import load_policy
from leray.algorithms.sac.config import MLPConfig
from leray.algorithms.trainable import DataSource
from leray.errors import CheckpointError, ConfigError, DatasetError, LearnerError
from tests.algorithms.imitation import resume
from tests.algorithms.imitation.conftest import write_demonstrations
from tests.algorithms.imitation.linear_algorithm import Linear, LinearConfig
from tests.algorithms.imitation.resume import OPTIONS, assert_same, everything

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

HELD_OUT = [1, 3]
ONLY_BRIGHTNESS = dict.fromkeys(("contrast", "saturation", "hue", "sharpness", "affine"), 0.0)
cloudpickle.register_pickle_by_value(resume)  # learners in other processes cannot import tests


@pytest.fixture
def build():
    """Build algorithms that are stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(config):
            algorithm = config.build_algo()
            stack.callback(algorithm.stop)
            return algorithm

        yield make


def linear(source, **options) -> LinearConfig:
    return LinearConfig().debugging(seed=3).training(dataset=source, **options)


def cloning(source, *, learners=0, **options) -> BCConfig:
    """A config that remote learners can import."""
    config = BCConfig().debugging(seed=3).learners(num_learners=learners)
    network = MLPConfig(hidden_dims=[16])
    options = {"actor_network_kwargs": network, "optimizer_lr": 1e-2} | options
    return config.training(dataset=source, train_batch_size=8, **options)


def tensors(algorithm) -> dict[str, torch.Tensor]:
    return algorithm._on_first(lambda learner: everything(learner.learner))


def train_to(algorithm, boundary: int) -> None:
    algorithm.boundary = boundary
    while algorithm.progress < boundary:
        algorithm.train()


def checkpoint(algorithm, folder) -> dict:
    """Save as the platform does."""
    algorithm.checkpoint_boundary()
    algorithm.save_pretrained(folder / "pretrained_model")
    (folder / "training_state").mkdir()
    counters = algorithm.save_training_state(folder / "training_state")
    return json.loads(json.dumps(counters))


def as_the_platform(config, source, *, total=40, learners=0, batch_size=8, **options):
    """Describe a run as the platform does."""
    names = [field.name for field in dataclasses.fields(config.policy_config_class)]
    config.seed = 3
    config.prepare({k: getattr(config, k) for k in names} | options, batch_size)
    config.place(online=False, replay_folder="", replay_slack=0, dataset=source, total_steps=total)
    config.learners(num_learners=learners)
    return config


def test_the_plain_rllib_way_works(build, source):
    algorithm = build(linear(source))
    before = tensors(algorithm)
    result = algorithm.train()
    assert algorithm.num_updates == algorithm.progress == 64
    assert algorithm.env_steps == 0
    assert result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"] == 64 * 8
    after = tensors(algorithm)
    assert not torch.equal(before["model/linear.weight"], after["model/linear.weight"])
    report = algorithm.report()
    assert set(report) == {
        *("loss/total", "loss/l2", "loss/first", "train/grad_norm", "train/lr", "train/epoch")
    }
    assert report["train/epoch"] == pytest.approx(64 * 8 / 43)
    assert algorithm.validate() == {}


def test_it_learns(build, source, tmp_path):
    algorithm = build(linear(source, chunk_size=1, optimizer_weight_decay=0.0))
    train_to(algorithm, 300)
    assert algorithm.report()["loss/total"] > 10 * 1e-4
    algorithm.report()
    train_to(algorithm, 400)
    assert algorithm.report()["loss/total"] < 1e-4
    algorithm.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.act({"observation.state": np.zeros((1, 3), np.float32)})[0] == pytest.approx(
        [0.5, 0.5], abs=1e-2
    )


def test_training_goes_to_the_boundary_and_not_beyond(build, source):
    algorithm = build(as_the_platform(LinearConfig(), source))
    for boundary in (1, 7, 100):
        train_to(algorithm, boundary)
        assert algorithm.num_updates == boundary
    algorithm.train()
    assert algorithm.num_updates == 100


def test_a_request_to_stop_ends_training(build, source):
    algorithm = build(as_the_platform(LinearConfig(), source))
    algorithm.boundary = 10**6
    algorithm.train()
    taken = algorithm.num_updates
    assert 0 < taken < 10**5  # a second's worth
    algorithm.stop_requested = True
    algorithm.train()
    assert algorithm.num_updates == taken


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_resumed_run_is_the_same_to_the_bit(build, source, tmp_path, average):
    source = dataclasses.replace(source, held_out=HELD_OUT)
    options = OPTIONS | {"ema_decay": average, "gradient_accumulation_steps": 2}
    algorithm = build(as_the_platform(LinearConfig(), source, **options))
    train_to(algorithm, 11)
    counters = checkpoint(algorithm, tmp_path)
    assert counters == {"env_steps": 0, "updates": 11, "batches": 22}
    algorithm.report()
    train_to(algorithm, 20)
    folder = tmp_path / "pretrained_model"
    again = build(as_the_platform(LinearConfig(), source, **options, pretrained_path=str(folder)))
    torch.rand(5)
    again.load_training_state(tmp_path / "training_state", counters)
    assert again.progress == 11
    train_to(again, 20)
    assert_same(tensors(algorithm), tensors(again))
    assert algorithm.report() == again.report()
    assert algorithm.validate() == again.validate()


def test_a_checkpoint_acts_with_the_average(build, source, tmp_path):
    algorithm = build(linear(source, ema_decay=0.99))
    algorithm.train()
    algorithm.save_pretrained(tmp_path)
    state = tensors(algorithm)
    saved = load_policy(tmp_path).model.linear.weight
    assert torch.equal(saved, state["average/linear.weight"])
    assert not torch.equal(saved, state["model/linear.weight"])
    acting = algorithm.learner_group.get_state("learner/rl_module", inference_only=True)
    weights = acting["learner"]["rl_module"]["default_policy"]["model.linear.weight"]
    np.testing.assert_array_equal(weights, saved.detach().numpy())


def test_pretrained_weights_and_their_normalisation_are_taken_over(build, source, tmp_path):
    algorithm = build(linear(source))
    algorithm.train()
    algorithm.save_pretrained(tmp_path / "first")
    path = tmp_path / "first" / "policy_preprocessor_step_3_normalizer_processor.safetensors"
    again = build(linear(source, pretrained_path=str(tmp_path / "first")))
    assert_same(
        {k: v for k, v in tensors(again).items() if k.startswith("model/")},
        {k: v for k, v in tensors(algorithm).items() if k.startswith("model/")},
    )
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError) as caught:
        linear(source, pretrained_path=str(tmp_path / "first")).build_algo()
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="does not fit this policy"):
        linear(source, chunk_size=5, pretrained_path=str(_saved(algorithm, tmp_path))).build_algo()


def _saved(algorithm, tmp_path):
    algorithm.save_pretrained(tmp_path / "second")
    return tmp_path / "second"


def test_training_pictures_are_changed_as_the_dataset_options_say(build, tmp_path):
    root = write_demonstrations(tmp_path / "dataset", lengths=(9, 6), pictures=True)
    halved = ImageTransformsConfig(
        enable=True, max_num_transforms=1, brightness=(0.5, 0.5), weights=ONLY_BRIGHTNESS
    )
    changed = DataSource(root=str(root), held_out=[1], image_transforms=halved)
    shades = []
    for source in (changed, dataclasses.replace(changed, image_transforms=ImageTransformsConfig())):
        algorithm = build(linear(source, normalization_mapping={}))
        train_to(algorithm, 3)
        shades.append(algorithm.report()["loss/observation.images.top"])
    assert shades[0] == pytest.approx(shades[1] / 2, rel=1e-4)


def test_the_same_seed_gives_the_same_weights(build, source):
    first, again, other = (build(linear(source, dropout=0.3).debugging(seed=s)) for s in (3, 3, 4))
    for algorithm in (first, again, other):
        torch.rand(3)
        train_to(algorithm, 5)
    assert_same(tensors(first), tensors(again))
    assert not torch.equal(
        tensors(first)["model/linear.weight"], tensors(other)["model/linear.weight"]
    )


def test_rllib_checkpoints_bring_everything_back(build, source, tmp_path):
    algorithm = build(linear(source, **OPTIONS))
    train_to(algorithm, 9)
    algorithm.save_to_path(tmp_path / "9")
    saved = tensors(algorithm)
    again = Algorithm.from_checkpoint(tmp_path / "9")
    try:
        assert isinstance(again, Linear)
        assert again.num_updates == 9
        assert_same(tensors(again), saved)
        for one in (algorithm, again):
            train_to(one, 15)
        assert_same(tensors(again), tensors(algorithm))
    finally:
        again.stop()
    algorithm.restore_from_path(tmp_path / "9")  # back in place
    assert algorithm.num_updates == 9
    assert_same(tensors(algorithm), saved)


def test_a_state_in_memory_brings_everything_back(build, source):
    algorithm = build(linear(source, ema_decay=0.9))
    train_to(algorithm, 4)
    state, saved = algorithm.get_state(), tensors(algorithm)
    train_to(algorithm, 8)
    algorithm.set_state(state)
    assert algorithm.num_updates == 4
    assert_same(
        {k: v for k, v in tensors(algorithm).items() if "state/" in k},
        {k: v for k, v in saved.items() if "state/" in k},
    )


def test_a_bare_tuner_sweeps_an_option(source, tmp_path):
    config = cloning(source, total_updates=300)
    config.optimizer_lr = tune.grid_search([1e-6, 1e-2])
    results = tune.Tuner(
        BC,
        param_space=config,
        run_config=tune.RunConfig(
            stop={"training_iteration": 3},
            storage_path=str(tmp_path),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    ).fit()
    assert not results.errors
    for result in results:
        with result.checkpoint.as_directory() as folder:
            again = Algorithm.from_checkpoint(folder)
        assert again.num_updates == 3 * 64
        assert again.config.optimizer_lr == result.config["optimizer_lr"]
        again.stop()


def test_a_learner_in_its_own_process_learns_the_same(build, source, tmp_path):
    local = build(cloning(source, ema_decay=0.9))
    remote = build(cloning(source, ema_decay=0.9, learners=1))
    for algorithm in (local, remote):
        train_to(algorithm, 12)
    assert_same(tensors(local), tensors(remote))
    assert local.report() == remote.report()
    remote.save_to_path(tmp_path / "rllib")
    train_to(remote, 14)
    remote.restore_from_path(tmp_path / "rllib")
    for algorithm in (local, remote):
        train_to(algorithm, 17)
    assert_same(tensors(local), tensors(remote))
    # what goes wrong there comes out as it is
    with pytest.raises(CheckpointError, match="is incomplete or damaged") as caught:
        remote.load_training_state(tmp_path, {"batches": 0})
    assert "\n" not in str(caught.value)


def test_two_learners_do_what_one_does_and_a_lost_one_is_told_at_once(build, source, tmp_path):
    source = dataclasses.replace(source, held_out=HELD_OUT)
    alone, two = build(cloning(source)), build(cloning(source, learners=2))
    for boundary in (1, 2, 3, 10):
        for algorithm in (alone, two):
            train_to(algorithm, boundary)
        left, right = alone.report(), two.report()
        assert left.keys() == right.keys()
        assert left == pytest.approx(right, abs=1e-5)
    assert alone.validate() == pytest.approx(two.validate(), abs=1e-5)
    for name, tensor in tensors(alone).items():
        torch.testing.assert_close(tensor, tensors(two)[name], rtol=1e-5, atol=1e-5)
    both = two._on_learners(lambda learner: everything(learner.learner))
    assert_same(both[0], both[1])
    counters = checkpoint(two, tmp_path)

    pids = two._on_learners(lambda _: os.getpid())
    two.boundary = 10**6
    os.kill(pids[1], signal.SIGKILL)
    began_s = time.monotonic()
    with pytest.raises(LearnerError, match="go on from the last checkpoint") as caught:
        two.train()
    assert "\n" not in str(caught.value)
    two.stop()
    assert time.monotonic() - began_s < 20
    _wait_until_gone(pids)

    again = build(cloning(source, learners=2, pretrained_path=str(tmp_path / "pretrained_model")))
    again.load_training_state(tmp_path / "training_state", counters)
    for algorithm in (alone, again):
        train_to(algorithm, 15)
    for name, tensor in tensors(alone).items():
        torch.testing.assert_close(tensor, tensors(again)[name], rtol=1e-5, atol=1e-5)


def _wait_until_gone(pids: list[int], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return
        time.sleep(0.1)
    raise AssertionError("a learner is still there")


def test_rllib_evaluates_with_the_weights_that_act_and_forgets_between_episodes(build, tmp_path):
    root = write_demonstrations(tmp_path / "dataset", actions=1)  # as of Pendulum
    config = linear(DataSource(root=str(root)), ema_decay=0.9)
    config.environment("Pendulum-v1").evaluation(evaluation_interval=1, evaluation_duration=1)
    algorithm = build(config)
    result = algorithm.train()
    assert result["evaluation"]["env_runners"]["episode_len_mean"] == 200
    runner = algorithm.eval_env_runner
    acting = tensors(algorithm)["average/linear.weight"]
    assert torch.equal(runner.module.policy.model.linear.weight, acting)
    (fragment,) = runner.sample(num_timesteps=402, force_reset=True)
    states = fragment.columns["observation.state"][:, 0]
    policy = runner.module.policy
    for begin in (0, 200, 400):  # a chunk is 3 steps, which 200 is no multiple of
        policy.reset()
        first = policy.act({"observation.state": states[begin : begin + 1]})
        np.testing.assert_allclose(fragment.columns["action"][begin], first, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer_lrr": 1.0}, ConfigError, r"unknown options \['optimizer_lrr'\]"),
        ({"dataset": None}, ConfigError, "learns from a dataset and has none"),
        ({"dataset": DataSource(root="/nowhere")}, DatasetError, "/nowhere"),
        ({"pretrained_path": "/nowhere"}, CheckpointError, "/nowhere"),
        ({"ema_decay": 1.5}, ConfigError, "--policy.ema_decay=1.5"),
    ],
)
def test_wrong_options_are_refused(source, options, error, message):
    with pytest.raises(error, match=message) as caught:
        linear(**{"source": source} | {}).training(**options).validate()
    assert "\n" not in str(caught.value)


def test_a_dataset_whose_episodes_are_all_held_out_is_refused(source):
    everything_held_out = dataclasses.replace(source, held_out=[0, 1, 2, 3])
    with pytest.raises(ConfigError, match="no episode is left to learn from"):
        linear(everything_held_out).validate()


def test_a_batch_must_be_shared_evenly(source):
    with pytest.raises(ConfigError, match="--batch_size=8 cannot be shared by 3 learners"):
        linear(source).learners(num_learners=3).validate()


def test_learning_online_is_refused(source):
    with pytest.raises(ConfigError, match="--use_online_training=true: test_linear learns from a"):
        LinearConfig().place(
            online=True, replay_folder="", replay_slack=0, dataset=source, total_steps=1
        )


def test_a_checkpoint_of_another_kind_of_run_is_refused(build, source, tmp_path):
    algorithm = build(linear(source))
    with pytest.raises(CheckpointError, match="does not say how many batches were used"):
        algorithm.load_training_state(tmp_path, {"step": 3})
