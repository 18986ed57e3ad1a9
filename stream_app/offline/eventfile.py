"""Read event files (CSV, JSONL, gzip) into columns. Called by replay, evaluate and the demo.

Columns: ``user_id`` and/or ``session_id``, ``item_id``, ``event`` (default ``view``), ``ts`` (unix
seconds or milliseconds, or ISO 8601; without a zone it is UTC), optional ``price, quantity,
category, brand, title, channel, region (or country), query``; others are ignored.
Rows are ordered by ``ts``, ties by file order. Rows that cannot be events stay in: the pipeline
dead-letters them as it would live ones; here they are counted (``EventTable.problems``).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.errors import EventFileError
from stream_app.events import NEEDS_ITEM
from stream_app.offline.eventformats import (
    ID_COLUMNS,
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    Column,
    read_columns,
)

milliseconds_from = 1e11  # unix seconds reach this in the year 5138, unix milliseconds did in 1973

# What shops and public data sets call the same event. Keys are compared after ``_spelling``.
EVENT_ALIASES = {
    alias: event
    for event, aliases in {
        "search": "query search_query view_search_results",
        "impression": "impressions show expose exposure view_item_list",
        "click": "clicks clickout select_item tap",
        "view": "pageview page_view pv view_item product_view detail product_detail",
        "add_to_cart": "cart addtocart add_cart basket add_to_basket add",
        "remove_from_cart": "removefromcart remove_cart remove remove_from_basket",
        "wishlist": "favorite favourite fav like add_to_wishlist add_to_favorites collect save",
        "begin_checkout": "checkout start_checkout initiate_checkout checkout_start",
        "purchase": "transaction buy order bought purchased sale checkout_complete",
        "refund": "return returned refunded cancel",
        "rate": "rating rated star stars",
        "review": "comment reviewed",
        "share": "shared",
        "support": "ticket contact help customer_service",
    }.items()
    for alias in (event, *aliases.split())
}

EVENT_TYPES = frozenset(EVENT_ALIASES.values())


@dataclass(frozen=True, slots=True)
class EventTable:
    """The events of one file in time order; all columns run in parallel.

    ``ts`` is ``(n,) float64`` unix seconds, ``line`` ``(n,) int64`` the line in the file; ids and
    ``event`` are lists. ``texts`` and ``numbers`` (``(n,) float64``, NaN = absent) hold those
    optional columns that the file has. ``odd`` keeps, by row, optional values that are no numbers,
    so that they are emitted as they are. ``problems`` counts rows by what is wrong with them.
    """

    name: str
    ts: NDArray[np.float64]
    line: NDArray[np.int64]
    event: list[str]
    user_id: list[str | None]
    session_id: list[str | None]
    item_id: list[str | None]
    texts: Mapping[str, list[str | None]]
    numbers: Mapping[str, NDArray[np.float64]]
    odd: Mapping[int, Mapping[str, Any]]
    problems: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.event)

    def part(self, start: int, end: int) -> "EventTable":
        """Rows ``start`` to ``end`` in time order, as a table of their own."""
        return EventTable(
            self.name,
            self.ts[start:end],
            self.line[start:end],
            self.event[start:end],
            self.user_id[start:end],
            self.session_id[start:end],
            self.item_id[start:end],
            {name: texts[start:end] for name, texts in self.texts.items()},
            {name: numbers[start:end] for name, numbers in self.numbers.items()},
            {row - start: odd for row, odd in self.odd.items() if start <= row < end},
            self.problems,
        )

    def key(self, row: int) -> bytes | None:
        """The Kafka key of a row: its user, else its session, else nothing."""
        who = self.user_id[row] or self.session_id[row]
        return who.encode() if who else None

    def row(self, row: int) -> dict[str, Any]:
        """One event in the wire schema; absent fields are left out."""
        event: dict[str, Any] = {
            "event_id": f"{self.name}:{self.line[row]}",
            "event": self.event[row],
            "ts": float(self.ts[row]),
        }
        for field, ids in zip(
            ID_COLUMNS, (self.user_id, self.session_id, self.item_id), strict=True
        ):
            if (identity := ids[row]) is not None:
                event[field] = identity
        for field, texts in self.texts.items():
            if (text := texts[row]) is not None:
                event[field] = text
        for field, numbers in self.numbers.items():
            number = float(numbers[row])
            if not math.isnan(number):
                event[field] = int(number) if field == "quantity" and number % 1 == 0 else number
        if row in self.odd:
            event.update(self.odd[row])
        return event

    def segments(self, row: int) -> tuple[str, str]:
        """Channel and region of an event, empty where the file does not say."""
        channel, region = (self.texts.get(name) for name in ("channel", "region"))
        return (channel and channel[row]) or "", (region and region[row]) or ""

    def iter_json(self) -> Iterator[bytes]:
        """The events as JSON in the wire schema, in time order."""
        for row in range(len(self)):
            yield orjson.dumps(self.row(row))


def read_events(path: str | Path) -> EventTable:
    """Read an event file; raises ``EventFileError`` naming file, line and cure.

    A row that has no time is an error.
    """
    path = Path(path)
    columns, lines = read_columns(path)
    ts = _times(path.name, columns.get("ts"), lines)
    return _table(path.name, columns, lines, ts)


def _times(name: str, column: Column | None, lines: Sequence[int]) -> NDArray[np.float64]:
    """Unix seconds of every row; raises when one has none."""
    cure = "write unix seconds or ISO 8601, such as 2026-11-20T10:00:00Z"
    if column is None:
        raise EventFileError(f"{name}, line {lines[0]}: no ts column; {cure}")
    ts, odd = _numbers(column)
    for row, value in odd.items():
        ts[row] = _iso_seconds(value)
    ts = np.where(ts >= milliseconds_from, ts / 1000.0, ts)
    bad = np.flatnonzero(~np.isfinite(ts))
    if len(bad):
        first = int(bad[0])
        value = odd.get(first, column[first])
        raise EventFileError(
            f"{name}, line {lines[first]}: ts {value!r} is no time"
            f" ({len(bad)} of {len(ts)} rows); {cure}"
        )
    return ts


def _iso_seconds(value: Any) -> float:
    """Unix seconds of a text, NaN when it is no time; without a zone it is UTC.

    >>> _iso_seconds("2001-09-09T01:46:40Z"), _iso_seconds("2001-09-09 01:46:40 UTC")
    (1000000000.0, 1000000000.0)
    """
    try:
        time = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
    except (AttributeError, ValueError):
        return math.nan
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _numbers(column: Column) -> tuple[NDArray[np.float64], dict[int, Any]]:
    """Values as float64, NaN where there is none, and by row the values that are no numbers."""
    try:
        numbers = np.fromiter(map(float, column), np.float64, len(column))
        if np.isfinite(numbers).all():
            return numbers, {}
    except (ValueError, TypeError):
        pass  # something is absent or odd: look at each value
    numbers = np.full(len(column), np.nan)
    odd: dict[int, Any] = {}
    for row, value in enumerate(column):
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            number = float(value)
        except (ValueError, TypeError):
            number = math.nan
        if math.isfinite(number):
            numbers[row] = number
        else:
            odd[row] = value
    return numbers, odd


def _texts(column: Column | None, n: int) -> list[str | None]:
    """Stripped strings, ``None`` where there is nothing that can be one."""
    if column is None:
        return [None] * n
    return [(v.strip() or None) if type(v) is str else _text(v) for v in column]


def _text(value: Any) -> str | None:
    """A JSON number is an id too; anything else is not."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else None


