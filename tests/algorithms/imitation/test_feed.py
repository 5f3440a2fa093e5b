"""Which samples a learner gets, and when: exact places, shares, held-out episodes, windows."""

import dataclasses
import threading
from collections import Counter

import numpy as np
import pytest

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.imitation.feed import Feed
from leray.algorithms.imitation.source import source_processor
from leray.algorithms.trainable import DataSource
from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.errors import ConfigError, FeatureMismatchError
from tests.algorithms.imitation.conftest import LENGTHS, write_demonstrations
from tests.algorithms.imitation.linear import LinearPolicyConfig

FRAMES = sum(LENGTHS)


def make_feed(
    source, *, batch_size=6, seed=1, rank=0, learners=1, action_only=0, **options
) -> Feed:
    config = LinearPolicyConfig(**options)
    features = source_processor(source, config).source_features
    return Feed(
        source,
        config,
        features,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        learners=learners,
        action_only=action_only,
    )


def take(feed, count) -> list[dict]:
    return [{k: np.array(v) for k, v in next(feed).items()} for _ in range(count)]


def assert_equal(left: list[dict], right: list[dict]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def frames_of(batches) -> set[tuple[int, int]]:
    return {
        (int(episode), int(frame))
        for batch in batches
        for episode, frame in zip(batch["episode_index"], batch["frame_index"], strict=True)
    }


def test_every_frame_comes_equally_often(source):
    feed = make_feed(source, batch_size=1)
    batches = take(feed, 4096)  # samples that are shuffled together
    seen = Counter(frame for batch in batches for frame in frames_of([batch]))
    assert len(seen) == FRAMES
    assert set(seen.values()) == {4096 // FRAMES, 4096 // FRAMES + 1}
    assert feed.epoch == 4096 / FRAMES
    assert set(batches[0]) >= {"observation.state", "action", "action_is_pad"}
    assert batches[0]["action"].shape == (1, 3, 2)


def test_it_goes_on_at_the_exact_batch(source):
    whole = take(make_feed(source), 25)
    feed = make_feed(source)
    take(feed, 5)
    feed.go_to(13)
    assert feed.used == 13
    assert_equal(take(feed, 12), whole[13:])
    feed.go_to(2)
    assert_equal(take(feed, 2), whole[2:4])
    assert feed.used == 4


def test_learners_share_each_batch(source):
    whole = take(make_feed(source), 15)
    parts = [take(make_feed(source, rank=rank, learners=3), 15) for rank in range(3)]
    joined = [
        {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
        for batch in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)


def test_the_order_follows_the_seed(source):
    first, again, other = (take(make_feed(source, seed=seed), 3) for seed in (1, 1, 2))
    assert_equal(first, again)
    assert not np.array_equal(first[0]["frame_index"], other[0]["frame_index"])


def test_held_out_episodes_are_for_validation_only(source):
    source = dataclasses.replace(source, held_out=[0, 3])
    feed = make_feed(source)
    assert {episode for episode, _ in frames_of(take(feed, 30))} == {1, 2}
    held_out = list(feed.held_out())
    assert [len(batch["action"]) for batch in held_out] == [6, 6, 6, 1]
    expected = {(episode, frame) for episode in (0, 3) for frame in range(LENGTHS[episode])}
    assert frames_of(held_out) == expected
    assert_equal(list(feed.held_out()), held_out)  # as often as one likes
    shares = [list(make_feed(source, rank=r, learners=3).held_out()) for r in range(3)]
    assert [len(share) for share in shares] == [2, 1, 1]
    assert_equal([shares[0][0], shares[1][0], shares[2][0], shares[0][1]], held_out)


def test_some_of_the_chosen_episodes_are_held_out(source):
    source = dataclasses.replace(source, episodes=[1, 2], held_out=[2])
    feed = make_feed(source)
    assert {episode for episode, _ in frames_of(take(feed, 10))} == {1}
    assert {episode for episode, _ in frames_of(feed.held_out())} == {2}


def test_nothing_held_out_nothing_to_validate(source):
    assert list(make_feed(source).held_out()) == []


def test_dropped_frames_are_no_samples_but_windows_reach_them(source):
    kept = FRAMES - 2 * len(LENGTHS)
    feed = make_feed(source, batch_size=kept, drop_last=2)
    batches = take(feed, 20)
    expected = {(e, f) for e, length in enumerate(LENGTHS) for f in range(length - 2)}
    assert frames_of(batches) == expected
    assert feed.epoch == 20
    assert not any(batch["action_is_pad"].any() for batch in batches)  # 2 dropped, chunks of 3
    actions = DatasetReader.open(source.root).read(["action"])["action"]
    for batch in batches:
        last = (batch["episode_index"] == 0) & (batch["frame_index"] == 9)
        for window in batch["action"][last]:
            np.testing.assert_array_equal(window, actions[9:12])


def test_learners_that_cannot_share_a_batch_are_refused(source):
    with pytest.raises(ConfigError, match="give a multiple of 4"):
        make_feed(source, learners=4)


def test_vectors_of_one_element_have_an_axis(tmp_path):
    root = write_demonstrations(tmp_path / "dataset", actions=1)
    feed = make_feed(DataSource(root=str(root), held_out=[0]))
    for batch in (next(feed), next(feed.held_out())):
        assert batch["action"].shape == (6, 3, 1)
        assert batch["action_is_pad"].shape == (6, 3)


def test_pictures_are_read_ahead_and_closing_stops_that(tmp_path):
    root = write_demonstrations(tmp_path / "dataset", lengths=(9, 8), pictures=True)
    source = DataSource(root=str(root), held_out=[1])
    feed = make_feed(source)
    first = take(feed, 3)
    assert first[0]["observation.images.top"].shape == (6, 8, 10, 3)
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    feed.close()
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())
    feed.go_to(0)
    assert_equal(take(feed, 3), first)
    feed.close()
    held_out = list(feed.held_out())
    assert [len(batch["action"]) for batch in held_out] == [6, 2]
    assert frames_of(held_out) == {(1, frame) for frame in range(8)}
    shade = np.tanh(held_out[0]["observation.state"][:, 0])
    shown = held_out[0]["observation.images.top"][:, 0, 0, 0]
    np.testing.assert_allclose(shown, np.floor(127 * (1 + shade)), atol=1)


def test_the_first_batches_may_be_actions_alone(tmp_path):
    root = write_demonstrations(tmp_path / "dataset", lengths=(9, 8), pictures=True)
    feed = make_feed(DataSource(root=str(root)), action_only=3)
    first = take(feed, 3)
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())
    whole = [*first, *take(feed, 3)]
    for batch in whole[:3]:
        assert not any(name.startswith("observation.") for name in batch)
    assert_equal(whole[3:], take(make_feed(DataSource(root=str(root))), 6)[3:])
    for start in (2, 3, 4):
        feed.go_to(start)
        assert_equal(take(feed, 6 - start), whole[start:])
    feed.close()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_give_the_same_batches(tmp_path):
    root = write_demonstrations(tmp_path / "dataset", lengths=(9, 8), pictures=True)
    feeds = [make_feed(DataSource(root=str(root), num_workers=workers)) for workers in (0, 1)]
    for start in (0, 7):
        for feed in feeds:
            feed.go_to(start)
        assert_equal(*(take(feed, 4) for feed in feeds))
    for feed in feeds:
        feed.close()


def test_a_policy_without_pictures_reads_all_vectors(tmp_path):
    features = {
        "observation.state": Feature("float32", (2,)),
        "observation.velocity": Feature("float64", (1,)),
        "observation.images.top": Feature("image", (8, 10, 3), ("height", "width", "channels")),
        "action": Feature("float32", (1,)),
        "next.reward": Feature("float32", (1,)),
    }
    root = tmp_path / "dataset"
    with DatasetWriter.create(root, fps=10, features=Features(features)) as writer:
        for _ in range(4):
            frame = {k: np.zeros(f.shape, f.dtype) for k, f in features.items() if f.is_numeric}
            frame["observation.images.top"] = np.zeros((8, 10, 3), np.uint8)
            writer.add_frame(frame, task="")
        writer.save_episode()
    source = DataSource(root=str(root))
    names = {}
    for reads, kind in ((True, LinearPolicyConfig), (False, BCPolicyConfig)):
        names[reads] = list(source_processor(source, kind()).features)
    assert names == {
        True: ["observation.state", "observation.images.top", "action"],
        False: ["observation.state", "observation.velocity", "action"],
    }
    (root / "meta" / "info.json").write_text(
        (root / "meta" / "info.json").read_text().replace('"action"', '"nothing"')
    )
    for kind in (LinearPolicyConfig, BCPolicyConfig):
        with pytest.raises(FeatureMismatchError, match="`action` vector") as caught:
            source_processor(source, kind())
        assert "\n" not in str(caught.value)


def test_statistics_of_pictures_are_imagenets_or_the_datasets_own(tmp_path):
    root = write_demonstrations(tmp_path / "dataset", lengths=(9, 8), pictures=True)
    (root / "meta" / "stats.json").unlink()  # they are found out then
    camera = "observation.images.top"
    means = {}
    for known in (True, False):
        source = DataSource(root=str(root), use_imagenet_stats=known)
        means[known] = source_processor(source, LinearPolicyConfig()).stats[camera]["mean"].ravel()
    np.testing.assert_allclose(means[True], [0.485, 0.456, 0.406])
    own = DatasetReader.open(root).image_stats(camera)["mean"].ravel()
    np.testing.assert_array_equal(means[False], own.astype(np.float32))
