"""Updates of imitation policies: the arithmetic by hand, several learners, resume to the bit."""

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leray.algorithms.imitation.learner import ImitationLearner, validation_metrics
from leray.algorithms.imitation.source import source_processor
from leray.algorithms.trainable import DataSource
from leray.errors import CheckpointError, ConfigError
from tests.algorithms.imitation import resume
from tests.algorithms.imitation.conftest import write_demonstrations
from tests.algorithms.imitation.linear import LinearPolicy, LinearPolicyConfig
from tests.algorithms.imitation.resume import (
    BATCH,
    OPTIONS,
    SEED,
    TOTAL,
    assert_same,
    everything,
    go_on,
    make_feed,
)

REPOSITORY = Path(__file__).parents[3]
PROGRAM = f"""
import runpy, sys, types
sys.modules["tests"] = types.ModuleType("tests")  # an installed package may have that name too
sys.modules["tests"].__path__ = ["tests"]
runpy.run_module("{resume.__name__}", run_name="__main__")
"""


def make_policy(source, config) -> LinearPolicy:
    torch.manual_seed(5)
    return LinearPolicy(config, source_processor(source, config))


def make_learner(source, *, total=TOTAL, **options) -> ImitationLearner:
    learner_options = {k: options.pop(k) for k in ("rank", "all_reduce") if k in options}
    policy = make_policy(source, LinearPolicyConfig(**options))
    return ImitationLearner(policy, total_updates=total, seed=SEED, **learner_options)


class ByHand:
    """The update of the linear policy in NumPy, in double precision."""

    def __init__(self, learner) -> None:
        linear, config = learner.policy.model.linear, learner.policy.config
        self.config, self.policy = config, learner.policy
        self.weights = [p.detach().double().numpy().copy() for p in (linear.weight, linear.bias)]
        self.first = [np.zeros_like(w) for w in self.weights]
        self.second = [np.zeros_like(w) for w in self.weights]
        self.updates = 0

    def gradients(self, raw) -> tuple[float, list[np.ndarray]]:
        """Loss and gradients of mean((W s + b - a)^2) over unpadded actions, 0 for padded ones."""
        batch = {k: v.double().numpy() for k, v in self.policy.prepare(raw).items()}
        state, action = batch["observation.state"], batch["action"]
        predicted = (state @ self.weights[0].T + self.weights[1]).reshape(action.shape)
        error = (predicted - action) * (1 - batch["action_is_pad"])[..., None]
        slope = (2 * error / error.size).reshape(len(state), -1)
        return float((error**2).mean()), [slope.T @ state, slope.sum(0)]

    def update(self, batches) -> tuple[float, float]:
        """Take one update; return the loss and the gradient's norm."""
        config = self.config
        parts = [self.gradients(raw) for raw in batches]
        loss = float(np.mean([part[0] for part in parts]))
        grads = [np.mean([part[1][i] for part in parts], axis=0) for i in (0, 1)]
        norm = math.sqrt(sum((grad**2).sum() for grad in grads))
        if config.grad_clip_norm:
            grads = [grad * min(1, config.grad_clip_norm / (norm + 1e-6)) for grad in grads]
        factor = config.lr_factor(self.updates, TOTAL)
        self.updates += 1
        beta1, beta2 = config.optimizer_betas
        for i, lr in enumerate((config.optimizer_lr, config.optimizer_lr_bias)):
            grad, decay = grads[i], config.optimizer_weight_decay
            if config.optimizer_type == "adam":
                grad = grad + decay * self.weights[i]
            else:
                self.weights[i] -= lr * factor * decay * self.weights[i]
            self.first[i] = beta1 * self.first[i] + (1 - beta1) * grad
            self.second[i] = beta2 * self.second[i] + (1 - beta2) * grad**2
            mean = self.first[i] / (1 - beta1**self.updates)
            root = np.sqrt(self.second[i] / (1 - beta2**self.updates))
            self.weights[i] -= lr * factor * mean / (root + 1e-8)
        return loss, norm


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer_type": "adamw"},
        {"optimizer_type": "adam"},
        {"falling": True},
        {"grad_clip_norm": 0.3},
        {"grad_clip_norm": 0.0},
        {"gradient_accumulation_steps": 3},
    ],
    ids=str,
)
def test_updates_equal_those_by_hand(source, options):
    learner = make_learner(source, **options)
    feed, same = make_feed(source, learner), make_feed(source, learner)
    by_hand = ByHand(learner)
    for update in range(6):
        learner.update(feed)
        batches = [next(same) for _ in range(options.get("gradient_accumulation_steps", 1))]
        loss, norm = by_hand.update(batches)
        linear = learner.policy.model.linear
        for found, expected in zip((linear.weight, linear.bias), by_hand.weights, strict=True):
            np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
        metrics = learner.metrics()
        assert metrics["loss/total"] == pytest.approx(loss, rel=1e-5)
        assert metrics["loss/l2"] == pytest.approx(loss, rel=1e-5)
        assert metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-5)
        factor = 1 - update / TOTAL if options.get("falling") else 1
        assert metrics["train/lr"] == pytest.approx(1e-2 * factor)
    if options.get("grad_clip_norm") == 0.3:
        assert norm > 0.3  # it was clipped, and what is reported is the norm before that


