"""The next best action of a customer: what is possible now, and which of it. Called by LEARN.

A decision stands while its step and session last, its conditions hold, and not longer than
``hold_minutes``. Caps are counted in the customer's own state, daily limits in the partition's, so
that neither is ever exceeded, also not by a replay. One decision of each session is sampled and
its reward learned when the session is over.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.actions import Arms
from stream_app.core.bandit import chances, drawn, gamma_of, predicted, reinforce
from stream_app.core.chance import uniform
from stream_app.core.foresight import price_deviations
from stream_app.core.insight_fields import (
    ARMS_MAX,
    CONTEXT_N,
    MARKETING,
    OFFERS_MAX,
    PERSONAL,
)
from stream_app.core.jit import allocating, kernel, signed
from stream_app.core.model import KIND

Row = Any

RESOLVED, REWARD, REWARD_SQUARE, INVERSE, WEIGHTED, CHOSEN = range(6)  # of INSIGHT.arms
DECISIONS, MEAN, MEAN_SQUARE, SCALE = range(4)  # of INSIGHT.reward
_NEVER = 1e6
_REWARD_MAX = 10.0  # typical orders; one windfall must not rule
_PURCHASE, _REFUND, _SUPPORT = KIND["purchase"], KIND["refund"], KIND["support"]


@kernel
def customer_facts(user: Row, mind: Row, ts: float, out: NDArray[np.float64]) -> None:
    """Fill ``out`` with :data:`stream_app.core.actions.FACTS`, in their order."""
    out[0] = float(user.cart_n)
    out[1] = float(user.bought_n)
    out[2] = float(user.purchases)
    out[3] = float(user.sessions)
    out[4] = float(user.session_moves)
    out[5] = float(user.absence_s) / 86400.0
    out[6] = (ts - user.purchase_ts) / 86400.0 if user.purchase_ts > 0.0 else _NEVER
    out[7] = (ts - float(user.add_ts)) / 60.0 if user.add_ts > 0 else _NEVER
    out[8] = float(user.p_session)
    out[9] = float(user.p_week)
    out[10] = float(user.p_churn)
    out[11] = float(user.order_value)
    out[12] = price_deviations(user, mind)
    out[13] = float(user.monetary)
    out[14] = 1.0 if user.last_kind == _SUPPORT else 0.0
    out[15] = float(user.segment)


@kernel
def decision_context(facts: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """The numbers that rewards are predicted from: base, intent, churn, cart, price, week."""
    out[0] = 1.0
    out[1] = facts[8]
    out[2] = facts[10]
    out[3] = min(facts[0], 3.0) / 3.0
    out[4] = min(max(facts[12], -2.0), 2.0) / 2.0
    out[5] = facts[9]


@kernel
def _holds(user: Row, arms: Arms, arm: int, facts: NDArray[np.float64]) -> bool:
    if arms.steps[arm, signed(user.step)] == 0:
        return False
    fine = True
    for f in range(len(facts)):
        fine = fine and arms.low[arm, f] <= facts[f] <= arms.high[arm, f]
    return fine


@kernel
def _within_caps(user: Row, mind: Row, arms: Arms, arm: int, ts: float) -> bool:
    """Whether customer's cap, the day's limit, consent and time window allow an offer now."""
    hour = int((ts / 3600.0) % 24.0)
    if ts < arms.begin[arm] or ts >= arms.end[arm] or arms.hours[arm, hour] == 0:
        return False
    if arms.marketing[arm] != 0 and signed(user.refused) & MARKETING != 0:
        return False
    if mind.budget[arm] >= arms.daily[arm] and math.floor(ts / 86400.0) <= mind.budget[ARMS_MAX]:
        return False
    if arms.cap[arm] == 0:
        return True
    offers, full = 0, signed(user.offer_n) == OFFERS_MAX
    for k in range(signed(user.offer_n)):
        age_s = ts - float(user.offer_ts[k])
        if user.offer_arm[k] == arm and age_s < arms.cap_s[arm]:
            offers += 1
    # A full memory may have lost an offer that still counts: then none is made.
    if full and ts - float(user.offer_ts[0]) < arms.cap_s_max:
        return False
    return bool(offers < arms.cap[arm])


@kernel
def _remember_offer(user: Row, mind: Row, arms: Arms, arm: int, ts: float) -> None:
    day = math.floor(ts / 86400.0)
    if day > mind.budget[ARMS_MAX]:
        mind.budget[:ARMS_MAX] = 0.0
        mind.budget[ARMS_MAX] = day
    mind.budget[arm] += 1.0
    if arms.cap[arm] == 0:
        return
    n = signed(user.offer_n)
    if n == OFFERS_MAX:
        for k in range(OFFERS_MAX - 1):
            user.offer_arm[k] = user.offer_arm[k + 1]
            user.offer_ts[k] = user.offer_ts[k + 1]
        n = OFFERS_MAX - 1
    user.offer_arm[n] = arm
    user.offer_ts[n] = np.uint32(max(ts, 0.0))
    user.offer_n = n + 1


@kernel
def earn(user: Row, event: Row, arms: Arms) -> None:
    """Before the event is applied: what it earns for the session's sampled decision."""
    if user.context_n == 0:
        return
    earned = arms.reward[event.kind]
    if event.kind == _PURCHASE:
        earned += event.value * (arms.margin - arms.discount[signed(user.logged_action) - 1])
    elif event.kind == _REFUND:
        earned -= event.value * arms.margin
    user.logged_reward = float(user.logged_reward) + earned


