"""Figures about many customers that say little about any one: noise, exposure, odd behaviour.

Differentially private counts (Dwork et al. 2006), exposure of items and groups (Singh and Joachims
2018; Diaz et al. 2020), and a score of how little a customer behaves like a person.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_app.core.chance import uniform
from stream_app.core.metrics import gini

Floats = NDArray[np.float64]


def private_counts(
    counts: ArrayLike, *, epsilon: float, per_customer_max: int, secret: int, release: int
) -> Floats:
    """Counts with Laplace noise of scale ``per_customer_max / epsilon``: ε-differentially private.

    One customer may change all counts of a release together by ``per_customer_max`` at most, which
    the caller has to see to. Noise is drawn by a hash of ``secret`` (63 bits that nobody else
    knows), ``release`` and the place: asking for the same release again gives the same noise, so
    that averaging over questions tells nothing. Several releases add up their ε.

    >>> private_counts([10.0, 20.0], epsilon=1e6, per_customer_max=1, secret=5, release=1).round()
    array([10., 20.])
    """
    if epsilon <= 0.0 or per_customer_max < 1:
        raise ValueError("epsilon must be above 0, and a customer count for something")
    values = np.asarray(counts, np.float64)
    draws = [uniform(np.uint64(secret), release * 1_000_003 + k, 7) for k in range(values.size)]
    u = np.array(draws).reshape(values.shape) - 0.5
    scale = per_customer_max / epsilon
    tail = np.maximum(1.0 - 2.0 * np.abs(u), 2.0**-53)
    noisy: Floats = values - scale * np.sign(u) * np.log(tail)
    return noisy


def exposure_report(
    lists: NDArray[np.int64], groups: NDArray[np.int64], *, names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Who is shown, weighted by attention: items' Gini coefficient, and share by group.

    ``lists (n, k)`` are item numbers, -1 for none; ``groups (items,)`` the group of each item.
    Attention falls with the place as 1 / log2(1 + place) (Järvelin and Kekäläinen 2002). ``ratio``
    is exposure per item against the mean: 1 is equal treatment of groups.

    >>> lists = np.array([[0, 1], [0, 2]])
    >>> report = exposure_report(lists, np.array([0, 1, 1]), names=("a", "b"))
    >>> round(report["groups"]["a"]["share"], 3), round(report["groups"]["b"]["ratio"], 3)
    (0.613, 0.58)
    """
    items = len(groups)
    attention = np.broadcast_to(1.0 / np.log2(2.0 + np.arange(lists.shape[1])), lists.shape)
    shown = lists >= 0
    exposure = np.bincount(lists[shown], attention[shown], items)
    total = max(float(exposure.sum()), 1e-300)
    report = {}
    for group in np.unique(groups).tolist():
        mine = groups == group
        share = float(exposure[mine].sum()) / total
        label = names[group] if 0 <= group < len(names) else str(group)
        report[label] = {
            "items": int(mine.sum()),
            "share": share,
            "ratio": share * items / max(int(mine.sum()), 1),
            "unseen": float((exposure[mine] == 0).mean()),
        }
    return {"gini": gini(exposure), "unseen": float((exposure == 0).mean()), "groups": report}


def oddity(users: NDArray[np.void]) -> Floats:
    """How little each of ``(n,) USER`` behaves like a person, 0 to 1: a score, not a verdict.

    The mean of four signs, each 0 to 1: events per second of the session (above one in five
    seconds), long sessions (above 200 events), no dwelling (the last pause under half a second in
    a session that has gone on), and items that never repeat in a full ring without anything put
    into the cart. Called by whoever decides what follows from it.

    >>> from stream_app.core.state import new_users
    >>> users = new_users(np.arange(2, dtype=np.uint64))
    >>> users["session_moves"], users["session_start"], users["last_ts"] = [900, 3], 0.0, [90, 60]
    >>> users["pause_s"], users["ring_n"], users["ring_item"] = [0.1, 30], [16, 2], np.arange(16)
    >>> oddity(users).round(2).tolist()
    [1.0, 0.0]
    """
    events = users["session_moves"].astype(np.float64)
    length_s = np.maximum(users["last_ts"] - users["session_start"], 1.0)
    rate = np.where(events >= 10, np.clip((events / length_s - 0.2) / 0.8, 0.0, 1.0), 0.0)
    long = np.clip((events - 200.0) / 400.0, 0.0, 1.0)
    restless = np.where((events >= 20) & (users["pause_s"] < 0.5), 1.0, 0.0)
    ring = np.sort(users["ring_item"], axis=1)
    repeats = (np.diff(ring, axis=1) == 0).any(axis=1)
    full = users["ring_n"] == ring.shape[1]
    sweeping = np.where(full & ~repeats & (users["cart_n"] == 0), 1.0, 0.0) * (events >= 100)
    score: Floats = (rate + long + restless + sweeping) / 4.0
    return score


def epsilon_spent(epsilons: ArrayLike) -> float:
    """What releases cost together: basic composition (Dwork and Roth 2014, theorem 3.16).

    >>> epsilon_spent([0.5, 0.5])
    1.0
    """
    return math.fsum(np.asarray(epsilons, np.float64).ravel().tolist())
