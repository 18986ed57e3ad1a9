"""Microseconds of CPU that each candidate source outside the kernel takes for one list."""

import asyncio
import time

import numpy as np
import orjson

from stream_app.candidates import GIVEN, Candidates
from stream_app.core.catalog import CatalogItem
from stream_app.core.state import decode_users
from stream_app.hashing import stable_hash
from stream_app.offline.engine import Engine
from stream_app.ports import USERS
from stream_app.settings import load_settings
from stream_app.simulator.pace import LIVE
from stream_app.simulator.shop import Shop

EVENTS, LISTS, ROUNDS, CHUNK = 20_000, 64, 30, 1_000


def source_us(events: int = EVENTS) -> dict[str, float]:
    """Median over batches of 64 lists, after ``events`` of a simulated shop; one key a source."""
    return asyncio.run(_measure(events))


async def _measure(events: int) -> dict[str, float]:
    shop = Shop(seed=3, n_items=5_000, n_customers=2_000, rate=5.0, pace=LIVE, dirty=0.0)
    values = [value for _, value in shop.events(events)]
    engine = Engine(load_settings({}), list_size=10, exclude_seen=False)
    await engine.start()
    for at in range(0, len(values), CHUNK):
        await engine.apply(values[at : at + CHUNK])
    parsed = [orjson.loads(value) for value in values]
    items = dict.fromkeys(e["item_id"] for e in parsed if e.get("item_id"))
    engine.describe([CatalogItem(i, title=f"{i} of group {len(i)} {i[-1:]}") for i in items])
    who = dict.fromkeys(e["user_id"] for e in reversed(parsed) if e.get("user_id"))
    ids = np.array([stable_hash(str(name)) for name in list(who)[:LISTS]], np.uint64)
    blobs = await engine.stages.learn._store.load(USERS, [0] * len(ids), [i.tobytes() for i in ids])
    users = decode_users(ids, blobs)
    rows = np.arange(len(users))
    segments = np.zeros((len(users), 2), np.uint32)
    found = {}
    for source in sorted(GIVEN):
        stages = engine.stages
        drawer = Candidates(stages.items, stages.catalog, stages.audience, sources={source})
        times = []
        for _ in range(ROUNDS):
            started = time.process_time()
            drawer.draw(users, rows, None, users["last_ts"].copy(), segments)
            times.append(time.process_time() - started)
        found[source] = round(1e6 * float(np.median(times)) / len(users), 2)
    return found
