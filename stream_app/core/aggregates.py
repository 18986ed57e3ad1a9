"""Figures about many customers that say little about any one: noise, exposure, odd behaviour.

Differentially private counts (Dwork et al. 2006), exposure of items and groups (Singh and Joachims
2018; Diaz et al. 2020), and a score of how little a customer behaves like a person.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_app.core.chance import uniform
from stream_app.core.metrics import gini

Floats = NDArray[np.float64]

ITEMS_EACH = 5  # recent items of a customer that count
PER_CUSTOMER_MAX = 2 + ITEMS_EACH


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


class Counts(NamedTuple):
    """Customers by step ``(steps,)``, by last move ``(steps, steps)``, by recent item ``(items,)``.

    One customer changes them together by at most 2 + ``ITEMS_EACH``.
    """

    steps: Floats
    moves: Floats
    items: Floats


def customer_counts(users: NDArray[np.void], items: NDArray[np.uint64], steps_n: int) -> Counts:
    """Counts of ``(n,) USER``; ``items`` are ascending hashes of the items that are counted.

    Of a customer the step, the last move between steps and the last ``ITEMS_EACH`` places of the
    ring count, an item that is there twice once.

    >>> from stream_app.core.state import new_users
    >>> users = new_users(np.arange(2, dtype=np.uint64))
    >>> users["events"], users["step"], users["previous_step"] = 1, [2, 1], [1, 0]
    >>> users["ring_n"], users["ring_item"][:, :3] = [3, 1], [[7, 9, 7], [9, 0, 0]]
    >>> found = customer_counts(users, np.array([7, 8, 9], np.uint64), 3)
    >>> found.steps.tolist(), found.moves[1, 2].tolist(), found.items.tolist()
    ([0.0, 1.0, 1.0], 1.0, [1.0, 0.0, 2.0])
    """
    users = users[users["events"] > 0]
    step = np.minimum(users["step"].astype(np.int64), steps_n - 1)
    before = np.minimum(users["previous_step"].astype(np.int64), steps_n - 1)
    steps = np.bincount(step, minlength=steps_n).astype(np.float64)
    moves = np.bincount(before * steps_n + step, minlength=steps_n * steps_n)
    counts = np.zeros(len(items))
    if len(items) and len(users):
        back = users["ring_n"].astype(np.int64)[:, None] - 1 - np.arange(ITEMS_EACH)
        recent = np.take_along_axis(users["ring_item"], np.maximum(back, 0), axis=1)
        again = (recent[:, :, None] == recent[:, None, :]) & (back[:, None, :] >= 0)
        first = ~np.tril(again, -1).any(axis=2)
        at = np.minimum(np.searchsorted(items, recent), len(items) - 1)
        counted = first & (back >= 0) & (items[at] == recent)
        counts += np.bincount(at[counted], minlength=len(items))
    return Counts(steps, moves.reshape(steps_n, steps_n).astype(np.float64), counts)


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
