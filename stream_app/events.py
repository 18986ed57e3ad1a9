"""Bytes to events, columnar. What is not an event is set aside with one clear reason."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.codec import decode_merge
from stream_app.core.learn import EVENT
from stream_app.core.model import INTERNAL, KIND, KINDS
from stream_app.core.ranking import LISTS
from stream_app.core.scoring import SOURCES
from stream_app.errors import EventRejected
from stream_app.formats import Formats
from stream_app.formats.common import decoder, parse_reason
from stream_app.hashing import given_name, public_name, short_hash, stable_hash
from stream_app.ports import RawBatch
from stream_app.settings import Settings
from stream_app.wire import Event

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
_NEEDS_ITEM = frozenset(KINDS) - {
    "impression",
    "search",
    "begin_checkout",
    "refund",
    "support",
    "share",
    "erase",
    *INTERNAL,
}
_KIND_NEEDS_ITEM = np.array([kind in _NEEDS_ITEM for kind in KINDS])
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
    ``segments`` are the channels and regions of the events, by their hash.
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

    def session_id(self, row: int) -> str:
        """The session that an event names."""
        return _text(self.given[row].session_id)


_decode = decoder(Event)


class EventDecoder:
    """Decodes batches; remembers the hashes of recent item ids."""

    def __init__(self, settings: Settings) -> None:
        self._bytes_max = settings.event_bytes_max
        self._chars_max = settings.id_chars_max
        self._future_s = settings.future_tolerance_s
        self._items: dict[str, int] = {}
        self.formats = Formats(settings.event_format)

    def decode(self, batch: RawBatch) -> EventBatch:
        """Events and rejects of ``batch``, both in offset order; never raises for bad input."""
        foreign = self.formats.foreign(batch.headers)
        ignored = 0
        if foreign:
            parsed, rows, rejects, ignored = self._parse_foreign(batch)
        else:
            parsed, rows, rejects = self._parse(batch.values)
        # All of a clean batch is checked at once; only suspects are looked at one by one.
        for at in reversed(self._suspects(parsed, rows, batch.timestamps_ms)):
            reason = self._problem(parsed[at], batch.timestamps_ms[rows[at]])
            if reason is not None:
                rejects.append(Reject(rows[at], *reason))
                if not foreign:
                    del parsed[at], rows[at]
        if foreign and rejects:  # a record is good or bad as a whole, however many events it has
            rejects = list(
                {reject.row: reject for reject in sorted(rejects, reverse=True)}.values()
            )
            bad = {reject.row for reject in rejects}
            good = [at for at, row in enumerate(rows) if row not in bad]
            parsed, rows = [parsed[at] for at in good], [rows[at] for at in good]
        rejects.sort()
        record_ms = np.array([batch.timestamps_ms[row] for row in rows], np.float64)
        return self._columns(
            parsed,
            [batch.offsets[row] for row in rows],
            rejects,
            np.maximum(record_ms, 0.0) / 1000.0,
        )._replace(ignored=ignored)

    def _suspects(
        self, parsed: Sequence[Event], rows: Sequence[int], timestamps_ms: Sequence[int]
    ) -> list[int]:
        """Positions in ``parsed`` that may break a rule, ascending."""
        if not parsed:
            return []
        kind = np.array([KIND.get(event.event or "", -1) for event in parsed])
        ts = np.array([event.ts or 0.0 for event in parsed])
        record_ms = np.array([timestamps_ms[row] for row in rows], np.float64)
        latest = np.where(record_ms > 0, record_ms / 1000.0 + self._future_s, _TS_MAX)
        bad = (kind < 0) | ~((ts >= _TS_MIN) & (ts <= latest)) | (kind >= _INTERNAL_FROM)
        bad |= np.array([e.user_id is None and e.session_id is None for e in parsed])
        bad |= np.array([e.item_id is None for e in parsed]) & _KIND_NEEDS_ITEM[kind]
        for name in ("price", "quantity", "rating"):
            numbers = np.array([getattr(e, name) or 0.0 for e in parsed])
            bad |= ~((numbers >= 0.0) & (numbers <= _NUMBER_MAX))
        for name in ("user_id", "session_id", "item_id", "event_id"):
            ids = [getattr(e, name) for e in parsed]
            odd = {value for value in set(ids) if value is not None and not self._good_id(value)}
            if odd:
                bad |= np.array([value in odd for value in ids])
        return np.flatnonzero(bad).tolist()

    def _parse(self, values: Sequence[bytes | None]) -> tuple[list[Event], list[int], list[Reject]]:
        try:
            if max(map(len, values), default=0) <= self._bytes_max:  # type: ignore[arg-type]
                return [_decode(value) for value in values], list(range(len(values))), []  # type: ignore[arg-type]
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError):
            pass  # find out which ones, below
        parsed: list[Event] = []
        rows: list[int] = []
        rejects: list[Reject] = []
        for row, value in enumerate(values):
            if not value:
                rejects.append(Reject(row, "empty", REASONS["empty"]))
            elif len(value) > self._bytes_max:
                rejects.append(Reject(row, "oversize", f"{len(value)} bytes"))
            else:
                try:
                    parsed.append(_decode(value))
                    rows.append(row)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                    rejects.append(Reject(row, parse_reason(value, exc), str(exc)[:200]))
        return parsed, rows, rejects

    def _parse_foreign(self, batch: RawBatch) -> tuple[list[Event], list[int], list[Reject], int]:
        """Records of other formats, each of which may hold several events, or none for us."""
        parsed: list[Event] = []
        rows: list[int] = []
        rejects: list[Reject] = []
        ignored = 0
        for row, (value, headers) in enumerate(zip(batch.values, batch.headers, strict=True)):
            if not value:
                rejects.append(Reject(row, "empty", REASONS["empty"]))
                continue
            if len(value) > self._bytes_max:
                rejects.append(Reject(row, "oversize", f"{len(value)} bytes"))
                continue
            try:
                found = self.formats.events(value, headers)
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail[:200]))
                continue
            parsed += found
            rows += [row] * len(found)
            ignored += not found
        return parsed, rows, rejects, ignored

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
        if event.item_id is None and kind in _NEEDS_ITEM:
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

    def _columns(
        self,
        good: list[Event],
        offsets: Sequence[int],
        rejects: list[Reject],
        record_ts: NDArray[np.float64],
    ) -> EventBatch:
        events = np.zeros(len(good), EVENT)
        texts = [_text(e.session_id if e.user_id is None else e.user_id) for e in good]
        anonymous = [e.user_id is None for e in good]
        items = ["" if e.item_id is None else _text(e.item_id) for e in good]
        events["customer"] = [
            stable_hash(text, seed) for text, seed in zip(texts, anonymous, strict=True)
        ]
        events["item"] = [self._item_hash(text) for text in items]
        events["ts"] = [e.ts for e in good]
        events["offset"] = offsets
        events["kind"] = [KIND[e.event or ""] for e in good]
        events["anonymous"] = anonymous
        events["value"] = [
            0.0 if e.price is None else e.price * (1.0 if e.quantity is None else e.quantity)
            for e in good
        ]
        events["units"] = [1.0 if e.quantity is None else e.quantity for e in good]
        events["session"] = [
            0 if e.session_id is None else short_hash(_text(e.session_id)) for e in good
        ]
        events["event_id"] = [
            0 if e.event_id is None else short_hash(_text(e.event_id)) for e in good
        ]
        events["list"] = [0 if e.list is None else _LISTS.get(e.list, 0) for e in good]
        events["source"] = [
            0 if e.list_source is None else _SOURCES.get(e.list_source, 0) for e in good
        ]
        segments = self._segments(good, events)
        events["category"] = [0 if e.category is None else _category(e.category) for e in good]
        customers = [
            public_name(text, anonymous=unknown) if unknown or text[0] in "~=" else text
            for text, unknown in zip(texts, anonymous, strict=True)
        ]
        internal = np.flatnonzero(events["kind"] >= _INTERNAL_FROM).tolist()
        data = {row: good[row].sa_data or "" for row in internal}
        return EventBatch(events, customers, items, rejects, record_ts, data, segments, good)

    def _segments(self, good: Sequence[Event], events: NDArray[np.void]) -> dict[int, str]:
        """Fill the segments of ``events``; returns their texts by hash."""
        segments: dict[int, str] = {}
        for k, field in enumerate(("channel", "region")):
            texts = [getattr(e, field) for e in good]
            if any(texts):
                hashes = [self._segment_hash(text) for text in texts]
                segments.update({key: text for text, key in zip(texts, hashes, strict=True) if key})
                events["segment"][:, k] = hashes
        return segments

    def _segment_hash(self, text: object) -> int:
        """Of a channel or region; 0, none, where it cannot be part of a public key."""
        return short_hash(text) if type(text) is str and self._good_id(text) else 0

    def _item_hash(self, text: str) -> int:
        if not text:
            return 0
        known = self._items.get(text)
        if known is None:
            if len(self._items) >= _HASH_CACHE_MAX:
                self._items.clear()
            known = self._items[text] = stable_hash(text)
        return known


def _text(value: str | int | None) -> str:
    return value if isinstance(value, str) else str(value)


def _category(value: object) -> int:
    return short_hash(_text(value)) if isinstance(value, str | int) else 0
