"""Recompute customers from the log in plain Python, to hold against what the stream has stored.

Deliberately another way to the same numbers than :mod:`stream_app.core.learn`: lists and
dictionaries, one event at a time, no kernels. Shares with it only the model's parameters, the
journey table and the record types. Leaves out what a partition learns about all its customers
together (who comes back to an item). Called by the ``verify`` command and by tests; the item side
is :mod:`stream_app.offline.recompute_items`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream_app.core.customer import FIRST_OF_SESSION
from stream_app.core.insight_fields import USER_NAMES as INSIGHT_NAMES
from stream_app.core.journey import CARTS, PASSED_MAX, STAY, Journey
from stream_app.core.learn import EVENT, TRANSITION
from stream_app.core.model import (
    BOUGHT_MAX,
    CART_MAX,
    INTERNAL,
    KIND_WEIGHTS,
    KINDS,
    PREVIOUS_MAX,
    RING_MAX,
    SEEN_MAX,
    STEPS_MAX,
    VECTOR_MAX,
    Model,
)
from stream_app.core.state import USER, customer_name, decode_users, encode_users, new_users

_WEIGHTS = dict(zip(KINDS, KIND_WEIGHTS.tolist(), strict=True))
_TAKES_BACK = {"refund": "purchase", "remove_from_cart": "add_to_cart"}


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
    bought: list[int] = field(default_factory=list)
    vector: dict[int, np.float32] = field(default_factory=dict)

    def blob(self) -> bytes:
        """The state as the stream stores it."""
        users = new_users(np.array([self.id], np.uint64))
        user = users[0]
        for name in (
            *("entered_at", "events", "sessions", "purchases", "monetary", "session"),
            *("session_start", "session_events", "last_ts", "offset", "anonymous"),
            *("category", "category_views", "first_ts", "purchase_ts", "timer_ts"),
            *("step", "previous_step"),
        ):
            user[name] = getattr(self, name)
        user["session_n"] = self.in_session
        user["minute_paced"], user["day_paced"] = self.paced
        columns: dict[str, tuple[str, list[int] | list[float]]] = {
            "ring_item": ("ring_n", [visit.item for visit in self.visits]),
            "ring_ts": ("ring_n", [int(visit.ts) for visit in self.visits]),
            "ring_kind": ("ring_n", [visit.code() for visit in self.visits]),
            "seen": ("seen_n", self.seen),
            "cart_item": ("cart_n", self.cart),
            "bought_item": ("bought_n", self.bought),
            "vector_item": ("vector_n", list(self.vector)),
            "vector_weight": ("vector_n", [float(w) for w in self.vector.values()]),
        }
        for name, (count, values) in columns.items():
            user[count] = len(values)
            user[name][: len(values)] = values
        assert users.dtype == USER
        return encode_users(users, [self.name.encode("utf-8", "surrogatepass")])[0]


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


class Customers:
    """The customers of one clickstream partition, event by event."""

    def __init__(self, journey: Journey, model: Model | None = None) -> None:
        self.model = model or Model()
        self._plan = journey.plan
        self._conditions = journey.plan.conditions.tolist()
        self._timeouts = journey.plan.timeouts.tolist()
        self.customers: dict[int, Customer] = {}
        self.applied = 0
        self.rejected = 0
        self.next_steps: Counter[tuple[int, int]] = Counter()
        self._moves: list[
            tuple[int, tuple[int, ...], float, int, float, tuple[int, ...]]
        ] = []  # the columns of TRANSITION

    def apply(self, events: NDArray[np.void], names: Sequence[str] | None = None) -> None:
        """Apply ``(n,) EVENT`` records in the order of the log, of customers with ``names``."""
        assert events.dtype == EVENT
        for k, row in enumerate(events.tolist()):
            self._apply(*row)
            who = self.customers.get(row[0])
            if who is not None and names is not None:
                who.name = names[k]

    def transitions(self) -> NDArray[np.void]:
        """``(n,) TRANSITION``: what the events since the last call say about items."""
        rows = np.zeros(len(self._moves), TRANSITION)
        for k, (item, previous, *others) in enumerate(self._moves):
            rows[k] = (item, (*previous, 0, 0, 0)[:PREVIOUS_MAX], *others)
        self._moves = []
        return rows

    def step_counts(self) -> NDArray[np.float64]:
        """``(steps, steps)``: how often customers went from one step to another."""
        counts = np.zeros((STEPS_MAX, STEPS_MAX))
        for (before, after), n in self.next_steps.items():
            counts[before, after] = n
        return counts

    def _apply(
        self,
        customer_id: int,
        item: int,
        ts: float,
        offset: int,
        value: float,
        _units: float,
        session: int,
        event_id: int,
        category: int,
        segment: Sequence[int],
        kind_number: int,
        anonymous: int,
        _list: int,
        _source: int,
        refused: int,
    ) -> None:
        if KINDS[kind_number] in INTERNAL:
            self._internal(customer_id, KINDS[kind_number], ts, offset)
            return
        kind = KINDS[kind_number]
        if refused:
            self.rejected += 1
            return
        who = self.customers.setdefault(customer_id, Customer(customer_id))
        if event_id in who.seen:
            self.rejected += 1
            return
        if event_id:
            who.seen = [*who.seen, event_id][-SEEN_MAX:]
        if kind == "erase":
            del self.customers[customer_id]
            self.applied += 1
            return
        if self._too_fast(who, ts):
            self.rejected += 1
            return
        weight = _WEIGHTS[kind]
        self._session(who, ts, session)
        fade(who, ts, self.model)
        session_items = [visit.item for visit in who.visits[len(who.visits) - who.in_session :]]
        _books(who, kind, item, value, ts)
        if item and weight > 0:
            nearest = tuple(session_items[::-1][:PREVIOUS_MAX])
            self._moves.append((item, nearest, ts, offset, weight, tuple(segment)))
            who.visits = [*who.visits, Visit(item, ts, kind, not session_items)][-RING_MAX:]
            who.in_session = min(who.in_session + 1, RING_MAX)
            who.session_events = min(who.session_events + 1, 65_535)
            if category:
                run = who.category_views if category == who.category else 0
                who.category, who.category_views = category, min(run + 1, 255)
        elif item and weight < 0:
            self._take_back(who, kind, item, offset, weight, tuple(segment))
        if item and weight:
            _like(who, item, weight)
        self._step(
            who, kind_number, ts, returning=bool(item and weight > 0) and item in session_items
        )
        who.last_ts = max(who.last_ts, ts)
        who.events += 1
        who.offset, who.anonymous = offset, anonymous
        self.applied += 1

    def _too_fast(self, who: Customer, ts: float) -> bool:
        """Above the rate that the customer's events may have, in event time."""
        now = max(ts, who.last_ts)
        limits = (60.0, self.model.minute_events_max), (86_400.0, self.model.day_events_max)
        paced = [max(past, now) for past in who.paced]
        for at, (span, most) in zip(paced, limits, strict=True):
            if most > 0 and at - now > span - span / most:
                return True
        for k, (span, most) in enumerate(limits):
            if most > 0:
                who.paced[k] = paced[k] + span / most
        return False

    def _internal(self, customer_id: int, kind: str, ts: float, offset: int) -> None:
        """Records of the application to itself, believed as far as the state bears them out."""
        who = self.customers.get(customer_id)
        due, to = self._next_timeout(who) if who else (math.inf, STAY)
        if who is not None and (kind == "refresh" or (kind == "timeout" and due == ts)):
            if kind == "timeout":
                _time_out(who, due, to)
            who.offset = offset
            self.applied += 1
        else:
            self.rejected += 1

    def _next_timeout(self, who: Customer) -> tuple[float, int]:
        """The deadline that comes next, and the step it leads to."""
        due = []
        for row, (after_s, steps, since, cart, to, *_) in enumerate(self._timeouts):
            anchor = (who.last_ts, who.entered_at, who.purchase_ts, who.session_start)[since]
            fits = CARTS[cart] in ("any", "filled" if who.cart else "empty")
            if steps & (1 << who.step) and fits and anchor and anchor + after_s > who.timer_ts:
                due.append((anchor + after_s, row, to))
        return min(due)[::2] if due else (math.inf, STAY)

    def _session(self, who: Customer, ts: float, session: int) -> None:
        pause = ts - who.last_ts
        both_named = bool(who.session and session)
        changed = who.session != session if both_named else pause > self.model.session_gap_s
        for _ in range(PASSED_MAX if who.events else 0):
            due, to = self._next_timeout(who)
            if due >= ts:
                break
            _time_out(who, due, to)
        if not who.events or changed:
            who.sessions += 1
            who.session_start = ts
            who.in_session = who.session_events = who.category_views = 0
            if not who.events:
                who.entered_at = who.first_ts = ts
                who.step = who.previous_step = self._plan.start
        who.session = session or who.session

    def _step(self, who: Customer, kind: int, ts: float, *, returning: bool) -> None:
        step = self._plan.moves[kind, who.step].item()
        for kinds, category_views, session_events, purchases, sessions, *more in self._conditions:
            place, to, only_returning, cart = more
            if (
                place == step
                and kinds & (1 << kind)
                and (returning or not only_returning)
                and CARTS[cart] in ("any", "filled" if who.cart else "empty")
                and who.category_views >= category_views
                and who.session_events >= session_events
                and who.purchases >= purchases
                and who.sessions >= sessions
            ):
                step = to
                break
        if step != who.step:
            self.next_steps[who.step, step] += 1
            who.previous_step, who.step, who.entered_at = who.step, step, ts

    def _take_back(
        self,
        who: Customer,
        kind: str,
        item: int,
        offset: int,
        weight: float,
        segment: tuple[int, ...],
    ) -> None:
        for at in reversed(range(len(who.visits))):
            visit = who.visits[at]
            if (visit.item, visit.kind) == (item, _TAKES_BACK[kind]):
                begin = max(k for k in range(at + 1) if who.visits[k].opens or k == 0)
                before = [v.item for v in who.visits[begin:at]][::-1][:PREVIOUS_MAX]
                move = (item, tuple(before), float(int(visit.ts)), offset, weight, segment)
                self._moves.append(move)
                visit.kind = "view"
                return


