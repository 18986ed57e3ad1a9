"""Segment's and RudderStack's e-commerce specification, version 2: ``track`` calls.

Shapes: segment.com/docs/connections/spec/ecommerce/v2 and
rudderstack.com/docs/event-spec/ecommerce-events-spec.
"""

import msgspec

from stream_app.errors import EventRejected
from stream_app.formats.common import (
    Identity,
    Ignored,
    checked,
    decoder,
    first,
    given,
    kind_of,
    seconds,
)
from stream_app.wire import DeviceEvent, Event

SEGMENT_NAMES = {
    "Products Searched": "search",
    "Product List Viewed": "impression",
    "Product List Filtered": "impression",
    "Product Clicked": "click",
    "Product Viewed": "view",
    "Product Added": "add_to_cart",
    "Product Removed": "remove_from_cart",
    "Wishlist Product Added to Cart": "add_to_cart",
    "Product Added to Wishlist": "wishlist",
    "Checkout Started": "begin_checkout",
    "Checkout Step Viewed": "begin_checkout",
    "Checkout Step Completed": "begin_checkout",
    "Payment Info Entered": "begin_checkout",
    "Order Completed": "purchase",
    "Order Refunded": "refund",
    "Order Cancelled": "refund",
    "Product Shared": "share",
    "Cart Shared": "share",
    "Product Reviewed": "review",
}
_OF_THE_SESSION = frozenset(("search", "begin_checkout"))
_CALLS_MAX = 500  # of one batch


class Product(msgspec.Struct):
    """A product, alone in ``properties`` or one of ``products``."""

    product_id: Identity = None
    sku: Identity = None
    category: str | None = None
    price: float | None = None
    quantity: float | None = None
    position: int | None = None


class Properties(Product):
    """``properties`` of a call."""

    products: list[Product] | None = None
    order_id: Identity = None
    query: str | None = None
    list_id: Identity = None
    rating: float | None = None
    total: float | None = None
    revenue: float | None = None


class Call(msgspec.Struct):
    """One call as sources deliver it."""

    type: str | None = None
    event: str | None = None
    userId: Identity = None  # noqa: N815 - as it is on the wire
    anonymousId: Identity = None  # noqa: N815
    messageId: Identity = None  # noqa: N815
    timestamp: str | None = None
    originalTimestamp: str | None = None  # noqa: N815
    properties: msgspec.Raw = msgspec.Raw(b"{}")  # of what is ignored they may be anything
    batch: list["Call"] | None = None


class Batch(msgspec.Struct):
    """A batch with its calls as they came."""

    batch: list[msgspec.Raw] | None = None


_decode = decoder(Call, strict=False)
_decode_batch = decoder(Batch)
_decode_properties = decoder(Properties, strict=False)


def segment_events(value: bytes) -> list[Event]:
    """Events of one call, or of a batch of calls; raises ``Ignored`` or ``EventRejected``."""
    call = checked(_decode, value)
    if call.batch is None:
        return _events(call)
    if len(call.batch) > _CALLS_MAX:
        raise EventRejected("oversize", f"{len(call.batch)} calls, at most {_CALLS_MAX}")
    found: list[Event] = []
    ignored = "(no calls)"
    for one in call.batch:
        try:
            found += _events(one)
        except Ignored as exc:
            ignored = str(exc)
    if not found:
        raise Ignored(ignored)
    return found


def segment_calls(value: bytes) -> list[bytes]:
    """The calls of a batch, each as it came; of a single call none. Raises ``EventRejected``."""
    return [bytes(call) for call in checked(_decode_batch, value).batch or ()]


def _events(call: Call) -> list[Event]:
    if call.type not in (None, "track"):
        raise Ignored(call.type)
    kind = kind_of(SEGMENT_NAMES, call.event)
    said = checked(_decode_properties, given(call.properties))
    identity = first(call.messageId)
    if kind == "purchase" and said.order_id not in (None, ""):
        identity = f"{kind}.{said.order_id}"  # an order counts once, however often it is sent
    products: list[Product] = list(said.products or [])
    if kind in _OF_THE_SESSION or (not products and kind == "refund"):
        products = [
            Product(price=first_number(said.total, said.revenue) if kind == "refund" else None)
        ]
    elif not products:
        products = [said]
    return [
        DeviceEvent(
            event=kind,
            ts=seconds(call.timestamp or call.originalTimestamp),
            user_id=first(call.userId),
            session_id=first(call.anonymousId),
            item_id=first(product.product_id, product.sku),
            event_id=identity,
            category=product.category,
            quantity=product.quantity,
            price=product.price,
            rating=said.rating,
            query=said.query,
            list=None if said.list_id is None else str(said.list_id),
            position=product.position,
        )
        for product in products
    ]


def first_number(*values: float | None) -> float | None:
    """The first number that is given."""
    return next((value for value in values if value is not None), None)
