"""Milliseconds from a catalog record that bars an item to the last list in Redis without it."""

import asyncio
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import orjson
import redis.asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import Place, Running
from bench.loadgen import LoadGenerator
from bench.measure import (
    ContenderFailed,
    cpu_per_event,
    observe,
    usage,
    window,
    with_total,
)
from bench.options import Options
from bench.results import Result, flat
from bench.servers import start_broker
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.ports import Record

WARM_EVENTS = 120_000
LOAD_EVENTS = 2_000_000  # more than is ever sent; made as needed
LOAD = Load(LOAD_EVENTS, n_items=5_000, n_customers=20_000)
ITEMS = 20  # withdrawn in each state of the worker, for each reason
PRICE_MAX = "1000"
REASONS: dict[str, dict[str, float]] = {"stock": {"stock": 0}, "price": {"price": 5_000.0}}
APART_S = 1.0  # between two of them
BUSY = 0.4  # share of what the worker did from the backlog
POLL_S = 0.02
READ_AT_ONCE = 500
DEADLINE_S = 30.0
CATCH_UP_S = 2.0


def run(options: Options) -> Result:
    """Warm up on a backlog, then withdraw items of every popularity, idle and under load."""
    warm = options.events(WARM_EVENTS)
    with ExitStack() as stack:
        broker = start_broker(stack)
        asyncio.run(fill(Load(warm, LOAD.n_items), broker.bootstrap, "clickstream"))
        place = Place(broker, "clickstream", LOAD.partitions)
        pipeline = registry.pipeline(warm, warm // 2)
        settings = {**pipeline.settings, "STREAM_APP_PRICE_MAX": PRICE_MAX}
        contender = replace(pipeline, settings=settings)
        running = stack.enter_context(contest.started(contender, place))
        samples = observe(
            running.progress,
            running.parts,
            running.workers,
            warm=contender.warm,
            total=warm,
            settle_s=contest.SETTLE_S,
        )
        rate = window(samples, running.parts, warm=contender.warm, total=warm).events_per_second
        return asyncio.run(_withdrawals(options, warm, running, place, BUSY * rate))


async def _withdrawals(
    options: Options, warm: int, running: Running, place: Place, busy_rate: float
) -> Result:
    n = max(int(ITEMS * options.scale), 4)
    generator = LoadGenerator(
        place.broker.bootstrap,
        running.servers.nodes[0],
        topic=place.topic,
        lists_topic=running.settings["STREAM_APP_RECOMMENDATIONS_TOPIC"],
        partitions=LOAD.partitions,
        records=LOAD.records(),
        there=warm,
    )
    async with Lists(place.broker.bootstrap, running) as lists:
        await asyncio.sleep(CATCH_UP_S)
        reasons = len(REASONS)
        chosen = lists.by_popularity(2 * n * reasons)
        parts = [chosen[k :: 2 * reasons] for k in range(2 * reasons)]
        rows = [
            _row("idle", reason, 0.0, await lists.withdrawn(items, reason))
            for reason, items in zip(REASONS, parts[::2], strict=True)
        ]
        async with generator:
            seconds = reasons * n * (APART_S + 1.0) + 5.0
            sending = asyncio.create_task(generator.run(busy_rate, seconds, probe=False))
            await asyncio.sleep(CATCH_UP_S)
            for reason, items in zip(REASONS, parts[1::2], strict=True):
                before, cpu = running.progress().applied, usage(running.parts)
                row = _row("loaded", reason, busy_rate, await lists.withdrawn(items, reason))
                events = max(running.progress().applied - before, 1)
                used = cpu_per_event(running.parts, cpu, usage(running.parts), events)
                rows.append(row | flat({"cpu_us_per_event": with_total(used)}))
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
        await asyncio.sleep(CATCH_UP_S)
        back = await lists.holding(chosen)
    summary = {"states": rows, "listed_again": back}
    notes = [
        f"broker: {place.broker.kind}",
        "time runs from before the record is produced; all customers whose last list on the topic"
        " has the item are read until none has, and so are all similar: and trending: keys",
        "CPU is per event applied meanwhile, withdrawals and who reads the lists included",
        f"listed again afterwards: {back} (all keys read once more at the end)",
    ]
    return Result(summary, rows, ("worker", "by", "p99_ms"), notes)


class Withdrawal(NamedTuple):
    """One item: who had it on their lists, how many item lists; seconds until none had any more."""

    customers: int
    item_lists: int
    customers_s: float
    item_lists_s: float


def _row(state: str, reason: str, rate: float, found: list[Withdrawal]) -> dict[str, Any]:
    ms = np.array([(one.customers_s, one.item_lists_s) for one in found]) * 1000.0
    slower = ms.max(axis=1)
    return {
        "worker": state,
        "by": reason,
        "events_per_second": round(rate, 1),
        "items": len(found),
        "customers_median": int(np.median([one.customers for one in found])),
        "customers_max": max(one.customers for one in found),
        "item_lists_max": max(one.item_lists for one in found),
        "p50_ms": round(float(np.percentile(slower, 50)), 1),
        "p99_ms": round(float(np.percentile(slower, 99)), 1),
        "max_ms": round(float(slower.max()), 1),
        "customers_p50_ms": round(float(np.percentile(ms[:, 0], 50)), 1),
        "item_lists_p50_ms": round(float(np.percentile(ms[:, 1], 50)), 1),
    }


class Lists:
    """Who has which item on their lists, from the topic; and whether Redis still says so."""

    def __init__(self, bootstrap: str, running: Running) -> None:
        self._settings = running.settings
        self._redis = redis.asyncio.from_url(running.servers.nodes[0], protocol=2)
        self._log = KafkaLog([bootstrap], client_id="bench-catalog")
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, fetch_max_wait_ms=50, auto_offset_reset="earliest"
        )
        self._texts: dict[bytes, bytes] = {}
        self._sought, self._given = b"", set[bytes]()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Lists":
        await self._log.start()
        await self._consumer.start()
        topic = self._settings["STREAM_APP_RECOMMENDATIONS_TOPIC"]
        partitions = [TopicPartition(topic, p) for p in range(LOAD.partitions)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning(*partitions)
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reading is not None
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        await self._consumer.stop()
        await self._log.stop()
        await self._redis.aclose()

    async def _read(self) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=50, max_records=2_000)
            for records in fetched.values():
                for record in records:
                    self._take(record.key, record.value)

    def _take(self, customer: bytes, value: bytes | None) -> None:
        self._texts[customer] = value or b""
        if self._sought and self._sought in self._texts[customer]:
            self._given.add(customer)

    def by_popularity(self, n: int) -> list[str]:
        """``n`` items from the one on most lists to the ones on few, in even steps of rank."""
        holders = Counter[str]()
        for text in filter(None, self._texts.values()):
            lists = orjson.loads(text)["lists"].values()
            holders.update({entry["item_id"] for entries in lists for entry in entries})
        ranked = sorted(
            (item for item, held in holders.items() if held >= 2),
            key=lambda item: (-holders[item], item),
        )
        if len(ranked) < n:
            raise ContenderFailed(f"only {len(ranked)} items are on lists, {n} are needed")
        places = np.geomspace(1, len(ranked), n + 1).astype(int)[:n] + np.arange(n) - 1
        return [ranked[min(place, len(ranked) - 1)] for place in places.tolist()]

    async def withdrawn(self, items: list[str], reason: str) -> list[Withdrawal]:
        """Each of ``items`` in turn; see :meth:`withdraw`."""
        found = []
        for item in items:
            found.append(await self.withdraw(item, reason))
            await asyncio.sleep(APART_S)
        return found

    async def withdraw(self, item: str, reason: str) -> Withdrawal:
        """Produce the record that bars ``item``, and look until no list has it."""
        self._sought = needle = _needle(item)
        self._given.clear()
        waiting = {customer for customer, text in self._texts.items() if needle in text}
        keys = await self._item_lists(item)
        customers, lists = len(waiting), len(keys)
        value = orjson.dumps({"item_id": item, **REASONS[reason]})
        partition = partition_of(item.encode(), LOAD.partitions)
        topic, began = self._settings["STREAM_APP_CATALOG_TOPIC"], time.time()
        seen_s = [0.0, 0.0]
        await self._log.send(topic, partition, [Record(item.encode(), value)])
        while waiting or keys:
            # Also customers who were given the item meanwhile.
            still, at = await self._still(needle, waiting | self._given)
            seen_s[0] = at - began if waiting else seen_s[0]
            listed, at = await self._among(needle, keys)
            seen_s[1] = at - began if keys else seen_s[1]
            waiting, keys = still, listed
            if not waiting and not keys:
                keys = await self._item_lists(item)  # those that were written meanwhile
            if time.time() - began > DEADLINE_S:
                raise ContenderFailed(f"{item} is still on {len(waiting)} customers' lists")
            await asyncio.sleep(POLL_S)
        return Withdrawal(customers, lists, *seen_s)

    async def _still(self, needle: bytes, customers: set[bytes]) -> tuple[set[bytes], float]:
        """Those of ``customers`` whose lists in Redis have the item, and when Redis said so.

        By the clock of Redis, which is on this machine: whoever reads the replies has other work.
        """
        found, ordered, said_at = set(), sorted(customers), 0.0
        for at in range(0, len(ordered), READ_AT_ONCE):
            some = ordered[at : at + READ_AT_ONCE]
            pipe = self._redis.pipeline(transaction=False)
            for customer in some:
                pipe.hvals(b"rec:" + customer)
            pipe.time()
            *read, clock = await pipe.execute()
            said_at = _seconds(clock)
            found |= {
                customer
                for customer, values in zip(some, read, strict=True)
                if any(needle in value for value in values)
            }
        return found, said_at

    async def _among(self, needle: bytes, keys: list[bytes]) -> tuple[list[bytes], float]:
        """The same of ``keys``."""
        if not keys:
            return [], 0.0
        pipe = self._redis.pipeline(transaction=False)
        pipe.mget(keys)
        pipe.time()
        values, clock = await pipe.execute()
        held = [key for key, value in zip(keys, values, strict=True) if value and needle in value]
        return held, _seconds(clock)

    async def _item_lists(self, item: str) -> list[bytes]:
        """The ``similar:`` and ``trending:`` keys that have the item."""
        found: list[bytes] = []
        for pattern in ("similar:*", "trending:*"):
            keys = [key async for key in self._redis.scan_iter(pattern, count=5_000)]
            for at in range(0, len(keys), READ_AT_ONCE):
                found += (await self._among(_needle(item), keys[at : at + READ_AT_ONCE]))[0]
        return found

    async def holding(self, items: list[str]) -> int:
        """How many keys have one of ``items``; every list is read."""
        keys = [key async for key in self._redis.scan_iter("rec:*", count=5_000)]
        customers = {key.removeprefix(b"rec:") for key in keys}
        found = 0
        for item in items:
            still, _ = await self._still(_needle(item), customers)
            found += len(still) + len(await self._item_lists(item))
        return found


def _seconds(clock: tuple[int, int]) -> float:
    return clock[0] + clock[1] / 1e6


def _needle(item: str) -> bytes:
    return b'"item_id":%b' % orjson.dumps(item)
