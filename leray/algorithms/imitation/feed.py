"""The batches that a learner of imitation takes from the dataset of its run."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import cast

from leray.algorithms.imitation.config import ImitationPolicyConfig
from leray.algorithms.imitation.inputs import RawBatch
from leray.algorithms.trainable import DataSource
from leray.data.features import Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.names import ACTION
from leray.data.stream.plan import StreamConfig
from leray.data.stream.samples import SampleSpec
from leray.data.stream.stream import DatasetStream


class Feed:
    """An endless iterator over one learner's part of each batch; it can go to any of them.

    Args:
        source: the dataset, and which of its episodes are held out.
        config: of the policy, which says which windows in time it reads.
        features: that the policy reads, and its action.
        batch_size: samples per batch, of all learners together.
        seed: of the order.
        rank: of this learner.
        learners: how many share each batch.
        action_only: batches at the start of training that consist of actions alone.

    Raises:
        ConfigError: the learners cannot share a batch, or no episode is left to learn from.
        DatasetError: the dataset is missing or damaged, or lacks a feature.
    """

    def __init__(
        self,
        source: DataSource,
        config: ImitationPolicyConfig,
        features: Features,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        learners: int = 1,
        action_only: int = 0,
    ) -> None:
        self._source, self._config, self._features = source, config, features
        self._scalars = {name for name, feature in features.items() if feature.shape == (1,)}
        self._batch_size, self._rank, self._learners = batch_size, rank, learners
        self._action_only = action_only
        self.used = 0
        """Batches that were taken since the start of training."""
        episodes = training_episodes(source)
        self._stream = self._open(episodes, features, seed=seed, workers=source.num_workers)
        self._stream.plan.share(learners)
        self._actions: DatasetStream | None = None
        if action_only:
            self._actions = self._open(episodes, features.select([ACTION]), seed=seed, workers=0)
        self._batches: Iterator[RawBatch] | None = None
        self._held_out: DatasetStream | None = None

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> RawBatch:
        if self._batches is None:
            self._batches = self._from(self.used)
        batch = next(self._batches)
        self.used += 1
        return self._with_axes(batch)

    def go_to(self, used: int) -> None:
        """Go on as if so many batches had been taken."""
        self.close()
        self.used = used

    @property
    def epoch(self) -> float:
        """How many times each sample was seen."""
        return self._stream.plan.epoch(self.used)

    def held_out(self) -> Iterator[RawBatch]:
        """Yield this learner's batches of the held-out episodes once, in stored order.

        They are numbered rank, rank + learners, ...; without held-out episodes there is none.
        """
        if not self._source.held_out:
            return iter(())
        if self._held_out is None:
            self._held_out = self._open(self._source.held_out, self._features, seed=0, workers=0)
        batches = self._held_out.once(rank=self._rank, learners=self._learners)
        return map(self._with_axes, batches)

    def close(self) -> None:
        """Stop what reads ahead; the next batch starts it again."""
        close = getattr(self._batches, "close", None)
        self._batches = None
        if close is not None:
            close()

    def _open(
        self, episodes: list[int] | None, features: Features, *, seed: int, workers: int
    ) -> DatasetStream:
        reader = DatasetReader.open(self._source.root, episodes=episodes)
        spec = SampleSpec(
            keys=list(features),
            delta_timestamps=self._config.dataset_windows(features, reader.fps),
            drop_n_last_frames=self._config.drop_n_last_frames,
        )
        config = StreamConfig(
            batch_size=self._batch_size, seed=seed, memory_limit_mb=self._source.memory_limit_mb
        )
        return DatasetStream([reader], spec, config, workers=workers)

    def _with_axes(self, batch: RawBatch) -> RawBatch:
        """Return a batch where also vectors of one element have an axis, as policies expect it."""
        return {
            name: values[..., None] if name in self._scalars else values
            for name, values in batch.items()
        }

    def _from(self, start: int) -> Iterator[RawBatch]:
        if self._actions is not None and start < self._action_only:
            with closing(self._read(self._actions, start)) as batches:
                yield from islice(batches, self._action_only - start)
            start = self._action_only
        with closing(self._read(self._stream, start)) as batches:
            yield from batches

    def _read(self, stream: DatasetStream, start: int) -> Generator[RawBatch, None, None]:
        if stream.workers:
            batches = stream.ray().batches(
                start=start, rank=self._rank, learners=self._learners, torch=True
            )
        else:
            batches = stream.batches(start=start, rank=self._rank, learners=self._learners)
        return cast("Generator[RawBatch, None, None]", batches)


def training_episodes(source: DataSource) -> list[int] | None:
    """Return the episodes to learn from; None is all."""
    if not source.held_out:
        return source.episodes
    episodes = DatasetReader.open(source.root, episodes=source.episodes).episodes
    return [episode for episode in episodes if episode not in source.held_out]
