"""Histograms and counters that cost a fraction of a microsecond, as Prometheus collectors.

``prometheus_client``'s own take a lock and a dictionary per label set for each value: ten times as
much, which a batch of one event would feel. Ours are told from one thread, the event loop's.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

Labels = tuple[str, ...]


class Ages:
    """A histogram of ages, counted with numpy: a batch costs microseconds, however many records."""

    def __init__(self, name: str, text: str, *, edges_s: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._edges_s = tuple(edges_s)
        self._edges = np.array(edges_s)
        self.counts = np.zeros(len(edges_s) + 1, np.int64)
        self.total_s = 0.0

    def observe(self, ages_s: NDArray[np.float64]) -> None:
        """Count ``ages_s (n,)`` seconds; clocks may disagree, so that some lie below zero."""
        places = np.searchsorted(self._edges, ages_s)
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.total_s += float(np.maximum(ages_s, 0.0).sum())

    def collect(self) -> Iterator[Metric]:
        """The histogram as it stands."""
        buckets = _buckets(self._edges_s, self.counts.tolist())
        yield HistogramMetricFamily(self._name, self._text, buckets, sum_value=self.total_s)


class Tally:
    """A histogram with labels.

    >>> tally = Tally("a_seconds", "…", ["part"], edges=(1, 10))
    >>> for value in (0.5, 1, 3):
    ...     tally.observe(("x",), value)
    >>> [(s.labels, s.value) for s in next(tally.collect()).samples][1:4]
    [({'part': 'x', 'le': '10'}, 3.0), ({'part': 'x', 'le': '+Inf'}, 3.0), ({'part': 'x'}, 3.0)]
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, edges: Sequence[float]
    ) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._edges = tuple(edges)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Count one value."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._edges) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._edges, value)] += 1
        self._sums[labels] += value

    def collect(self) -> Iterator[Metric]:
        """The histogram as it stands."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, counts in self._counts.items():
            family.add_metric(labels, _buckets(self._edges, counts), self._sums[labels])
        yield family


class Total:
    """A counter with labels; never falls."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        """Count ``amount`` more."""
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def value(self, labels: Labels = ()) -> float:
        """What was counted so far."""
        return self._values.get(labels, 0.0)

    def collect(self) -> Iterator[Metric]:
        """The counter as it stands."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        yield family


def _buckets(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    names = [*map(str, edges), "+Inf"]
    return list(zip(names, np.cumsum(counts).astype(float).tolist(), strict=True))
