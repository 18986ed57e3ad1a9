"""Measure one run: samples of progress and CPU while contenders work, and the window between two.

start ─► warm-up (compilation, caches, joining the group: not counted) ─► window ─► all applied
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from subprocess import Popen
from typing import Any, NamedTuple

from bench.processes import cpu_us
from bench.progress import Counts

SAMPLE_S = 0.05


class ContenderFailed(Exception):
    """A contender ended or stood still; the message has the end of its log."""


class Sample(NamedTuple):
    """Progress and CPU at one moment of ``time.monotonic()``."""

    at_s: float
    counts: Counts
    cpu_us: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two samples. CPU is microseconds per event by part."""

    events: int
    seconds: float
    cpu_us_per_event: Mapping[str, float]
    pairs_per_event: float | None = None  # None: the contender does not count them
    lists_per_event: float | None = None
    began_at: float = 0.0  # Unix seconds

    @property
    def events_per_second(self) -> float:
        """Wall rate."""
        return self.events / self.seconds

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        counted = {"pairs_per_event": self.pairs_per_event, "lists_per_event": self.lists_per_event}
        return {
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events_per_second, 1),
            "cpu_us_per_event": with_total(self.cpu_us_per_event),
            **{name: round(value, 3) for name, value in counted.items() if value is not None},
        }


def observe(
    progress: Callable[[], Counts],
    parts: Mapping[str, Sequence[int]],
    workers: Sequence["Popen[bytes]"],
    *,
    warm: int,
    total: int,
    settle_s: float = 0.0,
    timeout_s: float = 180.0,
) -> list[Sample]:
    """Sample until ``total`` events are applied and no record is pending.

    With ``settle_s`` a second stage counts as done when ``pending`` has not changed for so long;
    the time of waiting for that is not part of the window. Raises ``ContenderFailed``.
    """
    assert 0 <= warm < total
    samples: list[Sample] = []
    moved = started = time.monotonic()
    last = None
    while True:
        now = time.monotonic()
        counts = progress()
        samples.append(Sample(now, counts, usage(parts)))
        if counts != last:
            last, moved = counts, now
        if counts.applied >= total and (
            counts.pending <= 0 if not settle_s else now - moved >= settle_s
        ):
            return samples
        if any(worker.poll() is not None for worker in workers):
            raise ContenderFailed(f"it ended after {counts.applied} of {total} events")
        if now - started > timeout_s:
            raise ContenderFailed(f"{counts.applied} of {total} events in {timeout_s:g} s")
        time.sleep(SAMPLE_S)


def window(
    samples: Sequence[Sample], parts: Mapping[str, Sequence[int]], *, warm: int, total: int
) -> Window:
    """From the first sample past the warm-up to the first one with everything done."""
    final = samples[-1].counts
    begin = next(s for s in samples if s.counts.applied >= warm)
    end = next(
        s for s in samples if s.counts.applied >= total and s.counts.pending == final.pending
    )
    events = end.counts.applied - begin.counts.applied
    if events <= 0:
        raise ContenderFailed("it applied all events at once, nothing is left to measure")
    return Window(
        events,
        end.at_s - begin.at_s,
        cpu_per_event(parts, begin.cpu_us, end.cpu_us, events),
        (end.counts.pairs - begin.counts.pairs) / events if final.pairs else None,
        (end.counts.lists - begin.counts.lists) / events if final.lists else None,
        time.time() - (time.monotonic() - begin.at_s),
    )


def cpu_per_event(
    parts: Iterable[str], before: Sequence[float], after: Sequence[float], events: int
) -> dict[str, float]:
    """Microseconds of CPU per event by part, from what :func:`usage` said before and after.

    >>> cpu_per_event(["worker", "redis"], (5.0, 1.0), (25.0, 3.0), 2)
    {'worker': 10.0, 'redis': 1.0}
    """
    return {name: (b - a) / events for name, a, b in zip(parts, before, after, strict=True)}


def with_total(cpu_us_per_event: Mapping[str, float]) -> dict[str, float]:
    """Rounded, with their sum, for the result file.

    >>> with_total({"worker": 10.123, "redis": 1.0})
    {'worker': 10.12, 'redis': 1.0, 'total': 11.12}
    """
    cpu = {name: round(value, 2) for name, value in cpu_us_per_event.items()}
    return cpu | {"total": round(sum(cpu.values()), 2)}


def usage(parts: Mapping[str, Sequence[int]]) -> tuple[float, ...]:
    """Microseconds of CPU so far, by part."""
    return tuple(cpu_us(pids) for pids in parts.values())
