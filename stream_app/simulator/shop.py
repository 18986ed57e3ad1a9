"""The shop as one endless stream of events in time order, the same for the same seed."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stream_app.simulator.catalog import make_catalog
from stream_app.simulator.customers import make_customers
from stream_app.simulator.dirt import DIRT, sprinkle
from stream_app.simulator.pace import REAL, Pace, Traffic
from stream_app.simulator.render import Renderer
from stream_app.simulator.sessions import make_sessions
from stream_app.simulator.wire import ROW
from stream_app.simulator.words import LEAVES

Rows = NDArray[np.void]

block_events = 32_768  # larger ones cost less per event, but a longer pause
far_blocks = 32  # what happens later than this many blocks ahead is looked at again only then
calibration_sessions = 2_000


class Shop:
    """A seeded shop. ``rate`` is the mean number of events per second of event time.

    ``dirty`` is the share of dirty records, ``detail_share`` the share of views that carry
    category, brand and title. ``dirt`` counts the dirty records handed out so far, by kind. Memory
    grows with ``rate * pace.after_sales_s``: what will happen after purchases already made is kept
    (34 bytes each, about 3 % of events).

    >>> shop = Shop(seed=1, n_items=100, n_customers=50)
    >>> [key for key, value in shop.events(3)] == [key for key, value in Shop(
    ...     seed=1, n_items=100, n_customers=50).events(3)]
    True
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        n_items: int = 2_000,
        n_customers: int = 5_000,
        start_ts: float = 1_700_000_000.0,
        rate: float = 100.0,
        pace: Pace = REAL,
        dirty: float = 0.0,
        detail_share: float = 0.1,
    ) -> None:
        assert rate > 0 and 0 <= dirty < 1
        self.catalog = make_catalog(
            np.random.default_rng((seed, 2)), n_items, growth_s=pace.growth_s
        )
        self.customers = make_customers(
            np.random.default_rng((seed, 3)), n_customers, growth_s=pace.growth_s
        )
        self.dirt: Counter[str] = Counter()
        self._rng = np.random.default_rng((seed, 4))
        self._traffic = Traffic(seed, pace, len(LEAVES))
        self._renderer = Renderer(self.catalog, self.customers, seed)
        self._start_ts, self._pace = start_ts, pace
        self._dirty, self._detail_share = dirty, detail_share
        self._block_s = block_events / rate
        self._block = 0
        self._sessions = 0
        self._seq = 0
        self._due: defaultdict[int, list[Rows]] = defaultdict(list)
        self._far: list[Rows] = []
        self._ready = np.zeros(0, ROW)
        always_open = np.zeros(calibration_sessions)
        no_flash = np.full(calibration_sessions, -1)
        sample = self._make(np.random.default_rng((seed, 5)), always_open, no_flash)
        self._sessions_per_s = rate * calibration_sessions / len(sample)

    def events(self, n: int, *, chunk: int = 8_192) -> Iterator[tuple[bytes, bytes]]:
        """The next ``n`` (key, JSON) records, rendered ``chunk`` at a time."""
        while n > 0:
            rows = self.rows(min(n, chunk))
            n -= len(rows)
            yield from self.records(rows)

    def rows(self, n: int) -> Rows:
        """The next ``n`` events as packed rows (:data:`~stream_app.simulator.wire.ROW`)."""
        while len(self._ready) < n:
            self._ready = np.concatenate([self._ready, self._next_block()])
        rows, self._ready = self._ready[:n], self._ready[n:]
        for kind, count in enumerate(np.bincount(rows["dirt"], minlength=len(DIRT) + 1).tolist()):
            if kind and count:
                self.dirt[DIRT[kind - 1]] += count
        return rows

    def records(
        self, rows: Rows, ts: NDArray[np.float64] | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Rows as (key, JSON), at their own times, or at ``ts`` ``(n,)`` unix seconds if given."""
        return self._renderer.records(rows, rows["ts_s"] + self._start_ts if ts is None else ts)

    def _make(
        self, rng: np.random.Generator, starts: NDArray[np.float64], flash: NDArray[np.int64]
    ) -> Rows:
        return make_sessions(
            rng,
            self.catalog,
            self.customers,
            self._pace,
            starts,
            flash,
            first_session=self._sessions,
            detail_share=self._detail_share,
        )

    def _next_block(self) -> Rows:
        begin_s, end_s = self._block * self._block_s, (self._block + 1) * self._block_s
        starts, flash = self._traffic.starts(self._rng, begin_s, end_s, self._sessions_per_s)
        fresh = self._make(self._rng, starts, flash)
        self._sessions += len(starts)
        if self._block % far_blocks == 0:
            far, self._far = self._far, []
            self._schedule(np.concatenate([fresh, *far]))
        else:
            self._schedule(fresh)
        due = np.concatenate(self._due.pop(self._block))
        self._block += 1
        due = due[np.argsort(due["ts_s"], kind="stable")]
        rows = sprinkle(self._rng, due, self._dirty, self._seq)
        self._seq = int(rows["seq"].max(initial=self._seq - 1)) + 1
        return rows

    def _schedule(self, rows: Rows) -> None:
        """Put rows where they are due: by block up to the next multiple of ``far_blocks``."""
        rows = rows[np.argsort(rows["ts_s"], kind="stable")]
        until = (self._block // far_blocks + 1) * far_blocks
        blocks = np.arange(self._block, until)
        ends = np.searchsorted(rows["ts_s"], (blocks + 1) * self._block_s).tolist()
        begin = 0
        for block, end in zip(blocks.tolist(), ends, strict=True):
            self._due[block].append(rows[begin:end])
            begin = end
        if begin < len(rows):
            self._far.append(rows[begin:].copy())
