"""Batches of several partitions as one. A batch costs milliseconds whatever is in it.

Called by LEARN: what waits in several partitions is decoded, learned and ranked together, and is
taken apart again where each partition commits and publishes what is its own.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.aliases import Aliases
from stream_app.events import EventBatch
from stream_app.owning import Owned
from stream_app.ports import RawBatch


class Member(NamedTuple):
    """A batch, and who owns its partition here."""

    owned: Owned
    batch: RawBatch


class Share(NamedTuple):
    """What a member has of a group: ``events`` are the group's from ``first`` to ``end``."""

    owned: Owned
    batch: RawBatch
    events: EventBatch
    first: int
    end: int

    @property
    def number(self) -> int:
        """The partition."""
        return self.batch.partition


class Group(NamedTuple):
    """The ``events`` of all ``shares``, one share after the other; ``homes (n,)`` tells whose."""

    events: EventBatch
    homes: NDArray[np.int64]
    shares: list[Share]


def side_by_side(batches: Sequence[RawBatch]) -> RawBatch:
    """The records of several partitions, one batch after the other; of no partition itself."""
    if len(batches) == 1:
        return batches[0]
    return RawBatch(
        topic=batches[0].topic,
        partition=-1,
        next_offset=0,
        offsets=list(chain.from_iterable(batch.offsets for batch in batches)),
        keys=list(chain.from_iterable(batch.keys for batch in batches)),
        values=list(chain.from_iterable(batch.values for batch in batches)),
        timestamps_ms=list(chain.from_iterable(batch.timestamps_ms for batch in batches)),
        headers=list(chain.from_iterable(batch.headers for batch in batches)),
    )


def group_of(members: Sequence[Member], events: EventBatch) -> Group:
    """The members' shares of ``events``, which are those of their records side by side."""
    if len(members) == 1:
        n, (owned, batch) = len(events.events), members[0]
        return Group(events, np.zeros(n, np.int64), [Share(owned, batch, events, 0, n)])
    ends = np.cumsum([len(batch) for _, batch in members])
    rows = np.asarray(events.rows, np.int64)
    bounds, records = [0, *rows.searchsorted(ends).tolist()], [0, *ends.tolist()]
    shares = [
        Share(
            owned,
            batch,
            _between(events, rows, (bounds[k], bounds[k + 1]), (records[k], records[k + 1])),
            bounds[k],
            bounds[k + 1],
        )
        for k, (owned, batch) in enumerate(members)
    ]
    return Group(events, np.repeat(np.arange(len(members)), np.diff(bounds)), shares)


def _between(
    events: EventBatch, rows: NDArray[np.int64], among: tuple[int, int], records: tuple[int, int]
) -> EventBatch:
    """The events ``among`` …, which are those of the ``records`` from … to … of all."""
    (first, end), (low, high) = among, records
    own = rows[first:end] - low
    rejects = [
        reject._replace(row=reject.row - low)
        for reject in events.rejects
        if low <= reject.row < high
    ]
    data = {row - first: text for row, text in events.data.items() if first <= row < end}
    known = len(np.unique(own)) if events.ignored else len(own)
    return EventBatch(
        events.events[first:end],
        events.customers[first:end],
        events.items[first:end],
        rejects,
        events.record_ts[first:end],
        data,
        events.segments,
        events.given[first:end],
        high - low - known - len(rejects) if events.ignored else 0,
        Aliases(events.aliases.formers[first:end], events.aliases.session_keys),
        own.tolist(),
    )
