"""Prometheus metrics of a worker: with :mod:`.tallies` all that imports ``prometheus_client``.

Three sources: what stages tell about a batch (:class:`Metrics`, the telemetry port), what passes
the edges (:mod:`.measured`), and what stands in the stages' memory when ``/metrics`` is read
(:class:`Standing`). Labels are bounded: stages, parts, partitions, our own topics and reasons; of
names that others give to their events the first hundred.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from stream_app.adapters.tallies import Ages, Tally, Total
from stream_app.errors import Fenced, RolledBack
from stream_app.ports import RawBatch
from stream_app.telemetry import Quality

CONTENT_TYPE = CONTENT_TYPE_LATEST
Handler = Callable[[RawBatch], Awaitable[None]]
C = TypeVar("C", Ages, Tally, Total)

# Parts that never wait: between two laps of theirs the thread works for this batch alone.
COMPUTED = frozenset({"decode", "learn", "score", "render", "merge"})
# Parts that no computing follows: the thread's CPU clock, a system call, is not asked after them.
LAST = frozenset({"commit", "publish"})
FRESHNESS_EDGES_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
_DURATION_EDGES_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_RECORDS_EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


@dataclass(slots=True)
class Watch:
    """The clock of one batch: when its last part ended."""

    stage: str
    at_s: float
    cpu_s: float


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@dataclass(slots=True)
class DeadLetters:
    """What the console shows of dead letters: how many by reason, and the last few."""

    by_reason: dict[str, int] = field(default_factory=dict)
    latest: list[dict[str, str]] = field(default_factory=list)


class Metrics:
    """Implements :class:`stream_app.telemetry.Telemetry`; metrics of one worker, one registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.dead = DeadLetters()
        self.committed_at_s: dict[tuple[str, int], float] = {}
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self.registry)
        add = self._added
        self.freshness = add(
            Ages(
                "stream_app_freshness_seconds",
                "From a record's time in Kafka to its customer's list",
                edges_s=FRESHNESS_EDGES_S,
            )
        )
        self.parts = add(
            Tally(
                "stream_app_batch_part_duration_seconds",
                "Wall time of a part of a batch",
                ["stage", "part"],
                edges=_DURATION_EDGES_S,
            )
        )
        self.records = add(
            Tally("stream_app_batch_records", "Records of a batch", ["stage"], edges=_RECORDS_EDGES)
        )
        self.calls = add(
            Tally(
                "stream_app_dependency_duration_seconds",
                "Wall time of a call to Redis or Kafka",
                ["dependency", "operation"],
                edges=_DURATION_EDGES_S,
            )
        )

        def total(name: str, text: str, *labels: str) -> Total:
            return add(Total(f"stream_app_{name}", text, labels))

        self.cpu = total("cpu_seconds", "CPU of the parts that never wait", "stage", "part")
        self.caches = total("cache_requests", "Entries asked of a cache", "cache", "result")
        self.errors = total(
            "dependency_errors",
            "Failed calls to Redis or Kafka; each is retried without end",
            "dependency",
            "operation",
            "error",
        )
        self.lost = total("partitions_lost", "Batches refused by the store", "stage", "cause")
        self.dead_letters = total("dead_letters", "Records dead-lettered", "reason")
        self.rejected = total("rejected_records", "Records of the clickstream rejected", "cause")
        self.late = total("late_events", "Events whose record was made a minute later, or more")
        self.published = total("published_records", "Records produced", "topic")
        self.lists = total("published_customers", "Customers whose lists were written to Redis")

    def _added(self, collector: C) -> C:
        self.registry.register(collector)
        return collector

    def lap(self, part: str) -> None:
        """See :meth:`stream_app.telemetry.Telemetry.lap`."""
        watch = _watch.get()
        if watch is None:
            return  # not in a batch: recovery, refresh
        now_s = time.perf_counter()
        cpu_s = watch.cpu_s if part in LAST else time.thread_time()
        self.parts.observe((watch.stage, part), now_s - watch.at_s)
        if part in COMPUTED:
            self.cpu.add((watch.stage, part), max(cpu_s - watch.cpu_s, 0.0))
        watch.at_s, watch.cpu_s = now_s, cpu_s

    def cache(self, name: str, *, asked: int, missing: int) -> None:
        """See :meth:`stream_app.telemetry.Telemetry.cache`."""
        self.caches.add((name, "hit"), asked - missing)
        self.caches.add((name, "miss"), missing)

    def quality(self, found: Quality) -> None:
        """See :meth:`stream_app.telemetry.Telemetry.quality`."""
        for cause, records in found.rejected.items():
            self.rejected.add((cause,), records)
        self.late.add((), found.late)

    def watched(self, stage: str, handler: Handler, *, fresh: bool = False) -> Handler:
        """``handler`` with its batches measured; ``fresh``: it ends with its lists written."""

        async def handle(batch: RawBatch) -> None:
            self.records.observe((stage,), len(batch))
            token = _watch.set(Watch(stage, time.perf_counter(), time.thread_time()))
            try:
                await handler(batch)
            except (Fenced, RolledBack) as exc:
                cause = "fenced" if isinstance(exc, Fenced) else "rolled_back"
                self.lost.add((stage, cause))
                raise
            finally:
                _watch.reset(token)
            if fresh:
                stamped = np.array(batch.timestamps_ms, np.float64)
                self.freshness.observe(time.time() - stamped[stamped > 0] / 1000.0)

        return handle

    def dead_lettered(self, letters: Sequence[dict[str, str]], *, keep: int = 20) -> None:
        """Headers of dead letters that were sent; the last ``keep`` of them are remembered."""
        for letter in letters:
            reason = letter.get("reason", "other")
            self.dead.by_reason[reason] = self.dead.by_reason.get(reason, 0) + 1
            self.dead_letters.add((reason,))
        self.dead.latest = [*self.dead.latest, *letters][-keep:]

    @property
    def lists_written(self) -> int:
        """Customers whose lists were written to Redis by this process."""
        return int(self.lists.value())

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class PartitionStanding(Protocol):
    """Where a worker stands in one partition."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def acked(self) -> int: ...
    @property
    def high_water(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Accounts:
    """One owned partition as its state has it: records by outcome, and the cursor."""

    stage: str
    partition: int
    cursor: int
    outcomes: dict[str, int]


class ListOutcome(Protocol):
    """How often something came of a list or of a variant's lists, in one partition."""

    @property
    def block(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def outcome(self) -> str: ...
    @property
    def times(self) -> int: ...


class Standing:
    """Collects what is read only when asked: nothing of it costs the stages anything."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        partitions: Callable[[], Sequence[PartitionStanding]],
        stages: Mapping[str, str],
        accounts: Callable[[], Iterable[Accounts]],
        sizes: Callable[[], dict[str, int]],
        outcomes: Callable[[], Iterable[ListOutcome]],
        ignored: Callable[[], Mapping[str, int]],
        version: str,
    ) -> None:
        """``stages`` are the names of the stages by the topic that each reads."""
        self._metrics = metrics
        self._partitions = partitions
        self._stages = stages
        self._accounts = accounts
        self._sizes = sizes
        self._outcomes = outcomes
        self._ignored = ignored
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Metric families; see ``docs/operations.md`` for each."""
        where = ["stage", "topic", "partition"]
        lag = GaugeMetricFamily(
            "stream_app_lag_records", "Records between the end of the log and here", labels=where
        )
        for standing in self._partitions():
            behind = max((standing.high_water or 0) - standing.acked, 0)
            stage = self._stages[standing.topic]
            lag.add_metric([stage, standing.topic, str(standing.partition)], behind)
        yield lag
        yield from self._accounted()
        yield from self._counted()
        sizes = GaugeMetricFamily("stream_app_entries", "Entries in memory", labels=["kind"])
        for kind, count in self._sizes().items():
            sizes.add_metric([kind], count)
        yield sizes
        ignored = CounterMetricFamily(
            "stream_app_ignored_events",
            "Well-formed records of events that mean nothing here",
            labels=["name"],
        )
        for name, count in self._ignored().items():
            ignored.add_metric([name], count)
        yield ignored
        build = GaugeMetricFamily("stream_app_build_info", "This release", labels=["version"])
        build.add_metric([self._version], 1)
        yield build

    def _accounted(self) -> Iterator[Metric]:
        where = ["stage", "partition"]
        records = CounterMetricFamily(
            "stream_app_records", "Records by what became of them", labels=[*where, "outcome"]
        )
        cursor = GaugeMetricFamily("stream_app_cursor_offset", "Next offset", labels=where)
        moved = GaugeMetricFamily(
            "stream_app_last_commit_timestamp_seconds",
            "When the cursor moved last, or was claimed first",
            labels=where,
        )
        for account in self._accounts():
            at = [account.stage, str(account.partition)]
            cursor.add_metric(at, account.cursor)
            for outcome, count in account.outcomes.items():
                records.add_metric([*at, outcome], count)
            committed_at_s = self._metrics.committed_at_s.get((account.stage, account.partition))
            if committed_at_s is not None:
                moved.add_metric(at, committed_at_s)
        yield from (records, cursor, moved)

    def _counted(self) -> Iterator[Metric]:
        """By partition: a counter that goes to another worker ends here, instead of falling."""
        where = ["partition", "outcome"]
        families = {
            "list": CounterMetricFamily(
                "stream_app_list_outcomes", "What came of our own lists", labels=["list", *where]
            ),
            "variant": CounterMetricFamily(
                "stream_app_variant_outcomes",
                "What came of our own lists, by variant of an experiment",
                labels=["variant", *where],
            ),
        }
        for found in self._outcomes():
            labels = [found.name, str(found.partition), found.outcome]
            families[found.block].add_metric(labels, found.times)
        yield from families.values()
