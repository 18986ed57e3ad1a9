"""Public records about stock, customer service and counts. ``docs/contracts`` is made from them.

Unknown fields are ignored, as of the other records.
"""

from datetime import date
from typing import Any, Literal

import msgspec

from stream_app.reader.records import Text, decoded


class Demand(msgspec.Struct, frozen=True):
    """What an item will sell: ``demand:<item_id>``. Units.

    ``forecast_7d`` is expected in the seven days from ``starts`` on, ``daily`` says how much of it
    on each; ``upper_7d`` is not exceeded at the service level. ``stock`` and ``days_of_cover`` only
    where the catalog says how many there are; cover is ``None`` where nothing is expected to sell.
    """

    item_id: str
    starts: date = msgspec.field(name="from")
    forecast_7d: float
    upper_7d: float
    daily: list[float]
    stock: float | None = None
    days_of_cover: float | None = None


class InventoryAlert(Demand, frozen=True, kw_only=True):
    """An item's stock has come into another state: a record of ``inventory-alerts``."""

    alert: Literal["none", "low_stock", "out_of_stock", "overstock"]
    suggested_quantity: int


class SupportAnswer(msgspec.Struct, frozen=True):
    """An entry of the knowledge base that may answer; ``score`` compares answers of one message."""

    id: str
    answer: str
    score: float


class SupportAssist(msgspec.Struct, frozen=True):
    """What the person who answers a message should know: a record of ``support-assist``.

    ``intent`` is ``None`` for a message that is like none of the trained ones. ``sentiment`` lies
    between -1 and 1 (``None`` where it is not judged), ``urgency_because`` says what the urgency
    was judged by. ``journey`` holds fields of the customer's ``rec:`` record as texts; none of a
    customer nobody knows.
    """

    message_id: str | int
    user_id: str | int | None
    session_id: str | int | None
    ts: float | None
    intent: str | None
    confidence: float
    sentiment: float | None
    urgency: Literal["low", "normal", "high"]
    urgency_because: list[str]
    queue: str
    answers: list[SupportAnswer]
    journey: dict[str, str]


class RuleChange(msgspec.Struct, frozen=True):
    """Who changed which merchandising rule: a record of ``rules-audit``. ``ts`` is in unix seconds.

    ``before`` and ``after`` are what the rule said; ``None`` where it was not live.
    """

    rule_id: str
    author: str
    ts: float
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class ItemCount(msgspec.Struct, frozen=True):
    """How many customers looked at an item lately, with noise."""

    item_id: str
    customers: int


class Aggregates(msgspec.Struct, frozen=True):
    """Counts of customers with noise: ``aggregates:latest``. Times are unix seconds.

    ``noise_scale`` is that of the Laplace noise of each count, ``epsilon_spent`` the privacy loss
    of all releases so far. ``last_moves`` has names such as ``consider > cart``.
    """

    release: int
    records: int
    as_of: float
    published_at: float
    epsilon: float
    epsilon_spent: float
    per_customer_max: int
    noise_scale: float
    customers_by_step: dict[str, int]
    last_moves: dict[str, int]
    top_items: list[ItemCount]


_AGGREGATES = msgspec.json.Decoder(Aggregates)
_ALERT = msgspec.json.Decoder(InventoryAlert)
_ASSIST = msgspec.json.Decoder(SupportAssist)
_DEMAND = msgspec.json.Decoder(Demand)


def decode_aggregates(text: Text) -> Aggregates:
    """``aggregates:latest``."""
    found: Aggregates = decoded(_AGGREGATES, text)
    return found


def decode_alert(value: Text) -> InventoryAlert:
    """A record of ``inventory-alerts``."""
    found: InventoryAlert = decoded(_ALERT, value)
    return found


def decode_assist(value: Text) -> SupportAssist:
    """A record of ``support-assist``."""
    found: SupportAssist = decoded(_ASSIST, value)
    return found


def decode_demand(text: Text) -> Demand:
    """``demand:<item_id>``.

    >>> text = b'{"item_id":"a","from":"2026-11-20","forecast_7d":7,"upper_7d":9,"daily":[1,1]}'
    >>> decode_demand(text).starts, decode_demand(text).days_of_cover
    (datetime.date(2026, 11, 20), None)
    """
    found: Demand = decoded(_DEMAND, text)
    return found
