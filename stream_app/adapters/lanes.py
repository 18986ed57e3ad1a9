"""One partition's way through a worker: what was fetched, is queued, is being handled, is done.

Called by :mod:`.dispatch`. A lane belongs to one assignment of one partition, from one start
offset on. A rebalance, a rewind or a fence closes it and another one takes its place, so that late
acknowledgements cannot move the group's offset.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from stream_app.ports import RawBatch

Partition = tuple[str, int]  # (topic, partition number)


@dataclass(slots=True)
class Ticket:
    """A fetched batch's place in the order of its partition."""

    end_offset: int
    records: int
    done: bool = False


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Where a worker stands in one partition, for metrics and health checks.

    ``position`` is the next offset to hand to the stage, ``acked`` the next one to finish;
    ``high_water`` is the end of the log at the last fetch, ``None`` before the first.
    """

    topic: str
    partition: int
    position: int
    acked: int
    high_water: int | None
    queued_records: int


class Lane:
    """Batches of one partition, in order, from fetch to acknowledgement.

    It is full (fetching pauses) with ``batches_max`` batches or ``records_max`` records under way,
    and while the worker is ``crowded`` with any.
    """

    def __init__(
        self,
        partition: Partition,
        start_offset: int,
        *,
        batches_max: int,
        records_max: int,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.partition = partition
        self.position = start_offset
        self.acked = start_offset
        self.committed: int | None = None
        self.closed = False
        self.task: asyncio.Future[Any] | None = None
        self.paused = False
        self.queued_records = 0
        self.records_under_way = 0
        self._crowded = crowded
        self._batches_max = batches_max
        self._records_max = records_max
        self._under_way: deque[Ticket] = deque()
        self._pending: deque[tuple[RawBatch, Any]] = deque()
        self._filled = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def full(self) -> bool:
        """True when nothing more may be fetched for now."""
        return (
            len(self._under_way) >= self._batches_max
            or self.records_under_way >= self._records_max
            or (self.records_under_way > 0 and self._crowded())
        )

    def admit(self, batch: RawBatch) -> Ticket:
        """Give a fetched batch its place; a batch without records has nothing to wait for."""
        ticket = Ticket(batch.next_offset, len(batch))
        self.position = batch.next_offset
        self._under_way.append(ticket)
        self.records_under_way += ticket.records
        if not ticket.records:
            self.settle(ticket)
        return ticket

    def settle(self, ticket: Ticket) -> None:
        """Mark a batch done; ``acked`` moves to the end of the oldest run of done batches."""
        ticket.done = True
        while self._under_way and self._under_way[0].done:
            oldest = self._under_way.popleft()
            self.records_under_way -= oldest.records
            self.acked = oldest.end_offset

    def queue(self, batch: RawBatch, receipt: Any) -> None:
        """Queue an admitted batch for the handler; ``receipt`` comes back with it."""
        if not self.closed:
            self._pending.append((batch, receipt))
            self.queued_records += len(batch)
            self._filled.set()

    async def take(self, records_max: int) -> tuple[RawBatch, list[Any]] | None:
        """Wait for work; return up to ``records_max`` of the queued records as one batch.

        With the receipts of the batches that end with it. ``None`` when the lane was closed.
        """
        await self._filled.wait()
        if self.closed:
            return None
        batches: list[RawBatch] = []
        receipts: list[Any] = []
        room = records_max
        while self._pending and (room or not len(self._pending[0][0])):
            batch, receipt = self._pending.popleft()
            if len(batch) > room:
                batch, rest = batch.split(room)
                self._pending.appendleft((rest, receipt))
            else:
                receipts.append(receipt)
            batches.append(batch)
            room -= len(batch)
        self.queued_records -= records_max - room
        if not self._pending:
            self._filled.clear()
        return joined(batches), receipts

    async def rest(self, seconds: float) -> None:
        """Let batches gather, unless the lane is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def close(self) -> None:
        """Drop what is queued and let the handler's loop end."""
        self.closed = True
        self._ended.set()
        self._pending.clear()
        self.queued_records = 0
        self._filled.set()


def joined(batches: Sequence[RawBatch]) -> RawBatch:
    """Return consecutive batches of one partition as one."""
    if len(batches) == 1:
        return batches[0]
    last = batches[-1]
    return RawBatch(
        topic=last.topic,
        partition=last.partition,
        next_offset=last.next_offset,
        offsets=list(chain.from_iterable(b.offsets for b in batches)),
        keys=list(chain.from_iterable(b.keys for b in batches)),
        values=list(chain.from_iterable(b.values for b in batches)),
        timestamps_ms=list(chain.from_iterable(b.timestamps_ms for b in batches)),
        headers=list(chain.from_iterable(b.headers for b in batches)),
    )
