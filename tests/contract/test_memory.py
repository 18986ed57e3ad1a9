"""What only the memory adapters have: limits in place of lifetimes, and a log to drain."""

import pytest

from stream_app.adapters.memory import NO_TIMESTAMP_MS, MemoryLog, MemoryPublic, MemoryStore
from stream_app.errors import ConfigurationError, LogUnavailable
from stream_app.ports import USERS, Commit, PublicHash, Record


async def test_a_full_store_refuses_the_whole_step() -> None:
    store = MemoryStore(blobs_max=2)
    claim = await store.claim(USERS, 0)
    await store.commit(claim, Commit(None, 1, [(b"a", b"1"), (b"b", b"1")], b"", b""))
    await store.commit(claim, Commit(1, 2, [(b"a", b"2")], b"", b""))
    with pytest.raises(ConfigurationError, match="blobs_max=2"):
        await store.commit(claim, Commit(2, 3, [(b"a", b"3"), (b"c", b"3")], b"", b""))
    assert await store.load(USERS, [0, 0, 0], [b"a", b"b", b"c"]) == [b"2", b"1", None]


async def test_the_public_key_not_written_for_longest_goes_first() -> None:
    public = MemoryPublic(records_max=2)
    await public.put_values([("similar:1", b"1"), ("similar:2", b"2"), ("similar:1", b"3")])
    await public.put_hashes([PublicHash("rec:1", 1, 1, (), [])])
    assert await public.get("similar:2") is None
    assert await public.get("similar:1") == b"3"


async def test_a_log_gives_each_record_once_with_contiguous_offsets() -> None:
    log = MemoryLog()
    await log.send("t", 1, [Record(b"k", b"0"), Record(None, b"1", (("h", b"x"),), 77)])
    await log.send("t", 1, [Record(b"k", None)])
    batch = log.drain("t", 1)
    assert (batch.topic, batch.partition, list(batch.offsets)) == ("t", 1, [0, 1, 2])
    assert batch.next_offset == 3
    assert (batch.keys, batch.values) == ([b"k", None, b"k"], [b"0", b"1", None])
    assert batch.timestamps_ms == [NO_TIMESTAMP_MS, 77, NO_TIMESTAMP_MS]
    assert batch.headers == [(), (("h", b"x"),), ()]

    await log.send("t", 1, [Record(b"k", b"3")])
    again = log.drain("t", 1)
    assert (list(again.offsets), again.values) == ([3], [b"3"])
    assert len(log.drain("t", 1)) == 0
    assert log.drain("t", 1).next_offset == 4
    assert log.drain("t", 2).next_offset == 0


async def test_a_full_log_refuses_until_it_is_drained() -> None:
    log = MemoryLog(records_max=2)
    await log.send("t", 0, [Record(b"k", b"0")])
    with pytest.raises(LogUnavailable, match="records_max=2"):
        await log.send("t", 0, [Record(b"k", b"1"), Record(b"k", b"2")])
    assert log.drain("t", 0).next_offset == 1
    await log.send("t", 0, [Record(b"k", b"1"), Record(b"k", b"2")])


async def test_a_topic_that_nobody_drains_is_only_counted() -> None:
    log = MemoryLog(kept_topics={"cooccurrence"}, records_max=1)
    for value in (b"0", b"1", b"2"):
        await log.send("recommendations", 0, [Record(b"k", value)])
    batch = log.drain("recommendations", 0)
    assert (len(batch), batch.next_offset) == (0, 3)
