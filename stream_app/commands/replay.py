"""``replay``: the events of a file into the clickstream topic, in our schema or as they came."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import click
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.commands.console import command, console, plain
from stream_app.errors import EventFileError, EventRejected
from stream_app.formats import FORMAT_HEADER, OWN, READERS, Formats, customer_key
from stream_app.formats.cloudevents import STRUCTURED
from stream_app.offline.eventfile import EventTable, read_events
from stream_app.offline.eventformats import file_content
from stream_app.ports import Headers, Record
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.worker import kafka_log

CHUNK_EVENTS = 8_000
PACE_S = 0.1
CLOUDEVENTS = "cloudevents"


def register(app: Any, settings: Settings) -> None:
    """Add the command of this module to ``app``."""

    async def replay(file: str, speed: float, file_format: str) -> None:
        """Send the events of FILE (also .gz) to the clickstream topic."""
        path = Path(file)
        events: Recorded
        ignored, problems = 0, {}
        if file_format == OWN:
            table = read_events(path)
            events, problems = _Table(table), dict(table.problems)
        else:
            events = read_lines(path, file_format)
            ignored = events.ignored
        seconds = await _replay(settings, events, speed)
        if problems:
            console.print(
                "rows with problems were sent, too: what is no event goes on to"
                f" {settings.dead_letter_topic}, with the reason (`dlq list`)"
            )
        done = {"sent": len(events), "ignored": ignored, "problems": problems}
        plain(orjson.dumps({**done, "seconds": round(seconds, 3)}).decode())

    app.command(
        click.argument("file"),
        click.option(
            "--speed",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            help="Times real time, by the events' own times; 0 = as fast as possible.",
        ),
        click.option(
            "--format",
            "file_format",
            type=click.Choice((OWN, CLOUDEVENTS, *READERS)),
            default=OWN,
            show_default=True,
            help="own: CSV or JSONL with our columns; others: a record a line, sent unchanged.",
        ),
    )(command(replay))


class Recorded(Protocol):
    """Records in the order of their times ``ts (n,) float64``, unix seconds."""

    @property
    def ts(self) -> NDArray[np.float64]: ...
    def __len__(self) -> int: ...
    def record(self, row: int) -> Record: ...


class _Table(NamedTuple):
    """An event file in our own schema."""

    table: EventTable

    @property
    def ts(self) -> NDArray[np.float64]:
        return self.table.ts

    def __len__(self) -> int:
        return len(self.table)

    def record(self, row: int) -> Record:
        return Record(self.table.key(row), orjson.dumps(self.table.row(row)))


class Lines:
    """Lines of another system's file, unchanged; ``ignored`` of them mean nothing here."""

    def __init__(
        self,
        ts: NDArray[np.float64],
        keys: Sequence[bytes | None],
        values: Sequence[bytes],
        headers: Headers,
        ignored: int,
    ) -> None:
        self.ts = ts
        self.ignored = ignored
        self._keys = keys
        self._values = values
        self._headers = headers

    def __len__(self) -> int:
        return len(self._values)

    def record(self, row: int) -> Record:
        """One line, keyed by the customer it is about."""
        return Record(self._keys[row], self._values[row], self._headers)


def read_lines(path: Path, name: str) -> Lines:
    """The lines of a file as records of format ``name``, in the order of their times.

    A line that its format forbids goes where its neighbours go, to be dead-lettered with the
    reason; one that means nothing to us is left out and counted. Raises ``EventFileError``.
    """
    headers: Headers = ((FORMAT_HEADER, name.encode()),)
    if name == CLOUDEVENTS:
        headers = (("content-type", STRUCTURED),)
    formats = Formats(OWN)
    keys: list[bytes | None] = []
    values: list[bytes] = []
    times: list[float] = []
    for line in file_content(path).splitlines():
        if not line.strip():
            continue
        key, ts = None, times[-1] if times else 0.0
        try:
            events = formats.events(line, headers)
        except EventRejected:
            pass
        else:
            if not events:
                continue
            key = customer_key(events[0])
            ts = ts if events[0].ts is None else events[0].ts
        keys.append(key)
        values.append(line)
        times.append(ts)
    if not values:
        raise EventFileError(
            f"{path.name} has no line that means something as {name}; is it of another format?"
        )
    order = np.argsort(np.array(times), kind="stable").tolist()
    return Lines(
        np.array(times)[order],
        [keys[row] for row in order],
        [values[row] for row in order],
        headers,
        formats.ignored.total(),
    )


async def _replay(settings: Settings, events: Recorded, speed: float) -> float:
    """Send in the events' order, chunk by chunk; each customer's events stay in one partition.

    Returns how many seconds it took.
    """
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
    return time.monotonic() - started


def _chunks(events: Recorded, speed: float) -> Iterator[range]:
    """Row ranges to send at once: a fixed number, or what lies within a tenth of a second."""
    start = 0
    while start < len(events):
        end = min(start + CHUNK_EVENTS, len(events))
        if speed > 0:
            within = float(events.ts[start]) + PACE_S * speed
            end = min(end, max(start + 1, int(events.ts.searchsorted(within))))
        yield range(start, end)
        start = end


async def _send(log: KafkaLog, settings: Settings, events: Recorded, chunk: range) -> None:
    records: dict[int, list[Record]] = defaultdict(list)
    for row in chunk:
        record = events.record(row)
        records[partition_of(record.key, settings.clickstream_partitions)].append(record)
    await asyncio.gather(
        *(
            retrying(lambda p=p, r=r: log.send(settings.clickstream_topic, p, r), "replaying")  # type: ignore[misc]
            for p, r in records.items()
        )
    )
