"""What a worker says of itself, and when it gives up."""

import asyncio
from dataclasses import dataclass

import pytest

from stream_app.adapters.memory import MemoryStore
from stream_app.errors import StoreUnavailable
from stream_app.health import Health
from stream_app.memory_watch import MIB, memory_warnings
from stream_app.retrying import retrying, waiting


@dataclass
class At:
    """Where a worker stands in a partition."""

    acked: int
    high_water: int | None
    topic: str = "clickstream"
    partition: int = 0


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(MemoryStore(), stuck_after_s=60.0, clock=clock)


def test_lag_without_progress_is_a_problem_after_a_while(health: Health, clock: Clock) -> None:
    assert health.live([At(5, 9)], 0.0) == []
    clock.now = 59.0
    assert health.live([At(5, 99)], 0.0) == []
    clock.now = 61.0
    assert health.live([At(5, 99)], 0.0) == ["clickstream-0 stands at 5 of 99 for 61 s"]
    assert health.live([At(6, 99)], 0.0) == []


def test_without_lag_nothing_has_to_move(health: Health, clock: Clock) -> None:
    health.live([At(9, 9)], 0.0)
    clock.now = 1_000.0
    assert health.live([At(9, 9)], 0.0) == []
    assert health.live([At(0, None)], 0.0) == []


def test_a_consumer_that_does_not_poll_is_a_problem(health: Health) -> None:
    assert health.live([At(9, 9)], 61.0) == ["the consumer has not polled for 61 s"]
    assert health.live([], 61.0) == [], "a spare worker has nothing to poll"


def test_a_partition_that_is_never_taken_over_is_a_problem(health: Health, clock: Clock) -> None:
    mine = [("clickstream", 2)]
    assert health.live([At(9, 9)], 0.0, mine) == []
    clock.now = 61.0
    (problem,) = health.live([At(9, 9)], 0.0, mine)
    assert problem.startswith("clickstream-2 is assigned to this worker for 61 s")
    assert health.live([At(9, 9)], 0.0) == []
    assert health.live([At(9, 9)], 0.0, mine) == [], "assigned anew"


def test_a_worker_ends_itself_when_nobody_restarts_it(health: Health, clock: Clock) -> None:
    health.hopeless([At(5, 9)], 0.0)
    clock.now = 61.0
    assert health.hopeless([At(5, 9)], 0.0) == ""
    clock.now = 122.0
    assert "stands at 5 of 9" in health.hopeless([At(5, 9)], 0.0)
    assert health.hopeless([At(6, 9)], 0.0) == ""


async def test_a_store_that_is_away_makes_a_worker_unready_but_not_dead(
    health: Health, clock: Clock
) -> None:
    tries = 0

    async def away() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StoreUnavailable("gone")

    task = asyncio.create_task(retrying(away, "committing customers"))
    await asyncio.sleep(0)
    assert waiting() == ["committing customers"]
    health.live([At(5, 9)], 0.0)
    clock.now = 1_000.0
    assert health.live([At(5, 9)], 0.0) == []
    said = await health.ready([At(5, 9)])
    assert said == ["waiting: committing customers is being tried again"]
    await task
    assert waiting() == []
    assert await health.ready([At(5, 9)]) == []


async def test_a_cancelled_retry_waits_no_longer() -> None:
    async def away() -> None:
        raise StoreUnavailable("gone")

    task = asyncio.create_task(retrying(away, "reading items"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert waiting() == []


class Full:
    """A store of 95 of 100 MiB."""

    async def memory(self) -> list[tuple[int, int]]:
        return [(95 * MIB, 100 * MIB), (95 * MIB, 0)]


async def test_memory_that_runs_out_is_said_with_the_cure() -> None:
    worker, store = await memory_warnings(Full(), worker_max_mib=1)
    assert "STREAM_APP_ITEM_TABLES_MAX" in worker
    assert "the store uses 95 MiB of 100: raise its maxmemory" in store
    assert len(await memory_warnings(Full(), worker_max_mib=10**9)) == 1
