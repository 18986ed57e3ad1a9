"""The partitions of a worker: where each goes on, one handler call after the other, and its end.

Called by :mod:`.transport`, which brings batches and assignments and takes acks; knows no Faust.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, NamedTuple, Protocol

from stream_app.adapters.lanes import Lane, Partition, Ticket
from stream_app.adapters.limits import Limits
from stream_app.errors import Fenced, RolledBack
from stream_app.ports import RawBatch

log = logging.getLogger(__name__)

GOLDEN = (5**0.5 - 1) / 2  # its multiples are spread evenly over the circle, however many there are

Handler = Callable[[RawBatch], Awaitable[None]]
StartOffsets = Callable[[set[Partition]], Awaitable[Mapping[Partition, int | None]]]
PartitionsHook = Callable[[set[Partition]], Coroutine[Any, Any, None]]


class Stage(NamedTuple):
    """What handles a topic; ``every_s`` seconds pass between two calls for one partition.

    Partitions take turns: they are not all called at once, to leave time for other stages.
    A call for a partition begins when the one before has ended, or has called ``batch.stored()``.
    """

    handler: Handler
    every_s: float = 0.0


async def no_hook(_partitions: set[Partition]) -> None:
    """For an application that keeps nothing per partition."""


def next_turn_s(number: int, every_s: float, now_s: float) -> float:
    """When it is a partition's turn again: half to one and a half ``every_s`` from now."""
    if not every_s:
        return now_s
    past_s = (now_s - every_s * (number * GOLDEN % 1.0)) % every_s
    return now_s + (every_s if past_s < every_s / 2 else 2 * every_s) - past_s


class Source(Protocol):
    """What fetches the records."""

    def open(self, lane: Lane) -> None:
        """Let the lane be filled (again)."""
        ...

    def shut(self, lane: Lane) -> None:
        """Fetch no more for the lane."""
        ...

    async def seek_all(self, offsets: Mapping[Partition, int | None]) -> dict[Partition, int]:
        """Seek (``None``: to the earliest) and return the positions of those still assigned."""
        ...


