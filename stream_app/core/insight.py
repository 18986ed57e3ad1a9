"""Everything LEARN does for a customer beyond books and lists: predict, segment, decide, count.

Called inside the loop over events, before and after each one is applied, and when a journey timer
tells that nothing has happened.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.actions import SHOW_LIST, Arms, parse_actions
from stream_app.core.decide import decide, earn, resolve_decision
from stream_app.core.experiments import Trials, count_outcome, held_back, no_trials
from stream_app.core.feedback import count_feedback
from stream_app.core.foresight import (
    Scratch,
    anticipate,
    foresee,
    new_scratch,
    predict_now,
    price_deviations,
    session_ended,
    settle,
)
from stream_app.core.insight_fields import CONTEXT_N, PLACE_N
from stream_app.core.jit import allocating, kernel
from stream_app.core.model import Model
from stream_app.core.moments import CLASS_OF_KIND, NOTHING
from stream_app.core.segments import join_segment

Row = Any


class Policy(NamedTuple):
    """What the operator has configured: actions and experiments."""

    arms: Arms
    trials: Trials


class Desk(NamedTuple):
    """Work space of one pass over a batch."""

    scratch: Scratch
    facts: NDArray[np.float64]
    context: NDArray[np.float64]
    place: NDArray[np.float64]


def plain_policy() -> Policy:
    """Show lists, decide nothing, no experiments."""
    return Policy(parse_actions(f"[action.{SHOW_LIST}]", "").compiled((), 1), no_trials())


@allocating
def new_desk() -> Desk:
    """Work space for the functions of this module."""
    return Desk(new_scratch(), np.zeros(16), np.zeros(CONTEXT_N), np.zeros(PLACE_N))


@kernel
def starts_session(user: Row, event: Row, model: Model) -> bool:
    """A new session: another session id, or a pause where ids do not tell; the very first event.

    They do not without an id, nor where it is a device's: the same one visit after visit.
    """
    if user.events == 0:
        return True
    if user.session != 0 and event.session != 0:
        if user.session != event.session:
            return True
        if event.device == 0:
            return False
    return bool(event.ts - user.last_ts > model.session_gap_s)


@kernel
def elapse(
    user: Row, mind: Row, now: float, fresh: bool, model: Model, policy: Policy, desk: Desk
) -> None:
    """Settle what is certain at ``now``: labels, and the session with its decision if over."""
    if session_ended(user, now, fresh, model.session_gap_s):
        resolve_decision(user, mind)
        count_outcome(user, mind, policy.trials)
        join_segment(user, mind, price_deviations(user, mind), model.segments_n, desk.place)
    gap_s, churn_s = model.session_gap_s, model.churn_after_s
    settle(user, mind, now, fresh, gap_s, churn_s, desk.scratch)


@kernel
def before_event(
    user: Row, mind: Row, event: Row, one_more: bool, model: Model, policy: Policy, desk: Desk
) -> None:
    """Settle what the time of the event decides, and compare the event with what was expected.

    ``one_more``: of the same record as the event before, another item of an order.
    """
    fresh = starts_session(user, event, model)
    elapse(user, mind, event.ts, fresh, model, policy, desk)
    count_feedback(user, mind, event, policy.trials)
    earn(user, event, policy.arms)
    anticipate(user, mind, event, fresh, one_more)


@kernel
def after_event(user: Row, mind: Row, event: Row, policy: Policy, desk: Desk) -> None:
    """Predict from what the customer shows now, and decide."""
    if CLASS_OF_KIND[event.kind] == NOTHING:
        return
    foresee(user, mind, event, desk.scratch)
    alone = held_back(user.id, policy.trials, event.ts)
    decide(user, mind, policy.arms, event.ts, event.offset, alone, desk.facts, desk.context)


@kernel
def reconsider(user: Row, mind: Row, event: Row, policy: Policy, desk: Desk) -> None:
    """A journey timer has moved the customer: predict and decide without an event of theirs."""
    predict_now(user, mind, event.ts, desk.scratch)
    alone = held_back(user.id, policy.trials, event.ts)
    decide(user, mind, policy.arms, event.ts, event.offset, alone, desk.facts, desk.context)


@allocating
def elapse_for_all(
    users: NDArray[np.void], insight: NDArray[np.void], now: float, model: Model, policy: Policy
) -> None:
    """Settle customers without an event since: what journey timers do in the worker."""
    mind, desk = insight[0], new_desk()
    for u in range(len(users)):
        if users[u].events > 0:
            elapse(users[u], mind, now, False, model, policy, desk)
