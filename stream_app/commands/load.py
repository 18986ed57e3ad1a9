"""``load-catalog`` and ``load-users``: files of items and customers into their topics."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import orjson
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import consume, ensure_topics
from stream_app.audience import decode_user
from stream_app.catalog_wire import decode_item, item_fields, user_fields
from stream_app.commands.console import command, console, errors, plain
from stream_app.errors import EventRejected
from stream_app.offline.tablefile import TableRow, rows, size_of
from stream_app.ports import Record
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.worker import kafka_log, security, topic_specs

CHUNK_ROWS = 2_000
SHOWN_MAX = 20  # problems printed one by one

Check = Callable[[bytes, bytes], object]


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""
    replace = click.option(
        "--replace", is_flag=True, help="FILE is all there is: delete what it does not name."
    )

    async def load_catalog(file: str, replace: bool) -> None:
        """Send the items of FILE (CSV or JSONL, also .gz) to the catalog topic."""
        plain(orjson.dumps(await load_items(settings, Path(file), replace=replace)).decode())

    async def load_users(file: str, replace: bool) -> None:
        """Send the customers of FILE (CSV or JSONL, also .gz) to the users topic."""
        plain(orjson.dumps(await load_customers(settings, Path(file), replace=replace)).decode())

    for function in (load_catalog, load_users):
        app.command(click.argument("file"), replace)(command(function))


async def load_items(settings: Settings, path: Path, *, replace: bool) -> dict[str, int]:
    """Items of a file into the catalog topic; returns how many were sent, bad and deleted."""

    def check(key: bytes, value: bytes) -> object:
        return decode_item(key, value, ts=0.0, chars_max=settings.id_chars_max)

    return await _Load(settings, settings.catalog_topic, "item_id", item_fields, check).run(
        path, replace=replace
    )


async def load_customers(settings: Settings, path: Path, *, replace: bool) -> dict[str, int]:
    """Customers of a file into the users topic; otherwise as :func:`load_items`."""

    def check(key: bytes, value: bytes) -> object:
        return decode_user(key, value, chars_max=settings.id_chars_max)

    return await _Load(settings, settings.users_topic, "user_id", user_fields, check).run(
        path, replace=replace
    )


class _Load:
    """One file on its way to one topic."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        id_name: str,
        fields: Callable[[dict[str, Any]], dict[str, Any]],
        check: Check,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._id_name = id_name
        self._fields = fields
        self._check = check
        self._log = kafka_log(settings)
        self._partitions = 0
        self._counts: Counter[str] = Counter(sent=0, bad=0, deleted=0)

    async def run(self, path: Path, *, replace: bool) -> dict[str, int]:
        """Send all good rows; bad ones are shown with their line and left out."""
        specs = [spec for spec in topic_specs(self._settings) if spec.name == self._topic]
        brokers = self._settings.bootstrap.split(",")
        safe = security(self._settings)
        (report,) = await ensure_topics(specs, brokers=brokers, security=safe)
        self._partitions = report.partitions
        await self._log.start()
        try:
            seen = await self._send_file(path, remember=replace)
            if replace:
                live: dict[bytes, bool] = {}
                async for record in consume(self._topic, brokers=brokers, security=safe):
                    if record.key is not None:
                        live[record.key] = record.value is not None
                gone = [key for key, there in live.items() if there and key not in seen]
                for at in range(0, len(gone), CHUNK_ROWS):
                    await self._send([Record(key, None) for key in gone[at : at + CHUNK_ROWS]])
                self._counts["deleted"] = len(gone)
        finally:
            await self._log.stop()
        return dict(self._counts)

    async def _send_file(self, path: Path, *, remember: bool) -> set[bytes]:
        bar = Progress(
            TextColumn(self._topic),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[sent]:,} sent, {task.fields[bad]:,} bad"),
            TimeRemainingColumn(),
            console=console,
        )
        seen: set[bytes] = set()
        chunk: list[Record] = []
        with bar:
            shown = bar.add_task("load", total=size_of(path), sent=0, bad=0)
            for row in rows(path):
                record = self._record(row)
                if record is not None:
                    chunk.append(record)
                    if remember and record.key is not None:
                        seen.add(record.key)
                if len(chunk) >= CHUNK_ROWS:
                    await self._send(chunk)
                    self._counts["sent"] += len(chunk)
                    chunk = []
                    bar.update(shown, completed=row.position)
                    bar.update(shown, sent=self._counts["sent"], bad=self._counts["bad"])
            await self._send(chunk)
            self._counts["sent"] += len(chunk)
            bar.update(shown, completed=size_of(path))
            bar.update(shown, sent=self._counts["sent"], bad=self._counts["bad"])
        return seen

    def _record(self, row: TableRow) -> Record | None:
        problem = row.problem
        if row.fields is not None:
            fields = self._fields(row.fields)
            name = fields.get(self._id_name)
            key = b"" if name is None else str(name).encode("utf-8", "surrogatepass")
            try:
                value = orjson.dumps(fields)
                self._check(key, value)
            except (EventRejected, TypeError) as exc:
                problem = str(exc)
            else:
                return Record(key, value)
        self._counts["bad"] += 1
        if self._counts["bad"] <= SHOWN_MAX:
            errors.print(f"line {row.line}: {problem}", style="yellow", markup=False)
        return None

    async def _send(self, records: list[Record]) -> None:
        by_partition: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            by_partition[partition_of(record.key, self._partitions)].append(record)
        await asyncio.gather(
            *(
                retrying(lambda p=p, r=some: self._log.send(self._topic, p, r), "loading")  # type: ignore[misc]
                for p, some in by_partition.items()
            )
        )
