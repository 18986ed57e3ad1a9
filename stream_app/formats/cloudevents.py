"""CloudEvents 1.0 on Kafka: binary mode (attributes in ``ce_`` headers) and structured mode (JSON).

An envelope: what is inside is our own schema, or another of the formats when that is the topic's.
Shapes: github.com/cloudevents/spec, "Kafka protocol binding" and "JSON event format".
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stream_app.core.model import INTERNAL, KIND
from stream_app.errors import EventRejected
from stream_app.formats.common import Ignored, checked, decoder, first, kind_of, seconds
from stream_app.wire import Event

STRUCTURED = b"application/cloudevents+json"
OWN_NAMES = {kind: kind for kind in KIND if kind not in INTERNAL}


class Envelope(msgspec.Struct):
    """The attributes that are read, and the data in one of its two forms."""

    specversion: str | None = None
    type: str | None = None
    source: str = ""
    id: str | None = None
    time: str | None = None
    userid: str | None = None  # extensions
    sessionid: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


class Product(msgspec.Struct):
    """One of several products of an event."""

    item_id: str | int | None = None
    price: float | None = None
    quantity: float | None = None
    position: int | None = None


class Data(Event):
    """Our own event, or several at once as ``items``."""

    items: list[Product] | None = None


class Named(msgspec.Struct):
    """Data of any event: what tells whether it is one of ours."""

    event: object = None


_decode_envelope = decoder(Envelope)
_decode_data = decoder(Data)
_decode_named = decoder(Named)

Inner = Callable[[bytes], list[Event]]


def binary_events(value: bytes, headers: Mapping[str, bytes], inner: Inner | None) -> list[Event]:
    """Events of a record in binary mode, whose headers have names in lower case."""

    def text(name: str) -> str | None:
        found = headers.get(f"ce_{name}")
        return None if found is None else found.decode("utf-8", "replace")

    envelope = Envelope(
        specversion=text("specversion"),
        type=text("type"),
        source=text("source") or "",
        id=text("id"),
        time=text("time"),
        userid=text("userid"),
        sessionid=text("sessionid"),
    )
    return _events(envelope, value, inner)


def structured_events(value: bytes, inner: Inner | None) -> list[Event]:
    """Events of a record in structured mode; raises ``Ignored`` or ``EventRejected``."""
    envelope = checked(_decode_envelope, value)
    data = bytes(envelope.data)
    if envelope.data_base64 is not None:
        try:
            data = base64.b64decode(envelope.data_base64, validate=True)
        except binascii.Error as exc:
            raise EventRejected("wrong_type", f"data_base64: {exc}") from exc
    return _events(envelope, data, inner)


def _events(envelope: Envelope, data: bytes, inner: Inner | None) -> list[Event]:
    if not envelope.id or not envelope.type or envelope.specversion is None:
        raise EventRejected("missing_field", "a CloudEvent has specversion, id, source and type")
    events = inner(data) if inner else _own(envelope.type, data)
    for event in events:
        event.ts = seconds(envelope.time) if event.ts is None else event.ts
        event.user_id = first(event.user_id, envelope.userid)
        event.session_id = first(event.session_id, envelope.sessionid)
        # Unique together, says the specification.
        event.event_id = first(event.event_id, _short(f"{envelope.source}#{envelope.id}"))
    return events


def _own(type_: str, data: bytes) -> list[Event]:
    """The event that ``data`` names, else the last part of the type that is a name of ours.

    >>> _own("com.shop.add_to_cart.v1", b'{"item_id":7}')[0].event
    'add_to_cart'
    """
    parts = reversed(type_.replace("/", ".").replace("-", "_").lower().split("."))
    named = next((part for part in parts if part in OWN_NAMES), None)
    if named is None and not _names_an_event(data):
        raise Ignored(type_)
    said = checked(_decode_data, data or b"{}")
    kind = kind_of(OWN_NAMES, said.event or named)
    common: dict[str, Any] = {name: getattr(said, name) for name in Event.__struct_fields__}
    common |= {"event": kind, "sa_data": None}
    if not said.items:
        return [Event(**common)]
    return [
        Event(
            **common
            | {
                "item_id": product.item_id,
                "price": product.price,
                "quantity": product.quantity,
                "position": product.position,
            }
        )
        for product in said.items
    ]


def _names_an_event(data: bytes) -> bool:
    """Whether ``data`` has an ``event``; of an event that is none of ours it may be anything."""
    try:
        return bool(checked(_decode_named, data or b"{}").event)
    except EventRejected as exc:
        if exc.reason != "wrong_type":
            raise
        return False  # JSON, but no object


def _short(identity: str) -> str:
    """An id of any length as one that fits; its end differs from event to event."""
    return identity[-128:]
