"""What must hold when all is applied: stores and topics against a recomputation from the log."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from faults.cluster import COUNTED, Cluster
from stream_app.adapters.topics import StoredRecord, consume
from stream_app.codec import decode_transitions
from stream_app.core.state import decode_users
from stream_app.core.tables import ITEM
from stream_app.events import EventDecoder
from stream_app.offline.recompute import Customers
from stream_app.offline.recompute_items import ItemPartition, Masses
from stream_app.ports import ITEMS, USERS, RawBatch

RELATIVE = 1e-9
READ_MAX = 2_000
SHOWN_MAX = 5


@dataclass
class Verdict:
    """Counts of what is wrong, and examples in words. All zero: every guarantee held."""

    events: int = 0
    lost: int = 0
    doubled: int = 0
    divergent_customers: int = 0
    divergent_items: int = 0
    divergent_lists: int = 0
    divergent_dead_letters: int = 0
    fallen_versions: int = 0
    fallen_cursors: int = 0
    worst_mass_error: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        wrong = (
            *(self.lost, self.doubled, self.divergent_customers, self.divergent_items),
            *(self.divergent_lists, self.divergent_dead_letters),
            *(self.fallen_versions, self.fallen_cursors),
        )
        return not any(wrong) and self.worst_mass_error <= RELATIVE and not self.examples

    def note(self, what: str) -> None:
        """Remember an example."""
        if len(self.examples) < 40:
            self.examples.append(what)

    def count(self, what: str, stored: int, true: int) -> None:
        """Compare two counts of events."""
        self.lost += max(0, true - stored)
        self.doubled += max(0, stored - true)
        if stored != true:
            self.note(f"{what}: {stored} stored, {true} in the log")


Log = dict[int, list[StoredRecord]]


async def _read(cluster: Cluster, topic: str) -> Log:
    records: Log = defaultdict(list)
    async for record in consume(topic, brokers=[cluster.kafka.bootstrap]):
        records[record.partition].append(record)
    return records


async def verdict(cluster: Cluster) -> Verdict:
    """Check everything. The workers must be stopped, or idle with nothing left to do."""
    found = Verdict(fallen_cursors=len(cluster.fallen_cursors))
    found.examples += [f"cursor fell: {fall}" for fall in cluster.fallen_cursors[:SHOWN_MAX]]
    settings = cluster.settings
    clicks, pairs, lists, letters = [
        await _read(cluster, topic)
        for topic in (
            *(settings.clickstream_topic, settings.cooccurrence_topic),
            *(settings.recommendations_topic, settings.dead_letter_topic),
        )
    ]
    found.events = sum(map(len, clicks.values()))
    await _check_accounts(cluster, found, {"u": clicks, "i": pairs})
    masses, rejects, names = Masses(), set[tuple[str, ...]](), set[str]()
    for p, records in sorted(clicks.items()):
        names |= await _check_customers(cluster, found, p, records, masses, rejects)
    await _check_items(cluster, found, pairs, masses)
    await _check_lists(cluster, found, lists, names)
    _check_dead_letters(found, letters, rejects)
    return found


async def _check_accounts(cluster: Cluster, found: Verdict, logs: dict[str, Log]) -> None:
    rows = await cluster.accounts()
    for space, topic in (
        (USERS, cluster.settings.clickstream_topic),
        (ITEMS, cluster.settings.cooccurrence_topic),
    ):
        for p in range(cluster.options.partitions):
            records, row = logs[space].get(p, []), rows[topic, p]
            end = records[-1].offset + 1 if records else 0
            counted = sum(row.get(name, 0) for name in COUNTED)
            found.count(f"{topic}-{p}: accounts", counted, end)
            if row["cursor"] != end:
                found.note(f"{topic}-{p}: the cursor is {row['cursor']}, the log ends at {end}")


async def _check_customers(
    cluster: Cluster,
    found: Verdict,
    p: int,
    records: list[StoredRecord],
    masses: Masses,
    rejects: set[tuple[str, ...]],
) -> set[str]:
    """Hold the partition's customers against the log; returns their names."""
    topic = cluster.settings.clickstream_topic
    raw = RawBatch(
        topic,
        p,
        records[-1].offset + 1,
        [r.offset for r in records],
        [r.key for r in records],
        [r.value for r in records],
        [r.timestamp_ms for r in records],
        [r.headers for r in records],
    )
    decoded = EventDecoder(cluster.settings).decode(raw)
    rejects |= {
        (topic, str(p), str(raw.offsets[reject.row]), reject.reason) for reject in decoded.rejects
    }
    customers = Customers()
    customers.apply(decoded.events)
    masses.add(customers.transitions())
    ids = list(customers.customers)
    blobs = await _load(cluster, USERS, p, ids)
    users = decode_users(np.array(ids, np.uint64), blobs)
    for user, who, blob in zip(users, customers.customers.values(), blobs, strict=True):
        if blob != who.blob():
            found.divergent_customers += 1
            found.count(f"customer {who.id:016x}", int(user["events"]), who.events)
            found.note(f"customer {who.id:016x} of {topic}-{p} is not what the log says")
    return set(decoded.customers)


