"""The dispatcher without a broker: rewinds, overlapping calls, turns, the end."""

import asyncio
from collections.abc import Coroutine, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.adapters.dispatch import Dispatcher, Stage, next_turn_s, no_hook
from stream_app.adapters.lanes import Lane, Partition, Ticket
from stream_app.adapters.limits import Limits
from stream_app.errors import ConfigurationError, Fenced
from stream_app.ports import RawBatch
from tests.integration.batches import batch


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"heartbeat_interval_s=10.* below session_timeout"
    ):
        Limits(heartbeat_interval_s=10.0)
    with pytest.raises(ConfigurationError, match="batch_records_max=0 must be above 0"):
        Limits(batch_records_max=0)


class Log:
    """A source of numbered records that a test pulls from."""

    def __init__(self) -> None:
        self.position = 0
        self.open_lane: Lane | None = None

    def open(self, lane: Lane) -> None:
        self.open_lane = lane

    def shut(self, lane: Lane) -> None:
        if self.open_lane is lane:
            self.open_lane = None

    async def seek_all(self, offsets: Mapping[Partition, int | None]) -> dict[Partition, int]:
        await asyncio.sleep(0)
        self.position = offsets["clicks", 0] or 0
        return {("clicks", 0): self.position}

    def deliver(self, count: int) -> tuple[Lane, Ticket]:
        """Hand the next records to the open lane."""
        lane = self.open_lane
        assert lane is not None
        part = batch(self.position, self.position + count)
        self.position += count
        ticket = lane.admit(part)
        lane.queue(part, (lane, ticket))
        return lane, ticket


class Scene:
    """A dispatcher over a :class:`Log`, and the offsets that its handler has seen."""

    def __init__(self, every_s: float = 0.0) -> None:
        self.seen: list[int] = []
        self.calls = 0
        self.log = Log()
        self.gate = asyncio.Event()
        self.dispatcher = Dispatcher(
            Limits(drain_timeout_s=0.1),
            {"clicks": Stage(self.handle, every_s)},
            self.start_offsets,
            source=self.log,
            spawn=self.spawn,
            acknowledge=self.acknowledge,
        )

    async def handle(self, batch: RawBatch) -> None:
        self.calls += 1
        assert self.calls == 1, "one call at a time for one partition"
        try:
            await self.gate.wait()
            self.seen += batch.offsets
        finally:
            self.calls -= 1

    async def start_offsets(self, partitions: set[Partition]) -> dict[Partition, int | None]:
        return dict.fromkeys(partitions)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[Any]:
        return asyncio.ensure_future(work)

    async def acknowledge(self, receipt: tuple[Lane, Ticket]) -> None:
        lane, ticket = receipt
        if self.dispatcher.is_current(lane):
            self.dispatcher.settle(lane, ticket)


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_concurrent_rewinds_leave_one_lane_and_one_call_at_a_time() -> None:
    scene = Scene()
    partition = ("clicks", 0)
    await scene.dispatcher.place({partition})
    scene.log.deliver(5)
    await settled()  # the handler is in its call
    await asyncio.gather(*(scene.dispatcher.rewind(partition, n) for n in (3, 1, 2)))
    lane, _ticket = scene.log.deliver(4)
    assert scene.dispatcher.is_current(lane)
    scene.gate.set()
    await settled()
    assert scene.seen == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert lane.acked == 6
    await scene.dispatcher.drain()


async def test_a_partition_paused_in_a_crowd_goes_on_though_others_ended_the_crowd() -> None:
    scene = Scene()
    await scene.dispatcher.place({("clicks", 0)})
    lane, _ticket = scene.log.deliver(5)
    lane.records_under_way += 10**9  # as if it were those of other partitions
    scene.dispatcher.pause_if_full(lane)
    assert scene.log.open_lane is None
    lane.records_under_way -= 10**9
    scene.gate.set()
    await settled()
    assert scene.log.open_lane is lane
    await scene.dispatcher.drain()


async def test_a_drain_cancels_calls_that_take_too_long_and_settles_nothing_of_them() -> None:
    scene = Scene()
    await scene.dispatcher.place({("clicks", 0)})
    lane, _ticket = scene.log.deliver(5)
    await settled()
    await scene.dispatcher.drain()
    assert (scene.seen, scene.calls, lane.acked) == ([], 0, 0)
    scene.dispatcher.forget()
    with pytest.raises(Fenced, match="not assigned"):
        await scene.dispatcher.rewind(("clicks", 0), 0)


async def test_a_partition_is_unplaced_until_somebody_has_said_where_it_goes_on() -> None:
    scene = Scene()
    said = asyncio.Event()

    async def claim(partitions: set[Partition]) -> dict[Partition, int | None]:
        await said.wait()
        return dict.fromkeys(partitions, 2)

    scene.dispatcher._start_offsets = claim
    scene.dispatcher.place_soon({("clicks", 0)}, first=no_hook)
    assert scene.dispatcher.unplaced == {("clicks", 0)}
    said.set()
    await settled()
    assert scene.dispatcher.unplaced == set()
    await scene.dispatcher.drain()


