"""A simulated shop's log through LEARN and RELATE over given stores, and what must hold at its end.

Every worker here looks at the store before each batch (the clock leaps, so no cache stays fresh,
and the whole catalogue is loaded): lists are then a function of what is stored, and runs that were
disturbed in different ways can be compared list by list.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import orjson

from stream_app.adapters.memory import NO_TIMESTAMP_MS, MemoryLog
from stream_app.adapters.partitioning import partition_of
from stream_app.codec import decode_transitions
from stream_app.composition import Stages, compose
from stream_app.core.tables import ITEM
from stream_app.events import EventDecoder
from stream_app.items import SEGMENTS_ID, TOP_ID
from stream_app.journeys import load_journey
from stream_app.offline.recompute import Customers
from stream_app.offline.recompute_customers import books
from stream_app.offline.recompute_items import ItemPartition, Masses
from stream_app.ports import (
    ACCOUNTS_ID,
    ITEMS,
    USERS,
    Log,
    PublicKeys,
    RawBatch,
    Record,
    StateStore,
)
from stream_app.settings import load_settings
from stream_app.simulator import LIVE, Shop

SOURCES, ITEM_PARTITIONS = 4, 3
STEP_EVENTS = 100
RELATIVE = 1e-9
SETTINGS = load_settings(
    {
        "STREAM_APP_CLICKSTREAM_PARTITIONS": str(SOURCES),
        "STREAM_APP_COOCCURRENCE_PARTITIONS": str(ITEM_PARTITIONS),
    }
)
CLICKS, PAIRS = SETTINGS.clickstream_topic, SETTINGS.cooccurrence_topic
LISTS, DEAD = SETTINGS.recommendations_topic, SETTINGS.dead_letter_topic


class Clock:
    """Ten seconds later at every look."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Unix seconds."""
        self.now += 10.0
        return self.now


