"""What the formats share: checked JSON decoding, names of events, times."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from stream_app.errors import EventRejected

Shape = TypeVar("Shape")
Identity = str | int | None


class Ignored(Exception):
    """A well-formed record of an event that means nothing to us; the argument is its name."""


def decoder(shape: type[Shape], *, strict: bool = True) -> Callable[[bytes], Shape]:
    """A JSON decoder that also looks at the bytes of fields it skips; ``strict=False`` takes "1".

    It raises ``MsgspecError``, ``UnicodeDecodeError`` or ``RecursionError``.
    """
    decode_json = msgspec.json.Decoder(shape, strict=strict).decode

    def decode(value: bytes) -> Shape:
        if not value.isascii():
            value.decode()
        return decode_json(value)

    return decode


def parse_reason(value: bytes, exc: Exception) -> str:
    """The reason to reject a record that a :func:`decoder` raised ``exc`` for."""
    if isinstance(exc, msgspec.ValidationError):
        return "wrong_type"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    return "malformed_json"


def checked(decode: Callable[[bytes], Shape], value: bytes) -> Shape:
    """``decode(value)``; raises :class:`~stream_app.errors.EventRejected`."""
    try:
        return decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise EventRejected(parse_reason(value, exc), str(exc)) from exc


def given(said: msgspec.Raw) -> bytes:
    """The JSON of a part that was left for later; ``null`` says what an empty object does."""
    text = bytes(said)
    return b"{}" if text == b"null" else text


def kind_of(names: Mapping[str, str], name: str | None) -> str:
    """Our name of an event; raises :class:`Ignored` when it has none, ``EventRejected`` unnamed."""
    if not name:
        raise EventRejected("missing_field", "the event's name")
    kind = names.get(name)
    if kind is None:
        raise Ignored(name)
    return kind


def seconds(value: str | None) -> float | None:
    """Unix seconds of an RFC 3339 time (UTC without a zone), ``None`` where no time is given.

    Raises ``EventRejected`` for a text that is no time.

    >>> seconds("2026-01-01T00:00:00Z"), seconds("2026-01-01 00:00:00.000"), seconds(None)
    (1767225600.0, 1767225600.0, None)
    """
    if not value:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError as exc:
        raise EventRejected("wrong_type", f"time {value[:50]!r} is not as in RFC 3339") from exc
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def first(*values: Identity) -> Identity:
    """The first id that is given: neither missing nor empty."""
    return next((value for value in values if value not in (None, "")), None)
