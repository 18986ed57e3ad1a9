"""What batches leave for the item partitions waits, is carried by every commit, is sent once."""

import numpy as np
import pytest

from stream_app import handing
from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.codec import Transitions, decode_transitions, encode_transitions
from stream_app.composition import Stages
from stream_app.core.learn import TRANSITION
from stream_app.core.raw import together, zeroed
from stream_app.hashing import stable_hash
from stream_app.ports import VALUE_BYTES_MAX
from tests.contract.shop_run import (
    CLICKS,
    ITEM_PARTITIONS,
    PAIRS,
    SOURCES,
    Run,
    faults,
    take_over,
    work,
)

BATCH = 40


async def _filled() -> Run:
    run = Run(MemoryStore(), MemoryPublic(), 1_200)
    await run.fill()
    return run


async def _gathered(run: Run, stages: Stages, *, until: int) -> None:
    """Apply the first ``until`` records of each partition in small batches; nothing is sent."""
    stages.learn.gathering = True
    for p in range(SOURCES):
        for start in range(0, until, BATCH):
            await stages.learn.process(run.tape.batch(CLICKS, p, start, start + BATCH))


async def test_several_batches_become_one_record_for_each_item_partition() -> None:
    run = await _filled()
    stages = await take_over(run.worker())
    await _gathered(run, stages, until=4 * BATCH)
    assert [run.end(PAIRS, q) for q in range(ITEM_PARTITIONS)] == [0] * ITEM_PARTITIONS
    for owned in stages.learn.owned.values():
        await owned.waiting.hand_over()
        await owned.waiting.hand_over()  # nothing is left
    assert [run.end(PAIRS, q) for q in range(ITEM_PARTITIONS)] == [SOURCES] * ITEM_PARTITIONS
    stages.learn.gathering = False
    await work(run, stages)
    assert await faults(run) == []


async def test_what_does_not_fit_into_one_record_goes_into_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handing, "VALUE_BYTES_MAX", 2_000)
    run = await _filled()
    stages = await take_over(run.worker())
    await _gathered(run, stages, until=4 * BATCH)
    for owned in stages.learn.owned.values():
        await owned.waiting.hand_over()
    for q in range(ITEM_PARTITIONS):
        records = run.tape.batch(PAIRS, q, 0, run.end(PAIRS, q)).values
        assert len(records) > 2 * SOURCES
        assert all(value is not None and len(value) <= 2_000 for value in records)
    stages.learn.gathering = False
    await work(run, stages)
    assert await faults(run) == []


def test_the_largest_batch_of_the_longest_ids_in_one_partition_fits_into_records() -> None:
    names = [f"{n:05}{'🛒' * 507}" for n in range(10_000)]
    rows = zeroed(len(names), TRANSITION)
    rows["item"] = [stable_hash(name) for name in names]
    rows["offset"] = np.arange(len(names))
    block = encode_transitions(Transitions(3, rows, names))
    values = [value for _, value in handing.route_transitions([block], partitions=1)]
    assert 1 < len(values) < 20
    assert all(len(value) <= VALUE_BYTES_MAX < len(block) for value in values)
    told = [decode_transitions(value) for value in values]
    assert [name for one in told for name in one.names] == names
    assert np.array_equal(together([one.rows for one in told]), rows)


async def test_the_next_owner_sends_what_a_crashed_one_had_waiting() -> None:
    run = await _filled()
    await _gathered(run, await take_over(run.worker()), until=4 * BATCH)
    stages = await take_over(run.worker())
    assert [run.end(PAIRS, q) for q in range(ITEM_PARTITIONS)] == [SOURCES] * ITEM_PARTITIONS
    await work(run, stages)
    assert await faults(run) == []


async def test_a_batch_that_leaves_too_much_hands_it_over_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handing, "WAITING_BYTES_MAX", 2_000)
    run = await _filled()
    stages = await take_over(run.worker())
    await _gathered(run, stages, until=4 * BATCH)
    sent = [run.end(PAIRS, q) for q in range(ITEM_PARTITIONS)]
    assert all(0 < n < 4 * SOURCES for n in sent), "not with every batch, not never"
    assert not any(owned.waiting.full for owned in stages.learn.owned.values())
