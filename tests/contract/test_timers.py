"""Time-outs are announced once, by whoever owns the partition, on memory and on a real server."""

from collections.abc import AsyncIterator

import numpy as np
import orjson
import pytest

from stream_app import timers
from stream_app.adapters.memory import MemoryStore
from stream_app.adapters.redis_store import RedisStore
from stream_app.composition import Stages, compose
from stream_app.core.state import decode_users
from stream_app.embedded import ValkeyServer
from stream_app.events import EventDecoder
from stream_app.hashing import customer_id
from stream_app.journeys import load_journey
from stream_app.offline.recompute import Customers
from stream_app.offline.recompute_customers import books
from stream_app.ports import ACCOUNTS_ID, USERS, RawBatch, Record
from stream_app.settings import load_settings
from stream_app.timers import IDLE_S, Timers
from tests.contract.shop_run import Tape
from tests.contract.stores import Stores, opened

SETTINGS = load_settings({"STREAM_APP_CLICKSTREAM_PARTITIONS": "1"})
CLICKS, LISTS = SETTINGS.clickstream_topic, SETTINGS.recommendations_topic
NOW_S = 1_700_000_000.0
HOUR_S, DAY_S = 3_600.0, 86_400.0


class Shop:
    """One partition, its log, and workers that come and go; the clock stands until it is moved."""

    def __init__(self, stores: Stores) -> None:
        self.stores, self.tape, self.now = stores, Tape(), NOW_S
        assert isinstance(stores.state, MemoryStore | RedisStore)
        self.scan = stores.state
        self.worker: Stages
        self.timers: Timers

    async def start(self) -> None:
        """A new worker takes over."""
        self.worker = compose(
            SETTINGS,
            store=self.stores.state,
            public=self.stores.public,
            log=self.tape.log,
            clock=lambda: self.now,
        )
        self.timers = Timers(
            SETTINGS,
            self.stores.state,
            self.scan,
            self.tape.log,
            self.worker.learn,
            lambda: self.now,
        )
        for q in range(SETTINGS.cooccurrence_partitions):
            await self.worker.relate.assign(q)
        await self.worker.learn.assign(0)

    async def send(
        self,
        user: str,
        kind: str,
        item: str | None = None,
        ts: float = 0.0,
        query: str | None = None,
    ) -> None:
        """Append an event of a customer, as of now unless ``ts`` says otherwise."""
        name = "session_id" if user.startswith("~") else "user_id"
        event = {"event": kind, name: user.lstrip("~"), "item_id": item, "ts": ts or self.now}
        event["query"] = query
        record = Record(b"k", orjson.dumps(event), timestamp_ms=int(self.now * 1000))
        await self.tape.log.send(CLICKS, 0, [record])

    def records(self) -> list[dict[str, object]]:
        """All of the log."""
        return [orjson.loads(value) for _, value, _ in self.tape.rows(CLICKS, 0)]

    def timeouts(self) -> list[tuple[object, object]]:
        """Customer and time of the time-outs in the log."""
        said = [record for record in self.records() if record["event"] == "timeout"]
        return [(r.get("user_id", r.get("session_id")), r["ts"]) for r in said]

    async def learn(self) -> None:
        """Apply what waits, as Kafka would hand it over, with the records' times."""
        start = self.worker.learn.owned[0].cursor or 0
        batch = self.tape.batch(CLICKS, 0, start)
        if len(batch):
            await self.worker.learn.process(_timed(batch))

    async def later(self, seconds: float) -> None:
        """Let time pass; the owner looks at its timers, and applies what they said."""
        self.now += seconds
        await self.timers.survey()
        await self.timers.announce()
        await self.learn()

    async def user(self, name: str) -> np.void:
        """A customer's state."""
        ids = np.array([customer_id(name)], np.uint64)
        row: np.void = decode_users(
            ids, await self.stores.state.load(USERS, [0], [ids[0].tobytes()])
        )[0]
        return row

    async def step(self, name: str) -> str:
        """The step a customer is in."""
        return load_journey().names[int((await self.user(name))["step"])]

    async def rejected(self) -> int:
        """Records that the policy did not believe."""
        (blob,) = await self.stores.state.load(USERS, [0], [ACCOUNTS_ID])
        row = orjson.loads(blob or b"")
        assert sum(row[k] for k in ("applied", "rejected", "dead_lettered")) == row["cursor"]
        return int(row["rejected"])

    async def is_what_the_log_says(self) -> bool:
        """The states equal a recompute in plain Python."""
        batch = self.tape.batch(CLICKS, 0, 0)
        found = EventDecoder(SETTINGS).decode(_timed(batch))
        truth = Customers(load_journey())
        truth.apply(found.events, found.customers, found.data)
        keys = [key.to_bytes(8, "little") for key in truth.customers]
        stored = await self.stores.state.load(USERS, [0] * len(keys), keys)
        return [books(blob) for blob in stored] == [who.blob() for who in truth.customers.values()]


