"""``dlq list`` and ``dlq replay``: look at what was set aside, and send it again once cured."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import click
import orjson
from rich.table import Table

from stream_app.adapters.topics import StoredRecord, consume
from stream_app.commands.console import command, console, plain
from stream_app.ports import Record
from stream_app.rejects import WITHHELD
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.worker import kafka_log, security

OUR_HEADERS = frozenset({"topic", "partition", "offset", "reason", "detail"})


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def dlq(action: str, reason: str | None, limit: int) -> None:
        """List dead-lettered records, or replay them to the topic they came from."""
        if action == "list":
            await _list(settings, reason, limit)
        else:
            await _replay(settings, reason)

    app.command(
        click.argument("action", type=click.Choice(["list", "replay"])),
        click.option("--reason", default=None, help="Only records set aside for this reason."),
        click.option("--limit", default=20, show_default=True, help="How many to show."),
    )(command(dlq))


async def _dead_letters(
    settings: Settings, reason: str | None
) -> AsyncIterator[tuple[StoredRecord, dict[str, str]]]:
    """Dead-lettered records, each source offset once, with the headers we gave them."""
    seen: set[tuple[str, str, str]] = set()
    async for record in consume(
        settings.dead_letter_topic,
        brokers=settings.bootstrap.split(","),
        security=security(settings),
    ):
        ours = {
            name: value.decode("utf-8", "replace")
            for name, value in record.headers
            if name in OUR_HEADERS
        }
        origin = (ours.get("topic", ""), ours.get("partition", ""), ours.get("offset", ""))
        if origin in seen or (reason is not None and ours.get("reason") != reason):
            continue
        seen.add(origin)
        yield record, ours


async def _list(settings: Settings, reason: str | None, limit: int) -> None:
    counts: Counter[str] = Counter()
    table = Table("topic", "partition", "offset", "reason", "detail", "value")
    async for record, ours in _dead_letters(settings, reason):
        counts[ours.get("reason", "?")] += 1
        if counts.total() <= limit:
            value = (record.value or b"")[:60].decode("utf-8", "backslashreplace")
            table.add_row(
                *(ours.get(name, "?") for name in ("topic", "partition", "offset", "reason")),
                ours.get("detail", "")[:60],
                value,
            )
    console.print(table, markup=False)
    plain(orjson.dumps({"total": counts.total(), "reasons": dict(counts)}).decode())


async def _replay(settings: Settings, reason: str | None) -> None:
    """Send again with the original key, value and headers; a record still bad comes back here."""
    log = kafka_log(settings)
    await log.start()
    sent = withheld = 0
    try:
        async for record, ours in _dead_letters(settings, reason):
            if not ours.get("topic") or not ours.get("partition", "").isdigit():
                continue
            if ours.get("detail", "").startswith(WITHHELD):
                withheld += 1  # it is where its headers say, as long as that topic keeps it
                continue
            headers = tuple((n, v) for n, v in record.headers if n not in OUR_HEADERS)
            again = Record(record.key, record.value, headers)
            target, number = ours["topic"], int(ours["partition"])
            await retrying(
                lambda t=target, n=number, r=again: log.send(t, n, [r]),  # type: ignore[misc]
                "replaying",
            )
            sent += 1
    finally:
        await log.stop()
    plain(orjson.dumps({"replayed": sent, "withheld": withheld}).decode())
