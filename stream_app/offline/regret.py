"""The bandit in a shop whose truth is known: regret against the best decisions, and fixed ones.

The shop is the simulator's; whether its customers need a coupon depends on their true price
sensitivity, which no policy sees: only the prices they look at, and how likely a purchase seems.
Called by ``evaluate-decisions`` and by tests.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.bandit import chances, drawn, gamma_of, predicted, reinforce
from stream_app.core.chance import uniform
from stream_app.core.counterfactual import Estimate, doubly_robust, ips, snips
from stream_app.core.insight_fields import CONTEXT_N
from stream_app.core.jit import allocating

ARMS = ("show_list", "remind_cart", "cross_sell", "offer_coupon")
MARGIN, DISCOUNT, ORDER = 0.3, 0.1, 1.0  # the mean order is what rewards are measured in
CHECKPOINTS = 8
Floats = NDArray[np.float64]


def _logistic(z: Floats) -> Floats:
    out: Floats = 1.0 / (1.0 + np.exp(-z))
    return out


def shop_truth(sensitivity: Floats, *, seed: int) -> tuple[Floats, Floats, NDArray[np.float64]]:
    """Contexts ``(n, CONTEXT_N)``, true mean rewards ``(n, arms)``, purchase chances ``(n, arms)``.

    ``sensitivity (n,)`` in [0, 1] is the customers' price sensitivity.
    """
    n = len(sensitivity)
    rng = np.random.default_rng(seed)
    intent, churn = rng.beta(1.2, 3.0, n), rng.beta(2.0, 4.0, n)
    cart = rng.integers(0, 4, n) / 3.0
    price = np.clip((0.5 - sensitivity) * 2.0 + rng.normal(0.0, 0.3, n), -1.0, 1.0)
    context = np.stack([np.ones(n), intent, churn, cart, price, np.sqrt(intent)], axis=1)
    base = -2.5 + 4.0 * intent
    logits = np.stack(
        [
            base,
            base + 1.2 * (cart > 0) * (1.0 - intent) - 0.8 * (cart == 0),
            base + 0.9 * (cart > 0.5) * intent - 0.2,
            base + 2.6 * sensitivity * (1.0 - intent),
        ],
        axis=1,
    )
    p = _logistic(logits)
    earned = np.array([MARGIN, MARGIN, MARGIN * 1.15, MARGIN - DISCOUNT]) * ORDER
    return context, p * earned, p


@allocating
def _play(
    context: Floats, p: Floats, earned: Floats, seed: int, arm: Floats, chance: Floats, seen: Floats
) -> Floats:
    """Decide row by row; fills the logs, returns the model's predictions ``(n, arms)``."""
    arms = p.shape[1]
    inverse = np.zeros((arms, CONTEXT_N, CONTEXT_N))
    for a in range(arms):
        for i in range(CONTEXT_N):
            inverse[a, i, i] = 1.0
    total, shares = np.zeros((arms, CONTEXT_N)), np.zeros(arms)
    allowed, model = np.ones(arms, np.uint8), np.zeros(p.shape)
    for t in range(len(context)):
        for a in range(arms):
            model[t, a] = predicted(inverse[a], total[a], context[t])
        chances(model[t], allowed, gamma_of(float(t)), shares)
        a = drawn(shares, uniform(np.uint64(seed), t, 3))
        bought = uniform(np.uint64(seed), t, 6) < p[t, a]
        reward = earned[a] if bought else 0.0
        # As in the worker, rewards are in units of what is earned when anything is.
        reinforce(inverse[a], total[a], context[t], reward / earned[0])
        arm[t], chance[t], seen[t] = a, shares[a], reward
    out: Floats = model * earned[0]
    return out


def regret(sensitivity: Floats, *, seed: int = 0) -> dict[str, Any]:
    """Play ``n`` decisions; cumulated regret of the bandit and of fixed policies, and estimates.

    ``estimates`` hold, for each policy *always this action*, its true value and what the bandit's
    own log says about it by IPS, SNIPS and doubly robust.
    """
    context, truth, p = shop_truth(sensitivity, seed=seed)
    earned = (truth / p).mean(axis=0)
    n = len(truth)
    arm, chance, seen = np.zeros(n), np.zeros(n), np.zeros(n)
    model = _play(context, p, earned, seed, arm, chance, seen)
    best = truth.max(axis=1)
    rows = np.arange(n)
    taken = truth[rows, arm.astype(np.int64)]
    losses = {"bandit": best - taken, "uniform": best - truth.mean(axis=1)}
    losses |= {f"always {name}": best - truth[:, a] for a, name in enumerate(ARMS)}
    at = np.unique(np.geomspace(min(100, n), n, CHECKPOINTS).astype(np.int64))
    estimates = {}
    for a, name in enumerate(ARMS):
        target = (arm == a).astype(np.float64)
        logged = model[rows, arm.astype(np.int64)]
        estimates[name] = {
            "true": float(truth[:, a].mean()),
            "ips": _shown(ips(chance, target, seen)),
            "snips": _shown(snips(chance, target, seen)),
            "doubly_robust": _shown(doubly_robust(chance, target, seen, logged, model[:, a])),
        }
    late = slice(n // 2, n)
    return {
        "n": n,
        "best_possible": float(best.mean()),
        "decisions": at.tolist(),
        "regret": {name: np.cumsum(loss)[at - 1].tolist() for name, loss in losses.items()},
        "late_value": {name: float((best - loss)[late].mean()) for name, loss in losses.items()},
        "estimates": estimates,
    }


def _shown(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
