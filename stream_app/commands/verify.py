"""``verify``: recompute everything from the log, compare it with what is stored and published."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.table import Table

from stream_app.adapters.redis_store import RedisStore
from stream_app.adapters.topics import StoredRecord, consume
from stream_app.admission import Admission
from stream_app.codec import decode_transitions
from stream_app.commands.console import command, console, plain
from stream_app.composition import guarded
from stream_app.core.audience import Audience
from stream_app.core.model import KIND, Model
from stream_app.core.tables import ITEM
from stream_app.errors import EventRejected, StreamAppError
from stream_app.events import EventDecoder
from stream_app.hashing import customer_id
from stream_app.journeys import load_journey
from stream_app.model_file import load_model
from stream_app.offline.recompute import Customers
from stream_app.offline.recompute_customers import agree_but_for_migration, books
from stream_app.offline.recompute_items import ItemPartition, Masses, Sums
from stream_app.ports import ACCOUNTS_ID, ITEMS, USERS, RawBatch
from stream_app.settings import Settings
from stream_app.suppression import Suppression
from stream_app.worker import redis_store, security

CHUNK_RECORDS = 5_000
LOAD_BLOBS = 2_000
SHOWN_MAX = 10
ATTEMPTS = 4
HAND_OVER_MAX_S = 1.5  # from an event that is applied until item partitions have heard of it
ERROR_MAX = 1e-9  # of an item's masses, relative: what summing in another order may do


def register(app: Any, settings: Settings) -> None:
    """Add the command of this module to ``app``."""

    async def verify(migrated: bool) -> None:
        """Recompute all state from the log and compare; run it while few events arrive."""
        result = await verified(settings, migrated=migrated)
        plain(orjson.dumps(result).decode())
        if not result["passed"]:
            raise SystemExit(1)

    migrated = "State comes from an older schema: what that did not keep of customers may lack."
    app.command(click.option("--migrated", is_flag=True, help=migrated))(command(verify))


@dataclass(slots=True)
class Source:
    """A clickstream partition, recomputed. ``end`` is one past the last record of the log."""

    customers: Customers
    end: int = 0
    names: set[str] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)  # offsets that belong into the dead letters


@dataclass(slots=True)
class Findings:
    """Sums over all partitions, and the first few faults in words."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    error: float = 0.0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Note what is wrong; the words of the first ones are enough."""
        self.counts["faults"] += 1
        if len(self.faults) < SHOWN_MAX:
            self.faults.append(text)