def _timed(batch: RawBatch) -> RawBatch:
    made = [int(float(orjson.loads(value or b"")["ts"]) * 1000) for value in batch.values]
    return RawBatch(
        batch.topic,
        batch.partition,
        batch.next_offset,
        batch.offsets,
        batch.keys,
        batch.values,
        made,
        batch.headers,
    )


@pytest.fixture(params=["memory", "valkey"])
async def shop(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Shop]:
    """Each adapter in turn, empty, with a worker."""
    async with opened(request.param, valkey.url) as stores:
        shop = Shop(stores)
        await shop.start()
        yield shop


async def test_a_cart_left_alone_in_a_quiet_shop_is_announced_when_its_time_has_come(
    shop: Shop,
) -> None:
    await shop.send("anna", "view", "shoe")
    await shop.send("anna", "add_to_cart", "shoe")
    await shop.send("~guest", "add_to_cart", "shoe")
    await shop.learn()
    await shop.later(HOUR_S - 0.1)
    assert shop.timeouts() == []
    await shop.later(0.2)
    assert shop.timeouts() == [("anna", NOW_S + HOUR_S)], "guests are not written to"
    for _ in range(3):
        await shop.later(1.0)
    assert len(shop.timeouts()) == 1
    public = await shop.stores.public.get("rec:anna")
    assert isinstance(public, dict)
    assert (public[b"step"], public[b"version"]) == (b"cart", b"4")
    assert await shop.rejected() == 0
    assert await shop.is_what_the_log_says()


async def test_the_watermark_moves_the_time_while_records_arrive(shop: Shop) -> None:
    await shop.send("anna", "add_to_cart", "shoe")
    await shop.learn()
    await shop.later(10.0)
    await shop.send("bob", "view", "hat", ts=NOW_S + HOUR_S + 1.0)
    shop.now += HOUR_S
    await shop.learn()
    shop.worker.learn.owned[0].touched_at = shop.now - IDLE_S / 2  # not quiet
    await shop.timers.announce()
    assert shop.timeouts() == [("anna", NOW_S + HOUR_S)]


async def test_an_event_from_the_future_makes_nobody_wait_less(shop: Shop) -> None:
    await shop.send("anna", "add_to_cart", "shoe")
    await shop.learn()
    event = {"event": "view", "user_id": "bob", "item_id": "x", "ts": shop.now + 7_200.0}
    await shop.tape.log.send(CLICKS, 0, [Record(b"k", orjson.dumps(event))])
    batch = shop.tape.batch(CLICKS, 0, 1)
    made = int(shop.now * 1000)
    await shop.worker.learn.process(RawBatch(CLICKS, 0, 2, [1], [None], batch.values, [made], [()]))
    assert shop.worker.learn.owned[0].partition["watermark"][0] == shop.now
    await shop.timers.announce()
    assert shop.timeouts() == []


async def test_a_recorded_log_ends_where_it_ended(shop: Shop) -> None:
    """Replayed two years later, a quiet partition's time goes on from its last event."""
    shop.now += 700 * DAY_S
    event = {"event": "add_to_cart", "user_id": "anna", "item_id": "shoe", "ts": NOW_S}
    await shop.tape.log.send(CLICKS, 0, [Record(b"k", orjson.dumps(event))])
    batch, made = shop.tape.batch(CLICKS, 0, 0), int(shop.now * 1000)
    await shop.worker.learn.process(RawBatch(CLICKS, 0, 1, [0], [None], batch.values, [made], [()]))
    await shop.later(HOUR_S - 1.0)
    assert shop.timeouts() == []
    await shop.later(1.0)
    assert shop.timeouts() == [("anna", NOW_S + HOUR_S)]


