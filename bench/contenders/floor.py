"""The floor: our transport, store and producer doing the pipeline's calls, and no more.

``faust -A bench.contenders.floor worker``. Batches come from the same transport; for each the
reads, the fenced commit and the messages of a recorded batch (:mod:`bench.tape`) are done again,
in proportion to its size. As in the product, the next batch of a clickstream partition begins when
this one is stored, and its commit waits until this one is published. What remains to the pipeline
is the price of computing.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import orjson

from bench.tape import Entry, Tape
from stream_app.adapters.limits import Limits
from stream_app.adapters.loop import use_fast_loop
from stream_app.adapters.transport import add_stage, make_app
from stream_app.ports import ACCOUNTS_ID, ITEMS, USERS, Claim, Commit, RawBatch, Record
from stream_app.settings import Settings, load_settings
from stream_app.stocking import STOCK
from stream_app.worker import kafka_log, redis_store

use_fast_loop()
settings = load_settings()
tape = Tape.read(Path(os.environ["BENCH_TAPE"]))
store = redis_store(settings)
log = kafka_log(settings)
claims: dict[tuple[str, int], Claim] = {}
cursors: dict[tuple[str, int], int | None] = {}
publishing: dict[tuple[str, int], asyncio.Task[None]] = {}
entries = {
    (space, p): cycle(found)
    for space, stage in ((USERS, tape.learn), (ITEMS, tape.relate), (STOCK, tape.stock))
    for p, found in stage.items()
    if found
}
spaces = {
    settings.clickstream_topic: USERS,
    settings.cooccurrence_topic: ITEMS,
    settings.sales_topic: STOCK,
}
names = load_settings({})
topics: dict[str, str] = {
    getattr(names, name): getattr(settings, name)
    for name in Settings.model_fields
    if name.endswith("_topic")
}


async def start_offsets(
    partitions: set[tuple[str, int]],
) -> Mapping[tuple[str, int], int | None]:
    """Claim, as the product does."""
    for topic, p in partitions:
        space = spaces[topic]
        claims[space, p] = await store.claim(space, p)
        cursors[space, p] = claims[space, p].cursor
    return {(topic, p): cursors[spaces[topic], p] for topic, p in partitions}


async def stored(space: str, batch: RawBatch) -> asyncio.Task[None]:
    """Do a recorded batch's calls for ``batch`` up to the commit; returns what publishes it."""
    at = (space, batch.partition)
    entry = next(entries[at])
    part = min(1.0, len(batch) / entry.records)
    for where, partitions, ids in entry.loads:
        n = _share(ids, part)
        await store.load(where, partitions[:n], ids[:n])
    assert entry.commit is not None
    accounts = (ACCOUNTS_ID, orjson.dumps({"cursor": batch.next_offset}))
    writes = entry.commit.writes
    step = Commit(
        cursors[at],
        batch.next_offset,
        [*writes[: _share(writes, part)], accounts],
        entry.commit.meta,
        entry.commit.outbox[: _share(entry.commit.outbox, part)],
    )
    if at in publishing:  # the commit takes the place of its outbox
        await publishing[at]
    await store.commit(claims[at], step)
    cursors[at] = step.cursor
    publishing[at] = asyncio.create_task(publish(entry, batch, part))
    return publishing[at]


async def publish(entry: Entry, batch: RawBatch, part: float) -> None:
    """Send the messages and write the public keys of a batch."""
    await asyncio.gather(*_sends(entry, batch, part))
    if entry.hashes:
        version = batch.next_offset
        hashes = entry.hashes[: _share(entry.hashes, part)]
        await store.put_hashes([record._replace(version=version) for record in hashes])
    if entry.values:
        await store.put_values(entry.values[: _share(entry.values, part)])


def _sends(entry: Entry, batch: RawBatch, part: float) -> list[asyncio.Future[None]]:
    found: list[asyncio.Future[None]] = []
    for topic, partition, records in entry.sends:
        if len(records) == 1 and topic != names.recommendations_topic:
            # One record that grows with the batch.
            value = records[0].value or b""
            records = [Record(None, value[: _share(value, part)])]
        else:
            records = records[: _share(records, part)]
        found.append(asyncio.ensure_future(log.send(topics[topic], partition, records)))
    return found


def _share(things: Sequence[object], part: float) -> int:
    return -int(-len(things) * part // 1)


async def learn(batch: RawBatch) -> None:
    """The clickstream."""
    published = await stored(USERS, batch)
    batch.stored()
    await published


async def later(batch: RawBatch) -> None:
    """Pairs and sales, in batches gathered as long as the product gathers them."""
    await (await stored(spaces[batch.topic], batch))


app = make_app(
    settings.app_id,
    brokers=settings.bootstrap.split(","),
    start_offsets=start_offsets,
    limits=Limits(batch_records_max=settings.batch_events_max),
    web_port=settings.web_port,
)
add_stage(app, "learn", settings.clickstream_topic, learn)
add_stage(app, "relate", settings.cooccurrence_topic, later, every_s=settings.relate_linger_s)
add_stage(app, "stock", settings.sales_topic, later, every_s=settings.relate_linger_s)
