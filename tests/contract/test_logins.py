"""Who was anonymous on a device and logs in becomes one customer, whatever format says so."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.adapters.partitioning import partition_of
from stream_app.commands.replay import read_lines
from stream_app.composition import compose
from stream_app.core.state import decode_users
from stream_app.formats import FORMAT_HEADER
from stream_app.hashing import customer_id, given_name, stable_hash
from stream_app.ports import USERS, Record
from stream_app.settings import load_settings

GOLDEN = Path(__file__).parents[1] / "golden"
PARTITIONS = 4
SETTINGS = load_settings({"STREAM_APP_CLICKSTREAM_PARTITIONS": str(PARTITIONS)})
START_S, HOUR_S = 1_767_600_000, 3_600


class Worker:
    """Owns all partitions, and reads a record as soon as it is sent."""

    def __init__(self) -> None:
        self.log, self.store, self.public = MemoryLog(), MemoryStore(), MemoryPublic()
        self.stages = compose(
            SETTINGS, store=self.store, public=self.public, log=self.log, clock=lambda: 1.8e9
        )

    async def start(self) -> None:
        """Take the partitions."""
        for q in range(SETTINGS.cooccurrence_partitions):
            await self.stages.relate.assign(q)
        for p in range(PARTITIONS):
            await self.stages.learn.assign(p)

    async def reads(self, record: Record) -> None:
        """The record, and what the worker sends itself because of it."""
        topic = SETTINGS.clickstream_topic
        await self.log.send(topic, partition_of(record.key, PARTITIONS), [record])
        waiting = True
        while waiting:
            waiting = False
            for p in range(PARTITIONS):
                batch = self.log.drain(topic, p)
                if len(batch):
                    waiting = True
                    await self.stages.learn.process(batch)

    async def state(self, name: str) -> Any:
        """The stored customer with this public name; ``None`` when there is none."""
        id_ = np.array([customer_id(name)], np.uint64)
        partition = partition_of(given_name(name)[0].encode(), PARTITIONS)
        blobs = await self.store.load(USERS, [partition], [id_.tobytes()])
        return decode_users(id_, blobs)[0] if blobs[0] else None

    async def has_lists(self, name: str) -> bool:
        """Whether lists of the customer are published."""
        return bool(await self.public.get(f"rec:{name}"))


@pytest.fixture
async def worker() -> Worker:
    """One that has seen nothing yet."""
    worker = Worker()
    await worker.start()
    return worker


def items_of(user: Any) -> list[int]:
    """The customer's item events, oldest first."""
    found: list[int] = user["ring_item"][: user["ring_n"]].tolist()
    return found


class Login(NamedTuple):
    """In a golden file: what ``device`` did before ``user`` logged in, and the user after it."""

    format: str
    device: str
    user: str
    before: tuple[str, ...]
    after: tuple[str, ...]


LOGINS = {
    "ga4_export.jsonl": Login("ga4", "1234.5678", "anna", ("SKU_1",), ("SKU_1", "SKU_2", "SKU_2")),
    "ga4_protocol.jsonl": Login("ga4", "77.88", "carl", ("SKU_5",), ("SKU_6",)),
    "segment.jsonl": Login("segment", "a-2", "bella", ("509",), ("510",)),
    "snowplow.jsonl": Login("snowplow", "d-3", "frida", ("P130",), ("P130",)),
    "snowplow.tsv": Login("snowplow", "d-2", "gus", ("P131",), ("P132",)),
}


@pytest.mark.parametrize("name", LOGINS)
async def test_a_device_and_who_logs_in_on_it_are_one_customer_with_both_histories(
    name: str, worker: Worker
) -> None:
    login = LOGINS[name]
    lines = read_lines(GOLDEN / name, login.format)
    seen_alone = False
    for row in range(len(lines)):
        await worker.reads(lines.record(row))
        seen_alone |= await worker.has_lists(f"~{login.device}")
    assert seen_alone, "it had lists before anybody knew whose it was"
    assert await worker.state(f"~{login.device}") is None
    assert not await worker.has_lists(f"~{login.device}")
    user = await worker.state(login.user)
    assert items_of(user) == [stable_hash(item) for item in (*login.before, *login.after)]
    assert (user["anonymous"], user["sessions"]) == (0, 1)
    assert await worker.has_lists(login.user)


def call(device: str, user: str | None, item: str, after_s: int) -> Record:
    """A Segment call; keyed by its customer, as it must be."""
    said = {"type": "track", "event": "Product Viewed", "anonymousId": device, "userId": user}
    said["timestamp"] = np.datetime64(START_S + after_s, "s").item().isoformat() + "Z"
    value = orjson.dumps({**said, "properties": {"product_id": item}})
    return Record((user or device).encode(), value, ((FORMAT_HEADER, b"segment"),))


async def test_pauses_end_the_sessions_of_a_device(worker: Worker) -> None:
    for k, after_s in enumerate((0, 600, 600 + HOUR_S, 700 + HOUR_S)):
        await worker.reads(call("phone", None, f"p{k}", after_s))
    device = await worker.state("~phone")
    assert (device["sessions"], device["session_events"], device["events"]) == (2, 2, 4)
    assert device["session_start"] == START_S + 600 + HOUR_S


async def test_of_a_device_only_the_visit_of_the_login_is_the_customers_session(
    worker: Worker,
) -> None:
    for k, after_s in enumerate((0, 600, 5 * HOUR_S)):
        await worker.reads(call("phone", None, f"p{k}", after_s))
    await worker.reads(call("phone", "anna", "p3", 5 * HOUR_S + 60))
    anna = await worker.state("anna")
    assert (anna["events"], anna["sessions"]) == (4, 2)
    assert anna["session_start"] == START_S + 5 * HOUR_S
    assert (anna["session_n"], anna["session_events"]) == (2, 2)

    await worker.reads(call("phone", "bert", "p4", 9 * HOUR_S))
    bert = await worker.state("bert")
    assert (bert["events"], bert["sessions"]) == (1, 1), "the phone had nothing left to give"


async def test_a_login_long_after_the_anonymous_visits_begins_a_session_of_its_own(
    worker: Worker,
) -> None:
    await worker.reads(call("phone", None, "p0", 0))
    await worker.reads(call("phone", "anna", "p1", 48 * HOUR_S))
    anna = await worker.state("anna")
    assert (anna["events"], anna["sessions"], anna["session_n"]) == (2, 2, 1)
    assert anna["session_start"] == START_S + 48 * HOUR_S


async def test_what_was_done_logged_out_is_merged_at_the_next_visit_with_a_login(
    worker: Worker,
) -> None:
    await worker.reads(call("phone", "anna", "p0", 0))
    await worker.reads(call("phone", None, "p1", 24 * HOUR_S))
    assert items_of(await worker.state("~phone")) == [stable_hash("p1")]
    await worker.reads(call("phone", "anna", "p2", 24 * HOUR_S + 30))
    assert await worker.state("~phone") is None
    anna = await worker.state("anna")
    assert items_of(anna) == [stable_hash(item) for item in ("p0", "p1", "p2")]
    assert anna["sessions"] == 2