def _spelling(event: str) -> str:
    return event.strip().lower().replace("-", "_").replace(" ", "_")


def _events(column: Column | None, n: int) -> list[str]:
    """Canonical event types; a type we do not know stays as it is written."""
    if column is None:
        return ["view"] * n
    texts = _texts(column, n)
    names = {t: EVENT_ALIASES.get(_spelling(t), t) if t else "view" for t in set(texts)}
    return [names[text] for text in texts]


def _table(
    name: str, columns: Mapping[str, Column], lines: Sequence[int], ts: NDArray[np.float64]
) -> EventTable:
    n = len(lines)
    line = np.array(lines, np.int64)
    if (ts[1:] < ts[:-1]).any():
        order = np.argsort(ts, kind="stable")
        rows = order.tolist()
        columns = {field: [column[row] for row in rows] for field, column in columns.items()}
        ts, line = ts[order], line[order]
    ids = {field: _texts(columns.get(field), n) for field in ID_COLUMNS}
    event = _events(columns.get("event"), n)
    numbers: dict[str, NDArray[np.float64]] = {}
    odd: dict[int, dict[str, Any]] = {}
    for field in NUMBER_COLUMNS:
        if field in columns:
            numbers[field], strange = _numbers(columns[field])
            for row, value in strange.items():
                odd.setdefault(row, {})[field] = value
    nobody = sum(1 for u, s in zip(ids["user_id"], ids["session_id"], strict=True) if not (u or s))
    problems = Counter(
        no_user_or_session=nobody,
        no_item=sum(
            item is None and kind in NEEDS_ITEM
            for item, kind in zip(ids["item_id"], event, strict=True)
        ),
        unknown_event=sum(c for e, c in Counter(event).items() if e not in EVENT_TYPES),
        not_a_number=len(odd),
    )
    texts = {field: _texts(columns[field], n) for field in TEXT_COLUMNS if field in columns}
    return EventTable(
        name=name,
        ts=ts,
        line=line,
        event=event,
        user_id=ids["user_id"],
        session_id=ids["session_id"],
        item_id=ids["item_id"],
        texts=texts,
        numbers=numbers,
        odd=odd,
        problems=+problems,
    )
