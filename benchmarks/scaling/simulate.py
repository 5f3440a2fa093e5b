"""A run with many runner nodes, simulated: the driver's loop, the runners, the head's network.

The loop is the one of `OffPolicyAlgorithm` on the async clock, step by step, on the real `Pacing`:
ask runners for fragments, wait, take what came into the replay, ask again, take up to 16 updates,
publish the weights. Each operation advances the clock by its measured cost. Runners work through
their calls in order; fragments queue for the head's network card on their way in, weights on
their way out. Everything else (other traffic, congestion, memory bandwidth) is left out.
"""

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass

from benchmarks.scaling.costs import INLINE_BYTES, Costs
from leray.algorithms.offpolicy.pacing import Pacing

UPDATES_PER_STEP = 16
"""Most updates between two looks at the runners, as in `leray.algorithms.offpolicy.algorithm`."""
REQUESTS_IN_FLIGHT = 2
FETCH_TIMEOUT_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Case:
    """What runs."""

    step_s: float
    """One environment step of one environment on a runner's core, the policy's share included."""
    step_bytes: float
    """Size of one environment step in a fragment."""
    block_bytes: float
    """Size of the acting weights."""
    update_s: float
    """One update of the learner, sampling included."""
    utd_ratio: float = 1.0
    """Updates per environment step."""
    runners_per_node: int = 16
    envs: int = 8
    """Environments per runner."""
    parallel_envs: int = 1
    """How many of them step at the same time: 1 for one core, all of them for robots."""
    fragment: int = 16
    """Steps of each environment in a fragment."""

    @property
    def fragment_steps(self) -> int:
        """Environment steps in a fragment."""
        return self.fragment * self.envs

    @property
    def fragment_bytes(self) -> float:
        """Size of a fragment."""
        return self.fragment_steps * self.step_bytes


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What it runs on; the lower half is not how LeRay works today but what might be changed."""

    nodes: int
    """Nodes with runners; driver and learner are on the head, beside them."""
    nic_gbit_s: float = 25.0
    """Each way, of the head and of every node."""
    latency_s: float = 0.0
    """Of a call between nodes, there and back, beyond that on one machine."""
    failures_per_node_h: float = 0.0
    restart_s: float = 0.0
    """From the failure of a node until its runners answer elsewhere."""
    probe_timeout_s: float = 0.5
    """How long the driver waits for an answer of lost runners."""
    probe_every_s: float = 1.0
    """How often it does."""
    tree: bool = False
    """Nodes fetch weights from each other, two from each, instead of all from the head."""
    publish_period_s: float = 0.0
    """Least time between two publications."""
    ingest_actors: int = 0
    """Processes that take fragments and append them in the driver's place."""
    counted: bool = False
    """The driver keeps counts instead of searching and adding up lists."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Means over the measured part of a simulated run."""

    env_steps_per_s: float
    updates_per_s: float
    runner_busy: float
    """Share of the time that runners collect."""
    shares: dict[str, float]
    """Of the driver's time: ask, fetch, add, update, publish, iteration, probe, idle."""
    in_gbit_s: float
    """What fragments take of the head's network card."""
    out_gbit_s: float
    """What weights take of it."""
    staleness_s: float
    """Age of the weights behind a fragment when it is received, mean."""
    staleness_updates: float
    """The same in updates."""
    ahead_steps: float
    """Steps collected for which updates are still due, at the end."""
    store_bytes: float
    """Most fragments that lay at the head before the driver took them."""


