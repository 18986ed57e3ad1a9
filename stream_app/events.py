"""Bytes to events, columnar. What is not an event is set aside with one clear reason."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.aliases import NO_ALIASES, Aliases, aliased
from stream_app.codec import decode_merge
from stream_app.core.learn import EVENT
from stream_app.core.model import INTERNAL, KIND, KINDS
from stream_app.core.ranking import LISTS
from stream_app.core.raw import zeroed
from stream_app.core.scoring import SOURCES
from stream_app.errors import EventRejected
from stream_app.formats import Formats
from stream_app.formats.common import checked, decoder
from stream_app.hashing import given_name, public_name, short_hash, stable_hash
from stream_app.ports import RawBatch
from stream_app.pseudonyms import load_pseudonyms
from stream_app.searches import Searches
from stream_app.settings import Settings
from stream_app.wire import DeviceEvent, Event
from stream_app.wire_columns import (
    Column,
    absent,
    columns_of,
    missing,
    numbers_of,
    text_of,
    texts_of,
)

REASONS = {
    "empty": "the record has no value",
    "oversize": "the record is larger than STREAM_APP_EVENT_BYTES_MAX",
    "not_utf8": "the record is not UTF-8",
    "malformed_json": "the record is not JSON",
    "wrong_type": "a field has the wrong type",
    "missing_field": "event or ts is missing",
    "unknown_event": "the event type is not one of ours",
    "missing_customer": "neither user_id nor session_id is given",
    "missing_item": "this event type needs an item_id",
    "bad_id": "an id is empty, too long, or has control characters",
    "absurd_time": "ts is not seconds since 1970, before 2000, or in the record's future",
    "bad_number": "a number is negative, not finite, or out of range",
    "bad_internal": "an internal record of this application is malformed, or lies in the future",
}
NEEDS_ITEM = frozenset(KINDS) - {
    "impression",
    "search",
    "begin_checkout",
    "refund",
    "support",
    "share",
    "erase",
    *INTERNAL,
}
_KIND_NEEDS_ITEM = np.array([kind in NEEDS_ITEM for kind in KINDS])
_TS_MIN = 946_684_800.0  # 2000-01-01
_TS_MAX = 4_102_444_800.0  # 2100-01-01, where the record itself has no time
_NUMBER_MAX = 1e9
_HASH_CACHE_MAX = 500_000
_LISTS = {name: number + 1 for number, name in enumerate(LISTS)}
_SOURCES = {name: number + 1 for number, name in enumerate(SOURCES)}
_INTERNAL_FROM = KIND[INTERNAL[0]]
_AHEAD_S = 1.0  # clocks of workers may differ by this much


class Reject(NamedTuple):
    """Row ``row`` of a batch is not an event; ``reason`` is a key of :data:`REASONS`."""

    row: int
    reason: str
    detail: str


class EventBatch(NamedTuple):
    """``events (n,) EVENT`` with their ids as text, and the rejected rows of the raw batch.

    ``customers`` are public names. ``record_ts (n,) float64`` is when the records were made, 0
    where they do not say; ``data`` that of internal events, by row of ``events``. Events of one
    record follow each other and have its offset; ``ignored`` records have none.
    ``segments`` are their channels and regions, by hash; ``rows`` the record that each is of.
    """

    events: NDArray[np.void]
    customers: list[str]
    items: list[str]
    rejects: list[Reject]
    record_ts: NDArray[np.float64]
    data: dict[int, str]
    segments: dict[int, str]
    given: Sequence[Event] = ()
    ignored: int = 0
    aliases: Aliases = NO_ALIASES
    rows: Sequence[int] = ()

    def session_id(self, row: int) -> str:
        """The session that an event names."""
        return text_of(self.given[row].session_id)

    def session_key(self, row: int) -> bytes:
        """The key of the records of that session, which decides their partition."""
        text = self.session_id(row)
        return self.aliases.session_keys.get(text) or text.encode("utf-8", "surrogatepass")


_decode = decoder(Event)
_decode_ascii = msgspec.json.Decoder(Event).decode
_ANONYMOUS = "\0"  # before session ids among user ids: neither can have it


class EventDecoder:
    """Decodes batches; remembers the hashes of recent item ids."""

    def __init__(self, settings: Settings) -> None:
        self._bytes_max = settings.event_bytes_max
        self._chars_max = settings.id_chars_max
        self._future_s = settings.future_tolerance_s
        self._items: dict[str, int] = {}
        self._searches = Searches()
        self._pseudonyms = load_pseudonyms(settings.pseudonym_key_file)
        self.formats = Formats(settings.event_format)

    def decode(self, batch: RawBatch) -> EventBatch:
        """Events and rejects of ``batch``, both in offset order; never raises for bad input."""
        foreign, ignored = self.formats.foreign(batch.headers), 0
        rows: Sequence[int]
        if foreign:
            parsed, rows, rejects, ignored = self._parse_foreign(batch)
        else:
            parsed, rows, rejects = self._parse(batch.values)
        # All of a clean batch is checked at once; only suspects are looked at one by one.
        columns = columns_of(parsed)
        suspects = self._suspects(columns, rows, batch.timestamps_ms)
        dropped = set()
        for at in reversed(suspects):
            reason = self._problem(parsed[at], batch.timestamps_ms[rows[at]])
            if reason is not None:
                rejects.append(Reject(rows[at], *reason))
                dropped.add(at)
        if dropped and not foreign:
            parsed = [event for at, event in enumerate(parsed) if at not in dropped]
            rows = [row for at, row in enumerate(rows) if at not in dropped]
        if foreign and rejects:  # a record is good or bad as a whole, however many events it has
            bad = {reject.row: reject for reject in sorted(rejects, reverse=True)}
            rejects = list(bad.values())
            good = [at for at, row in enumerate(rows) if row not in bad]
            parsed, rows = [parsed[at] for at in good], [rows[at] for at in good]
        rejects.sort()
        aliases = NO_ALIASES
        if self._pseudonyms is not None:
            parsed, rows, aliases = aliased(parsed, rows, self._pseudonyms)
        if suspects or foreign or self._pseudonyms is not None:
            columns = columns_of(parsed)
        found = self._batch(parsed, columns, batch, rows, rejects, ignored)
        if foreign:
            found.events["device"] = [type(event) is DeviceEvent for event in parsed]
        return found._replace(aliases=aliases, rows=rows)

    def _suspects(
        self, columns: Any, rows: Sequence[int], timestamps_ms: Sequence[int]
    ) -> list[int]:
        """Positions in the parsed events that may break a rule, ascending."""
        if not rows:
            return []
        kind, ts = columns.event, columns.ts
        record_ms = _of_rows(timestamps_ms, rows, np.float64)
        latest = np.where(record_ms > 0, record_ms / 1000.0 + self._future_s, _TS_MAX)
        bad = (kind < 0) | ~((ts >= _TS_MIN) & (ts <= latest)) | (kind >= _INTERNAL_FROM)
        bad |= missing(columns.user_id) & missing(columns.session_id)
        bad |= missing(columns.item_id) & _KIND_NEEDS_ITEM[kind]
        for values in (columns.price, columns.quantity, columns.rating):
            if not absent(values):
                numbers = np.array([value or 0.0 for value in values])
                bad |= ~((numbers >= 0.0) & (numbers <= _NUMBER_MAX))
        for ids in (columns.user_id, columns.session_id, columns.item_id, columns.event_id):
            odd = self._odd_ids(ids)
            if odd:
                bad |= np.array([value in odd for value in ids])
        return np.flatnonzero(bad).tolist()

    def _odd_ids(self, values: Column) -> set[str | int]:
        """The ids that break a rule; all are looked at together, and again only if one does."""
        ids = set(values)
        ids.discard(None)
        if not ids:
            return ids
        texts = texts_of(tuple(ids))
        if all(texts) and max(map(len, texts)) <= self._chars_max and "".join(texts).isprintable():
            return set()
        return {value for value in ids if not self._good_id(value)}

    def _parse(
        self, values: Sequence[bytes | None]
    ) -> tuple[list[Event], Sequence[int], list[Reject]]:
        """All of a good batch has a range of rows."""
        try:
            if max(map(len, values), default=0) <= self._bytes_max:  # type: ignore[arg-type]
                # Plain ASCII cannot hide broken text in the fields that are skipped.
                decode = _decode_ascii if b"".join(values).isascii() else _decode  # type: ignore[arg-type]
                return list(map(decode, values)), range(len(values)), []  # type: ignore[arg-type]
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError):
            pass  # find out which ones, below
        parsed: list[Event] = []
        rows: list[int] = []
        rejects: list[Reject] = []
        for row, value in enumerate(values):
            try:
                parsed.append(checked(_decode, self._sized(value)))
                rows.append(row)
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail[:200]))
        return parsed, rows, rejects

    def _parse_foreign(self, batch: RawBatch) -> tuple[list[Event], list[int], list[Reject], int]:
        """Records of other formats, each of which may hold several events, or none for us."""
        parsed: list[Event] = []
        rows: list[int] = []
        rejects: list[Reject] = []
        ignored = 0
        for row, (value, headers) in enumerate(zip(batch.values, batch.headers, strict=True)):
            try:
                found = self.formats.events(self._sized(value), headers, batch.timestamps_ms[row])
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail[:200]))
                continue
            parsed += found
            rows += [row] * len(found)
            ignored += not found
        return parsed, rows, rejects, ignored

    def _sized(self, value: bytes | None) -> bytes:
        if not value:
            raise EventRejected("empty", REASONS["empty"])
        if len(value) > self._bytes_max:
            raise EventRejected("oversize", f"{len(value)} bytes")
        return value

    def _problem(self, event: Event, record_ms: int) -> tuple[str, str] | None:
        """Why the parsed record is no event; ``None`` when it is one."""
        kind, ts = event.event, event.ts
        if kind is None or ts is None:
            return "missing_field", "event" if kind is None else "ts"
        if kind not in KIND:
            return "unknown_event", kind[:50]
        limit = record_ms / 1000.0 + self._future_s if record_ms > 0 else _TS_MAX
        if not _TS_MIN <= ts <= limit:
            hint = " (milliseconds?)" if 9e11 < ts < 5e12 else ""
            return "absurd_time", f"ts={ts:.17g}{hint}"
        if event.user_id is None and event.session_id is None:
            return "missing_customer", REASONS["missing_customer"]
        if event.item_id is None and kind in NEEDS_ITEM:
            return "missing_item", kind
        for name in ("user_id", "session_id", "item_id", "event_id"):
            value = getattr(event, name)
            if value is not None and not self._good_id(value):
                return "bad_id", name
        if kind in INTERNAL:
            return self._internal_problem(event, kind, record_ms)
        for number in (event.price, event.quantity, event.rating):
            if number is not None and not 0.0 <= number <= _NUMBER_MAX:
                return "bad_number", f"{number:.17g}"
        return None

    def _internal_problem(self, event: Event, kind: str, record_ms: int) -> tuple[str, str] | None:
        """A time-out before its time, or a record of another shape than ours."""
        if kind == "timeout" and 0 < record_ms < (event.ts or 0.0) * 1000.0 - _AHEAD_S * 1000.0:
            return "bad_internal", f"a time-out of {event.ts:.17g} made before that"
        if kind == "link":
            anonymous, into = event.user_id is None, event.sa_data or ""
            if not (anonymous and self._good_id(into) and not given_name(into)[1]):
                return "bad_internal", "a link names a session_id, and a customer in sa_data"
        if kind == "merge":
            if event.user_id is None:
                return "bad_internal", "a merge names a user_id"
            try:
                decode_merge(event.sa_data or "")
            except EventRejected as exc:
                return exc.reason, exc.detail
        return None

    def _good_id(self, value: str | int) -> bool:
        text = value if isinstance(value, str) else str(value)
        return 0 < len(text) <= self._chars_max and text.isprintable()

    def _batch(
        self,
        good: list[Event],
        columns: Any,
        batch: RawBatch,
        rows: Sequence[int],
        rejects: list[Reject],
        ignored: int,
    ) -> EventBatch:
        """The checked events ``good``, and their ``columns``, in arrays."""
        events = zeroed(len(good), EVENT)
        if not good:
            return EventBatch(events, [], [], rejects, np.zeros(0), {}, {}, good, ignored)
        record_ms = _of_rows(batch.timestamps_ms, rows, np.float64)
        hashes, customers = _customers(columns, events)
        events["customer"] = hashes
        items = texts_of(columns.item_id)
        events["item"] = self._item_hashes(items)
        events["ts"] = columns.ts
        events["offset"] = _of_rows(batch.offsets, rows, np.int64)
        events["kind"] = columns.event
        units = numbers_of(columns.quantity, 1.0)
        events["value"] = numbers_of(columns.price, 0.0) * units
        events["units"] = units
        for name, values in (("session", columns.session_id), ("event_id", columns.event_id)):
            if not absent(values):
                events[name] = [short_hash(text) if text else 0 for text in texts_of(values)]
        for name, values, table in (
            ("list", columns.list, _LISTS),
            ("source", columns.list_source, _SOURCES),
        ):
            if not absent(values):
                events[name] = [table.get(v, 0) for v in values]
        self._searches.fill(events, columns.query)
        segments = self._segments(columns, events)
        if not absent(columns.category):
            events["category"] = [0 if v is None else _category(v) for v in columns.category]
        internal = np.flatnonzero(events["kind"] >= _INTERNAL_FROM).tolist()
        data = {row: good[row].sa_data or "" for row in internal}
        record_ts = np.maximum(record_ms, 0.0) / 1000.0
        return EventBatch(
            events, customers, items, rejects, record_ts, data, segments, good, ignored
        )

    def _segments(self, columns: Any, events: NDArray[np.void]) -> dict[int, str]:
        """Fill the segments of ``events``; returns their texts by hash."""
        segments: dict[int, str] = {}
        for k, values in enumerate((columns.channel, columns.region)):
            if absent(values):
                continue
            texts = [text if type(text) is str else "" for text in values]
            hashes = {text: self._segment_hash(text) for text in set(texts)}
            segments.update({key: text for text, key in hashes.items() if key})
            events["segment"][:, k] = list(map(hashes.__getitem__, texts))
        return segments

    def _segment_hash(self, text: str) -> int:
        """Of a channel or region; 0, none, where it cannot be part of a public key."""
        return short_hash(text) if self._good_id(text) else 0

    def _item_hashes(self, texts: list[str]) -> list[int]:
        known = self._items
        asked = set(texts)
        fresh = [text for text in asked if text not in known]  # not by sets: those copy the cache
        if len(known) + len(fresh) > _HASH_CACHE_MAX:
            known.clear()
            fresh = list(asked)
        known.update({text: stable_hash(text) if text else 0 for text in fresh})
        return list(map(known.__getitem__, texts))


def _of_rows(values: Sequence[int], rows: Sequence[int], dtype: Any) -> NDArray[Any]:
    """``values`` of records by event, whose ``rows`` are a range where each record is one."""
    every = np.array(values, dtype)
    return every if isinstance(rows, range) else every[rows]


def _customers(columns: Any, events: NDArray[np.void]) -> tuple[list[int], list[str]]:
    """Hashes and public names by event; says in ``events`` who is anonymous."""
    names = texts_of(columns.user_id)
    if not all(names):
        sessions = texts_of(columns.session_id)
        events["anonymous"] = [not user for user in names]
        names = [
            user or _ANONYMOUS + session for user, session in zip(names, sessions, strict=True)
        ]
    hashes, shown = {}, {}
    for name in set(names):
        anonymous = name[0] == _ANONYMOUS
        text = name[1:] if anonymous else name
        hashes[name] = stable_hash(text, int(anonymous))
        shown[name] = public_name(text, anonymous=anonymous)
    return list(map(hashes.__getitem__, names)), list(map(shown.__getitem__, names))


def _category(value: object) -> int:
    return short_hash(text_of(value)) if isinstance(value, str | int) else 0
