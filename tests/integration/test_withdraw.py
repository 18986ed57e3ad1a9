"""What is sold out, hidden or deleted leaves every published list: a real worker does it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from stream_app.adapters.partitioning import partition_of
from stream_app.embedded import ValkeyServer
from stream_app.ports import USERS, Record
from tests.conftest import UniqueName
from tests.integration.test_worker import Shopfront
from tests.servers import Kafka

CUSTOMERS, ITEMS, EVENTS = 200, 40, 2_000


@pytest.fixture
async def front(
    kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, tmp_path: Path
) -> AsyncIterator[Shopfront]:
    """Topics created, nothing started."""
    shop = Shopfront(kafka, valkey, unique, tmp_path)
    async with shop.opened():
        yield shop


def views() -> list[Record]:
    """Customers, known and anonymous, who look at items; some items are on everybody's lists."""
    chosen = random.Random(5)
    now = time.time() - EVENTS
    records = []
    for k in range(EVENTS):
        who = f"c{chosen.randrange(CUSTOMERS)}"
        name = "session_id" if who.endswith("7") else "user_id"
        item = f"item-{int(ITEMS * chosen.random() ** 2)}"
        event = {"event": "view", name: who, "item_id": item, "ts": now + k}
        records.append(Record(who.encode(), orjson.dumps(event)))
    return records


async def listed(redis: Any) -> Counter[str]:
    """In how many published keys each item is."""
    found: Counter[str] = Counter()
    async for key in redis.scan_iter(count=1_000):
        kind = key.partition(b":")[0]
        if kind == b"rec":
            texts = [v for v in (await redis.hgetall(key)).values() if v.startswith(b"[")]
        elif kind in (b"similar", b"trending"):
            texts = [await redis.get(key) or b"[]"]
        else:
            continue
        found.update({entry["item_id"] for text in texts for entry in orjson.loads(text)})
    return found


async def say(shop: Shopfront, item: str, **fields: object) -> None:
    topic = shop.settings.catalog_topic
    value = None if fields.get("deleted") else orjson.dumps({"item_id": item, **fields})
    partition = partition_of(item.encode(), shop.settings.cooccurrence_partitions)
    await shop.log.send(topic, partition, [Record(item.encode(), value)])


async def test_what_cannot_be_sold_leaves_all_lists_also_when_nobody_was_there_to_see_it(
    front: Shopfront, valkey: ValkeyServer
) -> None:
    async with Redis.from_url(valkey.url, protocol=2) as redis:
        worker = front.worker()
        await front.send(views())

        async def learned() -> bool:
            return await front.accounts(USERS) >= EVENTS and len(await listed(redis)) == ITEMS

        await front.until(learned)
        everywhere = [item for item, _ in (await listed(redis)).most_common(4)]
        assert (await listed(redis))[everywhere[0]] > CUSTOMERS // 4

        def gone(item: str):  # type: ignore[no-untyped-def]
            async def is_gone() -> bool:
                return (await listed(redis))[item] == 0

            return is_gone

        rules, exclude = front.settings.rules_topic, {"action": "exclude", "price_min": 100.0}
        await front.log.send(rules, 0, [Record(b"too-dear", orjson.dumps(exclude))])
        await say(front, everywhere[3], price=100.0)
        await front.until(gone(everywhere[3]))
        await say(front, everywhere[0], stock=0)
        await front.until(gone(everywhere[0]))
        await say(front, everywhere[1], deleted=True)
        await front.until(gone(everywhere[1]))
        # Nobody is there when the next one is hidden; who starts then finds the lists in the log.
        worker.terminate()
        await asyncio.to_thread(worker.wait)
        await say(front, everywhere[2], hidden=True)
        assert (await listed(redis))[everywhere[2]] > 0
        front.worker()

        await front.until(gone(everywhere[2]))
        # Back in stock: it may be listed again, with the customers' next events.
        await say(front, everywhere[0], stock=5)
        assert (await listed(redis))[everywhere[1]] == 0