class Tape:
    """A memory log whose records can be read again, in any batches."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self._rows: dict[tuple[str, int], list[Any]] = defaultdict(list)

    def rows(self, topic: str, partition: int) -> list[Any]:
        """(key, value, headers) of every record so far."""
        rows, new = self._rows[topic, partition], self.log.drain(topic, partition)
        rows.extend(zip(new.keys, new.values, new.headers, strict=True))
        return rows

    def batch(self, topic: str, partition: int, start: int, end: int | None = None) -> RawBatch:
        """Records from ``start`` to before ``end``, all there are without it."""
        rows = self.rows(topic, partition)[start:end]
        keys, values, headers = zip(*rows, strict=True) if rows else ((), (), ())
        stop = start + len(rows)
        times = [NO_TIMESTAMP_MS] * len(rows)
        return RawBatch(topic, partition, stop, range(start, stop), keys, values, times, headers)


@cache
def clickstream(events: int, seed: int = 7) -> tuple[tuple[bytes, bytes], ...]:
    """(key, value) of a small busy shop with dirt."""
    shop = Shop(
        seed=seed, n_items=150, n_customers=60, rate=5.0, pace=LIVE, dirty=0.1, detail_share=0.0
    )
    return tuple((key, _without_login(value)) for key, value in shop.events(events))


def _without_login(value: bytes) -> bytes:
    """The same event, of a session that nobody was anonymous in: a merge would append to the log
    while it is read, and each run would have a log of its own.
    """
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    if not (isinstance(event, dict) and event.get("user_id") and event.get("session_id")):
        return value
    return orjson.dumps({**event, "session_id": f"{event['session_id']}-known"})


@dataclass
class Run:
    """One log and one pair of stores; workers come and go."""

    state: StateStore
    public: PublicKeys
    events: int
    tape: Tape = field(default_factory=Tape)
    clock: Clock = field(default_factory=Clock)

    async def fill(self) -> None:
        """Put the shop's events into the log."""
        records: dict[int, list[Record]] = defaultdict(list)
        for key, value in clickstream(self.events):
            records[partition_of(key, SOURCES)].append(Record(key, value))
        for partition, part in records.items():
            await self.tape.log.send(CLICKS, partition, part)

    def worker(
        self,
        *,
        state: StateStore | None = None,
        public: PublicKeys | None = None,
        log: Log | None = None,
    ) -> Stages:
        """A worker that owns nothing yet."""
        return compose(
            SETTINGS,
            store=state or self.state,
            public=public or self.public,
            log=log or self.tape.log,
            clock=self.clock,
        )

    def end(self, topic: str, partition: int) -> int:
        """Where the partition of the log ends."""
        return len(self.tape.rows(topic, partition))

    @property
    def rounds(self) -> int:
        """How many batches the longest partition takes."""
        return max(-(-self.end(CLICKS, p) // STEP_EVENTS) for p in range(SOURCES))

    async def learn(self, stages: Stages, partition: int, end: int) -> None:
        """Let LEARN go on to before offset ``end``."""
        start = stages.learn.owned[partition].cursor or 0
        batch = self.tape.batch(CLICKS, partition, start, end)
        if len(batch):
            await stages.items.load(catalogue(self.events))
            await stages.learn.process(batch)

    async def relate(self, stages: Stages, partition: int) -> None:
        """Let RELATE merge what waits."""
        batch = self.tape.batch(PAIRS, partition, stages.relate.owned[partition].cursor or 0)
        if len(batch):
            await stages.items.load(catalogue(self.events))
            await stages.relate.process(batch)


async def take_over(
    stages: Stages,
    sources: Iterable[int] = range(SOURCES),
    items: Iterable[int] = range(ITEM_PARTITIONS),
) -> Stages:
    """Claim partitions."""
    for q in items:
        await stages.relate.assign(q)
    for p in sources:
        await stages.learn.assign(p)
    return stages


async def work(run: Run, stages: Stages, first: int = 0, last: int | None = None) -> None:
    """Rounds of a worker that owns everything: a batch of each source, then all item partitions."""
    for number in range(first, run.rounds if last is None else last):
        for p in range(SOURCES):
            await run.learn(stages, p, (number + 1) * STEP_EVENTS)
        for q in range(ITEM_PARTITIONS):
            await run.relate(stages, q)


@dataclass(frozen=True)
class Truth:
    """What the log says, recomputed."""

    customers: list[Customers]
    masses: Masses
    names: dict[int, set[str]]  # customers by source partition
    rejects: set[tuple[str, ...]]
    transitions: list[int]  # by item partition


@cache
def truth(events: int) -> Truth:
    """Recompute everything from the clickstream."""
    parts: dict[int, list[bytes]] = defaultdict(list)
    for key, value in clickstream(events):
        parts[partition_of(key, SOURCES)].append(value)
    masses, everyone, names = Masses(), [], {}
    rejects: set[tuple[str, ...]] = set()
    counts = np.zeros(ITEM_PARTITIONS, np.int64)
    for p in range(SOURCES):
        values, n = parts[p], len(parts[p])
        nothing: Sequence[Any] = [None] * n
        raw = RawBatch(CLICKS, p, n, range(n), nothing, values, [-1] * n, [()] * n)
        found = EventDecoder(SETTINGS).decode(raw)
        customers = Customers(load_journey())
        customers.apply(found.events, found.customers, found.data)
        rows = customers.transitions()
        masses.add(rows)
        for row in rows:
            ids = {int(i) for i in (row["item"], *row["previous"]) if i}
            for q in {i % ITEM_PARTITIONS for i in ids}:
                counts[q] += 1
        everyone.append(customers)
        names[p] = set(found.customers)
        rejects |= {(CLICKS, str(p), str(reject.row), reject.reason) for reject in found.rejects}
    return Truth(everyone, masses, names, rejects, counts.tolist())


@cache
def catalogue(events: int) -> Any:
    """Ids of all items in transitions, ``(n,) uint64``."""
    return truth(events).masses.sums().ids


async def stored_items(run: Run, q: int) -> dict[int, bytes]:
    """What the store holds of the items of partition ``q``."""
    ids = [int(i) for i in catalogue(run.events) if int(i) % ITEM_PARTITIONS == q]
    keys = [i.to_bytes(8, "little") for i in ids]
    blobs = await run.state.load(ITEMS, [q] * len(keys), keys)
    return {i: blob for i, blob in zip(ids, blobs, strict=True) if blob}


async def faults(run: Run) -> list[str]:
    """What is wrong at the end of the log; empty when every guarantee holds."""
    found: list[str] = []
    expected = truth(run.events)
    for space, topic, partitions in ((USERS, CLICKS, SOURCES), (ITEMS, PAIRS, ITEM_PARTITIONS)):
        for p in range(partitions):
            (blob,) = await run.state.load(space, [p], [ACCOUNTS_ID])
            row = orjson.loads(blob or b"{}")
            counted = ("applied", "rejected", "dead_lettered", "skipped")
            if not sum(row[name] for name in counted) == row["cursor"] == run.end(topic, p):
                found.append(f"{topic}-{p}: accounts {row}, the log ends at {run.end(topic, p)}")
            if space == ITEMS and row["transitions"] != expected.transitions[p]:
                found.append(f"{topic}-{p}: {row['transitions']}, not {expected.transitions[p]}")
    for p, customers in enumerate(expected.customers):
        keys = [key.to_bytes(8, "little") for key in customers.customers]
        blobs = await run.state.load(USERS, [p] * len(keys), keys)
        truths = [who.blob() for who in customers.customers.values()]
        wrong = sum(books(blob) != true for blob, true in zip(blobs, truths, strict=True))
        if wrong:
            found.append(f"{CLICKS}-{p}: {wrong} customers differ")
    found += await item_faults(run)
    found += await list_faults(run)
    letters = {
        tuple(dict(headers)[name].decode() for name in ("topic", "partition", "offset", "reason"))
        for p in range(SOURCES)
        for _, _, headers in run.tape.rows(DEAD, p)
    }
    if letters != expected.rejects:
        found.append(f"dead letters differ: {letters ^ expected.rejects}")
    return found


async def item_faults(run: Run) -> list[str]:
    """Conservation from end to end, and each item partition from its own log."""
    found, everything = [], {}
    for q in range(ITEM_PARTITIONS):
        blobs = await stored_items(run, q)
        everything.update(blobs)
        follower = ItemPartition(q, ITEM_PARTITIONS)
        for _, value, _ in run.tape.rows(PAIRS, q):
            follower.apply(decode_transitions(value))
        found += [f"item {i:016x}: {why}" for i, why in follower.differences(blobs).items()]
    sums = truth(run.events).masses.sums()
    missing = set(sums.ids.tolist()) - everything.keys()
    if missing:
        found.append(f"{len(missing)} items are not stored")
    ids = np.array(sorted(everything), np.uint64)
    headers = np.frombuffer(
        b"".join(everything[i][: ITEM.itemsize] for i in sorted(everything)), ITEM
    )
    worst = float(sums.errors(headers, ids).max(initial=0.0))
    if worst > RELATIVE:
        found.append(f"masses are off by {worst:.3g}")
    return found


async def list_faults(run: Run) -> list[str]:
    """The last list on the topic is the one in the store, for every customer."""
    found = []
    for p, names in truth(run.events).names.items():
        last: dict[str, dict[str, Any]] = {}
        for key, value, _ in run.tape.rows(LISTS, p):
            said = orjson.loads(value)
            before = last.get(key.decode(), said)
            if (said["version"], said["epoch"]) >= (before["version"], before["epoch"]):
                last[key.decode()] = said
        if last.keys() != names:
            found.append(f"{LISTS}-{p}: customers {last.keys() ^ names}")
        for name, said in last.items():
            stored = await run.public.get(f"rec:{name}")
            fields = {k: v for k, v in said.items() if k not in ("user_id", "lists", *UNSHOWN)}
            if not isinstance(stored, dict) or shown(stored) != fields | said["lists"]:
                found.append(f"rec:{name} is not what {LISTS}-{p} said last")
    return found


UNSHOWN = ("generated_at", "entered_at", "source")


def shown(stored: dict[bytes, bytes]) -> dict[str, Any]:
    """A public hash without its times."""
    fields: dict[str, Any] = {}
    for key, value in stored.items():
        name = key.decode()
        if name in UNSHOWN:
            continue
        try:
            fields[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            fields[name] = value.decode()  # a string, without its quotes
    return fields


async def outcome(run: Run) -> dict[str, Any]:
    """All that two runs over the same log must have in common, bit for bit."""
    result: dict[str, Any] = {}
    for p, customers in enumerate(truth(run.events).customers):
        keys = [key.to_bytes(8, "little") for key in customers.customers]
        blobs = await run.state.load(USERS, [p] * (len(keys) + 1), [*keys, ACCOUNTS_ID])
        result[f"customers {p}"] = dict(zip([*keys, ACCOUNTS_ID], blobs, strict=True))
        result[f"partition {p}"] = (await run.state.claim(USERS, p)).meta
        for name in truth(run.events).names[p]:
            stored = await run.public.get(f"rec:{name}")
            lists = shown(stored) if isinstance(stored, dict) else {}
            lists.pop("epoch", None)  # counts claims, and a crash costs one
            result[f"rec:{name}"] = lists
    for q in range(ITEM_PARTITIONS):
        result[f"items {q}"] = await stored_items(run, q)
        result[f"top {q}"] = await run.state.load(ITEMS, [q, q], [TOP_ID, SEGMENTS_ID])
    return result
