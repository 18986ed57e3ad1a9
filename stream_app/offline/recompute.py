"""Recompute customers from the log in plain Python, to hold against what the stream has stored.

Deliberately another way to the same numbers than :mod:`stream_app.core.learn`: lists and
dictionaries, one event at a time, no kernels. Shares with it only the model's parameters, the
journey table and the record types. Leaves out what a partition learns about all its customers
together (who comes back to an item). Called by the ``verify`` command and by tests; the item side
is :mod:`stream_app.offline.recompute_items`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.codec import decode_merge
from stream_app.core.journey import CARTS, PASSED_MAX, STAY, Journey
from stream_app.core.learn import EVENT, TRANSITION
from stream_app.core.model import (
    GAP_MAX_S,
    INTERNAL,
    KIND_WEIGHTS,
    KINDS,
    PREVIOUS_MAX,
    RING_MAX,
    SEEN_MAX,
    STEPS_MAX,
    Model,
)
from stream_app.offline.recompute_customers import (
    Customer,
    Visit,
    customer_of,
    fade,
    keep_books,
    like,
    merge,
    time_out,
)

_WEIGHTS = dict(zip(KINDS, KIND_WEIGHTS.tolist(), strict=True))
_TAKES_BACK = {"refund": "purchase", "remove_from_cart": "add_to_cart"}


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
        self._watermarks: dict[int, int] = {}
        self._data = ""  # of the event that is being applied
        self._offset = -1  # of the record that the last event was of
        self._one_more = False  # whether this event is of that record, too
        self._dropped = False  # whether the record was: those of one record go the same way
        self._moves: list[
            tuple[int, Sequence[Visit], float, int, float, tuple[int, ...]]
        ] = []  # as the columns of TRANSITION begin

    def apply(
        self,
        events: NDArray[np.void],
        names: Sequence[str] | None = None,
        data: Mapping[int, str] | None = None,
    ) -> None:
        """Apply ``(n,) EVENT`` records in the order of the log, of customers with ``names``."""
        assert events.dtype == EVENT
        for k, row in enumerate(events.tolist()):
            self._data = (data or {}).get(k, "")
            offset = int(events["offset"][k])
            self._one_more, self._offset = offset == self._offset, offset
            self._apply(*row)
            who = self.customers.get(row[0])
            if who is not None and names is not None:
                who.name = names[k]

    def transitions(self) -> NDArray[np.void]:
        """``(n,) TRANSITION``: what the events since the last call say about items."""
        rows = np.zeros(len(self._moves), TRANSITION)
        for k, (item, visits, ts, *others) in enumerate(self._moves):
            previous = [visit.item for visit in visits]
            gaps_s = [min(max(int(ts) - int(v.ts), 0), GAP_MAX_S) for v in visits]
            none = [0] * (PREVIOUS_MAX - len(visits))
            rows[k] = (item, (*previous, *none), ts, *others, (*gaps_s, *none), (0, 0))
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
        query: Sequence[int],
        kind_number: int,
        anonymous: int,
        device: int,
        _list: int,
        _source: int,
        refused: int,
    ) -> None:
        if KINDS[kind_number] in INTERNAL:
            self._internal(customer_id, KINDS[kind_number], ts, offset)
            return
        kind = KINDS[kind_number]
        if refused:
            self._dropped = False
            self.rejected += not self._one_more
            return
        who = self.customers.setdefault(customer_id, Customer(customer_id))
        if not self._one_more:
            self._dropped = self._seen(who, event_id) or (
                kind != "erase" and self._too_fast(who, ts)
            )
        if self._dropped:
            self.rejected += not self._one_more
            return
        if kind == "erase":
            del self.customers[customer_id]
            self.applied += 1
            return
        weight = _WEIGHTS[kind]
        self._session(who, ts, session, lasting=bool(device))
        fade(who, ts, self.model)
        visits = who.visits[len(who.visits) - who.in_session :]
        session_items = [visit.item for visit in visits]
        bought_ts = who.bought.get(item, 0) if kind == "refund" else 0
        keep_books(who, kind, item, value, ts)
        if kind == "search":
            who.query = [word for word in query if word]
        if item and weight > 0:
            nearest = visits[::-1][:PREVIOUS_MAX]
            self._moves.append((item, nearest, ts, offset, weight, tuple(segment)))
            who.visits = [*who.visits, Visit(item, ts, kind, not session_items)][-RING_MAX:]
            who.in_session = min(who.in_session + 1, RING_MAX)
            who.session_events = min(who.session_events + 1, 65_535)
            if category:
                run = who.category_views if category == who.category else 0
                who.category, who.category_views = category, min(run + 1, 255)
        elif item and weight < 0:
            self._take_back(who, kind, item, offset, weight, tuple(segment), bought_ts)
        if item and weight:
            like(who, item, weight)
        self._step(
            who, kind_number, ts, returning=bool(item and weight > 0) and item in session_items
        )
        who.last_ts = max(who.last_ts, ts)
        who.events += 1
        who.offset, who.anonymous = offset, 2 if anonymous and device else anonymous
        self.applied += not self._one_more

    @staticmethod
    def _seen(who: Customer, event_id: int) -> bool:
        """Whether the event came before; it is remembered."""
        if event_id in who.seen:
            return True
        if event_id:
            who.seen = [*who.seen, event_id][-SEEN_MAX:]
        return False

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
        if kind == "merge":
            self._merge(who, offset)
            return
        if kind == "link" and who is not None and who.anonymous:
            del self.customers[customer_id]
            self.applied += 1
            return
        due, to = self._next_timeout(who) if who else (math.inf, STAY)
        if who is not None and (kind == "refresh" or (kind == "timeout" and due == ts)):
            if kind == "timeout":
                time_out(who, due, to)
            who.offset = offset
            self.applied += 1
        else:
            self.rejected += 1

    def _merge(self, who: Customer | None, offset: int) -> None:
        """The state of a session is added once; to nobody it is not added."""
        if not self._data:
            self.rejected += 1
            return
        brought = decode_merge(self._data)
        source = brought.source_partition
        fresh = brought.offset > self._watermarks.get(source, -1)
        self._watermarks[source] = max(brought.offset, self._watermarks.get(source, -1))
        if who is None or not fresh:
            self.rejected += 1
            return
        merge(who, customer_of(brought.blob), self.model)
        who.offset = offset
        self.applied += 1

    def _next_timeout(self, who: Customer) -> tuple[float, int]:
        """The deadline that comes next, and the step it leads to."""
        due = []
        for row, (after_s, steps, since, cart, to, *_) in enumerate(self._timeouts):
            anchor = (who.last_ts, who.entered_at, who.purchase_ts, who.session_start)[since]
            fits = CARTS[cart] in ("any", "filled" if who.cart else "empty")
            if steps & (1 << who.step) and fits and anchor and anchor + after_s > who.timer_ts:
                due.append((anchor + after_s, row, to))
        return min(due)[::2] if due else (math.inf, STAY)

    def _session(self, who: Customer, ts: float, session: int, *, lasting: bool) -> None:
        paused = ts - who.last_ts > self.model.session_gap_s
        both_named = bool(who.session and session)
        changed = who.session != session if both_named else paused
        changed = changed or (lasting and paused)
        for _ in range(PASSED_MAX if who.events else 0):
            due, to = self._next_timeout(who)
            if due >= ts:
                break
            time_out(who, due, to)
        if not who.events or changed:
            who.sessions += 1
            who.session_start = ts
            who.in_session = who.session_events = who.category_views = 0
            who.query = []
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
        bought_ts: float,
    ) -> None:
        """With its pairs if it is among the recent events, else as far as ``bought_ts`` tells."""
        for at in reversed(range(len(who.visits))):
            visit = who.visits[at]
            if (visit.item, visit.kind) == (item, _TAKES_BACK[kind]):
                begin = max(k for k in range(at + 1) if who.visits[k].opens or k == 0)
                before = who.visits[begin:at][::-1][:PREVIOUS_MAX]
                move = (item, before, float(int(visit.ts)), offset, weight, segment)
                self._moves.append(move)
                visit.kind = "view"
                return
        if bought_ts:
            self._moves.append((item, [], float(bought_ts), offset, weight, segment))


def recomputed(
    events: Iterable[NDArray[np.void]], journey: Journey, model: Model | None = None
) -> Customers:
    """The customers of a partition whose log was cut into ``events`` in whatever way."""
    customers = Customers(journey, model)
    for part in events:
        customers.apply(part)
    return customers
