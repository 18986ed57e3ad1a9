"""The public records as types. ``docs/contracts`` is generated from them.

Unknown fields are ignored: a newer worker may publish more than this reader knows.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from stream_app.errors import StreamAppError

Text = str | bytes


class UnreadableRecord(StreamAppError):
    """What was read is no record of the contract: another program writes to its key or topic."""


class Reason(msgspec.Struct, frozen=True):
    """Why an item is listed: what contributed most, and the customer's own item that led there."""

    source: str
    because: str | None = None


class Entry(msgspec.Struct, frozen=True):
    """One item of a list, best first."""

    item_id: str
    score: float
    reason: Reason | None = None


class Source(msgspec.Struct, frozen=True):
    """The last event that the lists know of."""

    topic: str
    partition: int
    offset: int


class Decision(msgspec.Struct, frozen=True):
    """What to do next for a customer: an action of the journey, perhaps with a promotion.

    ``propensity`` is the probability with which it was chosen, ``expected_value`` what it is
    expected to bring.
    """

    action: str
    promotion: str | None = None
    reason: str = ""
    propensity: float = 1.0
    expected_value: float = 0.0


class Recommendations(msgspec.Struct, frozen=True):
    """One customer's step and lists: ``rec:<user_id>``, and the value of a record of the topic.

    ``version`` only grows; of two records with one version the higher ``epoch`` is newer. Times are
    unix seconds. ``purchase_intent`` is the probability of a purchase in this session,
    ``experiments`` the customer's variant of each.
    """

    user_id: str
    version: int
    generated_at: float
    step: str
    previous_step: str
    next_step: str
    entered_at: float
    source: Source
    lists: dict[str, list[Entry]]
    epoch: int = 0
    next_best_action: Decision | None = None
    purchase_intent: float | None = None
    segment: str | None = None
    experiments: dict[str, str] | None = None


class Affinity(msgspec.Struct, frozen=True):
    """How much of a customer's interest goes to a category (its whole path) or a brand: 0 to 1."""

    name: str
    share: float


class PriceAffinity(msgspec.Struct, frozen=True):
    """What prices a customer is used to look at.

    ``percentile`` is the share of the catalog, 0 to 1, that is cheaper than the ``typical`` price;
    ``level`` is low, middle or high: half a standard deviation of log prices makes a difference.
    """

    typical: float
    percentile: float
    level: str


class Profile(msgspec.Struct, frozen=True):
    """What is known of a customer: ``profile:<user_id>``.

    Recency, frequency, monetary value (of all purchases less refunds), journey, predictions:
    probabilities of a purchase in this session and in seven days, and of not coming back. Likings,
    the strongest first, by what the customer did lately. From ``region`` on what the shop has said.
    """

    user_id: str
    anonymous: bool
    step: str
    previous_step: str
    entered_at: float
    last_seen: float
    session_start: float
    events: int
    sessions: int
    purchases: int
    monetary: float
    cart_items: int
    bought_items: int
    recent_items: int
    purchase_in_session: float
    purchase_in_week: float
    churn: float
    order_value: float
    cluster: int
    value_segment: str
    last_purchase: float | None = None
    category_affinities: list[Affinity] = []
    brand_affinities: list[Affinity] = []
    price_affinity: PriceAffinity | None = None
    region: str | None = None
    channel: str | None = None
    language: str | None = None
    tags: list[str] = []
    attributes: dict[str, str | list[str]] = {}


class DeadLetter(msgspec.Struct, frozen=True):
    """Headers of a dead letter, whose key and value are as they came. All are texts."""

    topic: str
    partition: str
    offset: str
    reason: str
    detail: str


_ENTRIES = msgspec.json.Decoder(list[Entry])
_PROFILE = msgspec.json.Decoder(Profile)
_RECORD = msgspec.json.Decoder(Recommendations)
_HASH_JSON = ("source", "next_best_action", "experiments")
_HASH_TYPES: dict[str, Any] = {
    "version": int,
    "epoch": int,
    "generated_at": float,
    "entered_at": float,
    "purchase_intent": float,
}


def decode_entries(text: Text | None) -> list[Entry]:
    """``similar:<item_id>``, ``trending:<segment>`` or one field of ``rec:<user_id>``.

    >>> decode_entries(b'[{"item_id":"a","score":0.5,"new":1}]')
    [Entry(item_id='a', score=0.5, reason=None)]
    """
    return decoded(_ENTRIES, text) if text else []


def decode_profile(text: Text) -> Profile:
    """``profile:<user_id>``."""
    profile: Profile = decoded(_PROFILE, text)
    return profile


def decode_recommendations(value: Text | Mapping[Any, Text], user_id: str = "") -> Recommendations:
    """A record of the topic, or the reply to ``HGETALL rec:<user_id>``."""
    if not isinstance(value, Mapping):
        record: Recommendations = decoded(_RECORD, value)
        return record
    fields = {_text(name): _text(text) for name, text in value.items()}
    lists = {name: text for name, text in fields.items() if text.startswith("[")}
    known: dict[str, Any] = {n: t for n, t in fields.items() if n not in lists}
    try:
        known |= {n: make(known[n]) for n, make in _HASH_TYPES.items() if n in known}
        known |= {n: msgspec.json.decode(known[n]) for n in _HASH_JSON if n in known}
        known["lists"] = {name: msgspec.json.decode(text) for name, text in lists.items()}
        return msgspec.convert({"user_id": user_id, **known}, Recommendations)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise UnreadableRecord(f"rec:{user_id}: {exc}") from exc


def decoded(decoder: msgspec.json.Decoder[Any], text: Text) -> Any:
    """What ``text`` says; raises :class:`UnreadableRecord`."""
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError as exc:
        raise UnreadableRecord(str(exc)) from exc


def _text(value: Text) -> str:
    return value if isinstance(value, str) else value.decode()