class Simulation:
    """One simulated run.

    Args:
        case: what runs.
        cluster: what it runs on.
        costs: what each operation takes.
        jitter: relative spread of the time of a fragment.
        seed: of the spread, and of failures.
    """

    def __init__(
        self, case: Case, cluster: Cluster, costs: Costs, *, jitter: float = 0.1, seed: int = 0
    ) -> None:
        self.case, self.cluster, self.costs = case, cluster, costs
        self.runners = cluster.nodes * case.runners_per_node
        self.now = 0.0
        self.pacing = Pacing(case.utd_ratio, 0)
        self._rng, self._jitter = random.Random(seed), jitter
        self._bytes_per_s = cluster.nic_gbit_s * 1e9 / 8
        self._in_flight = [0] * self.runners
        self._free_at = [0.0] * self.runners
        self._lives = [0] * self.runners
        """How often each runner was lost: what it was asked before will not come."""
        self._computing: list[tuple[float, int, int, int, float]] = []
        """Fragments by the time they are done: then runner, life, updates and time of weights."""
        self._arrived: list[tuple[float, int, int, float]] = []
        """Fragments by the time they are at the head."""
        self._in_free_at = self._out_free_at = 0.0
        self._ingest_free_at = [0.0] * cluster.ingest_actors
        self._version, self._version_updates, self._published_at = 0, 0, 0.0
        self._node_version, self._node_ready_at = [-1] * cluster.nodes, [0.0] * cluster.nodes
        self._copies = 0
        self._lost_until = self._probed_at = 0.0
        self._next_failure = self._draw_failure(0.0)
        self._reset_totals()

    def run(self, seconds: float, *, loops: int = 0) -> Result:
        """Simulate, discard the first half, return the means over the second.

        Args:
            seconds: least simulated time of each half.
            loops: least number of turns of the driver's loop in each half.
        """
        for _ in range(2):
            self._reset_totals()
            began, turns = self.now, 0
            while self.now < began + seconds or turns < loops:
                self._turn()
                turns += 1
        return self._result(self.now - began)

    def _turn(self) -> None:
        """One training step."""
        self._fail_and_probe()
        self._ask()
        self._wait()
        self._receive()
        self._ask()
        self._learn()
        self._spend("iteration", self.costs.iteration_s)

    def _spend(self, what: str, seconds: float) -> None:
        self.now += seconds
        self._spent[what] += seconds

    def _ask(self) -> None:
        case, costs, number = self.case, self.costs, self.runners
        pairs = 0 if self.cluster.counted else number * number
        self._spend(
            "ask", REQUESTS_IN_FLIGHT * (number * costs.ask_runner_s + pairs * costs.ask_pair_s)
        )
        steps, asked = case.fragment_steps, sum(self._in_flight)
        slack = REQUESTS_IN_FLIGHT * steps * number
        allowed = self.pacing.steps_allowed(asked * steps, slack) // steps
        for _ in range(REQUESTS_IN_FLIGHT):
            free = [r for r in range(number) if self._in_flight[r] < REQUESTS_IN_FLIGHT]
            self._spend("ask", len(free) * costs.ask_free_s)
            for runner in free[:allowed]:
                self._submit(runner)
            allowed -= min(allowed, len(free))

    def _submit(self, runner: int) -> None:
        """Send a call; what the runner will do with it is settled here."""
        case, costs = self.case, self.costs
        self._spend("ask", costs.submit_s)
        self._in_flight[runner] += 1
        there = self.now + (costs.round_trip_s + self.cluster.latency_s) / 2
        weights = self._weights_at(runner // case.runners_per_node)
        start = max(self._free_at[runner], there, weights)
        work = case.fragment * case.envs / case.parallel_envs * case.step_s
        work *= 1 + self._jitter * (2 * self._rng.random() - 1)
        self._worked += work
        done = start + costs.load_s + costs.load_byte_s * case.block_bytes + work
        self._free_at[runner] = done
        entry = (done, runner, self._lives[runner], self._version_updates, self._published_at)
        heapq.heappush(self._computing, entry)

    def _weights_at(self, node: int) -> float:
        """Return when a node has the newest weights; it fetches them once."""
        if self._node_version[node] != self._version:
            self._node_version[node] = self._version
            seconds = self.case.block_bytes / self._bytes_per_s
            if self.cluster.tree and self._copies >= REQUESTS_IN_FLIGHT:
                depth = math.floor(math.log2(self._copies + 2))
                self._node_ready_at[node] = self.now + depth * REQUESTS_IN_FLIGHT * seconds
            else:
                self._out_free_at = max(self._out_free_at, self.now) + seconds
                self._node_ready_at[node] = self._out_free_at
                self._out_bytes += self.case.block_bytes
            self._copies += 1
        return self._node_ready_at[node]

    def _wait(self) -> None:
        """Wait as `ray.wait` does for all calls: not at all where updates are due."""
        pending = sum(self._in_flight)
        self._spend("fetch", pending * self.costs.wait_ref_s)
        if not self.pacing.updates_due and pending:
            until = self.now + FETCH_TIMEOUT_S
            self._deliver(until)
            if len(self._arrived) == pending:
                until = min(until, max(arrival for arrival, *_ in self._arrived))
            self._spend("idle", max(0.0, until - self.now))
        self._deliver(self.now)

    def _deliver(self, until: float) -> None:
        """Carry fragments that are done to the head, one after the other."""
        back = (self.costs.round_trip_s + self.cluster.latency_s) / 2
        size = self.case.fragment_bytes
        while self._computing and self._computing[0][0] <= until:
            done, runner, life, updates, published_at = heapq.heappop(self._computing)
            if life != self._lives[runner]:
                continue
            self._in_free_at = max(self._in_free_at, done) + size / self._bytes_per_s
            self._in_bytes += size
            arrival = self._in_free_at + back
            if self._ingest_free_at:
                arrival = max(arrival, heapq.heappop(self._ingest_free_at)) + self._ingest_s()
                heapq.heappush(self._ingest_free_at, arrival)
            heapq.heappush(self._arrived, (arrival, runner, updates, published_at))

    def _ingest_s(self) -> float:
        costs, size = self.costs, self.case.fragment_bytes
        fetch_s = costs.fetch_s if size < INLINE_BYTES else costs.fetch_large_s
        return fetch_s + costs.add_s + costs.add_byte_s * size

    def _receive(self) -> None:
        case, costs = self.case, self.costs
        pending, ready = sum(self._in_flight), []
        while self._arrived and self._arrived[0][0] <= self.now:
            ready.append(heapq.heappop(self._arrived))
        self._most_waiting = max(self._most_waiting, len(ready))
        search_s = 0.0 if self.cluster.counted else pending * costs.index_ref_s
        fetch_s = costs.fetch_s if case.fragment_bytes < INLINE_BYTES else costs.fetch_large_s
        add_s = costs.add_s + costs.add_byte_s * case.fragment_bytes
        if self._ingest_free_at:  # the driver only hears of it
            fetch_s, add_s = costs.fetch_s, 0.0
        for _, runner, updates, published_at in ready:
            self._spend("fetch", search_s + fetch_s)
            self._spend("add", add_s)
            self._in_flight[runner] = max(0, self._in_flight[runner] - 1)
            self.pacing.env_steps += case.fragment_steps
            self._received += 1
            self._stale_updates += self.pacing.updates - updates
            self._stale_s += self.now - published_at

    def _learn(self) -> None:
        due = min(self.pacing.updates_due, UPDATES_PER_STEP)
        self._spend("update", due * self.case.update_s)
        self.pacing.updates += due
        if due and self.now >= self._published_at + self.cluster.publish_period_s:
            costs = self.costs
            self._spend("publish", costs.publish_s + costs.publish_byte_s * self.case.block_bytes)
            self._version, self._copies = self._version + 1, 0
            self._version_updates, self._published_at = self.pacing.updates, self.now

    def _fail_and_probe(self) -> None:
        """Lose nodes whose time has come, and ask now and then whether they are back."""
        per_node = self.case.runners_per_node
        while self._next_failure <= self.now:
            node = self._rng.randrange(self.cluster.nodes)
            for runner in range(node * per_node, (node + 1) * per_node):
                self._lives[runner] += 1
                self._in_flight[runner] = 0
                self._free_at[runner] = self._next_failure + self.cluster.restart_s
            self._lost_until = max(self._lost_until, self._next_failure + self.cluster.restart_s)
            self._next_failure = self._draw_failure(self._next_failure)
        away_s = self._lost_until - self.now
        if away_s > 0 and self.now >= self._probed_at + self.cluster.probe_every_s:
            self._probed_at = self.now
            self._spend("probe", min(self.cluster.probe_timeout_s, away_s))

    def _draw_failure(self, after: float) -> float:
        per_s = self.cluster.failures_per_node_h * self.cluster.nodes / 3600
        return after + self._rng.expovariate(per_s) if per_s else math.inf

    def _reset_totals(self) -> None:
        self._spent: Counter[str] = Counter()
        self._worked = self._in_bytes = self._out_bytes = self._stale_s = 0.0
        self._received = self._stale_updates = self._most_waiting = 0
        self._first_updates = self.pacing.updates

    def _result(self, seconds: float) -> Result:
        case, received = self.case, max(1, self._received)
        ahead = self.pacing.env_steps - self.pacing.updates / case.utd_ratio
        return Result(
            env_steps_per_s=self._received * case.fragment_steps / seconds,
            updates_per_s=(self.pacing.updates - self._first_updates) / seconds,
            runner_busy=self._worked / (seconds * self.runners),
            shares={what: spent / seconds for what, spent in self._spent.items()},
            in_gbit_s=self._in_bytes * 8e-9 / seconds,
            out_gbit_s=self._out_bytes * 8e-9 / seconds,
            staleness_s=self._stale_s / received,
            staleness_updates=self._stale_updates / received,
            ahead_steps=ahead,
            store_bytes=self._most_waiting * case.fragment_bytes,
        )