def test_the_clipped_gradient_is_the_one_that_is_applied(source):
    """SGD-like check: with betas of 0 the first moment is the clipped gradient itself."""
    learner = make_learner(source, grad_clip_norm=0.01, optimizer_betas=(0.0, 0.99))
    learner.update(make_feed(source, learner))
    moments = learner.state().moments
    gradient = torch.cat([moments[f"state/{i}/exp_avg"].flatten() for i in (0, 2)])
    assert gradient.norm() == pytest.approx(0.01, rel=1e-4)
    assert learner.metrics()["train/grad_norm"] > 0.1


def test_a_parameter_without_a_gradient_stays_as_it_is(source):
    learner = make_learner(source, optimizer_type="adam")
    learner.update(make_feed(source, learner))
    assert torch.equal(learner.policy.model.unused, torch.ones(2))
    assert "state/1/exp_avg" not in learner.state().moments


def test_what_follows_an_update_is_told_its_number(source):
    learner = make_learner(source)
    feed = make_feed(source, learner)
    for _ in range(3):
        learner.update(feed)
    assert learner.policy.model.updates_seen == [1, 2, 3]
    assert learner.num_updates == 3


def test_metrics_are_means_since_the_last_call(source):
    one, other = make_learner(source), make_learner(source)
    feeds = [make_feed(source, learner) for learner in (one, other)]
    losses = []
    for _ in range(4):
        one.update(feeds[0])
        losses.append(one.metrics()["loss/total"])
    for _ in range(2):
        other.update(feeds[1])
    assert other.metrics()["loss/total"] == pytest.approx(np.mean(losses[:2]))
    assert other.metrics() == other.metrics()
    for _ in range(2):
        other.update(feeds[1])
    assert other.metrics()["loss/total"] == pytest.approx(np.mean(losses[2:]))


