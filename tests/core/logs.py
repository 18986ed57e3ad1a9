"""Small logs for the tests of the learning core, drawn by hypothesis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.core.learn import EVENT, Learned, learn
from stream_app.core.model import KIND, KINDS, Model
from stream_app.core.neighbourhood import SNAPSHOT
from stream_app.core.relate import owned_nodes, relate, relate_snapshots
from stream_app.core.state import decode_users, encode_users, new_partition
from stream_app.core.tables import ItemTables
from stream_app.journeys import load_journey

JOURNEY = load_journey()

START_S = 1_700_000_000.0
CUSTOMERS = 3
ITEMS = 6
_PAUSES_S = (0.0, 0.25, 5.0, 300.0, 1799.5, 1800.0, 1800.5, 7200.0, 3 * 86_400.0, 31 * 86_400.0)
_LATE_S = (0.0, 0.0, 0.0, 0.0, 30.0, 4000.0)
_ITEMLESS = ("search", "begin_checkout", "support", "impression", "erase")


@st.composite
def logs(draw: st.DrawFn, *, size_max: int = 60) -> NDArray[np.void]:
    """``(n,) EVENT``: several customers, few items, all kinds, late, repeated and refunded."""
    n = draw(st.integers(1, size_max))
    events = np.zeros(n, EVENT)
    now = START_S
    for k in range(n):
        now += draw(st.sampled_from(_PAUSES_S))
        kind = draw(st.sampled_from(("view", "view", "purchase", "refund", *KINDS)))
        itemless = kind in _ITEMLESS and draw(st.booleans())
        event = events[k]
        event["customer"] = draw(st.integers(1, CUSTOMERS))
        event["item"] = 0 if itemless else draw(st.integers(1, ITEMS)) * 0x9E3779B97F4A7C15 % 2**64
        event["ts"] = now - draw(st.sampled_from(_LATE_S))
        event["offset"] = 3 * k  # offsets may have gaps
        event["value"] = draw(st.sampled_from((0.0, 0.1, 19.99, 1e9)))
        event["session"] = draw(st.sampled_from((0, 0, 7, 8)))
        event["event_id"] = draw(st.sampled_from((0, 0, *range(1, 8))))
        event["kind"] = KIND[kind]
        if kind == "search":
            words = draw(st.lists(st.integers(1, 9), max_size=3))
            event["query"][: len(words)] = words
        event["anonymous"] = draw(st.booleans())
        event["device"] = draw(st.booleans())
    return events


def cuts(size: int) -> st.SearchStrategy[list[int]]:
    """Where to cut a log of ``size`` events into batches."""
    return st.lists(st.integers(0, size), max_size=5).map(sorted)


def pieces(events: NDArray[np.void], at: Sequence[int]) -> list[NDArray[np.void]]:
    """The log, cut."""
    return np.split(events, list(at))


class Stream:
    """LEARN's core as the pipeline drives it: states are blobs between batches."""

    def __init__(self, model: Model | None = None) -> None:
        self.model = model or Model()
        self.blobs: dict[int, bytes] = {}
        self.partition = new_partition()

    def learn(self, events: NDArray[np.void]) -> Learned:
        """Apply one batch."""
        ids, rows = np.unique(events["customer"], return_inverse=True)
        users = decode_users(ids, [self.blobs.get(key) for key in ids.tolist()])
        learned = learn(users, rows, events, self.partition, self.model, JOURNEY.plan)
        for key, blob, kept in zip(ids.tolist(), encode_users(users), users["events"], strict=True):
            if kept:
                self.blobs[key] = blob
            else:  # erased
                self.blobs.pop(key, None)
        return learned


class Related:
    """RELATE's core for one partition, tables kept in memory."""

    def __init__(
        self, model: Model | None = None, *, partition: int = 0, partitions: int = 1
    ) -> None:
        self.tables = ItemTables(model or Model(), rows_max=100_000, nodes_max=200_000)
        self._owned: dict[str, Any] = {"partition": partition, "partitions": partitions}

    def merge(
        self, transitions: NDArray[np.void], snapshots: NDArray[np.void] | None = None
    ) -> None:
        """Merge one batch."""
        told = np.zeros(0, SNAPSHOT) if snapshots is None else snapshots
        ids = np.concatenate((transitions["item"][:, None], transitions["previous"]), axis=1)
        at = self.tables.ensure(ids.ravel()).reshape(ids.shape)
        everything = np.concatenate((at.ravel(), self.tables.ensure(told["item"].ravel())))
        mine = owned_nodes(self.tables, everything, **self._owned)
        self.tables.ensure_rows(mine)
        self.tables.nodes["known"][mine] = 1
        relate(self.tables, transitions, at, **self._owned)
        relate_snapshots(self.tables, told, **self._owned)

    def blobs(self) -> dict[int, bytes]:
        """What would be stored of every owned item."""
        nodes = np.flatnonzero(self.tables.nodes["row"][: self.tables.nodes_n] >= 0)
        ids = self.tables.nodes["id"][nodes].tolist()
        return dict(zip(ids, self.tables.encode(nodes), strict=True))