async def test_a_partition_is_taken_over_again_after_the_call_under_way_has_ended() -> None:
    """The application must not claim it anew while a handler still works with the old claim."""
    scene = Scene()
    partition = ("clicks", 0)
    await scene.dispatcher.place({partition})
    scene.log.deliver(5)
    await settled()
    claimed: list[int] = []

    async def claim(partitions: set[Partition]) -> dict[Partition, int | None]:
        claimed.append(scene.calls)
        return dict.fromkeys(partitions, 2)

    scene.dispatcher._start_offsets = claim
    scene.dispatcher.take_over_again(partition)
    scene.dispatcher.take_over_again(partition)  # is on its way already
    await settled()
    assert not claimed
    scene.gate.set()
    await settled()
    assert claimed == [0]
    scene.log.deliver(2)
    await settled()
    assert scene.seen == [0, 1, 2, 3, 4, 2, 3]
    await scene.dispatcher.drain()
    scene.dispatcher.forget()
    scene.dispatcher.take_over_again(partition)  # is not ours any more
    await settled()
    assert claimed == [0]


async def test_batches_gather_between_calls_acked_already_and_a_drain_does_not_wait() -> None:
    scene = Scene(every_s=3_600.0)
    scene.gate.set()
    await scene.dispatcher.place({("clicks", 0)})
    scene.log.deliver(3)
    await settled()
    lane, _ = scene.log.deliver(2)
    await settled()
    assert scene.seen == [0, 1, 2], "the first at once, the next ones later"
    assert lane.acked == 3
    async with asyncio.timeout(30.0):  # not an hour
        await scene.dispatcher.drain()
    assert lane.task is not None and lane.task.done() and not lane.task.cancelled()
    assert scene.seen == [0, 1, 2], "what gathered is read again by whoever owns it next"


@given(number=st.integers(0, 10_000), every_s=st.floats(0.01, 60.0), now_s=st.floats(0.0, 1e6))
def test_partitions_take_turns_about_every_interval(
    number: int, every_s: float, now_s: float
) -> None:
    first = next_turn_s(number, every_s, now_s)
    assert 0.499 * every_s <= first - now_s <= 1.501 * every_s
    early = next_turn_s(number, every_s, first - 0.001 * every_s)  # clocks are not exact
    assert early == pytest.approx(first + every_s, abs=1e-3 * every_s + 1e-6)
    assert next_turn_s(number, 0.0, now_s) == now_s


def test_turns_of_several_partitions_are_spread() -> None:
    for n in (2, 4, 8, 13):
        turns = sorted(next_turn_s(number, 1.0, 100.0) % 1.0 for number in range(n))
        gaps = [b - a for a, b in pairwise([*turns, turns[0] + 1.0])]
        assert min(gaps) > 0.3 / n and max(gaps) < 2.0 / n


class Overlapping(Scene):
    """A handler that says when it has stored a batch; each call waits for its own gate."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.errors: dict[int, Exception] = {}

    async def handle(self, batch: RawBatch) -> None:
        """Store, then wait; a call is named by its first offset."""
        first = batch.offsets[0]
        self.said.append(f"{first} begins")
        batch.stored()
        self.gates[first] = asyncio.Event()
        try:
            await self.gates[first].wait()
        except asyncio.CancelledError:
            self.said.append(f"{first} is cancelled")
            raise
        if first in self.errors:
            raise self.errors[first]
        self.said.append(f"{first} ends")


async def test_a_call_begins_when_the_one_before_has_stored_and_two_are_under_way_at_most() -> None:
    scene = Overlapping()
    await scene.dispatcher.place({("clicks", 0)})
    for _ in range(3):
        lane, _ticket = scene.log.deliver(2)
        await settled()
    assert scene.said == ["0 begins", "2 begins"]
    assert lane.acked == 0
    scene.gates[0].set()
    await settled()
    assert scene.said == ["0 begins", "2 begins", "0 ends", "4 begins"]
    assert lane.acked == 2
    draining = asyncio.create_task(scene.dispatcher.drain())
    await settled()
    assert not draining.done(), "a drain lets both end"
    scene.gates[2].set()
    scene.gates[4].set()
    await draining
    assert scene.said[-2:] == ["2 ends", "4 ends"]
    assert lane.acked == 6


async def test_a_drain_cancels_both_calls_that_take_too_long() -> None:
    scene = Overlapping()
    await scene.dispatcher.place({("clicks", 0)})
    for _ in range(2):
        lane, _ticket = scene.log.deliver(2)
        await settled()
    await scene.dispatcher.drain()
    assert sorted(scene.said[2:]) == ["0 is cancelled", "2 is cancelled"]
    assert lane.acked == 0


async def test_nothing_begins_after_a_call_that_failed_though_it_had_stored() -> None:
    scene = Overlapping()
    await scene.dispatcher.place({("clicks", 0)})
    lane, _ticket = scene.log.deliver(2)
    await settled()
    scene.errors[0] = ValueError("what no log takes")
    scene.gates[0].set()
    await settled()
    assert scene.log.open_lane is None and lane.closed
    assert lane.task is not None
    with pytest.raises(ValueError, match="no log takes"):
        await lane.task
    assert lane.acked == 0


async def test_a_fence_after_storing_gives_the_partition_up() -> None:
    scene = Overlapping()
    await scene.dispatcher.place({("clicks", 0)})
    lane, _ticket = scene.log.deliver(2)
    await settled()
    scene.errors[0] = Fenced("another worker")
    scene.gates[0].set()
    await settled()
    assert lane.closed and lane.task is not None and lane.task.done()
    await scene.dispatcher.drain()