class Dispatcher:
    """Lanes and their workers.

    ``spawn`` starts a task whose exception stops the process; ``acknowledge`` tells Faust that the
    batch with this receipt is done.
    """

    def __init__(
        self,
        limits: Limits,
        stages: Mapping[str, Stage],
        start_offsets: StartOffsets,
        *,
        source: Source,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Future[Any]],
        acknowledge: Callable[[Any], Awaitable[None]],
    ) -> None:
        self.lanes: dict[Partition, Lane] = {}
        self.unplaced: set[Partition] = set()  # ours, but nobody has said yet where to go on
        self._limits = limits
        self._stages = stages
        self._start_offsets = start_offsets
        self._source = source
        self._spawn = spawn
        self._acknowledge = acknowledge
        self._placing: set[asyncio.Future[Any]] = set()
        self._seeking = asyncio.Lock()

    def is_current(self, lane: Lane) -> bool:
        """False once the partition was rewound or taken away: acks of the lane do not count."""
        return self.lanes.get(lane.partition) is lane

    def pause_if_full(self, lane: Lane) -> None:
        """Stop fetching for a lane that has enough."""
        if lane.full:
            lane.paused = True
            self._source.shut(lane)

    def settle(self, lane: Lane, ticket: Ticket) -> None:
        """Mark a batch done and fetch on if its lane had paused."""
        lane.settle(ticket)
        if lane.paused and not (lane.full or lane.closed):
            lane.paused = False
            self._source.open(lane)

    def _crowded(self) -> bool:
        """Whether all partitions together have enough."""
        under_way = sum(lane.records_under_way for lane in self.lanes.values())
        return under_way >= self._limits.buffer_records_max

    # -- positions

    def place_soon(self, partitions: set[Partition], *, first: PartitionsHook) -> None:
        """In the background: run ``first``, then :meth:`place`. The group must not wait for it."""
        self.unplaced |= partitions

        async def take_over() -> None:
            await first(partitions)
            await self.place(partitions)

        self._start_placing(take_over())

    async def place(self, partitions: set[Partition]) -> None:
        """Ask the store where to go on, and go on there."""
        self.unplaced |= partitions
        while True:
            try:
                offsets = await self._start_offsets(partitions)
                break
            except Fenced as exc:
                log.warning("another worker claimed %s: %s", sorted(partitions), exc)
                await asyncio.sleep(self._limits.session_timeout_s)
        await self._go_on_at({partition: offsets[partition] for partition in partitions})

    async def rewind(self, partition: Partition, offset: int | None) -> None:
        """Drop what is buffered of an assigned partition and go on at ``offset``."""
        if partition not in self.lanes:
            raise Fenced(f"{partition[0]}[{partition[1]}] is not assigned to this worker")
        await self._go_on_at({partition: offset})

    async def _go_on_at(self, offsets: Mapping[Partition, int | None]) -> None:
        async with self._seeking:
            for partition in offsets.keys() & self.lanes.keys():
                self._shut(self.lanes[partition])
            for partition, position in (await self._source.seek_all(offsets)).items():
                before = self.lanes.get(partition)
                lane = self.lanes[partition] = Lane(
                    partition,
                    position,
                    batches_max=self._limits.buffer_batches_max,
                    records_max=2 * self._limits.batch_records_max,
                    crowded=self._crowded,
                )
                lane.task = self._spawn(self._work(lane, before.task if before else None))
                self._source.open(lane)
                log.info("%s[%d]: going on at offset %d", *partition, position)
            self.unplaced -= offsets.keys()

    def take_over_again(self, partition: Partition) -> None:
        """In the background: let the handler call under way end, then :meth:`place` anew."""
        lane = self.lanes.get(partition)
        if lane is None or lane.closed:
            return  # revoked, or on its way already
        self._shut(lane)

        async def end_and_place() -> None:
            if lane.task is not None:
                await asyncio.wait([lane.task])
            await self.place({partition})

        self._start_placing(end_and_place())

    async def _return_after_fence(self, partition: Partition) -> None:
        # Whoever fenced us owns the partition, and the group takes it from us before its session
        # ends. If it does not, the other one is gone and nobody would work on it.
        await asyncio.sleep(self._limits.session_timeout_s)
        log.warning("%s[%d] is still assigned to this worker: claiming it again", *partition)
        await self.place({partition})

    def _start_placing(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._spawn(work)
        self._placing.add(task)
        task.add_done_callback(self._placing.discard)

    # -- one worker per lane

    async def _work(self, lane: Lane, before: asyncio.Future[Any] | None) -> None:
        if before is not None:
            await asyncio.wait([before])  # a lane's calls have ended before the next lane's begin
        every_s = self._stages[lane.partition[0]].every_s
        calls: list[asyncio.Task[None]] = []  # what is under way, in order: two at most
        try:
            while taken := await lane.take(self._limits.batch_records_max):
                next_at = next_turn_s(lane.partition[1], every_s, monotonic())
                may_go_on = asyncio.Event()
                calls.append(asyncio.create_task(self._handle(lane, *taken, may_go_on)))
                await may_go_on.wait()
                while len(calls) > 1 or (calls and calls[0].done()):
                    await calls.pop(0)
                if every_s:
                    await lane.rest(next_at - monotonic())
        except asyncio.CancelledError:
            for call in calls:
                call.cancel()
            raise
        finally:
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _handle(
        self, lane: Lane, batch: RawBatch, receipts: Sequence[Any], may_go_on: asyncio.Event
    ) -> None:
        """One call and its acks; sets ``may_go_on`` when the next one may begin."""
        handler = self._stages[lane.partition[0]].handler
        try:
            await handler(replace(batch, stored=may_go_on.set))
        except Fenced as exc:
            log.warning("%s[%d]: fenced, dropping what is queued: %s", *lane.partition, exc)
            self._end(lane, self._return_after_fence(lane.partition))
        except RolledBack as exc:
            log.warning("%s[%d]: store rolled back, rewinding: %s", *lane.partition, exc)
            self._end(lane, self.place({lane.partition}))
        except BaseException:
            self._shut(lane)  # nothing after what failed
            raise
        else:
            for receipt in receipts:
                await self._acknowledge(receipt)
        finally:
            may_go_on.set()

    def _end(self, lane: Lane, then: Coroutine[Any, Any, None]) -> None:
        if lane.closed:  # rewound or revoked meanwhile: that one decides how to go on
            then.close()
            return
        self._shut(lane)
        self._start_placing(then)

    def _shut(self, lane: Lane) -> None:
        self._source.shut(lane)
        lane.close()

    # -- the end

    async def drain(self) -> None:
        """Drop what is queued and let handler calls finish, up to ``drain_timeout_s``."""
        placing = list(self._placing)
        for task in placing:
            task.cancel()
        await asyncio.gather(*placing, return_exceptions=True)
        for lane in self.lanes.values():
            self._shut(lane)
        working = {lane.task for lane in self.lanes.values() if lane.task and not lane.task.done()}
        if working:
            _done, late = await asyncio.wait(working, timeout=self._limits.drain_timeout_s)
            for task in late:
                log.warning("a handler call did not finish in time and is cancelled: %r", task)
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def forget(self) -> None:
        """Give all partitions up; later acks of them do not count."""
        self.lanes.clear()
        self.unplaced.clear()
