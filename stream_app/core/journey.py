"""The customer's journey as tables: steps, what leads from one to another, and when time does.

A file says it in words (:mod:`stream_app.journeys`); kernels see arrays. Three things move a
customer: an event (``moves``), what the state looks like after it (``conditions``), and time that
passes (``timeouts``). A deadline is a function of the customer's state and the table, nothing else,
so that whoever finds the state, also after a restart, knows it, and a time-out that was announced
twice, or too late, is recognised.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, signed

# Their numbers are those of the blobs that lie in stores; a journey's own steps take higher ones.
STEPS = ("discover", "browse", "consider", "cart", "checkout", "post_purchase", "dormant")
STEP = {name: number for number, name in enumerate(STEPS)}

SINCE = ("event", "entry", "purchase", "session")
_SINCE_EVENT, _SINCE_ENTRY, _SINCE_PURCHASE, _SINCE_SESSION = range(4)
CARTS = ("any", "empty", "filled")
_EMPTY = 1
STAY = 255  # in ``to``: the step remains what it is
PASSED_MAX = 8  # time-outs that one event can find passed; a table with more in a row is a circle

CONDITION = np.dtype(
    [
        ("kinds", "u4"),  # bits: after which kinds of events
        ("category_views", "u2"),  # at least so many in a row
        ("session_events", "u2"),
        ("purchases", "u2"),
        ("sessions", "u2"),
        ("step", "u1"),
        ("to", "u1"),
        ("returning", "u1"),  # 1: the event's item was seen before in this session
        ("cart", "u1"),  # index into CARTS
    ],
    align=True,
)

TIMEOUT = np.dtype(
    [
        ("after_s", "f8"),
        ("steps", "u4"),  # bits: in which steps
        ("since", "u1"),  # index into SINCE
        ("cart", "u1"),  # index into CARTS
        ("to", "u1"),
        ("known", "u1"),  # 1: announced for known customers
        ("anonymous", "u1"),  # 1: announced for anonymous ones
    ],
    align=True,
)

Row = Any


class Plan(NamedTuple):
    """A journey for kernels.

    ``moves (kinds, STEPS_MAX) uint8``, ``conditions (n,) CONDITION``, ``timeouts (m,) TIMEOUT``.
    """

    moves: NDArray[np.uint8]
    conditions: NDArray[np.void]
    timeouts: NDArray[np.void]
    start: int


@dataclass(frozen=True, slots=True)
class Journey:
    """A journey table. Sequences by step have ``STEPS_MAX`` entries; ``defined`` are the numbers
    of the file's own steps, in its order.

    A number that no step of the file has reads as the start: customers whose step was taken out of
    the file begin anew.
    """

    plan: Plan
    names: tuple[str, ...]  # by step
    lists: NDArray[np.bool_]  # (STEPS_MAX, lists): what each step needs is computed, nothing else
    actions: tuple[tuple[str, ...], ...]  # by step, the preferred one first
    timers: tuple[str, ...]  # names of the time-outs
    timer_actions: tuple[str, ...]  # "" = those of the step
    defined: tuple[int, ...]

    def likely_next(self, step_counts: NDArray[np.float64]) -> list[int]:
        """By step, the one that customers most often went to from there."""
        counts = step_counts.copy()
        counts.reshape(-1)[:: len(counts) + 1] = -1.0  # not to itself
        likely: list[int] = counts.argmax(axis=1).tolist()  # ties give the lower number
        return likely


@kernel
def next_timeout(user: Row, timeouts: NDArray[np.void]) -> tuple[int, float]:
    """Row and deadline (unix seconds) of a customer's next time-out; (-1, infinity) without one.

    Of two with the same deadline the first in the table counts and the other is passed.
    """
    row, due = -1, np.inf
    for r in range(len(timeouts)):
        rule = timeouts[r]
        if (signed(rule.steps) >> signed(user.step)) & 1 == 0:
            continue
        if rule.cart != 0 and (user.cart_n == 0) != (rule.cart == _EMPTY):
            continue
        since = user.last_ts
        if rule.since == _SINCE_ENTRY:
            since = user.entered_at
        elif rule.since == _SINCE_PURCHASE:
            since = user.purchase_ts
        elif rule.since == _SINCE_SESSION:
            since = user.session_start
        at = since + rule.after_s
        if since > 0.0 and at > user.timer_ts and at < due:
            row, due = r, at
    return row, due


@kernel
def apply_timeout(user: Row, rule: Row, due: float) -> None:
    """Let the time pass to ``due``, which is the deadline of ``rule``."""
    user.timer_ts = due
    if rule.to != STAY and rule.to != user.step:
        user.previous_step = user.step
        user.step = rule.to
        user.entered_at = due


@kernel
def pass_time(user: Row, until: float, timeouts: NDArray[np.void]) -> None:
    """Apply what fell due before ``until`` and was not announced in time, each at its deadline."""
    for _ in range(PASSED_MAX):
        row, due = next_timeout(user, timeouts)
        if not due < until:
            return
        apply_timeout(user, timeouts[row], due)


@kernel
def take_step(user: Row, event: Row, returning: bool, plan: Plan) -> int:
    """The step that ``event``, already applied to the state, leads to."""
    step = int(plan.moves[event.kind, user.step])
    for c in range(len(plan.conditions)):
        rule = plan.conditions[c]
        if (
            rule.step == step
            and (signed(rule.kinds) >> signed(event.kind)) & 1 == 1
            and (rule.returning == 0 or returning)
            and (rule.cart == 0 or (user.cart_n == 0) == (rule.cart == _EMPTY))
            and user.category_views >= rule.category_views
            and user.session_events >= rule.session_events
            and user.purchases >= rule.purchases
            and user.sessions >= rule.sessions
        ):
            return int(rule.to)
    return step


@kernel
def _deadlines(
    users: NDArray[np.void], timeouts: NDArray[np.void], due: NDArray[np.float64]
) -> None:
    for u in range(len(users)):
        user = users[u]
        row, at = next_timeout(user, timeouts)
        if row >= 0:
            announced = timeouts[row].anonymous if user.anonymous else timeouts[row].known
            if announced:
                due[u] = at


def deadlines(users: NDArray[np.void], plan: Plan) -> NDArray[np.float64]:
    """When each of ``(n,) USER`` has a time-out to be announced; infinity where there is none."""
    due = np.full(len(users), np.inf)
    _deadlines(users, plan.timeouts, due)
    return due
