"""Partitions whose batches are computed together end up as one by one, and fail one by one."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from stream_app import pipeline
from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.embedded import ValkeyServer
from stream_app.errors import Fenced
from stream_app.events import EventBatch
from stream_app.group import Group, Member, group_of
from stream_app.ports import USERS
from tests.contract.shop_run import (
    ITEM_PARTITIONS,
    SOURCES,
    STEP_EVENTS,
    Run,
    faults,
    outcome,
    take_over,
    work,
)
from tests.contract.stores import Stores, opened

EVENTS = 2_000


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """Each adapter in turn, empty."""
    async with opened(request.param, valkey.url) as stores:
        yield stores


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many partitions each group had."""
    found: list[int] = []

    def counted(members: Sequence[Member], events: EventBatch) -> Group:
        found.append(len(members))
        return group_of(members, events)

    monkeypatch.setattr(pipeline, "group_of", counted)
    return found


async def side_by_side(run: Run) -> None:
    """Rounds of a worker that owns everything, all partitions at the same time."""
    stages = await take_over(run.worker())
    for number in range(run.rounds):
        end = (number + 1) * STEP_EVENTS
        await asyncio.gather(*(run.learn(stages, p, end) for p in range(SOURCES)))
        for q in range(ITEM_PARTITIONS):
            await run.relate(stages, q)


async def test_every_guarantee_holds_and_customers_are_the_same_to_the_bit(
    stores: Stores, sizes: list[int]
) -> None:
    run, alone = (
        Run(stores.state, stores.public, EVENTS),
        Run(MemoryStore(), MemoryPublic(), EVENTS),
    )
    await run.fill()
    await side_by_side(run)
    assert max(sizes) == SOURCES and sum(sizes) > 2 * len(sizes), "groups were formed"
    assert await faults(run) == []
    await alone.fill()
    await work(alone, await take_over(alone.worker()))
    together, expected = await outcome(run), await outcome(alone)
    names = [name for name in expected if name.startswith(("customers", "partition"))]
    assert {name: together[name] for name in names} == {name: expected[name] for name in names}


async def test_whose_partition_another_worker_has_is_fenced_and_the_others_are_not(
    stores: Stores,
) -> None:
    run = Run(stores.state, stores.public, EVENTS)
    await run.fill()
    stages = await take_over(run.worker())
    await run.state.claim(USERS, 1, epoch_min=stages.learn.owned[1].claim.epoch)
    found = await asyncio.gather(
        *(run.learn(stages, p, STEP_EVENTS) for p in range(SOURCES)), return_exceptions=True
    )
    assert [isinstance(one, Fenced) for one in found] == [p == 1 for p in range(SOURCES)]
    assert [stages.learn.owned[p].cursor for p in (0, 2, 3)] == [STEP_EVENTS] * 3
    assert not stages.learn.owned[1].cursor