async def verified(settings: Settings, *, migrated: bool = False) -> dict[str, Any]:
    """Read the topics, recompute, compare with Redis, print a table; the totals.

    With ``migrated`` customers may lack what older schemas did not keep (``migrated_customers``).
    What differs because workers went on meanwhile, or have gathered what they go on with (counts
    of items follow the customers, time-outs come without any event), is looked at again. Memory
    grows with customers, items and transitions of the log. Raises ``StreamAppError`` when the log
    no longer begins with the first event: then its state cannot be recomputed.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            console.print("workers went on while the log was read: reading it again")
        before = await _cursors(settings)
        result = await _verified_once(settings, migrated)
        if result["passed"]:
            break
        await asyncio.sleep(settings.relate_linger_s + HAND_OVER_MAX_S)
        if await _cursors(settings) == before:
            break
    return result


async def _cursors(settings: Settings) -> list[int]:
    """How far each partition of either stage is."""
    store = redis_store(settings)
    counts = {USERS: settings.clickstream_partitions, ITEMS: settings.cooccurrence_partitions}
    try:
        return [
            (await _accounts(store, space, partition))["cursor"]
            for space, count in counts.items()
            for partition in range(count)
        ]
    finally:
        await store.close()


async def _verified_once(settings: Settings, migrated: bool) -> dict[str, Any]:
    model = guarded(load_model(settings.model_file), settings)
    masses, expected = Masses(model), np.zeros((2, settings.cooccurrence_partitions), int)
    sources = await _read_clicks(settings, masses, expected)
    followers, ends = await _read_pairs(settings, model)
    letters = await _read_dead_letters(settings)
    findings, table = Findings(), _table()
    store = redis_store(settings)
    try:
        for p, source in enumerate(sources):
            await _compare_source(store, settings, p, source, letters, findings, table, migrated)
        sums = masses.sums()
        for q, follower in enumerate(followers):
            blobs = await _item_blobs(store, q, follower)
            differences = follower.differences(blobs)
            for item, why in differences.items():
                findings.fault(f"{settings.cooccurrence_topic}-{q}, item {item:016x}: {why}")
            error = _mass_error(sums, blobs)
            findings.error = max(findings.error, error)
            findings.counts["items"] += len(blobs)
            findings.counts["divergent_items"] += len(differences)
            row = await _accounts(store, ITEMS, q)
            _count_pairs(findings, row, *(expected[:, q] * (1, migrated)).tolist())
            state = f"{len(differences)} of {len(blobs)} items differ, error {error:.1e}"
            _add_row(table, f"{settings.cooccurrence_topic}-{q}", ends[q], row, state)
        divergent = await _compare_lists(store, settings, sources, findings)
    finally:
        await store.close()
    console.print(table)
    for text in findings.faults:
        console.print(text, style="red", markup=False)
    return _result(findings, sources, divergent)


def _result(findings: Findings, sources: Sequence[Source], divergent_lists: int) -> dict[str, Any]:
    if findings.error > ERROR_MAX and not findings.counts["late_refunds"]:
        findings.fault("masses differ")
    names = (
        *("applied", "dead_lettered", "rejected", "skipped", "lost", "doubled", "customers"),
        *("migrated_customers", "divergent_customers", "items", "divergent_items"),
    )
    return {
        "events": sum(source.end for source in sources),
        **{name: findings.counts[name] for name in names},
        "item_mass_max_relative_error": findings.error,
        "divergent_lists": divergent_lists,
        "passed": not findings.counts["faults"],
    }


# -- reading the log


async def _chunks(settings: Settings, topic: str) -> AsyncIterator[tuple[int, list[StoredRecord]]]:
    """Records of ``topic`` by partition, some thousand at a time, in order."""
    waiting: dict[int, list[StoredRecord]] = defaultdict(list)
    brokers = settings.bootstrap.split(",")
    async for record in consume(topic, brokers=brokers, security=security(settings)):
        chunk = waiting[record.partition]
        chunk.append(record)
        if len(chunk) == CHUNK_RECORDS:
            yield record.partition, waiting.pop(record.partition)
    for partition, chunk in waiting.items():
        yield partition, chunk


async def _read_clicks(
    settings: Settings, masses: Masses, expected: NDArray[np.int64]
) -> list[Source]:
    """Customers; adds to ``masses``, and to ``expected``: transitions and late refunds by items."""
    journey = load_journey(settings.journey_file)
    sources = [
        Source(Customers(journey, masses.model)) for _ in range(settings.clickstream_partitions)
    ]
    decoder = EventDecoder(settings)
    admission = Admission(
        Suppression(customers_max=settings.erasures_max), Audience(customers_max=1)
    )
    partitions = np.uint64(settings.cooccurrence_partitions)
    async for p, records in _chunks(settings, settings.clickstream_topic):
        source = sources[p]
        if source.end == 0 and records[0].offset > 0:
            raise StreamAppError(
                f"{settings.clickstream_topic}-{p} begins at offset {records[0].offset}: older"
                " events have expired, so state cannot be recomputed; verify before"
                " STREAM_APP_CLICKSTREAM_RETENTION_DAYS have passed"
            )
        found = decoder.decode(_raw(records))
        admission.refuse(found.events, found.aliases.former_ids())
        for row in np.flatnonzero(found.events["kind"] == KIND["erase"]).tolist():
            admission.suppression.add(
                int(found.events["customer"][row]), float(found.events["ts"][row])
            )
        source.customers.apply(found.events, found.customers, found.data)
        source.names.update(found.customers)
        source.rejected.update(records[reject.row].offset for reject in found.rejects)
        source.end = records[-1].offset + 1
        rows = source.customers.transitions()
        masses.add(rows)
        ids = np.concatenate((rows["item"][:, None], rows["previous"]), axis=1)
        owners = np.where(ids == 0, -1, (ids % partitions).astype(np.int64))
        late = (rows["weight"] < 0.0) & (rows["previous"] == 0).all(axis=1)
        for q in range(expected.shape[1]):
            own = (owners == q).any(axis=1)
            expected[:, q] += own.sum(), (own & late).sum()
    return sources


def _raw(records: Sequence[StoredRecord]) -> RawBatch:
    return RawBatch(
        records[0].topic,
        records[0].partition,
        records[-1].offset + 1,
        [record.offset for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.timestamp_ms for record in records],
        [record.headers for record in records],
    )


async def _read_pairs(settings: Settings, model: Model) -> tuple[list[ItemPartition], list[int]]:
    """Follow every item partition through its own log; and where the logs end."""
    n = settings.cooccurrence_partitions
    followers, ends = [ItemPartition(q, n, model) for q in range(n)], [0] * n
    async for q, records in _chunks(settings, settings.cooccurrence_topic):
        for record in records:
            try:
                followers[q].apply(decode_transitions(record.value))
            except EventRejected:
                continue  # dead-lettered by RELATE as well
        ends[q] = records[-1].offset + 1
    return followers, ends


async def _read_dead_letters(settings: Settings) -> set[tuple[str, int]]:
    """(partition, offset) of the clickstream records that were set aside."""
    letters: set[tuple[str, int]] = set()
    async for _, records in _chunks(settings, settings.dead_letter_topic):
        for record in records:
            headers = dict(record.headers)
            if headers.get("topic") == settings.clickstream_topic.encode():
                letters.add((headers["partition"].decode(), int(headers["offset"])))
    return letters


# -- comparing


async def _accounts(store: RedisStore, space: str, partition: int) -> dict[str, int]:
    (blob,) = await store.load(space, [partition], [ACCOUNTS_ID])
    names = ("cursor", "applied", "dead_lettered", "rejected", "skipped", "transitions")
    return dict.fromkeys(names, 0) | (orjson.loads(blob) if blob else {})


async def _compare_source(
    store: RedisStore,
    settings: Settings,
    p: int,
    source: Source,
    letters: set[tuple[str, int]],
    findings: Findings,
    table: Table,
    migrated: bool,
) -> None:
    """The accounts, dead letters and customers of one clickstream partition."""
    where = f"{settings.clickstream_topic}-{p}"
    row = await _accounts(store, USERS, p)
    accounted = sum(row[name] for name in ("applied", "dead_lettered", "rejected", "skipped"))
    lost = max(0, source.end - min(accounted, row["cursor"]))
    lost += sum((str(p), offset) not in letters for offset in source.rejected)
    doubled = max(0, accounted - row["cursor"])
    policy = source.customers.rejected
    if lost or doubled or (row["applied"], row["rejected"]) != (source.customers.applied, policy):
        findings.fault(
            f"{where}: {lost} lost, {doubled} doubled; {row['applied']} applied and"
            f" {row['rejected']} rejected, the log says {source.customers.applied} and {policy}"
        )
    everyone = list(source.customers.customers.values())
    differ = lacking = 0
    for start in range(0, len(everyone), LOAD_BLOBS):
        part = everyone[start : start + LOAD_BLOBS]
        keys = [who.id.to_bytes(8, "little") for who in part]
        blobs = await store.load(USERS, [p] * len(keys), keys)
        for blob, who in zip(blobs, part, strict=True):
            if books(blob) != (true := who.blob()):
                lacks = migrated and agree_but_for_migration(blob, true)
                lacking, differ = lacking + lacks, differ + (not lacks)
    if differ:
        findings.fault(f"{where}: {differ} of {len(everyone)} customers differ from the log")
    for name in ("applied", "dead_lettered", "rejected", "skipped"):
        findings.counts[name] += row[name]
    findings.counts["lost"] += lost
    findings.counts["doubled"] += doubled
    findings.counts["customers"] += len(everyone)
    findings.counts["divergent_customers"] += differ
    findings.counts["migrated_customers"] += lacking
    _add_row(table, where, source.end, row, f"{differ} of {len(everyone)} customers differ")


def _count_pairs(findings: Findings, row: dict[str, int], expected: int, late: int) -> None:
    """Transitions merged against the clickstream's, of which ``late`` refunds may lack."""
    found = row["transitions"]
    if 0 < expected - found <= late:  # migrated customers did not know when they had bought it
        findings.counts["late_refunds"] += 1
        found = expected
    findings.counts["lost"] += max(0, expected - found)
    findings.counts["doubled"] += max(0, found - expected)
    if found != expected:
        findings.fault(f"{found} transitions were merged, the log has {expected}")


