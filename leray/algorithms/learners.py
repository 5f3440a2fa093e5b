"""Calls to all learners of a run that never hang, whatever happens to one of them."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.rllib.core.learner.learner_group import LearnerGroup

from leray.errors import LearnerError, LerayError

T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    """An error that a learner sends in place of a result.

    RLlib ends an actor whose call raises, and what it raised is lost.
    """

    error: Exception


def on_learners(
    group: LearnerGroup, function: Callable[[Any], T], *, first_only: bool = False
) -> list[T]:
    """Run a function on the learners, here or in their own processes, and return its results.

    Args:
        group: RLlib's learners; those in processes of their own are ended after an error, since
            they may be waiting for each other.
        function: is called with an RLlib Learner.
        first_only: only on the first learner.

    Returns:
        By rank of the learner.

    Raises:
        LearnerError: a learner was lost, or its connection to the others.
        LerayError: as the function raised it.
        RuntimeError: the function raised something else in another process.
    """
    if group.is_local:
        return [function(group._learner)]  # noqa: SLF001 - minus wrapping the result
    actors = group._workers[:1] if first_only else group._workers  # noqa: SLF001 - no accessor
    calls = [actor.apply.remote(partial(_guarded, function)) for actor in actors]
    results: dict[ray.ObjectRef, T] = {}
    waiting = calls
    try:
        while waiting:
            ready, waiting = ray.wait(waiting)
            results |= {call: _result(call, calls.index(call), len(group)) for call in ready}
    except Exception:
        for actor in group._workers:  # noqa: SLF001 - no accessor
            ray.kill(actor)
        raise
    return [results[call] for call in calls]


def _result(call: ray.ObjectRef, rank: int, learners: int) -> Any:
    try:
        result = ray.get(call)
    except RayTaskError:
        raise  # the call itself was wrong, not the learner
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise LearnerError(
            f"learner {rank} of {learners} was lost ({type(error).__name__}: {reason}): go on from "
            "the last checkpoint"
        ) from error
    if isinstance(result, _Failure):
        raise result.error
    return result


def _guarded(function: Callable[[Any], Any], learner: Any) -> Any:
    try:
        return function(learner)
    except LerayError as error:
        return _Failure(error)
    except Exception:  # a defect: it must be seen where the run is watched
        return _Failure(RuntimeError(f"a learner failed:\n{traceback.format_exc()}"))
