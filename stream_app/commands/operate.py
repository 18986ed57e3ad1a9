"""``topics``, ``check`` and ``replay``: prepare, inspect and feed a deployment."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import ensure_topics
from stream_app.commands.console import command, console, plain
from stream_app.offline.eventfile import EventTable, read_events
from stream_app.pipeline import ACCOUNTS_ID
from stream_app.ports import ITEMS, USERS, Record
from stream_app.rebuild import rebuilt
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.worker import kafka_log, redis_store, security, topic_specs

CHUNK_EVENTS = 8_000
PACE_S = 0.1


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def topics() -> None:
        """Create the topics, or check the ones that are there."""
        reports = await ensure_topics(
            topic_specs(settings),
            brokers=settings.bootstrap.split(","),
            security=security(settings),
        )
        table = Table("topic", "partitions", "state", "differs from our settings")
        for report in reports:
            differences = ", ".join(
                f"{name}: {found} (ours {wanted})"
                for name, (wanted, found) in report.differences.items()
            )
            state = "created" if report.created else "there"
            table.add_row(report.name, str(report.partitions), state, differences or "-")
        console.print(table)

    async def check() -> None:
        """Check configuration, Redis and topics, and show the accounts of every partition."""
        store = redis_store(settings)
        try:
            for server in await store.check():
                console.print(f"Redis: {server['server']}, {server['mode']}, {server['role']}")
                console.print(f"  persistence: {server['persistence']}")
                for warning in server["warnings"]:
                    console.print(f"  warning: {warning}", style="yellow")
            await topics()
            await _accounts(store, settings)
        finally:
            await store.close()

    async def erase(user: str, session: bool) -> None:
        """Forget USER: state, lists and profile go, a tombstone follows on the topic."""
        log = kafka_log(settings)
        name = "session_id" if session else "user_id"
        event = {"event": "erase", name: user, "ts": time.time()}
        partition = partition_of(user.encode(), settings.clickstream_partitions)
        try:
            await log.send(
                settings.clickstream_topic,
                partition,
                [Record(user.encode(), orjson.dumps(event))],
            )
        finally:
            await log.stop()
        plain(f"erasure of {user!r} is in {settings.clickstream_topic}-{partition}")

    _register_recompute(app, settings)
    app.command()(command(topics))
    app.command()(command(check))
    app.command(
        click.argument("user"),
        click.option("--session", is_flag=True, help="USER is an anonymous session id."),
    )(command(erase))
    _register_replay(app, settings)


def _register_replay(app: Any, settings: Settings) -> None:
    async def replay(file: str, speed: float) -> None:
        """Send the events of FILE (CSV or JSONL, also .gz) to the clickstream topic."""
        await _replay(settings, read_events(Path(file)), speed)

    app.command(
        click.argument("file"),
        click.option(
            "--speed",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            help="Times real time, by the events' own times; 0 = as fast as possible.",
        ),
    )(command(replay))


def _register_recompute(app: Any, settings: Settings) -> None:
    async def recompute(keep_old: bool) -> None:
        """Rebuild all state from the log beside the old one, then change over to it at once.

        Workers and pages go on meanwhile. What retention has deleted from the topics is gone.
        """
        done = await rebuilt(settings, keep_old=keep_old, say=console.print)
        if not done.taken_over:
            console.print("no worker has taken over yet: the old generation's keys are kept")
        plain(orjson.dumps(asdict(done)).decode())

    app.command(
        click.option("--keep-old", is_flag=True, help="Do not delete the old generation's keys.")
    )(command(recompute))


async def _accounts(store: Any, settings: Settings) -> None:
    """One row per partition: applied + dead-lettered + rejected + skipped = cursor."""
    table = Table("partition", "cursor", "applied", "dead-lettered", "rejected", "skipped")
    total: dict[str, int] = defaultdict(int)
    for space, topic, partitions in (
        (USERS, settings.clickstream_topic, settings.clickstream_partitions),
        (ITEMS, settings.cooccurrence_topic, settings.cooccurrence_partitions),
    ):
        blobs = await store.load(space, range(partitions), [ACCOUNTS_ID] * partitions)
        for number, blob in enumerate(blobs):
            if not blob:
                continue
            row = orjson.loads(blob)
            names = ("cursor", "applied", "dead_lettered", "rejected", "skipped")
            table.add_row(f"{topic}-{number}", *(str(row[name]) for name in names))
            if space == USERS:
                for name in names:
                    total[name] += row[name]
    console.print(table)
    plain(orjson.dumps(total).decode())


async def _replay(settings: Settings, events: EventTable, speed: float) -> None:
    """Send in the events' order, chunk by chunk; each customer's events stay in one partition."""
    bar = Progress(
        TextColumn("replay"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} events/s"),
        TimeRemainingColumn(),
        console=console,
    )
    log = kafka_log(settings)
    await log.start()
    started = time.monotonic()
    try:
        with bar:
            shown = bar.add_task("replay", total=len(events), rate=0.0)
            for chunk in _chunks(events, speed):
                if speed > 0:
                    due = started + (float(events.ts[chunk[0]]) - float(events.ts[0])) / speed
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                await _send(log, settings, events, chunk)
                rate = chunk[-1] / (time.monotonic() - started + 1e-9)
                bar.update(shown, completed=chunk[-1] + 1, rate=rate)
    finally:
        await log.stop()
    seconds = time.monotonic() - started
    plain(orjson.dumps({"sent": len(events), "seconds": round(seconds, 3)}).decode())


def _chunks(events: EventTable, speed: float) -> Iterator[range]:
    """Row ranges to send at once: a fixed number, or what lies within a tenth of a second."""
    start = 0
    while start < len(events):
        end = min(start + CHUNK_EVENTS, len(events))
        if speed > 0:
            within = float(events.ts[start]) + PACE_S * speed
            end = min(end, max(start + 1, int(events.ts.searchsorted(within))))
        yield range(start, end)
        start = end


async def _send(log: KafkaLog, settings: Settings, events: EventTable, chunk: range) -> None:
    records: dict[int, list[Record]] = defaultdict(list)
    for row in chunk:
        key = events.key(row)
        partition = partition_of(key, settings.clickstream_partitions)
        records[partition].append(Record(key, orjson.dumps(events.row(row))))
    await asyncio.gather(
        *(
            retrying(lambda p=p, r=r: log.send(settings.clickstream_topic, p, r), "replaying")  # type: ignore[misc]
            for p, r in records.items()
        )
    )
