"""Fragments and transitions to test replay with; an observation carries its own identity."""

from dataclasses import dataclass

import numpy as np
import pytest

from leray.algorithms.replay.ring import ReplayBuffer
from leray.data.features import Feature, Features
from leray.data.names import ACTION, DONE, REWARD, TRUNCATED
from leray.envs.fragment import ANONYMOUS, Fragment

STATE = "observation.state"
FEATURES = Features({STATE: Feature("float32", (2,)), ACTION: Feature("float32", (1,))})


@dataclass
class Stream:
    """A stream in the making: counts observations, so that each value occurs once."""

    identity: int
    observation: float


@dataclass(frozen=True)
class Transition:
    """What a replay must give back for one step."""

    observation: float
    action: float
    reward: float
    following: float
    terminated: bool
    ended: bool


class World:
    """Writes random fragments and keeps the naive list of transitions they stand for."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.transitions: list[Transition] = []
        self._next_observation = 0.0
        self._next_stream = 0

    def stream(self) -> Stream:
        """Begin a stream."""
        self._next_stream += 1
        return Stream(self._next_stream, self._observe())

    def fragment(
        self, streams: list[Stream], steps: int, *, end: float = 0.2, anonymous: bool = False
    ) -> Fragment:
        """Return `steps` steps of the streams; each ends its episode with probability `end`."""
        envs = len(streams)
        columns = {
            STATE: np.zeros((steps, envs, 2), np.float32),
            ACTION: self.rng.normal(size=(steps, envs, 1)).astype(np.float32),
            REWARD: self.rng.normal(size=(steps, envs)).astype(np.float32),
            DONE: np.zeros((steps, envs), np.bool_),
            TRUNCATED: np.zeros((steps, envs), np.bool_),
        }
        final = []
        for step in range(steps):
            for env, stream in enumerate(streams):
                now, following = stream.observation, self._observe()
                columns[STATE][step, env] = (now, -now)
                draw = self.rng.random()
                terminated, ended = draw < end / 2, draw < end
                columns[DONE][step, env] = terminated
                columns[TRUNCATED][step, env] = ended and not terminated
                if ended:
                    final.append((following, -following))
                self.transitions.append(
                    Transition(
                        now,
                        float(columns[ACTION][step, env, 0]),
                        float(columns[REWARD][step, env]),
                        following,
                        terminated,
                        ended,
                    )
                )
                stream.observation = self._observe() if ended else following
        tail = [(stream.observation, -stream.observation) for stream in streams]
        return Fragment(
            columns=columns,
            tail={STATE: np.array(tail, np.float32)},
            final={STATE: np.array(final, np.float32).reshape(-1, 2)},
            streams=np.array(
                [ANONYMOUS if anonymous else stream.identity for stream in streams], np.int64
            ),
        )

    def _observe(self) -> float:
        self._next_observation += 1.0
        return self._next_observation


def stored_transitions(replay: ReplayBuffer) -> list[Transition]:
    """Read all steps in a replay's window, oldest first, from its live columns."""
    live = replay.live_columns()
    found = []
    for row in np.flatnonzero(live["next"] >= 0).tolist():
        link = int(live["next"][row])
        assert row < link < len(live["next"])
        found.append(
            Transition(
                float(live[STATE][row, 0]),
                float(live[ACTION][row]),
                float(live[REWARD][row]),
                float(live[STATE][link, 0]),
                bool(live[DONE][row]),
                bool(live[DONE][row] | live[TRUNCATED][row]),
            )
        )
    return found


def line(rewards, *, terminated=(), truncated=(), first=0.0, stream=7, finals=()) -> Fragment:
    """Return a fragment of one stream with observations first, first + 1, ... and given rewards.

    After an ended step the next observation is the next in the count; `finals` are the true last
    ones.
    """
    steps = len(rewards)
    states = first + np.arange(steps + 1, dtype=np.float32)
    states = np.stack([states, -states], -1)
    flags = np.zeros((2, steps, 1), np.bool_)
    flags[0, list(terminated)] = True
    flags[1, list(truncated)] = True
    return Fragment(
        columns={
            STATE: states[:-1, None],
            ACTION: states[:-1, None, :1] / 10,
            REWARD: np.array(rewards, np.float32)[:, None],
            DONE: flags[0],
            TRUNCATED: flags[1],
        },
        tail={STATE: states[-1:]},
        final={STATE: np.array([(f, -f) for f in finals], np.float32).reshape(-1, 2)},
        streams=np.array([stream], np.int64),
    )


@pytest.fixture
def features() -> Features:
    """What the test replays store."""
    return FEATURES


@pytest.fixture
def make_line():
    """Build a fragment of one stream with observations that count up."""
    return line


@pytest.fixture
def make_world():
    """Build a source of random fragments and the list of transitions they stand for."""
    return World


@pytest.fixture
def stored():
    """Read all steps of a replay back as transitions."""
    return stored_transitions


@pytest.fixture
def transition():
    """Build an expected transition."""
    return Transition
