"""Textbook measures, as plain functions: what the compiled sources are checked against.

Cosine and Jaccard are also readings of the neighbour tables (:mod:`stream_app.core.similar`).
:class:`CoRatings` is item-based filtering as it is defined, with a memory of every rating.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of the angle between two vectors of equal length; 0 when one of them is zero.

    >>> round(cosine((4, 5, 0), (3, 4, 5)), 4), round(cosine((1, 1, 1), (1, 0, 1)), 4)
    (0.7068, 0.8165)
    >>> round(cosine((4.5, 3.0), (3.0, 5.0)), 4), cosine((1, 0), (0, 0))
    (0.9037, 0.0)
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / lengths if lengths > 0.0 else 0.0


def jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """Σ min / Σ max of two vectors of counts, not negative (Jaccard 1901, Ruzicka 1958).

    Of zeros and ones this is the size of the intersection by that of the union.

    >>> jaccard((1, 1, 0, 1), (1, 0, 1, 1)), jaccard((2, 0), (1, 1)), jaccard((0,), (0,))
    (0.5, 0.3333333333333333, 0.0)
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    union = float(np.maximum(x, y).sum())
    return float(np.minimum(x, y).sum()) / union if union > 0.0 else 0.0


def linear_prediction(intercept: float, weights: ArrayLike, features: ArrayLike) -> float:
    """``intercept`` + Σ weight · feature.

    >>> linear_prediction(1.0, (0.8, 0.5, 0.4), (2, 3, 1))
    4.5
    """
    return intercept + float(np.dot(weights, features))


def posterior(prior: float, likelihood: float, likelihood_otherwise: float) -> float:
    """P(h | seen) from P(h), P(seen | h) and P(seen | not h) (Bayes 1763).

    >>> posterior(0.3, 0.7, 0.3)
    0.5
    """
    joint = prior * likelihood
    return joint / (joint + (1.0 - prior) * likelihood_otherwise)


def hybrid(alpha: float, collaborative: ArrayLike, content: ArrayLike) -> NDArray[np.float64]:
    """α · collaborative + (1 − α) · content, for every candidate.

    >>> hybrid(0.6, (0.5, 0.0), (0.25, 1.0)).tolist()
    [0.4, 0.4]
    """
    return alpha * np.asarray(collaborative, np.float64) + (1.0 - alpha) * np.asarray(
        content, np.float64
    )


class CoRatings:
    """Item-based filtering that learns rating by rating (practical item CF, TencentRec 2015).

    A pair of items counts, for each user, the smaller of the two ratings; when a rating rises, the
    item's sum grows by the difference and the pair's by the change of that minimum.

    >>> ratings = CoRatings()
    >>> ratings.rate("ann", "tea", 4.0), ratings.rate("ann", "milk", 3.0)
    (None, None)
    >>> ratings.rate("bob", "tea", 5.0)
    >>> round(ratings.similarity("tea", "milk"), 4)  # 3 / √(9 · 3)
    0.5774
    """

    def __init__(self) -> None:
        self._rated: dict[str, dict[str, float]] = defaultdict(dict)
        self._sums: dict[str, float] = defaultdict(float)
        self._pairs: dict[tuple[str, str], float] = defaultdict(float)

    def rate(self, user: str, item: str, rating: float) -> None:
        """The user's rating of the item is now ``rating``; a smaller one than before is ignored."""
        rated = self._rated[user]
        before = rated.get(item, 0.0)
        if rating <= before:
            return
        for other, value in rated.items():
            if other != item:
                more = min(rating, value) - min(before, value)
                self._pairs[min(item, other), max(item, other)] += more
        rated[item] = rating
        self._sums[item] += rating - before

    def similarity(self, p: str, q: str) -> float:
        """Σ min(r_p, r_q) / √(Σ r_p · Σ r_q) over users, 0 for an item nobody rated."""
        product = self._sums.get(p, 0.0) * self._sums.get(q, 0.0)
        pair = self._pairs.get((min(p, q), max(p, q)), 0.0)
        return pair / math.sqrt(product) if product > 0.0 else 0.0

    def neighbours(self, item: str, size: int) -> list[tuple[str, float]]:
        """The ``size`` most similar items, best first, ties by id."""
        scored = [(other, self.similarity(item, other)) for other in self._sums if other != item]
        return sorted((s for s in scored if s[1] > 0.0), key=lambda s: (-s[1], s[0]))[:size]

    def predict(self, user: str, item: str, *, neighbours: int = 20) -> float:
        """Σ rating · similarity over those of the user's items that are most like ``item``.

        What items are ranked by for a user (Sarwar et al. 2001, before their division by
        Σ similarity, which would make a rating of it). ``item`` itself is left out; 0 when nothing
        is known.

        >>> ratings = CoRatings()
        >>> for user, item, rating in (("ann", "tea", 4), ("ann", "milk", 3), ("bob", "tea", 5)):
        ...     ratings.rate(user, item, rating)
        >>> round(ratings.predict("bob", "milk"), 4), ratings.predict("bob", "tea")  # 5 · 0.5774
        (2.8868, 0.0)
        """
        rated = self._rated.get(user, {})
        near = [(self.similarity(item, other), other) for other in rated if other != item]
        best = sorted(near, key=lambda s: (-s[0], s[1]))[:neighbours]
        return math.fsum(similarity * rated[other] for similarity, other in best)


def co_rating_matrix(
    ratings: Iterable[tuple[str, str, float]], items: Sequence[str]
) -> NDArray[np.float64]:
    """The similarities of :class:`CoRatings` from all ``ratings`` at once: ``(n, n)`` by ``items``.

    >>> co_rating_matrix([("ann", "a", 4), ("ann", "b", 3), ("bob", "a", 5)], "ab").round(4)
    array([[1.    , 0.5774],
           [0.5774, 1.    ]])
    """
    column = {item: k for k, item in enumerate(items)}
    users: dict[str, NDArray[np.float64]] = {}
    for user, item, rating in ratings:
        row = users.setdefault(user, np.zeros(len(items)))
        row[column[item]] = max(row[column[item]], rating)
    rated = np.array(list(users.values())).reshape(-1, len(items))
    sums = rated.sum(axis=0)
    found = np.diag((sums > 0).astype(np.float64))
    for p, q in combinations(range(len(items)), 2):
        if sums[p] > 0 and sums[q] > 0:
            both = float(np.minimum(rated[:, p], rated[:, q]).sum())
            found[p, q] = found[q, p] = both / math.sqrt(sums[p] * sums[q])
    return found
