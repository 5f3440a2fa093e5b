"""Batches: exact shares of each side, the learner's dtypes, and resumable draws."""

import copy
import json

import numpy as np
import pytest
import torch

from leray.algorithms.replay.ring import ReplayBuffer
from leray.algorithms.replay.sampler import BOOTSTRAP, NEXT, OFFLINE, ReplaySampler
from leray.data.features import Feature, Features
from leray.data.names import ACTION, DONE, REWARD, TRUNCATED
from leray.envs.fragment import Fragment

STATE = "observation.state"
CPU = torch.device("cpu")


def _sampler(online, offline, **options) -> ReplaySampler:
    defaults = {
        "batch_size": 10,
        "online_ratio": 0.5,
        "n_step": 1,
        "discount": 0.9,
        "seed": 0,
        "device": CPU,
    }
    return ReplaySampler(online, offline, **(defaults | options))


@pytest.fixture
def online(features, make_line):
    """Observations 0 to 49."""
    replay = ReplayBuffer(features, 100)
    replay.add(make_line([1.0] * 50))
    return replay


@pytest.fixture
def offline(features, make_line):
    """Observations 1000 to 1049."""
    replay = ReplayBuffer(features, 100)
    replay.add(make_line([2.0] * 50, first=1000.0))
    return replay


@pytest.mark.parametrize(
    ("ratio", "batch_size", "expected"),
    [(0.5, 10, 5), (0.25, 8, 2), (0.75, 256, 192), (0.0, 10, 0), (1.0, 10, 10), (0.1, 256, 26)],
)
def test_each_side_gives_its_exact_share_first_online(online, offline, ratio, batch_size, expected):
    sampler = _sampler(online, offline, online_ratio=ratio, batch_size=batch_size)
    for _ in range(3):
        batch = sampler.sample()
        from_offline = batch[STATE][:, 0] >= 1000
        assert from_offline.tolist() == [False] * expected + [True] * (batch_size - expected)
        assert batch[OFFLINE].tolist() == from_offline.float().tolist()
        assert batch[REWARD].tolist() == [1.0] * expected + [2.0] * (batch_size - expected)


def test_a_transition_is_whole(online, offline):
    batch = _sampler(online, offline, n_step=2).sample()
    state = batch[STATE][:, 0]
    assert set(batch) == {STATE, NEXT + STATE, ACTION, REWARD, BOOTSTRAP, OFFLINE}
    steps = batch[NEXT + STATE][:, 0] - state
    assert set(steps.tolist()) <= {1.0, 2.0}  # one at the open end of the stream
    torch.testing.assert_close(batch[ACTION], state / 10)
    torch.testing.assert_close(batch[BOOTSTRAP], 0.9**steps)
    rewards = torch.where(state >= 1000, 2.0, 1.0)
    torch.testing.assert_close(batch[REWARD], torch.where(steps == 2, 1.9, 1.0) * rewards)


def test_an_empty_side_leaves_the_batch_to_the_other(features, online, offline):
    empty = ReplayBuffer(features, 10)
    for sampler in (_sampler(online, None), _sampler(online, empty)):
        assert (sampler.sample()[OFFLINE] == 0).all()
    for sampler in (_sampler(None, offline), _sampler(empty, offline)):
        assert (sampler.sample()[OFFLINE] == 1).all()
    with pytest.raises(ValueError, match="empty"):
        _sampler(empty, empty).sample()
    with pytest.raises(ValueError, match="give an online replay, an offline one, or both"):
        _sampler(None, None)


def test_offline_data_may_begin_later(features, online, make_line):
    sampler = _sampler(online, None)
    sampler.sample()
    sampler.offline = ReplayBuffer(features, 10)
    sampler.offline.add(make_line([2.0], first=1000.0))
    assert sampler.sample()[OFFLINE].sum() == 5


def _typed(dtype: str, shape: tuple[int, ...]) -> ReplayBuffer:
    features = Features({"observation.x": Feature(dtype, shape), ACTION: Feature("float64", (2,))})
    replay = ReplayBuffer(features, 10)
    frames = np.arange(4 * np.prod(shape)).reshape(4, 1, *shape).astype(dtype)
    replay.add(
        Fragment(
            columns={
                "observation.x": frames[:3],
                ACTION: np.full((3, 1, 2), 0.1),
                REWARD: np.zeros((3, 1), np.float32),
                DONE: np.zeros((3, 1), np.bool_),
                TRUNCATED: np.zeros((3, 1), np.bool_),
            },
            tail={"observation.x": frames[3]},
            final={"observation.x": frames[:0, 0]},
            streams=np.zeros(1, np.int64),
        )
    )
    return replay


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float64", torch.float32),
        ("float32", torch.float32),
        ("uint8", torch.uint8),
        ("int64", torch.int64),
        ("bool", torch.bool),
    ],
)
def test_only_double_precision_is_narrowed(dtype, expected):
    replay = _typed(dtype, (2, 3))
    batch = _sampler(replay, None).sample()
    for key in ("observation.x", NEXT + "observation.x"):
        assert batch[key].dtype == expected
        assert batch[key].shape == (10, 2, 3)
        stored = replay.columns["observation.x"][:4].astype(np.float32)
        assert all((stored == row).all((1, 2)).any() for row in batch[key].float().numpy())
    assert batch[ACTION].dtype == torch.float32
    assert (batch[ACTION] == np.float32(0.1)).all()


def _copied(batch):
    return {key: tensor.clone() for key, tensor in batch.items()}


def test_draws_depend_on_the_seed_alone(online, offline):
    first, again = _sampler(online, offline), _sampler(online, offline)
    other = _sampler(online, offline, seed=1)
    a, b, c = (_copied(sampler.sample()) for sampler in (first, again, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a[STATE], c[STATE])


def test_a_restored_sampler_goes_on_with_the_same_draws(online, offline):
    sampler, resumed = _sampler(online, offline), _sampler(online, offline, seed=5)
    sampler.sample()
    state = json.loads(json.dumps(sampler.state_dict()))  # plain numbers all the way
    kept = copy.deepcopy(state)
    expected = [_copied(sampler.sample()) for _ in range(3)]
    assert state == kept
    resumed.load_state_dict(state)
    for batch in expected:
        found = resumed.sample()
        assert all(torch.equal(batch[key], found[key]) for key in batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_device_are_not_overwritten_by_later_ones(online, offline):
    device = torch.device("cuda")
    sampler, reference = _sampler(online, offline, device=device), _sampler(online, offline)
    busy = torch.randn(4096, 4096, device=device)
    batches = []
    for _ in range(20):
        busy = busy @ busy * 1e-3  # the device lags behind the host
        batches.append(sampler.sample())
    for batch in batches:
        expected = reference.sample()
        assert all(torch.equal(batch[key].cpu(), expected[key]) for key in expected)
