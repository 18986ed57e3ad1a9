"""One customer in plain Python, and what an event, time or a login changes in them.

The lists and dictionaries behind :mod:`stream_app.offline.recompute`.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from stream_app.core.customer import FIRST_OF_SESSION
from stream_app.core.insight_fields import USER_NAMES as INSIGHT_NAMES
from stream_app.core.journey import STAY
from stream_app.core.model import (
    BOUGHT_MAX,
    CART_MAX,
    KINDS,
    RING_MAX,
    SEEN_MAX,
    VECTOR_MAX,
    Model,
)
from stream_app.core.state import USER, customer_name, decode_users, encode_users, new_users

_FIELDS = (
    *("entered_at", "events", "sessions", "purchases", "monetary", "session"),
    *("session_start", "session_events", "last_ts", "offset", "anonymous"),
    *("category", "category_views", "first_ts", "purchase_ts", "timer_ts"),
    *("step", "previous_step"),
)


@dataclass(slots=True)
class Visit:
    """One item event as a customer's state remembers it."""

    item: int
    ts: float
    kind: str
    opens: bool  # the first item event of its session

    def code(self) -> int:
        """The byte that stands for it in the state."""
        return KINDS.index(self.kind) + (FIRST_OF_SESSION if self.opens else 0)


@dataclass(slots=True)
class Customer:
    """What is known of one customer; lists run from oldest to newest."""

    id: int
    step: int = 0
    previous_step: int = 0
    entered_at: float = 0.0
    events: int = 0
    sessions: int = 0
    purchases: int = 0
    monetary: np.float32 = field(default_factory=lambda: np.float32(0.0))
    session: int = 0
    session_start: float = 0.0
    session_events: int = 0
    last_ts: float = 0.0
    offset: int = -1
    anonymous: int = 0
    name: str = ""
    category: int = 0
    category_views: int = 0
    first_ts: float = 0.0
    purchase_ts: float = 0.0
    timer_ts: float = 0.0
    paced: list[float] = field(default_factory=lambda: [0.0, 0.0])  # by minute, by day
    visits: list[Visit] = field(default_factory=list)
    in_session: int = 0  # how many of the visits
    seen: list[int] = field(default_factory=list)
    cart: list[int] = field(default_factory=list)
    bought: dict[int, int] = field(default_factory=dict)  # when, in whole seconds
    vector: dict[int, np.float32] = field(default_factory=dict)
    query: list[int] = field(default_factory=list)

    def blob(self) -> bytes:
        """The state as the stream stores it."""
        users = new_users(np.array([self.id], np.uint64))
        user = users[0]
        for name in _FIELDS:
            user[name] = getattr(self, name)
        user["session_n"] = self.in_session
        user["minute_paced"], user["day_paced"] = self.paced
        columns: dict[str, tuple[str, list[int] | list[float]]] = {
            "ring_item": ("ring_n", [visit.item for visit in self.visits]),
            "ring_ts": ("ring_n", [int(visit.ts) for visit in self.visits]),
            "ring_kind": ("ring_n", [visit.code() for visit in self.visits]),
            "seen": ("seen_n", self.seen),
            "query_word": ("query_n", self.query),
            "cart_item": ("cart_n", self.cart),
            "bought_item": ("bought_n", list(self.bought)),
            "bought_ts": ("bought_n", list(self.bought.values())),
            "vector_item": ("vector_n", list(self.vector)),
            "vector_weight": ("vector_n", [float(w) for w in self.vector.values()]),
        }
        for name, (count, values) in columns.items():
            user[count] = len(values)
            user[name][: len(values)] = values
        assert users.dtype == USER
        return encode_users(users, [self.name.encode("utf-8", "surrogatepass")])[0]


def time_out(who: Customer, due: float, to: int) -> None:
    who.timer_ts = due
    if to not in (STAY, who.step):
        who.previous_step, who.step, who.entered_at = who.step, to, due


def fade(who: Customer, ts: float, model: Model) -> None:
    """Decay the customer's vector from their last event to ``ts``."""
    elapsed_s = ts - who.last_ts
    if elapsed_s > 0:
        factor = np.float32(math.exp2(-elapsed_s / model.vector_half_life_s))
        who.vector = {item: np.float32(w * factor) for item, w in who.vector.items()}


def keep_books(who: Customer, kind: str, item: int, value: float, ts: float) -> None:
    if kind == "add_to_cart" and item not in who.cart:
        who.cart = [*who.cart, item][-CART_MAX:]
    if kind in ("remove_from_cart", "purchase") and item in who.cart:
        who.cart.remove(item)
    if kind == "purchase":
        who.purchases += 1
        who.purchase_ts = max(who.purchase_ts, ts)
        who.monetary = np.float32(who.monetary + np.float32(value))
        latest = max(int(ts), who.bought.pop(item, 0))
        who.bought = dict([*who.bought.items(), (item, latest)][-BOUGHT_MAX:])
    if kind == "refund":
        who.monetary = np.float32(who.monetary - np.float32(value))
        who.bought.pop(item, None)


def like(who: Customer, item: int, weight: float) -> None:
    """Add to the vector; a new item takes the place of the least liked one when it is full."""
    if item in who.vector:
        who.vector[item] = np.float32(max(0.0, float(who.vector[item]) + weight))
    elif weight > 0:
        if len(who.vector) == VECTOR_MAX:
            least = min(who.vector, key=lambda other: (who.vector[other], other))
            who.vector = {
                item if other == least else other: np.float32(weight) if other == least else w
                for other, w in who.vector.items()
            }
        else:
            who.vector[item] = np.float32(weight)


