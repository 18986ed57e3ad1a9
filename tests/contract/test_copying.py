"""COPY on both stores: a vendor's records go to their customers' partitions, unchanged."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_app.adapters.memory import MemoryLog
from stream_app.adapters.partitioning import partition_of
from stream_app.copying import HEADERS_BYTES_MAX, Copy
from stream_app.embedded import ValkeyServer
from stream_app.errors import Fenced
from stream_app.events import EventDecoder
from stream_app.formats import FORMAT_HEADER, ORIGIN_HEADER
from stream_app.ports import ACCOUNTS_ID, Claim, Commit, Headers, RawBatch, Record, StateStore
from stream_app.settings import Settings, load_settings
from tests.contract.stores import Stores, opened

GOLDEN = Path(__file__).parents[1] / "golden"
NOW_S = 1_800_000_000.0
PARTITIONS = 3
SETTINGS = load_settings(
    {
        "STREAM_APP_SOURCE_TOPICS": "web=ga4,app=segment,till=own,sp=snowplow,rr=retailrocket",
        "STREAM_APP_CLICKSTREAM_PARTITIONS": str(PARTITIONS),
        "STREAM_APP_COOCCURRENCE_PARTITIONS": "2",
    }
)
STRUCTURED: Headers = (("content-type", b"application/cloudevents+json"),)
VIEWED = {"type": "track", "event": "Product Viewed", "timestamp": "2026-01-05T08:00:00Z"}


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """Each adapter in turn, empty."""
    async with opened(request.param, valkey.url) as found:
        yield found


class Source:
    """A stage of one topic with its adapters; ``group`` is what its consumer group committed."""

    def __init__(self, store: StateStore, topic: str, settings: Settings = SETTINGS) -> None:
        self.settings, self.log, self.topic = settings, MemoryLog(), topic
        self.group: int | None = None
        self.stage = self.worker(store)

    def worker(self, store: StateStore) -> Copy:
        return Copy(
            self.settings,
            self.topic,
            store=store,
            log=self.log,
            committed=self.committed,
            clock=lambda: NOW_S,
        )

    async def committed(self, _topic: str, _partition: int) -> int | None:
        return self.group

    def sent(self) -> list[Record]:
        """What the clickstream has by now, partition by partition; each where its key belongs."""
        found = []
        for number in range(self.settings.clickstream_partitions):
            part = self.log.drain(self.settings.clickstream_topic, number)
            fields = zip(part.keys, part.values, part.headers, part.timestamps_ms, strict=True)
            for record in (Record(*one) for one in fields):
                assert partition_of(record.key, self.settings.clickstream_partitions) == number
                found.append(record)
        return found

    def letters(self, partition: int) -> list[tuple[Record, dict[str, str]]]:
        """Dead letters, and their headers as text."""
        part = self.log.drain(self.settings.dead_letter_topic, partition)
        found = []
        for key, value, headers in zip(part.keys, part.values, part.headers, strict=True):
            said = {name: text.decode() for name, text in headers}
            found.append((Record(key, value, headers), said))
        return found


def batch(
    *values: bytes | None,
    topic: str = "app",
    partition: int = 0,
    first: int = 0,
    headers: Headers = (),
    at_ms: int = 1_767_600_100_000,
) -> RawBatch:
    n = len(values)
    offsets = range(first, first + n)
    return RawBatch(
        topic, partition, first + n, offsets, [b"vendor's"] * n, values, [at_ms] * n, [headers] * n
    )


def viewed(user: str, item: str, **more: Any) -> bytes:
    return orjson.dumps({**VIEWED, "userId": user, "properties": {"product_id": item}, **more})


async def accounts(stores: Stores, stage: Copy, partition: int = 0) -> dict[str, int]:
    (blob,) = await stores.state.load(stage.space, [partition], [ACCOUNTS_ID])
    found: dict[str, int] = orjson.loads(blob or b"{}")
    return found


async def test_records_go_unchanged_to_their_customers_partitions_with_their_format(
    stores: Stores,
) -> None:
    source = Source(stores.state, "app")
    assert await source.stage.assign(5) is None  # more partitions than the clickstream has
    values = [viewed(f"u{k % 7}", f"p{k}") for k in range(40)]
    await source.stage.process(batch(*values, partition=5, headers=(("trace", b"1"),)))
    sent = source.sent()
    assert sorted(record.value or b"" for record in sent) == sorted(values)
    for user in (f"u{k}".encode() for k in range(7)):  # in the order they came
        own = [record.value for record in sent if record.key == user]
        assert own == [value for value in values if b'"%b"' % user in value]
    first = next(record for record in sent if record.value == values[0])
    assert first == Record(
        b"u0",
        values[0],
        (("trace", b"1"), (FORMAT_HEADER, b"segment"), (ORIGIN_HEADER, b"app/5/0")),
        1_767_600_100_000,
    )
    assert {record.key for record in sent} > {b"u0", b"u1"}
    assert await accounts(stores, source.stage, 5) == {
        "cursor": 40, "applied": 40, "rejected": 0, "dead_lettered": 0, "skipped": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "file"),
    [
        ("web", "ga4_export.jsonl"),
        ("web", "ga4_protocol.jsonl"),
        ("app", "segment.jsonl"),
        ("sp", "snowplow.jsonl"),
        ("sp", "snowplow.tsv"),
        ("rr", "retailrocket.csv"),
        ("till", "cloudevents.jsonl"),
    ],
)
async def test_files_of_a_vendor_become_the_events_they_become_at_first_hand(
    topic: str, file: str, stores: Stores
) -> None:
    source = Source(stores.state, topic)
    await source.stage.assign(0)
    lines = (GOLDEN / file).read_bytes().splitlines()
    expected = orjson.loads((GOLDEN / f"{file}.expected.json").read_bytes())
    headers = STRUCTURED if file.startswith("cloudevents") else ()
    await source.stage.process(batch(*lines, topic=topic, headers=headers))
    found = []
    for record in source.sent():
        decoder = EventDecoder(SETTINGS)
        decoded = decoder.decode(batch(record.value, headers=record.headers))
        assert decoded.rejects == []
        found += [(event.event, str(event.item_id)) for event in decoded.given]
    wanted = [(e["event"], str(e.get("item_id"))) for events in expected for e in events]
    assert sorted(found) == sorted(wanted)
    ignored = expected.count([])
    assert source.stage.formats.ignored.total() == ignored
    done = await accounts(stores, source.stage)
    assert (done["applied"], done["rejected"]) == (len(lines) - ignored, ignored)


async def test_what_is_nobodys_is_dead_lettered_with_the_reason(stores: Stores) -> None:
    source = Source(stores.state, "app")
    await source.stage.assign(4)
    nobody = orjson.dumps({**VIEWED, "properties": {"product_id": "1"}})
    long = viewed("x" * 200, "1")
    bad = [nobody, b"no json", None, b"x" * 70_000, long, viewed("", "1")]
    await source.stage.process(batch(viewed("anna", "1"), *bad, partition=4, first=10))
    letters = source.letters(4 % PARTITIONS)
    assert [said["reason"] for _, said in letters] == [
        "missing_customer", "malformed_json", "empty", "oversize", "bad_id", "missing_customer",
    ]  # fmt: skip
    record, said = letters[0]
    assert (record.key, record.value) == (b"vendor's", nobody)
    assert (said["topic"], said["partition"], said["offset"]) == ("app", "4", "11")
    assert [record.key for record in source.sent()] == [b"anna"]
    done = await accounts(stores, source.stage, 4)
    assert (done["cursor"], done["applied"], done["dead_lettered"], done["skipped"]) == (
        17, 1, 6, 10,
    )  # fmt: skip
    heavy = batch(viewed("anna", "1"), first=17, partition=4)
    heavy = replace(heavy, headers=[(("big", bytes(HEADERS_BYTES_MAX)),)])
    await source.stage.process(heavy)
    assert [said["detail"] for _, said in source.letters(1)] == ["32771 bytes of headers"]


async def test_what_is_larger_than_a_dead_letter_stays_where_it_is(stores: Stores) -> None:
    source = Source(stores.state, "app")
    await source.stage.assign(0)
    await source.stage.process(batch(bytes(5_000_000)))
    ((record, said),) = source.letters(0)
    assert (record.key, record.value, said["offset"]) == (None, b"", "0")
    assert said["detail"] == "(withheld: 5000008 bytes are too many for this topic)"


async def test_a_header_that_names_the_format_is_believed(stores: Stores) -> None:
    source = Source(stores.state, "app")
    await source.stage.assign(0)
    own = orjson.dumps({"event": "view", "ts": 1.7e9, "user_id": 7, "item_id": "1"})
    given = (("Stream_App_Format", b"own"),)
    await source.stage.process(batch(own, headers=given))
    (record,) = source.sent()
    assert record.key == b"7"
    assert record.headers == (*given, (ORIGIN_HEADER, b"app/0/0"))
    await source.stage.process(batch(own, first=1, headers=((FORMAT_HEADER, b"xml"),)))
    ((_, said),) = source.letters(0)
    assert said["reason"] == "wrong_type"


async def test_calls_of_several_customers_in_one_batch_are_parted(stores: Stores) -> None:
    source = Source(stores.state, "app")
    await source.stage.assign(0)
    calls = [orjson.loads(viewed(user, f"p{k}")) for k, user in enumerate(["a", "b", "a", "c"])]
    page = {"type": "page", "userId": "b"}
    mixed = orjson.dumps({"batch": [*calls[:2], page, *calls[2:]], "sentAt": "now"})
    alone = orjson.dumps({"batch": [calls[0], calls[2]]})
    await source.stage.process(batch(mixed, alone))
    found = {}
    for record in source.sent():
        found[dict(record.headers)[ORIGIN_HEADER]] = (record.key, orjson.loads(record.value or b""))
    assert found == {
        b"app/0/0/0": (b"a", calls[0]),
        b"app/0/0/1": (b"b", calls[1]),
        b"app/0/0/3": (b"a", calls[2]),
        b"app/0/0/4": (b"c", calls[3]),
        b"app/0/1": (b"a", orjson.loads(alone)),  # one customer's stay together
    }
    assert (await accounts(stores, source.stage))["applied"] == 2


async def test_a_time_ahead_of_the_clock_is_now(stores: Stores) -> None:
    """The broker takes no record of a time far ahead: it would be refused for ever."""
    source = Source(stores.state, "app")
    await source.stage.assign(0)
    ahead = int(NOW_S * 1000) + 7_200_000
    await source.stage.process(batch(viewed("a", "1"), at_ms=ahead))
    await source.stage.process(batch(viewed("a", "1"), at_ms=-1, first=1))
    assert [record.timestamp_ms for record in source.sent()] == [int(NOW_S * 1000), -1]


class Failing:
    """A store whose commits are lost; ``written``: after they were made."""

    def __init__(self, store: StateStore, *, written: bool) -> None:
        self._store, self._written = store, written
        self.claim, self.load = store.claim, store.load

    async def commit(self, claim: Claim, step: Commit) -> None:
        if self._written:
            await self._store.commit(claim, step)
        raise asyncio.CancelledError


async def test_a_record_without_an_id_has_one_of_where_it_came_from(stores: Stores) -> None:
    """Copied twice it is the same event; without that its copies could not be told apart."""
    source = Source(Failing(stores.state, written=False), "web")
    await source.stage.assign(0)
    params = {"items": [{"item_id": "SKU_1"}]}
    hit = {"client_id": "1.2", "events": [{"name": "view_item", "params": params}]}
    twice = batch(orjson.dumps(hit), orjson.dumps(hit), topic="web")
    with pytest.raises(asyncio.CancelledError):
        await source.stage.process(twice)
    after = source.worker(stores.state)
    await after.assign(0)
    await after.process(twice)
    records = source.sent()
    raw = batch(*(record.value for record in records))
    raw = replace(raw, headers=[record.headers for record in records])
    ids = EventDecoder(SETTINGS).decode(raw).events["event_id"].tolist()
    assert len(ids) == 4
    assert ids[:2] == ids[2:]
    assert len({0, *ids}) == 3


@pytest.mark.parametrize(("written", "copies"), [(False, 2), (True, 1)])
async def test_a_crash_around_the_commit_loses_nothing(
    written: bool, copies: int, stores: Stores
) -> None:
    source = Source(Failing(stores.state, written=written), "app")
    await source.stage.assign(0)
    values = [viewed("a", "1"), viewed("b", "2")]
    with pytest.raises(asyncio.CancelledError):
        await source.stage.process(batch(*values))
    after = source.worker(stores.state)
    assert await after.assign(0) == (2 if written else None)
    await after.process(batch(*values))
    await after.process(batch(*values))  # a redelivery
    sent = [record.value for record in source.sent()]
    assert sorted(value or b"" for value in sent) == sorted(values * copies)


async def test_who_lost_the_partition_commits_nothing_more(stores: Stores) -> None:
    source = Source(stores.state, "app")
    await source.stage.assign(0)
    other = source.worker(stores.state)
    await other.assign(0)
    await other.process(batch(viewed("a", "1")))
    with pytest.raises(Fenced):
        await source.stage.process(batch(viewed("a", "1"), viewed("a", "2")))
    assert (await accounts(stores, other))["cursor"] == 1
    other.revoke(0)
    assert other.owned == {}


async def test_an_older_store_is_no_reason_to_send_again(stores: Stores) -> None:
    source = Source(stores.state, "app")
    await source.stage.assign(0)
    await source.stage.process(batch(viewed("a", "1")))
    backup = stores.backups.take()
    await source.stage.process(batch(viewed("a", "2"), viewed("a", "3"), first=1))
    stores.backups.put_back(backup)
    assert await source.stage.assign(0) == 3  # this worker knows it
    assert (await accounts(stores, source.stage))["cursor"] == 3
    stores.backups.put_back(backup)
    source.group = 2
    after = source.worker(stores.state)
    assert await after.assign(0) == 2  # the group knows it, up to its last commit
    await after.process(batch(viewed("a", "3"), first=2))
    done = await accounts(stores, after)
    assert done["cursor"] == 3 == sum(done[name] for name in done if name != "cursor")