async def test_another_worker_finds_the_deadlines_in_the_states(shop: Shop) -> None:
    for k in range(30):
        await shop.send(f"u{k}", "add_to_cart", "shoe", ts=NOW_S + k)
    await shop.learn()
    await shop.start()
    await shop.later(HOUR_S + 15.0)
    assert [user for user, _ in shop.timeouts()] == [f"u{k}" for k in range(16)]
    await shop.later(15.0)
    assert [user for user, _ in shop.timeouts()] == [f"u{k}" for k in range(30)]
    assert await shop.rejected() == 0
    assert await shop.is_what_the_log_says()


async def test_a_worker_that_dies_before_its_record_is_applied_has_an_heir_who_repeats_it(
    shop: Shop,
) -> None:
    await shop.send("anna", "add_to_cart", "shoe")
    await shop.learn()
    await shop.timers.survey()
    shop.now += HOUR_S + 1.0
    await shop.timers.announce()  # produced, and not applied
    await shop.start()
    shop.now += 10.0
    await shop.timers.survey()
    await shop.timers.announce()
    assert shop.timeouts() == [("anna", NOW_S + HOUR_S)] * 2
    await shop.learn()
    assert await shop.rejected() == 1, "one of the two is believed"
    assert (await shop.user("anna"))["timer_ts"] == NOW_S + HOUR_S
    assert await shop.is_what_the_log_says()


async def test_who_comes_back_before_the_record_is_applied_has_not_left(shop: Shop) -> None:
    await shop.send("anna", "add_to_cart", "shoe")
    await shop.learn()
    await shop.timers.survey()
    shop.now += HOUR_S + 1.0
    await shop.send("anna", "view", "hat")
    await shop.timers.announce()
    await shop.learn()
    assert len(shop.timeouts()) == 1
    assert await shop.rejected() == 1
    await shop.later(HOUR_S)
    assert shop.timeouts()[-1] == ("anna", NOW_S + 2 * HOUR_S + 1.0)


async def test_a_store_that_went_back_in_time_comes_to_the_same_end(shop: Shop) -> None:
    await shop.send("anna", "add_to_cart", "shoe")
    await shop.learn()
    backup = shop.stores.backups.take()
    await shop.later(HOUR_S)
    before = await shop.user("anna")
    shop.stores.backups.put_back(backup)
    await shop.start()
    await shop.learn()
    assert await shop.user("anna") == before
    await shop.later(5.0)
    assert len(shop.timeouts()) == 1
    assert await shop.is_what_the_log_says()


async def test_silence_leads_to_dormancy_and_a_second_call(shop: Shop) -> None:
    await shop.send("anna", "purchase", "shoe")
    await shop.learn()
    steps = []
    for _ in range(70):
        await shop.later(DAY_S)
        steps.append(await shop.step("anna"))
    days = [(float(str(ts)) - NOW_S) / DAY_S for _, ts in shop.timeouts()]
    assert days == [7.0, 28.0, 30.0, 60.0]
    assert steps == ["post_purchase"] * 29 + ["dormant"] * 41
    assert await shop.rejected() == 0
    assert await shop.is_what_the_log_says()


async def test_customers_without_end_fit_into_a_bounded_agenda(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "SURVEYS_APART_S", 0.0)
    for k in range(300):
        await shop.send(f"u{k}", "add_to_cart", "shoe", ts=NOW_S + k)
    shop.now += 300.0
    await shop.learn()
    owned = shop.worker.learn.owned[0]
    owned.agenda = type(owned.agenda)(100)
    for _ in range(20):
        await shop.later(HOUR_S / 10)
        assert len(owned.agenda) <= 100
    assert len(set(shop.timeouts())) == len(shop.timeouts()) == 300
