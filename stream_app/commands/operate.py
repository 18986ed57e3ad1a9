"""``topics``, ``check``, ``erase``, ``recompute``: prepare, inspect and run a deployment."""

import time
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import click
import orjson
from rich.table import Table

from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import ensure_topics
from stream_app.commands.console import command, console, plain
from stream_app.ports import ACCOUNTS_ID, ITEMS, USERS, Record
from stream_app.rebuild import rebuilt
from stream_app.settings import Settings
from stream_app.source_topics import check_sources
from stream_app.worker import kafka_log, redis_store, security, topic_specs


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def topics() -> None:
        """Create the topics, or check the ones that are there; those to copy must be."""
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
        await check_sources(settings, security(settings))

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