async def _check_items(cluster: Cluster, found: Verdict, pairs: Log, masses: Masses) -> None:
    sums, n = masses.sums(), cluster.options.partitions
    stored: dict[int, bytes] = {}
    for q in range(n):
        ids = [i for i in sums.ids.tolist() if i % n == q]
        blobs = await _load(cluster, ITEMS, q, ids)
        mine = {i: blob for i, blob in zip(ids, blobs, strict=True) if blob}
        stored |= mine
        follower = ItemPartition(q, n)
        for record in pairs.get(q, []):
            follower.apply(decode_transitions(record.value))
        differences = follower.differences(mine)
        found.divergent_items += len(differences)
        for item, why in list(differences.items())[:SHOWN_MAX]:
            found.note(f"item {item:016x} of partition {q}: {why}")
        row = (await cluster.accounts())[cluster.settings.cooccurrence_topic, q]
        found.count(f"transitions of {q}", row.get("transitions", 0), follower.transitions)
    missing = len(sums.ids) - len(stored)
    found.divergent_items += missing
    if missing:
        found.note(f"{missing} items of the clickstream are not stored")
    order = sorted(stored)
    headers = np.frombuffer(b"".join(stored[i][: ITEM.itemsize] for i in order), ITEM)
    errors = sums.errors(headers, np.array(order, np.uint64))
    found.worst_mass_error = float(errors.max(initial=0.0))
    if found.worst_mass_error > RELATIVE:
        wrong = int((errors > RELATIVE).sum())
        found.divergent_items += wrong
        found.note(f"masses of {wrong} items are off, by {found.worst_mass_error:.3g} at most")


async def _check_lists(cluster: Cluster, found: Verdict, lists: Log, names: set[str]) -> None:
    last: dict[str, dict[str, Any]] = {}
    in_epoch: dict[tuple[str, int], int] = {}
    for record in (r for records in lists.values() for r in records):
        if record.value is None or record.key is None:
            continue
        said, name = orjson.loads(record.value), record.key.decode()
        order = said["version"], said["epoch"]
        fallen = order[0] < in_epoch.get((name, order[1]), 0)
        if fallen:
            found.fallen_versions += 1
            found.note(f"{name}: version {order[0]} after a higher one of epoch {order[1]}")
        in_epoch[name, order[1]] = max(order[0], in_epoch.get((name, order[1]), 0))
        if name not in last or order >= (last[name]["version"], last[name]["epoch"]):
            last[name] = said
    if last.keys() != names:
        found.divergent_lists += len(last.keys() ^ names)
        found.note(f"lists of {sorted(last.keys() ^ names)[:SHOWN_MAX]} are missing or too many")
    for name, said in last.items():
        stored = await cluster.store.get(f"rec:{name}")
        shown = _shown(stored) if isinstance(stored, dict) else None
        if shown != _said(said):
            found.divergent_lists += 1
            has = {k: shown[k] for k in ("version", "epoch")} if shown else None
            topic = {k: said[k] for k in ("version", "epoch")}
            found.note(f"rec:{name} has {has}, the topic says {topic} last")


def _said(record: dict[str, Any]) -> dict[str, Any]:
    names = ("version", "epoch", "step", "previous_step", "next_step")
    return {**{name: record[name] for name in names}, **record["lists"]}


def _shown(stored: dict[bytes, bytes]) -> dict[str, Any]:
    """A public hash in the words of the topic, without its times."""
    fields: dict[str, Any] = {}
    for key, value in stored.items():
        name = key.decode()
        if name not in ("generated_at", "entered_at", "source"):
            is_json = name in ("version", "epoch") or value.startswith(b"[")
            fields[name] = orjson.loads(value) if is_json else value.decode()
    return fields


def _check_dead_letters(found: Verdict, letters: Log, rejects: set[tuple[str, ...]]) -> None:
    names = ("topic", "partition", "offset", "reason")
    there = set()
    for record in (r for records in letters.values() for r in records):
        headers = dict(record.headers)
        there.add(tuple(headers[name].decode() for name in names))
    found.divergent_dead_letters = len(there ^ rejects)
    if there != rejects:
        found.note(f"dead letters differ: {sorted(there ^ rejects)[:SHOWN_MAX]}")


async def _load(cluster: Cluster, space: str, p: int, ids: list[int]) -> list[bytes | None]:
    keys = [i.to_bytes(8, "little") for i in ids]
    parts = [keys[at : at + READ_MAX] for at in range(0, len(keys), READ_MAX)]
    found = await asyncio.gather(
        *(cluster.store.load(space, [p] * len(part), part) for part in parts)
    )
    return [blob for blobs in found for blob in blobs]