def books(blob: bytes | None) -> bytes | None:
    """A stored customer without predictions and decisions, which need all customers' events.

    Those are held against another replay of the log instead, not against a recompute.
    """
    if not blob:
        return blob
    user = decode_users(np.zeros(1, np.uint64), [blob])
    for name in INSIGHT_NAMES:
        user[name] = 0
    return encode_users(user, [customer_name(blob)])[0]


def agree_but_for_migration(stored: bytes | None, true: bytes | None) -> bool:
    """Whether the :func:`books` of two states agree, but for what older schemas did not keep.

    Schema 2 knew no words of a search and no purchase times; up to 3 there were 10 bought items.
    """
    if not stored or not true:
        return stored == true
    bought, rest = [], []
    for blob in (stored, true):
        user = decode_users(np.zeros(1, np.uint64), [books(blob) or b""])
        bought.append(set(user["bought_item"][0, : user["bought_n"][0]].tolist()))
        for name in ("bought_n", "bought_item", "bought_ts", "query_n", "query_word"):
            user[name] = 0
        rest.append(encode_users(user, [customer_name(blob)])[0])
    return bought[0] <= bought[1] and rest[0] == rest[1]


def customer_of(blob: bytes) -> Customer:
    """The customer that a stored state tells of."""
    user = decode_users(np.zeros(1, np.uint64), [blob])[0]
    who = Customer(int(user["id"]))
    for name in _FIELDS:
        setattr(who, name, user[name].item() if name != "monetary" else user[name])
    who.in_session = int(user["session_n"])
    n = int(user["ring_n"])
    for item, ts, kind in zip(
        user["ring_item"][:n].tolist(),
        user["ring_ts"][:n].tolist(),
        user["ring_kind"][:n].tolist(),
        strict=True,
    ):
        name, opens = KINDS[kind & ~FIRST_OF_SESSION], bool(kind & FIRST_OF_SESSION)
        who.visits.append(Visit(item, float(ts), name, opens))
    who.seen = user["seen"][: user["seen_n"]].tolist()
    who.query = user["query_word"][: user["query_n"]].tolist()
    who.cart = user["cart_item"][: user["cart_n"]].tolist()
    n = int(user["bought_n"])
    who.bought = dict(
        zip(user["bought_item"][:n].tolist(), user["bought_ts"][:n].tolist(), strict=True)
    )
    k = int(user["vector_n"])
    items, weights = user["vector_item"][:k].tolist(), user["vector_weight"][:k]
    who.vector = dict(zip(items, weights, strict=True))
    return who


def merge(who: Customer, other: Customer, model: Model) -> None:
    """Add what an anonymous session did to the customer who turned out to have been there."""
    same = who.session != 0 and who.session == other.session
    if other.anonymous == 2:  # of a device: the same session only without a pause between
        gap_s = model.session_gap_s
        same = same and who.session_start - other.last_ts <= gap_s
        same = same and other.session_start - who.last_ts <= gap_s
    later = other.last_ts > who.last_ts
    if later or (other.cart and not who.cart and who.purchase_ts < other.last_ts):
        who.step, who.previous_step = other.step, other.previous_step
        who.entered_at = other.entered_at
    if later or not who.category_views:
        who.category, who.category_views = other.category, other.category_views
    elif same and who.category == other.category:
        who.category_views = min(who.category_views + other.category_views, 255)
    _merge_visits(who, other, same=same)
    done = list(who.bought) if who.purchase_ts >= other.last_ts else []
    who.cart = _joined(other.cart, who.cart, done)[-CART_MAX:]
    both = _joined(list(other.bought), list(who.bought), [])[-BOUGHT_MAX:]
    who.bought = {i: max(who.bought.get(i, 0), other.bought.get(i, 0)) for i in both}
    who.seen = _joined(other.seen, who.seen, [])[-SEEN_MAX:]
    if other.query and (later or (same and not who.query)):
        who.query = other.query
    last_ts = max(who.last_ts, other.last_ts)
    for one in (who, other):
        fade(one, last_ts, model)
    for item, weight in other.vector.items():
        like(who, item, float(weight))
    for name in ("events", "sessions", "purchases"):
        setattr(who, name, getattr(who, name) + getattr(other, name))
    who.monetary = np.float32(who.monetary + other.monetary)
    if same:
        who.sessions -= 1
        who.session_start = min(who.session_start, other.session_start)
        who.session_events = min(who.session_events + other.session_events, 65_535)
    who.first_ts = min(who.first_ts, other.first_ts)
    who.purchase_ts = max(who.purchase_ts, other.purchase_ts)
    who.timer_ts = max(who.timer_ts, other.timer_ts)
    who.last_ts = last_ts


def _joined(older: list[int], newer: list[int], skipped: list[int]) -> list[int]:
    return [one for one in older if one not in newer and one not in skipped] + newer


def _merge_visits(who: Customer, other: Customer, *, same: bool) -> None:
    """By time, newest last; of the same second those of ``who`` are newer, each in their order."""
    own = len(who.visits) - who.in_session
    theirs = len(other.visits) - other.in_session
    mine = [(visit, k >= own) for k, visit in enumerate(who.visits)]
    rest = [(visit, same and k >= theirs) for k, visit in enumerate(other.visits)]
    merged: list[tuple[Visit, bool]] = []
    while (mine or rest) and len(merged) < RING_MAX:
        newer = not rest or (bool(mine) and int(mine[-1][0].ts) >= int(rest[-1][0].ts))
        merged.insert(0, (mine if newer else rest).pop())
    first = next((k for k, (_, inside) in enumerate(merged) if inside), len(merged))
    for k, (visit, inside) in enumerate(merged):
        if inside and k > first:
            visit.opens = False
    who.visits, who.in_session = [visit for visit, _ in merged], len(merged) - first
