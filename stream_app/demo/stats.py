"""What the demo has seen so far: counts, freshness, journey steps, one followed customer.

Filled by the feed (events sent) and the watch (lists and dead letters seen); no clock of its own.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

_K = TypeVar("_K")
_V = TypeVar("_V")
Place = tuple[int, int]  # partition and offset on the clickstream

places_max = 50_000
samples_max = 50_000
customers_max = 100_000
recent_events_max = 6
rate_window_s = 3.0
silent_after_s = 10.0  # then another customer is followed
events_before_followed = 4


class Freshness:
    """From producing an event to seeing the list that it caused; matched by place, any order."""

    def __init__(self) -> None:
        self._sent: OrderedDict[Place, float] = OrderedDict()
        self._seen: OrderedDict[Place, float] = OrderedDict()
        self.seconds: deque[float] = deque(maxlen=samples_max)

    def sent(self, place: Place, at_s: float) -> None:
        """The event at ``place`` was handed to the producer at ``at_s``."""
        if (seen_s := self._seen.pop(place, None)) is not None:
            self.seconds.append(seen_s - at_s)
        _remember(self._sent, place, at_s, places_max)

    def seen(self, place: Place, at_s: float) -> None:
        """A list that names ``place`` as its source was read at ``at_s``."""
        if (sent_s := self._sent.get(place)) is not None:
            self.seconds.append(at_s - sent_s)
        else:  # its acknowledgement is still under way
            _remember(self._seen, place, at_s, places_max)

    def quantiles_ms(self) -> tuple[float, float]:
        """p50 and p99 in milliseconds; NaN without samples."""
        if not self.seconds:
            return float("nan"), float("nan")
        p50, p99 = np.quantile(np.array(self.seconds) * 1000.0, [0.5, 0.99])
        return float(p50), float(p99)


@dataclass(slots=True)
class Followed:
    """The customer shown in the view: what they see now, and what they saw before."""

    user: str
    step: str = ""
    previous_step: str = ""
    list_name: str = ""
    version: int = 0
    items: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    updated_s: float = 0.0


@dataclass(slots=True)
class Board:
    """Everything the view and the summary show."""

    freshness: Freshness = field(default_factory=Freshness)
    sent: int = 0
    applied: int = 0
    lists: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    steps: OrderedDict[str, str] = field(default_factory=OrderedDict)
    recent: OrderedDict[str, deque[Mapping[str, Any]]] = field(default_factory=OrderedDict)
    trending: Sequence[Mapping[str, Any]] = ()
    followed: Followed | None = None
    _marks: deque[tuple[float, int, int]] = field(default_factory=deque)

    def event_sent(self, customer: str, event: Mapping[str, Any]) -> None:
        """A well-formed event of ``customer`` (user id, else session id) went out."""
        if customer not in self.recent:
            _remember(self.recent, customer, deque(maxlen=recent_events_max), customers_max)
        self.recent[customer].append(event)

    def list_seen(self, record: Mapping[str, Any], at_s: float) -> None:
        """A record of the recommendations topic was read at ``at_s``."""
        self.lists += 1
        user = str(record["user_id"])
        _remember(self.steps, user, str(record["step"]), customers_max)
        source = record["source"]
        self.freshness.seen((int(source["partition"]), int(source["offset"])), at_s)
        followed = self.followed
        if followed is None or at_s - followed.updated_s > silent_after_s:
            if len(self.recent.get(user, ())) < events_before_followed:
                return
            followed = self.followed = Followed(user)
        if user == followed.user:
            _update(followed, record, at_s)

    def funnel(self) -> Counter[str]:
        """Customers by the step they are in."""
        return Counter(self.steps.values())

    def mark(self, at_s: float) -> tuple[float, float]:
        """Events and lists per second over the last seconds, up to ``at_s``."""
        self._marks.append((at_s, self.sent, self.lists))
        while len(self._marks) > 2 and self._marks[0][0] < at_s - rate_window_s:
            self._marks.popleft()
        begin_s, sent, lists = self._marks[0]
        span_s = at_s - begin_s
        return ((self.sent - sent) / span_s, (self.lists - lists) / span_s) if span_s else (0, 0)


def _update(followed: Followed, record: Mapping[str, Any], at_s: float) -> None:
    lists: Mapping[str, Sequence[Mapping[str, Any]]] = record["lists"]
    name = "cart" if record["step"] in ("cart", "checkout") and lists.get("cart") else "home"
    if name not in lists:
        name = next(iter(lists), name)
    items = tuple(str(entry["item_id"]) for entry in lists.get(name, ()))
    if items != followed.items:
        followed.before = followed.items if name == followed.list_name else ()
        followed.items = items
    followed.list_name, followed.updated_s = name, at_s
    followed.step = str(record["step"])
    followed.previous_step = str(record.get("previous_step") or "")
    followed.version = int(record["version"])


def _remember(table: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