async def _item_blobs(store: RedisStore, q: int, follower: ItemPartition) -> dict[int, bytes]:
    ids = list(follower.tables)
    found: dict[int, bytes] = {}
    for start in range(0, len(ids), LOAD_BLOBS):
        part = ids[start : start + LOAD_BLOBS]
        keys = [item.to_bytes(8, "little") for item in part]
        blobs = await store.load(ITEMS, [q] * len(keys), keys)
        found.update((item, blob) for item, blob in zip(part, blobs, strict=True) if blob)
    return found


def _mass_error(sums: Sums, blobs: dict[int, bytes]) -> float:
    headers = np.frombuffer(b"".join(blob[: ITEM.itemsize] for blob in blobs.values()), ITEM)
    return float(sums.errors(headers, np.array(list(blobs), np.uint64)).max(initial=0.0))


async def _compare_lists(
    store: RedisStore, settings: Settings, sources: Sequence[Source], findings: Findings
) -> int:
    """The last list on the topic is the one in Redis, and every known customer has one."""
    last: dict[str, tuple[int, int, bytes]] = {}
    async for _, records in _chunks(settings, settings.recommendations_topic):
        for record in records:
            name = (record.key or b"").decode()
            if record.value is None:  # erased
                last.pop(name, None)
                continue
            said = orjson.loads(record.value)
            version, epoch = said["version"], said["epoch"]
            if (version, epoch) >= last.get(name, (0, 0, b""))[:2]:
                lists = orjson.dumps(said["lists"], option=orjson.OPT_SORT_KEYS)
                last[name] = (version, epoch, lists)
    divergent = 0
    for name, said in last.items():
        stored = await store.get(f"rec:{name}")
        if not isinstance(stored, dict) or _published(stored) != said:
            divergent += 1
            findings.fault(f"rec:{name} is not what the topic said last (version {said[0]})")
    for source in sources:
        for name in sorted(source.names - last.keys()):
            if (
                customer_id(name) in source.customers.customers
            ):  # else erased, and rightly without a list
                divergent += 1
                findings.fault(f"{name!r} has no list on {settings.recommendations_topic}")
    return divergent


def _published(stored: dict[bytes, bytes]) -> tuple[int, int, bytes]:
    lists = {
        key.decode(): orjson.loads(value) for key, value in stored.items() if value[:1] == b"["
    }
    text = orjson.dumps(lists, option=orjson.OPT_SORT_KEYS)
    return int(stored[b"version"]), int(stored[b"epoch"]), text


# -- the table


def _table() -> Table:
    return Table(
        *("partition", "log end", "cursor", "applied", "dead-lettered", "rejected", "skipped"),
        "state against the log",
    )


def _add_row(table: Table, where: str, end: int, row: dict[str, int], state: str) -> None:
    names = ("cursor", "applied", "dead_lettered", "rejected", "skipped")
    table.add_row(where, str(end), *(str(row[name]) for name in names), state)
