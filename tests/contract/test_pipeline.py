"""The guarantees of the pipeline, on memory and on a real server (the design's G1 to G7)."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import numpy as np
import orjson
import pytest

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.codec import Transitions, decode_transitions, encode_transitions
from stream_app.composition import compose
from stream_app.core.learn import TRANSITION
from stream_app.core.neighbourhood import FAN, FANS_MAX
from stream_app.core.state import USER
from stream_app.core.tables import ITEM, NEIGHBOUR
from stream_app.core.trending import SEGMENT_ITEMS, SEGMENTS_MAX
from stream_app.embedded import ValkeyServer
from stream_app.errors import Fenced, RolledBack
from stream_app.items import SEGMENTS_ID, TOP_ID, TOP_MAX, decode_top
from stream_app.ports import ACCOUNTS_ID, ITEMS, USERS, RawBatch, Record
from tests.contract import shop_run
from tests.contract.shop_run import (
    CLICKS,
    ITEM_PARTITIONS,
    LISTS,
    PAIRS,
    SETTINGS,
    SOURCES,
    STEP_EVENTS,
    Run,
    faults,
    outcome,
    stored_items,
    take_over,
    truth,
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
async def run(stores: Stores) -> Run:
    """A log that nobody has read yet."""
    run = Run(stores.state, stores.public, EVENTS)
    await run.fill()
    return run


async def test_every_guarantee_holds_at_the_end_of_an_undisturbed_log(run: Run) -> None:
    await work(run, await take_over(run.worker()))
    assert await faults(run) == []
    assert truth(EVENTS).rejects, "the log has dirt"


async def test_replays_of_whole_batches_change_nothing(run: Run, stores: Stores) -> None:
    stages = await take_over(run.worker())
    await work(run, stages)
    before, sent = stores.backups.take(), run.end(LISTS, 0)
    for p in range(SOURCES):
        for start in range(0, run.end(CLICKS, p), STEP_EVENTS):
            await stages.learn.process(run.tape.batch(CLICKS, p, start, start + STEP_EVENTS))
    for q in range(ITEM_PARTITIONS):
        await stages.relate.process(run.tape.batch(PAIRS, q, 0))
    assert stores.backups.take() == before
    assert run.end(LISTS, 0) == sent


async def test_a_batch_that_was_applied_in_part_is_applied_from_there(run: Run) -> None:
    stages = await take_over(run.worker())
    for end in (130, 250, 10**9):
        for p in range(SOURCES):
            batch = run.tape.batch(CLICKS, p, 0, end)  # always from the beginning
            await stages.learn.process(batch)
    for q in range(ITEM_PARTITIONS):
        for end in (1, 3, 10**9):
            await stages.relate.process(run.tape.batch(PAIRS, q, 0, end))
    assert await faults(run) == []


async def test_transitions_sent_again_in_other_batches_add_nothing(run: Run) -> None:
    stages = await take_over(run.worker())
    await work(run, stages)
    before = [await stored_items(run, q) for q in range(ITEM_PARTITIONS)]
    for q in range(ITEM_PARTITIONS):
        rows = defaultdict(list)
        for _, value, _ in run.tape.rows(PAIRS, q):
            message = decode_transitions(value)
            rows[message.source_partition].append(message.rows)
        again = [
            Record(None, encode_transitions(Transitions(source, part, [])))
            for source, parts in rows.items()
            for part in np.array_split(np.concatenate(parts), 7)
        ]
        await run.tape.log.send(PAIRS, q, again)
        await run.relate(stages, q)
    assert [await stored_items(run, q) for q in range(ITEM_PARTITIONS)] == before
    assert await faults(run) == []


async def test_other_records_on_the_cooccurrence_topic_are_dead_lettered(run: Run) -> None:
    stages = await take_over(run.worker())
    await run.tape.log.send(PAIRS, 1, [Record(None, b"no transitions"), Record(None, None)])
    await run.relate(stages, 1)
    (blob,) = await run.state.load(ITEMS, [1], [ACCOUNTS_ID])
    assert orjson.loads(blob or b"")["dead_lettered"] == 2
    reasons = [dict(h)["reason"] for _, _, h in run.tape.rows(SETTINGS.dead_letter_topic, 1)]
    assert reasons == [b"malformed", b"malformed"]


async def test_versions_on_the_topic_only_grow(run: Run) -> None:
    await work(run, await take_over(run.worker()))
    for p in range(SOURCES):
        newest: dict[bytes, int] = defaultdict(int)
        for key, value, _ in run.tape.rows(LISTS, p):
            version = orjson.loads(value)["version"]
            assert version > newest[key]
            newest[key] = version
            assert orjson.loads(value)["source"]["offset"] == version - 1


async def test_everything_has_its_bound(run: Run) -> None:
    await work(run, await take_over(run.worker()))
    for q in range(ITEM_PARTITIONS):
        for blob in (await stored_items(run, q)).values():
            header = np.frombuffer(blob[: ITEM.itemsize], ITEM)
            assert header["neighbours_n"][0] <= 50
            name = 4 * SETTINGS.id_chars_max + 8
            assert header["fans_n"][0] <= FANS_MAX
            room = 50 * NEIGHBOUR.itemsize + FANS_MAX * FAN.itemsize + name
            assert len(blob) <= ITEM.itemsize + room
        tops = await run.state.load(ITEMS, [q, q], [TOP_ID, SEGMENTS_ID])
        segment = SEGMENT_ITEMS * 24 + 16 + name
        assert 0 < len(tops[1] or b"") <= 16 + SEGMENTS_MAX * segment
        assert 0 < len(decode_top(tops[0]).ids) <= TOP_MAX
    for p, customers in enumerate(truth(EVENTS).customers):
        keys = [key.to_bytes(8, "little") for key in customers.customers]
        for stored in await run.state.load(USERS, [p] * len(keys), keys):
            assert stored is not None
            assert len(stored) <= USER.itemsize
        claim = await run.state.claim(USERS, p)
        assert len(claim.outbox) <= STEP_EVENTS * 2_000
        for _, value, _ in run.tape.rows(LISTS, p):
            assert all(len(v) <= SETTINGS.list_size for v in orjson.loads(value)["lists"].values())


async def test_the_same_log_gives_the_same_bytes_and_lists(run: Run) -> None:
    await work(run, await take_over(run.worker()))
    again = Run(MemoryStore(), MemoryPublic(), EVENTS)
    await again.fill()
    await work(again, await take_over(again.worker()))
    assert await outcome(run) == await outcome(again)


async def test_interleaving_is_free(run: Run) -> None:
    """One source after the other, items at the very end: the same sums, the same customers."""
    stages = await take_over(run.worker())
    for p in reversed(range(SOURCES)):
        for end in range(170, run.end(CLICKS, p) + 170, 170):
            await run.learn(stages, p, end)
    for q in range(ITEM_PARTITIONS):
        await run.relate(stages, q)
    assert await faults(run) == []


async def test_two_workers_share_a_store_and_hand_partitions_over(run: Run) -> None:
    one = await take_over(run.worker(), (0, 1), (0,))
    two = await take_over(run.worker(), (2, 3), (1, 2))
    half = run.rounds // 2
    for number in range(half):
        for p in range(SOURCES):
            await run.learn(one if p < 2 else two, p, (number + 1) * STEP_EVENTS)
        for q in range(ITEM_PARTITIONS):
            await run.relate(one if q < 1 else two, q)
    one.learn.revoke(1)
    two.relate.revoke(2)
    await take_over(two, (1,), ())
    await take_over(one, (), (2,))
    for number in range(half, run.rounds):
        for p in range(SOURCES):
            await run.learn(one if p < 1 else two, p, (number + 1) * STEP_EVENTS)
        for q in range(ITEM_PARTITIONS):
            await run.relate(one if q in (0, 2) else two, q)
    assert await faults(run) == []


async def test_a_fenced_worker_writes_nothing_and_the_result_is_the_same(
    run: Run, stores: Stores
) -> None:
    zombie = await take_over(run.worker())
    await work(run, zombie, last=2)
    heir = await take_over(run.worker())
    await work(run, heir, first=2, last=3)
    before = stores.backups.take()
    for p in range(SOURCES):
        with pytest.raises(Fenced):
            await run.learn(zombie, p, 4 * STEP_EVENTS)
    for q in range(ITEM_PARTITIONS):
        with pytest.raises(Fenced):
            await run.relate(zombie, q)
    assert stores.backups.take() == before
    await work(run, heir, first=3)
    assert await faults(run) == []


async def test_a_store_that_went_back_in_time_is_caught_up(run: Run, stores: Stores) -> None:
    stages = await take_over(run.worker())
    await work(run, stages, last=1)
    backup = stores.backups.take()
    await work(run, stages, first=1, last=2)
    stores.backups.put_back(backup)
    for p in range(SOURCES):
        with pytest.raises(RolledBack) as caught:
            await run.learn(stages, p, 3 * STEP_EVENTS)
        assert caught.value.cursor == STEP_EVENTS
        assert await stages.learn.assign(p) == STEP_EVENTS
    for number in range(1, run.rounds):  # with other batch boundaries than the first time
        for p in range(SOURCES):
            await run.learn(stages, p, number * STEP_EVENTS + 57)
    for p in range(SOURCES):
        await run.learn(stages, p, 10**9)
    for q in range(ITEM_PARTITIONS):
        with pytest.raises(RolledBack):
            await run.relate(stages, q)
        await stages.relate.assign(q)
        await run.relate(stages, q)
    assert await faults(run) == []


async def test_only_the_items_went_back_in_time() -> None:
    """Two slots of a cluster fail over apart; memory stands for both servers here."""
    memory = MemoryStore()
    run = Run(memory, MemoryPublic(), EVENTS)
    await run.fill()
    stages = await take_over(run.worker())
    await work(run, stages, last=2)
    old = {key: part for key, part in memory.snapshot().partitions.items() if key[0] == ITEMS}
    await work(run, stages, first=2, last=4)
    now = memory.snapshot()
    now.partitions.update(old)
    memory.restore(now)
    for q in range(ITEM_PARTITIONS):
        nothing = encode_transitions(Transitions(0, np.zeros(0, TRANSITION), []))
        await run.tape.log.send(PAIRS, q, [Record(None, nothing)])  # so that there is a batch
        with pytest.raises(RolledBack):
            await run.relate(stages, q)
        await stages.relate.assign(q)
    await work(run, stages, first=4)
    assert await faults(run) == []


async def test_a_new_worker_finds_what_the_old_one_had_in_memory(run: Run) -> None:
    for number in range(run.rounds):
        await work(run, await take_over(run.worker()), first=number, last=number + 1)
    assert await faults(run) == []
    again = Run(MemoryStore(), MemoryPublic(), EVENTS)
    await again.fill()
    await work(again, await take_over(again.worker()))
    assert await outcome(run) == await outcome(again)


class _Loads:
    """A store that stops answering a worker which reads the same again and again."""

    def __init__(self, state: MemoryStore) -> None:
        self.state, self.loads = state, 0
        self.claim, self.commit = state.claim, state.commit

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        self.loads += space == ITEMS
        assert self.loads < 50, "the worker reads without end"
        return await self.state.load(space, partitions, ids)


@pytest.mark.parametrize(("tables", "items"), [(1_000, 10_000), (1_000, 1_000)])
async def test_a_batch_may_touch_more_items_than_are_kept(tables: int, items: int) -> None:
    settings = SETTINGS.model_copy(update={"item_tables_max": tables, "items_max": items})
    store = _Loads(MemoryStore())
    stages = compose(
        settings, store=store, public=MemoryPublic(), log=MemoryLog(), clock=shop_run.Clock()
    )
    await stages.relate.assign(0)
    merged = 0
    for number, (first, last) in enumerate([(0, 900), (500, 1_900), (0, 3_000), (0, 3_000)]):
        rows = np.zeros(last - first, TRANSITION)
        rows["item"] = np.arange(first + 1, last + 1) * ITEM_PARTITIONS  # all of partition 0
        rows["ts"], rows["weight"] = 1_700_000_000.0, 1.0
        rows["offset"] = merged + np.arange(len(rows))
        value = encode_transitions(Transitions(0, rows, []))
        await stages.relate.process(
            RawBatch(PAIRS, 0, number + 1, [number], [None], [value], [-1], [()])
        )
        merged += len(rows)
    (accounts,) = await store.state.load(ITEMS, [0], [ACCOUNTS_ID])
    assert orjson.loads(accounts or b"")["transitions"] == merged
    blobs = await store.state.load(ITEMS, [0], [(3 * ITEM_PARTITIONS).to_bytes(8, "little")])
    header = np.frombuffer((blobs[0] or b"")[: ITEM.itemsize], ITEM)
    growth = stages.items.tables.popularity_growth(1_700_000_000.0)
    assert header["popularity"][0] == pytest.approx(3 * growth)