@kernel
def resolve_decision(user: Row, mind: Row) -> None:
    """The session is over: learn what its sampled decision has earned."""
    user.decisions_n = 0
    user.action = 0
    if user.context_n == 0:
        return
    user.context_n = 0
    arm, reward = signed(user.logged_action) - 1, np.float64(user.logged_reward)
    books = mind.reward
    books[DECISIONS] += 1.0
    rate = max(1.0 / books[DECISIONS], 1.0 / 10_000.0)
    books[MEAN] += rate * (reward - books[MEAN])
    books[MEAN_SQUARE] += rate * (reward * reward - books[MEAN_SQUARE])
    if abs(reward) > 0.0:  # the scale of what is earned when anything is
        books[SCALE] += max(rate, 1.0 / 500.0) * (abs(reward) - books[SCALE])
    scaled = 0.0
    if books[SCALE] > 0.0:
        scaled = min(max(reward / books[SCALE], -_REWARD_MAX), _REWARD_MAX)
    reinforce(mind.arm_inverse[arm], mind.arm_sum[arm], user.context, scaled)
    row = mind.arms[arm]
    chance = max(float(user.logged_propensity), 1e-6)
    row[RESOLVED] += 1.0
    row[REWARD] += reward
    row[REWARD_SQUARE] += reward * reward
    row[INVERSE] += 1.0 / chance
    row[WEIGHTED] += reward / chance


@allocating
def decide(
    user: Row,
    mind: Row,
    arms: Arms,
    ts: float,
    offset: int,
    alone: bool,
    facts: NDArray[np.float64],
    context: NDArray[np.float64],
) -> None:
    """Keep the standing decision, or draw a new one. After the event, with fresh predictions.

    ``alone`` leaves only the first arm, showing lists. ``facts`` and ``context`` are work space.
    Sets ``action`` (arm + 1), ``action_propensity`` and ``action_value`` (expected reward, in
    currency) of ``user``.
    """
    customer_facts(user, mind, ts, facts)
    held = signed(user.action) - 1
    if (
        0 <= held < arms.n
        and user.step == user.action_step
        and ts - float(user.action_ts) < arms.hold_s
        and _holds(user, arms, held, facts)
        and not (arms.marketing[held] != 0 and signed(user.refused) & MARKETING != 0)
    ):
        return
    allowed, values = np.zeros(ARMS_MAX, np.uint8), np.zeros(ARMS_MAX)
    shares = np.zeros(ARMS_MAX)
    decision_context(facts, context)
    for a in range(arms.n):
        if a > 0 and (alone or signed(user.refused) & PERSONAL != 0):
            continue
        if _holds(user, arms, a, facts) and _within_caps(user, mind, arms, a, ts):
            allowed[a] = 1
            values[a] = predicted(mind.arm_inverse[a], mind.arm_sum[a], context)
    chances(values, allowed, gamma_of(mind.reward[DECISIONS]), shares)
    arm = drawn(shares, uniform(user.id, offset, 3))
    _remember_offer(user, mind, arms, arm, ts)
    mind.arms[arm, CHOSEN] += 1.0
    user.action = arm + 1
    user.action_step = user.step
    user.action_ts = np.uint32(max(ts, 0.0))
    user.action_propensity = shares[arm]
    user.action_value = values[arm] * mind.reward[SCALE]
    n = min(signed(user.decisions_n) + 1, 255)
    user.decisions_n = n
    if user.context_n > 0 and uniform(user.id, offset, 4) * float(n) >= 1.0:
        return
    for k in range(CONTEXT_N):
        user.context[k] = context[k]
    user.context_n = CONTEXT_N
    user.logged_action = arm + 1
    user.logged_propensity = shares[arm]
    user.logged_reward = 0.0
