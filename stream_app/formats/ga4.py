"""Google Analytics 4 e-commerce: rows of the BigQuery export and Measurement Protocol payloads.

Shapes: support.google.com/analytics/answer/7029846 (export) and
developers.google.com/analytics/devguides/collection/protocol/ga4 (protocol), events:
developers.google.com/analytics/devguides/collection/ga4/ecommerce.
"""

import msgspec

from stream_app.errors import EventRejected
from stream_app.formats.common import Identity, Ignored, checked, decoder, first, given, kind_of
from stream_app.wire import DeviceEvent, Event

GA4_NAMES = {
    "view_item_list": "impression",
    "search": "search",
    "view_search_results": "search",
    "select_item": "click",
    "view_item": "view",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "add_to_wishlist": "wishlist",
    "begin_checkout": "begin_checkout",
    "add_shipping_info": "begin_checkout",
    "add_payment_info": "begin_checkout",
    "purchase": "purchase",
    "refund": "refund",
    "share": "share",
}
_OF_THE_SESSION = frozenset(("search", "begin_checkout"))  # one event, whatever items it names
_EVENTS_MAX = 25  # of one payload, as the protocol has it


class Item(msgspec.Struct):
    """A product in ``items``; both shapes."""

    item_id: Identity = None
    item_name: str | None = None
    item_category: str | None = None
    item_category2: str | None = None
    item_category3: str | None = None
    item_category4: str | None = None
    item_category5: str | None = None
    price: float | None = None
    quantity: float | None = None
    item_list_id: Identity = None
    item_list_name: str | None = None
    item_list_index: int | str | None = None
    index: int | str | None = None


class Value(msgspec.Struct):
    """A parameter's value in the export: one of its fields is set."""

    string_value: str | None = None
    int_value: int | None = None
    float_value: float | None = None
    double_value: float | None = None


class Parameter(msgspec.Struct):
    """One entry of ``event_params``."""

    key: str = ""
    value: Value | None = None


class Ecommerce(msgspec.Struct):
    """Of the export: what belongs to the order, not to an item."""

    transaction_id: Identity = None
    purchase_revenue: float | None = None
    refund_value: float | None = None


class Params(msgspec.Struct):
    """``params`` of an event in a payload."""

    items: list[Item] | None = None
    transaction_id: Identity = None
    value: float | None = None
    search_term: str | None = None
    item_id: Identity = None  # of what is shared; other events have items
    item_list_id: Identity = None
    item_list_name: str | None = None
    timestamp_micros: int | None = None


class PayloadEvent(msgspec.Struct):
    """An entry of ``events``."""

    name: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")  # of what is ignored they may be anything
    timestamp_micros: int | None = None


class Record(msgspec.Struct):
    """Both shapes at once: which one a record has shows in the fields it sets."""

    event_name: str | None = None
    event_timestamp: int | None = None  # microseconds
    event_params: list[Parameter] | None = None
    batch_event_index: int | None = None
    user_id: Identity = None
    user_pseudo_id: Identity = None
    items: list[Item] | None = None
    ecommerce: Ecommerce | None = None
    client_id: Identity = None
    app_instance_id: Identity = None
    timestamp_micros: int | None = None
    events: list[PayloadEvent] | None = None


_decode_params = decoder(Params, strict=False)
_decode = decoder(Record, strict=False)  # the export writes 64-bit numbers as text


def ga4_events(value: bytes) -> list[Event]:
    """Events of one row or payload; raises ``Ignored`` or ``EventRejected``."""
    record = checked(_decode, value)
    if record.events is None:
        return _of_row(record)
    if len(record.events) > _EVENTS_MAX:
        raise EventRejected("oversize", f"{len(record.events)} events, at most {_EVENTS_MAX}")
    found: list[Event] = []
    ignored = "(no events)"
    for event in record.events:
        try:
            found += _of_payload(record, event)
        except Ignored as exc:
            ignored = str(exc)
    if not found:
        raise Ignored(ignored)
    return found


def _of_row(record: Record) -> list[Event]:
    kind = kind_of(GA4_NAMES, record.event_name)
    said = {p.key: p.value for p in record.event_params or () if p.value is not None}

    def text(key: str) -> Identity:
        value = said.get(key)
        return None if value is None else first(value.string_value, value.int_value)

    shop = record.ecommerce or Ecommerce()
    params = Params(
        items=record.items,
        transaction_id=first(shop.transaction_id, text("transaction_id")),
        value=shop.refund_value if kind == "refund" else shop.purchase_revenue,
        search_term=_string(text("search_term")),
        item_id=text("item_id"),
        item_list_id=text("item_list_id"),
        item_list_name=_string(text("item_list_name")),
    )
    device = record.user_pseudo_id
    when = record.event_timestamp
    index = 0 if record.batch_event_index is None else record.batch_event_index
    # A row has no id: who sent it when, and its place in the batch, tell it from others.
    who = first(device, record.user_id)
    identity = None if when is None else f"{who}.{when}.{index}.{record.event_name}"
    return _events(kind, params, first(record.user_id), first(device), when, identity)


def _of_payload(record: Record, event: PayloadEvent) -> list[Event]:
    kind = kind_of(GA4_NAMES, event.name)
    params = checked(_decode_params, given(event.params))
    device = first(record.client_id, record.app_instance_id)
    when = event.timestamp_micros or params.timestamp_micros or record.timestamp_micros
    return _events(kind, params, first(record.user_id), device, when, None)


def _events(
    kind: str,
    params: Params,
    user: Identity,
    device: Identity,
    micros: int | None,
    identity: str | None,
) -> list[Event]:
    order = _set(params.transaction_id)
    if kind == "purchase" and order is not None:
        identity = f"{kind}.{order}"  # an order counts once, however often it is sent
    items = params.items or []
    if kind in _OF_THE_SESSION or not items:
        shared = params.item_id if kind == "share" else None
        items = [Item(item_id=shared, price=params.value if kind == "refund" else None)]
    return [
        DeviceEvent(
            event=kind,
            ts=None if micros is None else micros / 1e6,
            user_id=user,
            session_id=device,
            item_id=_set(first(_set(item.item_id), item.item_name)),
            event_id=identity,
            category=_category(item),
            quantity=item.quantity,
            price=item.price,
            query=params.search_term,
            list=_string(
                first(_set(item.item_list_id), _set(item.item_list_name), params.item_list_id)
            ),
            position=_position(item),
        )
        for item in items
    ]


def _category(item: Item) -> str | None:
    parts = (
        item.item_category,
        item.item_category2,
        item.item_category3,
        item.item_category4,
        item.item_category5,
    )
    return "/".join(part for part in parts if part and _set(part)) or None


def _position(item: Item) -> int | None:
    at = first(item.index, item.item_list_index)
    return int(at) if at is not None and str(at).isdecimal() else None


def _set(value: Identity) -> Identity:
    """``None`` for what the export writes where nothing was sent."""
    return None if value in (None, "", "(not set)") else value


def _string(value: Identity) -> str | None:
    return None if value is None else str(value)
