"""Snowplow e-commerce: ``snowplow_ecommerce_action`` with its entities.

Enriched events as the analytics SDKs' JSON, or as the tab-separated lines that the pipeline
writes. Shapes: docs.snowplow.io, "Ecommerce events" and "Understanding the enriched TSV format".
"""

from typing import Any

import msgspec
import orjson

from stream_app.errors import EventRejected
from stream_app.formats.common import Identity, Ignored, checked, decoder, first, kind_of, seconds
from stream_app.wire import DeviceEvent, Event

SNOWPLOW_NAMES = {
    "list_view": "impression",
    "list_click": "click",
    "product_view": "view",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "checkout_step": "begin_checkout",
    "transaction": "purchase",
    "refund": "refund",
}
_VENDOR = "com_snowplowanalytics_snowplow_ecommerce"
_ACTION = f"unstruct_event_{_VENDOR}_snowplow_ecommerce_action_1"
_ENTITY = f"contexts_{_VENDOR}_"
_IGLU = "iglu:com.snowplowanalytics.snowplow.ecommerce/"
# Columns of an enriched line, counted from 0.
_TSV_COLUMNS = 131
_TSV = {
    "collector_tstamp": 3,
    "event": 5,
    "event_id": 6,
    "user_id": 12,
    "domain_userid": 15,
    "network_userid": 17,
    "contexts": 52,
    "unstruct_event": 58,
    "derived_tstamp": 124,
    "event_name": 126,
}


class Action(msgspec.Struct):
    """What was done, in a list of this name."""

    type: str | None = None
    name: str | None = None


class Product(msgspec.Struct):
    """Entity ``product``."""

    id: Identity = None
    category: str | None = None
    price: float | None = None
    quantity: float | None = None
    position: int | None = None


class Order(msgspec.Struct):
    """Entity ``transaction`` or ``refund``."""

    transaction_id: Identity = None
    refund_amount: float | None = None


class User(msgspec.Struct):
    """Entity ``user``: who is logged in, or an id of the shop's for a guest."""

    id: Identity = None
    is_guest: bool | None = None


class Visit(msgspec.Struct):
    """Entity ``client_session`` of apps; its ``userId`` is the installation's."""

    userId: Identity = None  # noqa: N815 - as it is on the wire


class Enriched(
    msgspec.Struct,
    rename={
        "action": _ACTION,
        "products": f"{_ENTITY}product_1",
        "transactions": f"{_ENTITY}transaction_1",
        "refunds": f"{_ENTITY}refund_1",
        "users": f"{_ENTITY}user_1",
        "visits": "contexts_com_snowplowanalytics_snowplow_client_session_1",
    },
):
    """An enriched event as the SDKs' JSON, as far as it is read."""

    event: str | None = None
    event_name: str | None = None
    event_id: Identity = None
    user_id: Identity = None
    domain_userid: Identity = None
    network_userid: Identity = None
    collector_tstamp: str | None = None
    derived_tstamp: str | None = None
    action: Action | None = None
    products: list[Product] | None = None
    transactions: list[Order] | None = None
    refunds: list[Order] | None = None
    users: list[User] | None = None
    visits: list[Visit] | None = None


_decode = decoder(Enriched, strict=False)
_READ = frozenset(field.encode_name for field in msgspec.structs.fields(Enriched))


def snowplow_events(value: bytes) -> list[Event]:
    """Events of one enriched event; raises ``Ignored`` or ``EventRejected``."""
    if not value.startswith(b"{") and value.count(b"\t") == _TSV_COLUMNS - 1:
        value = _json_of_line(value)
    enriched = checked(_decode, value)
    if enriched.action is None:
        raise Ignored(enriched.event_name or enriched.event or "(no event_name)")
    kind = kind_of(SNOWPLOW_NAMES, enriched.action.type)
    identity = first(enriched.event_id)
    orders = (enriched.refunds if kind == "refund" else enriched.transactions) or [Order()]
    if kind == "purchase" and orders[0].transaction_id not in (None, ""):
        identity = f"{kind}.{orders[0].transaction_id}"  # an order counts once
    products = enriched.products or []
    if kind == "begin_checkout" or (kind == "refund" and not products):
        products = [Product(price=orders[0].refund_amount if kind == "refund" else None)]
    return [
        DeviceEvent(
            event=kind,
            ts=seconds(enriched.derived_tstamp or enriched.collector_tstamp),
            user_id=_known(enriched),
            session_id=_device(enriched),
            item_id=product.id,
            event_id=identity,
            category=product.category,
            quantity=product.quantity,
            price=product.price,
            list=enriched.action.name,
            position=product.position,
        )
        for product in products or [Product()]
    ]


def _device(enriched: Enriched) -> Identity:
    """The browser's id, the app's, else the collector's cookie, which apps may not keep."""
    visit = (enriched.visits or [Visit()])[0]
    return first(enriched.domain_userid, visit.userId, enriched.network_userid)


def _known(enriched: Enriched) -> Identity:
    """The tracker's user id, else that of the ``user`` entity unless it says that it is a guest."""
    entity = (enriched.users or [User()])[0]
    return first(enriched.user_id, None if entity.is_guest else entity.id)


def _json_of_line(line: bytes) -> bytes:
    """The same event in the shape of the SDKs' JSON."""
    columns = line.rstrip(b"\r\n").split(b"\t")
    try:
        fields: dict[str, Any] = {
            name: columns[at].decode() or None
            for name, at in _TSV.items()
            if name not in ("contexts", "unstruct_event")
        }
        said = orjson.loads(columns[_TSV["unstruct_event"]] or b"{}")
        contexts = orjson.loads(columns[_TSV["contexts"]] or b"{}")
        event = said.get("data") or {}
        if str(event.get("schema", "")).startswith(f"{_IGLU}snowplow_ecommerce_action/"):
            fields[_ACTION] = event.get("data")
        for entity in contexts.get("data") or []:
            schema = str(entity.get("schema", ""))
            vendor, _, rest = schema.removeprefix("iglu:").partition("/")
            name = f"contexts_{vendor.replace('.', '_')}_{rest.partition('/')[0]}_1"
            if name in _READ:
                fields.setdefault(name, []).append(entity.get("data"))
    except UnicodeDecodeError as exc:
        raise EventRejected("not_utf8", str(exc)) from exc
    except orjson.JSONDecodeError as exc:
        raise EventRejected("malformed_json", str(exc)) from exc
    except (AttributeError, TypeError) as exc:
        raise EventRejected("wrong_type", str(exc)) from exc
    return orjson.dumps(fields)