def test_two_half_batches_are_one_whole(source):
    whole, halves = make_learner(source), make_learner(source, gradient_accumulation_steps=2)
    feed, same = make_feed(source, whole), make_feed(source, whole)

    def cut():
        for batch in same:
            for half in (slice(0, BATCH // 2), slice(BATCH // 2, None)):
                yield {key: value[half] for key, value in batch.items()}

    pieces = cut()
    for _ in range(5):
        whole.update(feed)
        halves.update(pieces)
    left, right = everything(whole), everything(halves)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=1e-6, msg=name)
    assert whole.metrics()["loss/total"] == pytest.approx(halves.metrics()["loss/total"], rel=1e-5)


def test_the_average_follows_by_its_formula(source):
    learner = make_learner(source, ema_decay=0.3)
    feed, linear = make_feed(source, learner), learner.policy.model.linear
    average = linear.weight.detach().double().clone()
    for update in range(1, 6):
        learner.update(feed)
        decay = min(0.3, (1 + update) / (10 + update))  # 0.18, 0.25, then 0.3
        average += (1 - decay) * (linear.weight.detach().double() - average)
        found = learner.weights()["linear.weight"]
        np.testing.assert_allclose(found.numpy(), average.numpy(), rtol=1e-5, atol=1e-7)
    assert not torch.equal(learner.weights()["linear.weight"], linear.weight)


def test_without_an_average_the_weights_act(source):
    learner = make_learner(source)
    learner.update(make_feed(source, learner))
    assert_same(learner.weights(), dict(learner.policy.model.state_dict()))


def test_what_else_draws_random_numbers_changes_nothing(source):
    quiet, disturbed = make_learner(source, dropout=0.5), make_learner(source, dropout=0.5)
    feeds = [make_feed(source, learner) for learner in (quiet, disturbed)]
    state = torch.zeros(1, 3).numpy()
    for update in range(5):
        quiet.update(feeds[0])
        torch.manual_seed(update)
        torch.rand(17)
        disturbed.policy.act({"observation.state": state})
        disturbed.validate([next(make_feed(source, disturbed))])
        disturbed.update(feeds[1])
    assert_same(everything(quiet), everything(disturbed))
    other = ImitationLearner(
        make_policy(source, LinearPolicyConfig(dropout=0.5)), total_updates=20, seed=8
    )
    feed = make_feed(source, other)
    for _ in range(5):
        other.update(feed)
    assert not torch.equal(
        everything(other)["model/linear.weight"], quiet.policy.model.linear.weight
    )


def test_the_random_numbers_of_the_process_are_left_alone(source):
    learner = make_learner(source, dropout=0.5)
    feed = make_feed(source, learner)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    learner.update(feed)
    learner.validate([next(feed)])
    assert torch.equal(torch.rand(4), expected)


def save(learner, checkpoint) -> None:
    (checkpoint / "training_state").mkdir(parents=True)
    learner.policy.save_pretrained(checkpoint / "pretrained_model", learner.weights())
    learner.save_state(checkpoint / "training_state")


def test_a_run_that_is_resumed_in_a_new_process_is_the_same_to_the_bit(source, tmp_path):
    learner = make_learner(source, **OPTIONS)
    feed = make_feed(source, learner)
    for _ in range(6):
        learner.update(feed)
    save(learner, tmp_path / "6")
    for _ in range(5):
        learner.update(feed)
    expected = everything(learner)
    assert_same(go_on(source.root, tmp_path / "6", 5), expected)
    program = [sys.executable, "-c", PROGRAM]
    arguments = [source.root, str(tmp_path / "6"), "5", str(tmp_path / "result")]
    subprocess.run([*program, *arguments], check=True, timeout=60, cwd=REPOSITORY)
    assert_same(load_file(tmp_path / "result"), expected)


def test_the_files_are_those_of_lerobot(source, tmp_path):
    learner = make_learner(source, ema_decay=0.9, falling=True)
    feed = make_feed(source, learner)
    for _ in range(2):
        learner.update(feed)
    save(learner, tmp_path)
    folder = tmp_path / "training_state"
    assert sorted(path.name for path in folder.iterdir()) == [
        "ema.safetensors",
        "optimizer_param_groups.json",
        "optimizer_state.safetensors",
        "scheduler_state.json",
    ]
    moments = load_file(folder / "optimizer_state.safetensors")
    names = ("exp_avg", "exp_avg_sq", "step")
    assert sorted(moments) == [f"state/{i}/{name}" for i in (0, 2) for name in names]
    assert float(moments["state/0/step"]) == 2
    groups = json.loads((folder / "optimizer_param_groups.json").read_text())
    assert [group["params"] for group in groups] == [[0, 1], [2]]
    assert [group["initial_lr"] for group in groups] == [1e-2, 2e-2]
    assert groups[0]["betas"] == [0.9, 0.99]
    schedule = json.loads((folder / "scheduler_state.json").read_text())
    assert (schedule["last_epoch"], schedule["_step_count"]) == (2, 3)
    assert schedule["base_lrs"] == [1e-2, 2e-2]
    stored = load_file(tmp_path / "pretrained_model" / "model.safetensors")
    kept = load_file(folder / "ema.safetensors")
    assert torch.equal(stored["linear.weight"], kept["average/linear.weight"])
    assert torch.equal(kept["weights/linear.weight"], learner.policy.model.linear.weight)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizer_state.safetensors", None),
        ("optimizer_state.safetensors", b"\x07"),
        ("optimizer_param_groups.json", None),
        ("optimizer_param_groups.json", b"[{]"),
        ("optimizer_param_groups.json", b"3"),
        ("scheduler_state.json", None),
        ("scheduler_state.json", b"{}"),
        ("ema.safetensors", None),
        ("ema.safetensors", b"no tensors"),
    ],
)
def test_what_is_missing_or_damaged_is_one_error(source, tmp_path, name, content):
    learner = make_learner(source, ema_decay=0.9)
    learner.update(make_feed(source, learner))
    learner.save_state(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="resume") as caught:
        learner.load_state(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_policy_is_refused(source, tmp_path):
    learner = make_learner(source)
    learner.update(make_feed(source, learner))
    learner.save_state(tmp_path)
    for other in (make_learner(source, chunk_size=4), make_learner(source, ema_decay=0.5)):
        with pytest.raises(CheckpointError, match="does not fit this run") as caught:
            other.load_state(tmp_path)
        assert "\n" not in str(caught.value)
    groups = json.loads((tmp_path / "optimizer_param_groups.json").read_text())
    groups[0]["params"] = [0]
    (tmp_path / "optimizer_param_groups.json").write_text(json.dumps(groups))
    with pytest.raises(CheckpointError, match="the parameter groups are others"):
        learner.load_state(tmp_path)


def test_options_of_the_run_go_before_stored_ones(source, tmp_path):
    learner = make_learner(source)
    learner.update(make_feed(source, learner))
    learner.save_state(tmp_path)
    slower = make_learner(source, optimizer_lr=1e-4)
    slower.load_state(tmp_path)
    slower.update(make_feed(source, slower))
    assert slower.metrics()["train/lr"] == 1e-4


def test_an_unknown_optimizer_is_refused(source):
    with pytest.raises(ConfigError, match="'sgd': allowed are adam, adamw"):
        make_learner(source, optimizer_type="sgd")


def test_bfloat16_is_for_computing_only(source):
    exact, rough = make_learner(source), make_learner(source, use_amp=True)
    for learner in (exact, rough):
        learner.update(make_feed(source, learner))
    assert all(tensor.dtype == torch.float32 for tensor in everything(rough).values())
    losses = [learner.metrics()["loss/total"] for learner in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_validation_counts_each_sample_once_whoever_looks_at_it(source):
    source = DataSource(root=source.root, held_out=[1, 3])
    learner = make_learner(source, ema_decay=0.9)
    feed = make_feed(source, learner)
    for _ in range(3):
        learner.update(feed)
    found = learner.validate(feed.held_out())
    batches = list(feed.held_out())
    assert [len(batch["action"]) for batch in batches] == [8, 8]
    assert learner.validate(batches[:1])["validation/loss"] != found["validation/loss"]
    parts = [
        learner.validation_figures(
            make_feed(source, learner, rank=rank, learners=3, batch_size=6).held_out(),
            rank=rank,
            learners=3,
        )
        for rank in range(3)
    ]
    merged = validation_metrics(parts)
    assert merged == pytest.approx(found, rel=1e-5)
    assert set(merged) == {"validation/loss", "validation/l2", "validation/first"}
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    acting = make_policy(source, LinearPolicyConfig())
    acting.model.load_state_dict(learner.weights())
    expected, _ = acting.model.loss(acting.prepare(whole))
    assert found["validation/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_validation_without_batches_is_empty(source):
    assert make_learner(source).validate([]) == {}
    empty = make_learner(source).validation_figures([])
    assert validation_metrics([empty, empty]) == {}


def test_validation_draws_the_same_each_time_and_drops_nothing(source):
    learner = make_learner(source, dropout=0.5, counts=True)
    feed = make_feed(source, learner)
    batches = [next(feed) for _ in range(3)]
    first = learner.validate(batches)
    torch.rand(3)
    assert learner.validate(batches) == first
    shares = [
        learner.validation_figures(batches[rank::2], rank=rank, learners=2) for rank in (0, 1)
    ]
    assert validation_metrics(shares) == pytest.approx(first, rel=1e-6)
    # the loss has a random shift, which differs by batch; the part without it has no dropout
    plain = make_policy(source, LinearPolicyConfig())
    plain.model.load_state_dict(learner.policy.model.state_dict())
    losses = [plain.model.loss(plain.prepare(batch))[0].item() for batch in batches]
    assert first["validation/l2"] == pytest.approx(np.mean(losses))
    assert torch.equal(learner.policy.model.mean_state, torch.zeros(3))
    learner.update(make_feed(source, learner))
    assert learner.policy.model.training


class Reducer:
    """Averages tensors of learners in threads."""

    def __init__(self, learners: int) -> None:
        self.barrier = threading.Barrier(learners)
        self.offered: list = [None] * learners
        self.messages = 0

    def of(self, rank: int):
        def average(tensors: list[torch.Tensor]) -> None:
            self.offered[rank] = [tensor.clone() for tensor in tensors]
            self.barrier.wait(timeout=20)
            for tensor, *others in zip(tensors, *self.offered, strict=True):
                tensor.copy_(torch.stack(others).mean(0))
            self.messages += rank == 0
            self.barrier.wait(timeout=20)

        return average


@pytest.mark.parametrize("learners", [2, 4])
def test_several_learners_do_what_one_does(source, learners):
    alone = make_learner(source, ema_decay=0.9, counts=True)
    feed = make_feed(source, alone)
    reducer = Reducer(learners)
    several = [
        make_learner(source, ema_decay=0.9, counts=True, rank=r, all_reduce=reducer.of(r))
        for r in range(learners)
    ]

    def train(rank: int) -> None:
        own = make_feed(source, several[rank], rank=rank, learners=learners)
        for _ in range(5):
            several[rank].update(own)

    threads = [threading.Thread(target=train, args=(rank,)) for rank in range(learners)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        alone.update(feed)
    for thread in threads:
        thread.join()
    expected = everything(alone)
    for learner in several:
        for name, tensor in everything(learner).items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5, msg=name)
        assert torch.equal(learner.policy.model.mean_state, several[0].policy.model.mean_state)
    losses = [learner.metrics()["loss/total"] for learner in several]
    assert np.mean(losses) == pytest.approx(alone.metrics()["loss/total"], abs=1e-5)
    assert reducer.messages == 10  # gradients and buffers, once per update


def test_learners_draw_different_random_numbers(source):
    losses = set()
    for rank in range(3):
        learner = make_learner(source, dropout=0.5, rank=rank)
        learner.update(make_feed(source, learner))
        losses.add(learner.metrics()["loss/total"])
    assert len(losses) == 3


def test_each_update_draws_anew(source):
    learner = make_learner(source, dropout=0.5, optimizer_lr=1e-9, optimizer_lr_bias=1e-9)
    batch = next(make_feed(source, learner))
    losses = set()
    for _ in range(4):
        learner.update(iter([batch]))
        losses.add(round(learner.metrics()["loss/total"], 6))
    assert len(losses) == 4


def test_training_pictures_are_changed_before_they_are_normalised(tmp_path):
    root = write_demonstrations(tmp_path / "dataset", lengths=(8,), pictures=True)
    source, shapes = DataSource(root=str(root)), []

    def darken(pictures):
        shapes.append(pictures.shape)
        assert pictures.min() >= 0
        assert pictures.max() <= 1
        return pictures / 2

    policy = make_policy(source, LinearPolicyConfig())
    learner = ImitationLearner(policy, total_updates=TOTAL, seed=SEED, transforms=darken)
    batches = [next(make_feed(source, learner))]
    learner.update(iter(batches))
    camera = "observation.images.top"
    mean, std = (np.ravel(policy.processor.stats[camera][key]) for key in ("mean", "std"))
    shade = batches[0][camera].mean() / 255
    assert learner.metrics()[f"loss/{camera}"] == pytest.approx(
        np.mean((shade / 2 - mean) / std), rel=1e-4
    )
    assert learner.validate(batches)[f"validation/{camera}"] == pytest.approx(
        np.mean((shade - mean) / std), rel=1e-4
    )
    assert shapes == [(8, 3, 8, 10)]
