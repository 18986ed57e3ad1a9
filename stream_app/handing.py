"""What LEARN's batches leave for RELATE and STOCK, handed over for several batches together.

A record for each item partition costs more than a small batch, and counts may lag. Until it is
sent, every commit of the partition carries it in its outbox.
"""

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.codec import Outbox, Transitions, decode_transitions, encode_transitions
from stream_app.core.learn import TRANSITION, Learned
from stream_app.core.raw import picked, together
from stream_app.events import EventBatch
from stream_app.hashing import short_hash, stable_hash
from stream_app.ports import VALUE_BYTES_MAX
from stream_app.publishing import Publisher

WAITING_BYTES_MAX = 131_072  # of transitions: the next commits are not to carry more


class Waiting:
    """Transitions and sales of one clickstream partition, committed but perhaps not sent yet."""

    def __init__(self, publisher: Publisher, partitions: int, outbox: Outbox) -> None:
        """For ``partitions`` of items; with what a last owner's ``outbox`` still holds."""
        self._publisher = publisher
        self._partitions = partitions
        self._transitions = list(outbox.waiting)
        self._sales = list(outbox.sales)
        self._routed = outbox.transitions
        self._lock = asyncio.Lock()

    @property
    def full(self) -> bool:
        """True when it should be handed over before the next batch."""
        return sum(map(len, self._transitions)) > WAITING_BYTES_MAX

    def joined(self, outbox: Outbox) -> Outbox:
        """Let ``outbox``, about to be committed, carry what waits; returns what it adds to it."""
        fresh = Outbox(waiting=outbox.waiting, sales=outbox.sales)
        outbox.waiting = self._transitions + fresh.waiting
        outbox.sales = self._sales + fresh.sales
        return fresh

    def committed(self, fresh: Outbox) -> None:
        """Wait with ``fresh``, too, which has been stored."""
        self._transitions += fresh.waiting
        self._sales += fresh.sales

    async def hand_over(self) -> None:
        """Send what waits; what comes meanwhile waits for the next time."""
        async with self._lock:
            blocks, sales = list(self._transitions), list(self._sales)
            routed = self._routed
            if blocks:
                routed = routed + route_transitions(blocks, partitions=self._partitions)
            if routed or sales:
                await self._publisher.hand_over(routed, sales)
                del self._transitions[: len(blocks)], self._sales[: len(sales)]
                self._routed = []


def pack_transitions(learned: Learned, events: EventBatch, *, source: int) -> list[bytes]:
    """What the batch says about items, for all item partitions together: one block, or none."""
    transitions, snapshots = learned.transitions, learned.snapshots
    if not len(transitions) and not len(snapshots):
        return []
    assert transitions.dtype == TRANSITION
    names = dict(zip(events.events["item"].tolist(), events.items, strict=True))
    texts = [names[key] for key in dict.fromkeys(transitions["item"].tolist()) if key in names]
    asked = sorted(set(transitions["segment"].ravel().tolist())) if events.segments else ()
    segments = [events.segments[key] for key in asked if key]
    return [encode_transitions(Transitions(source, transitions, texts, snapshots, segments))]


def route_transitions(blocks: Sequence[bytes], *, partitions: int) -> list[tuple[int, bytes]]:
    """Consecutive blocks as one record for each partition that owns any of their items.

    A record has the names of the items that its partition owns. What does not fit into one record
    goes into several.
    """
    told = [decode_transitions(block) for block in blocks]
    transitions = together([one.rows for one in told])
    snapshots = together([one.snapshots for one in told])
    ids = np.concatenate((transitions["item"][:, None], transitions["previous"]), axis=1)
    owner, shown = _owners(ids, partitions), _owners(snapshots["item"], partitions)
    texts: list[list[str]] = [[] for _ in range(partitions)]
    for text in dict.fromkeys(text for one in told for text in one.names):
        texts[stable_hash(text) % partitions].append(text)
    segments = {short_hash(text): text for one in told for text in one.segments}
    routed = []
    for q in range(partitions):
        at, about = _with_any(owner, q), picked(snapshots, _with_any(shown, q))
        if not len(at) and not len(about):
            continue
        rows = picked(transitions, at)
        asked = np.unique(rows["segment"]).tolist() if segments else ()
        said = [segments[key] for key in asked if key]
        message = Transitions(told[0].source_partition, rows, texts[q], about, said)
        routed += [(q, record) for record in _records(message)]
    return routed


def _records(message: Transitions) -> Iterator[bytes]:
    """``message`` as one record, or as several: no offset is in two, and they rise."""
    record = encode_transitions(message)
    rows, snapshots = message.rows, message.snapshots
    fits = len(record) <= VALUE_BYTES_MAX
    offsets = None if fits else np.union1d(rows["offset"], snapshots["offset"])
    if offsets is None or len(offsets) < 2:
        yield record
        return
    middle = offsets[len(offsets) // 2]
    earlier = rows["offset"] < middle, snapshots["offset"] < middle
    for of_rows, of_snapshots in (earlier, (~earlier[0], ~earlier[1])):
        some = picked(rows, of_rows)
        items, segments = (set(some[name].ravel().tolist()) for name in ("item", "segment"))
        yield from _records(
            Transitions(
                message.source_partition,
                some,
                [name for name in message.names if stable_hash(name) in items],
                picked(snapshots, of_snapshots),
                [text for text in message.segments if short_hash(text) in segments],
            )
        )


def _with_any(owners: NDArray[np.int64], q: int) -> NDArray[np.int64]:
    """Rows of ``owners (n, k)`` in which ``q`` is."""
    hit = np.zeros(len(owners), np.bool_)
    for column in owners.T:  # few: faster than a reduction over a short axis
        hit |= column == q
    return np.flatnonzero(hit)


def _owners(ids: NDArray[np.uint64], partitions: int) -> NDArray[np.int64]:
    """The partition that owns each item, -1 for none."""
    owner = (ids % np.uint64(partitions)).astype(np.int64)
    owner[ids == 0] = -1
    return owner
