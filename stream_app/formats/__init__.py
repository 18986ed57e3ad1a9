"""Events as other systems send them, turned into ours. Called by the decoder.

A record's format is what its header ``stream_app_format`` says, a CloudEvent when its headers say
so, our own schema when it looks like it, and ``STREAM_APP_EVENT_FORMAT`` otherwise. One record may
hold several events: they are of one offset, and are taken or dropped together.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from stream_app.core.model import KIND
from stream_app.errors import EventRejected
from stream_app.formats.cloudevents import STRUCTURED, binary_events, structured_events
from stream_app.formats.common import Ignored, checked, decoder, first
from stream_app.formats.ga4 import ga4_events
from stream_app.formats.retailrocket import retailrocket_events
from stream_app.formats.segment import segment_events
from stream_app.formats.snowplow import snowplow_events
from stream_app.hashing import short_hash
from stream_app.ports import Headers
from stream_app.wire import Event

FORMAT_HEADER = "stream_app_format"
ORIGIN_HEADER = "stream_app_copied_from"  # of copied records: where they were first
OWN = "own"
READERS: dict[str, Callable[[bytes], list[Event]]] = {
    "ga4": ga4_events,
    "segment": segment_events,
    "snowplow": snowplow_events,
    "retailrocket": retailrocket_events,
}
NAMES_MAX = 100  # of ignored events; what comes beyond them is counted together
NAME_CHARS_MAX = 100
OTHER = "other"
_TELLING = frozenset((FORMAT_HEADER, "ce_specversion", "content-type"))


def customer_key(event: Event) -> bytes | None:
    """The key of the records of an event's customer: the user's id, else the device's; or none.

    >>> customer_key(Event(user_id=7, session_id="s")), customer_key(Event(session_id="s"))
    (b'7', b's')
    """
    who = event.session_id if event.user_id is None else event.user_id
    return None if who is None else str(who).encode("utf-8", "surrogatepass")


class _Own(msgspec.Struct):
    """What tells our own schema: one of our names, and seconds as a number."""

    event: object = None
    ts: object = None


_sniff = msgspec.json.Decoder(_Own).decode
_decode_own = decoder(Event)


class Formats:
    """Reads records of any format; ``ignored`` counts those that mean nothing to us, by name."""

    def __init__(self, default: str) -> None:
        self.ignored: Counter[str] = Counter()
        self._default = default

    def foreign(self, headers: Sequence[Headers]) -> bool:
        """Whether any record of a batch may be in another format than our own."""
        if self._default != OWN:
            return True
        if not any(headers):
            return False
        return any(name.lower() in _TELLING for some in headers for name, _ in some)

    def events(self, value: bytes, headers: Headers, record_ms: int = -1) -> list[Event]:
        """Events of one record, none when it means nothing to us.

        Events that name no time, as other formats may, have the record's: ``record_ms``, unless
        it has none either (-1). Our own name theirs. Raises
        :class:`~stream_app.errors.EventRejected` for a record that its format forbids.
        """
        try:
            return self._events(value, {name.lower(): said for name, said in headers}, record_ms)
        except Ignored as exc:
            name = str(exc)[:NAME_CHARS_MAX]
            if name not in self.ignored and len(self.ignored) >= NAMES_MAX:
                name = OTHER
            self.ignored[name] += 1
            return []

    def _events(self, value: bytes, headers: dict[str, bytes], record_ms: int) -> list[Event]:
        asked = headers.get(FORMAT_HEADER, b"").decode("utf-8", "replace")
        name = asked or self._default
        if name not in READERS and name != OWN:
            known = ", ".join((OWN, *READERS))
            raise EventRejected("wrong_type", f"{FORMAT_HEADER}: {name[:50]!r} is none of {known}")
        reader = READERS.get(name)
        if "ce_specversion" in headers:
            found = binary_events(value, headers, reader)
        elif headers.get("content-type", b"").lower().startswith(STRUCTURED):
            found = structured_events(value, reader)
        elif reader is None or (not asked and _looks_own(value)):
            return _identified([checked(_decode_own, value)], headers)
        else:
            found = reader(value)
        # The record's time is in the log: a replay gives the same.
        for event in found:
            if event.ts is None and record_ms > 0:
                event.ts = record_ms / 1000.0
        return _identified(found, headers)


def _identified(events: list[Event], headers: dict[str, bytes]) -> list[Event]:
    """The events of a copied record with an id: one that was copied twice counts once."""
    origin = headers.get(ORIGIN_HEADER)
    if origin is not None:
        identity = f"{short_hash(origin.decode('utf-8', 'replace')):x}"  # short enough as an id
        for event in events:
            event.event_id = first(event.event_id, identity)
    return events


def _looks_own(value: bytes) -> bool:
    """Records of our own tools, time-outs among them, are on every topic."""
    if not value.startswith(b"{"):
        return False
    try:
        found = _sniff(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return (
        isinstance(found.event, str) and found.event in KIND and isinstance(found.ts, int | float)
    )