def _time_out(who: Customer, due: float, to: int) -> None:
    who.timer_ts = due
    if to not in (STAY, who.step):
        who.previous_step, who.step, who.entered_at = who.step, to, due


def fade(who: Customer, ts: float, model: Model) -> None:
    """Decay the customer's vector from their last event to ``ts``."""
    elapsed_s = ts - who.last_ts
    if elapsed_s > 0:
        factor = np.float32(math.exp2(-elapsed_s / model.vector_half_life_s))
        who.vector = {item: np.float32(w * factor) for item, w in who.vector.items()}


def _books(who: Customer, kind: str, item: int, value: float, ts: float) -> None:
    if kind == "add_to_cart" and item not in who.cart:
        who.cart = [*who.cart, item][-CART_MAX:]
    if kind in ("remove_from_cart", "purchase") and item in who.cart:
        who.cart.remove(item)
    if kind == "purchase":
        who.purchases += 1
        who.purchase_ts = max(who.purchase_ts, ts)
        who.monetary = np.float32(who.monetary + np.float32(value))
        if item not in who.bought:
            who.bought = [*who.bought, item][-BOUGHT_MAX:]
    if kind == "refund":
        who.monetary = np.float32(who.monetary - np.float32(value))
        if item in who.bought:
            who.bought.remove(item)


def _like(who: Customer, item: int, weight: float) -> None:
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


def recomputed(
    events: Iterable[NDArray[np.void]], journey: Journey, model: Model | None = None
) -> Customers:
    """The customers of a partition whose log was cut into ``events`` in whatever way."""
    customers = Customers(journey, model)
    for part in events:
        customers.apply(part)
    return customers
