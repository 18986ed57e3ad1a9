"""Print what is left of a small shop's log, in pieces: ``python -m tests.contract.lived``.

One JSON object: what a piece is, and the digest of its bytes.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import cos

import orjson

from stream_app.adapters.memory import NO_TIMESTAMP_MS
from stream_app.adapters.partitioning import partition_of
from stream_app.ports import RawBatch, Record
from stream_app.settings import load_settings
from stream_app.simulator import LIVE
from stream_app.simulator import Shop as Simulated
from tests.contract.warmed import DAY_S, NOW, Shop

STEPS, STEP_EVENTS, ITEMS, CUSTOMERS = 8, 60, 80, 20
SOURCES = 2
SETTINGS = load_settings(
    {
        "STREAM_APP_CLICKSTREAM_PARTITIONS": str(SOURCES),
        "STREAM_APP_COOCCURRENCE_PARTITIONS": "1",
        "STREAM_APP_EXTRA_SOURCES": "content,embedding,jaccard,segment,trending,user_knn",
        "STREAM_APP_DIVERSITY": "0.2",
    }
)
RULES: Mapping[str, Mapping[str, object]] = {
    "never": {"action": "exclude", "items": ["i1"]},
    "dear": {"action": "boost", "price_min": 50.0, "factor": 1.5},
    "first": {"action": "pin", "items": ["i2"], "place": 2},
    "many": {"action": "cap", "by": "brand", "most": 3},
    "wrong": {"action": "hide"},  # dead-lettered
}
COFFEE = {"event": "purchase", "user_id": "u11", "item_id": "i1", "price": 11.16}


async def follow(shop: Shop, topic: str, said: Iterable[tuple[str, Mapping[str, object]]]) -> None:
    """The worker reads records of a topic that is read whole."""
    keys, values = zip(*((key.encode(), orjson.dumps(fields)) for key, fields in said), strict=True)
    n = len(keys)
    times = [NO_TIMESTAMP_MS] * n
    (follower,) = [one for one in shop.stages.followers if one.topic == topic]
    await follower.process(RawBatch(topic, 0, n, range(n), keys, values, times, [()] * n))
    await follower.dead_letter()


async def open_with(shop: Shop, simulated: Simulated) -> None:
    """A worker takes over, and reads items, customers and rules before it takes events."""
    await shop.start()
    items = [orjson.loads(value) for _, value in simulated.catalog.records()]
    for k, item in enumerate(items):
        item |= {"stock": float(k % 7), "embedding": [cos(k * j) for j in range(1, 9)]}
    people = [orjson.loads(value) for _, value in simulated.customers.records()]
    await follow(shop, SETTINGS.catalog_topic, ((item["item_id"], item) for item in items))
    await follow(shop, SETTINGS.users_topic, ((one["user_id"], one) for one in people))
    await follow(shop, SETTINGS.rules_topic, RULES.items())


async def read(shop: Shop, events: Iterable[tuple[bytes, bytes]]) -> None:
    """All stages take a batch of (key, JSON), and what follows from it."""
    parts: dict[int, list[Record]] = defaultdict(list)
    for key, value in events:
        parts[partition_of(key, SOURCES)].append(Record(key, value))
    for partition, records in parts.items():
        await shop.tape.log.send(SETTINGS.clickstream_topic, partition, records)
    await shop.work()


async def happen(shop: Shop, key: str, **fields: object) -> None:
    """One event now."""
    shop.now += 1.0
    await read(shop, [(key.encode(), orjson.dumps({"ts": shop.now, **fields}))])


async def live(shop: Shop, *, seed: int = 7, steps: int = STEPS) -> None:
    """Batches with dirt, then what they lack: a login, time-outs, repeat purchases, an erasure.

    A second worker takes over in between, and an item is sold out.
    """
    simulated = Simulated(
        seed=seed, n_items=ITEMS, n_customers=CUSTOMERS, start_ts=NOW, rate=5.0, pace=LIVE,
        dirty=0.08,
    )  # fmt: skip
    await open_with(shop, simulated)
    for _ in range(steps):
        shop.now += STEP_EVENTS / 5.0
        await read(shop, simulated.events(STEP_EVENTS))
    phone = {"session_id": "phone", "channel": "web"}
    await happen(shop, "phone", event="view", item_id="i3", **phone)
    await happen(shop, "phone", event="add_to_cart", item_id="i4", price=5.0, **phone)
    await happen(shop, "u11", event="view", item_id="i5", user_id="u11", **phone)
    await happen(shop, "u11", order_id="o1", **COFFEE)
    await shop.later(DAY_S / 12.0)
    await open_with(shop, simulated)
    await follow(shop, SETTINGS.catalog_topic, [("i0", {"item_id": "i0", "stock": 0})])
    await shop.stages.withdraw.step()
    await shop.work()
    for week in range(1, 4):
        await shop.later(7.0 * DAY_S)
        await happen(shop, "u11", order_id=f"o{week + 1}", **COFFEE)
    await shop.later(40.0 * DAY_S)
    await happen(shop, "u8", event="erase", user_id="u8")


def pieces(shop: Shop) -> dict[str, str]:
    """Digests of what the stores and the log hold, by what it is; of a claim not its token."""
    found: dict[str, object] = {}
    for (space, number), part in shop.state.snapshot().partitions.items():
        name = f"{space}{number}"
        found |= {f"{name} blob {key!r}": blob for key, blob in part.blobs.items()}
        found |= {f"{name} own": part.meta, f"{name} outbox": part.outbox}
        found[f"{name} cursor"] = part.epoch, part.cursor
    found |= {f"public {key}": value for key, value in shop.public._records.items()}
    for topic in sorted(topic for name, topic in SETTINGS if name.endswith("_topic")):
        for number in range(SOURCES):
            rows = enumerate(shop.tape.rows(topic, number))
            found |= {f"record {topic}-{number} {offset}": row for offset, row in rows}
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in found.items()}


def lived() -> dict[str, str]:
    """The pieces of one run."""
    shop = Shop(SETTINGS)
    asyncio.run(live(shop))
    return pieces(shop)


if __name__ == "__main__":
    print(orjson.dumps(lived()).decode())
