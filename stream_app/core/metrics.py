"""Measure ranked lists. Called by the offline evaluation and by the live feedback loop.

Every test event is one *prediction*. ``ranks`` holds, per prediction, the 1-based rank of the
single target, 0 when it is not in the list; ``recommended`` holds the lists as item indices
``(n, k)``, padded with -1 on the right. Definitions: Herlocker et al. 2004 and Ricci et al.,
Recommender Systems Handbook, 2nd ed., ch. 8; each function names its own source where it has one.
A measure over nothing is NaN, never 0.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

bootstrap_cells_max = 4_000_000  # counts drawn at once: 32 MB


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else float("nan")


def hits(ranks: ArrayLike, k: int) -> FloatArray:
    """1.0 where the target is among the first ``k``; the per-prediction recall@k. ``(n,)``.

    >>> hits([1, 0, 3], 2).tolist()
    [1.0, 0.0, 0.0]
    """
    assert k >= 1
    rank = np.asarray(ranks)
    return ((rank >= 1) & (rank <= k)).astype(np.float64)


def reciprocal_ranks(ranks: ArrayLike, k: int) -> FloatArray:
    """1/rank of a target among the first ``k``, else 0 (Voorhees 1999). ``(n,)``.

    >>> reciprocal_ranks([1, 0, 4, 9], 5).tolist()
    [1.0, 0.0, 0.25, 0.0]
    """
    result: FloatArray = hits(ranks, k) / np.maximum(np.asarray(ranks), 1)
    return result


def discounted_gains(ranks: ArrayLike, k: int) -> FloatArray:
    """NDCG@k with one target: 1/log2(rank + 1) (Järvelin and Kekäläinen 2002). ``(n,)``.

    >>> discounted_gains([1, 3, 0], 5).tolist()
    [1.0, 0.5, 0.0]
    """
    result: FloatArray = hits(ranks, k) / np.log2(np.maximum(np.asarray(ranks), 1) + 1.0)
    return result


def hit_rate(ranks: ArrayLike, k: int) -> float:
    """Share of predictions whose target is among the first ``k``.

    >>> hit_rate([1, 0, 3, 7], 5)
    0.5
    """
    return _mean(hits(ranks, k))


def mrr(ranks: ArrayLike, k: int) -> float:
    """Mean reciprocal rank cut at ``k``.

    >>> mrr([1, 0, 4, 2], 5)
    0.4375
    """
    return _mean(reciprocal_ranks(ranks, k))


def ndcg(ranks: ArrayLike, k: int) -> float:
    """Mean normalised discounted cumulative gain cut at ``k``, one target.

    >>> ndcg([1, 3, 0, 0], 5)
    0.375
    """
    return _mean(discounted_gains(ranks, k))


def precision(ranks: ArrayLike, k: int) -> float:
    """Share of the ``k`` recommended places that hold the single target: hit rate / k.

    >>> precision([1, 0, 3, 7], 5)
    0.1
    """
    return hit_rate(ranks, k) / k


def recall(ranks: ArrayLike, k: int) -> float:
    """Share of targets found; with one target per prediction this is the hit rate.

    >>> recall([1, 0], 5)
    0.5
    """
    return hit_rate(ranks, k)


def f1(ranks: ArrayLike, k: int) -> float:
    """Harmonic mean of precision@k and recall@k.

    >>> round(f1([1, 0], 4), 3)
    0.2
    """
    return harmonic_mean(precision(ranks, k), recall(ranks, k))


def harmonic_mean(precision_value: float, recall_value: float) -> float:
    """2pr / (p + r), 0 when both are 0.

    >>> harmonic_mean(0.5, 0.5), harmonic_mean(0.0, 0.0)
    (0.5, 0.0)
    """
    total = precision_value + recall_value
    return 2.0 * precision_value * recall_value / total if total != 0 else 0.0


def summary(ranks: ArrayLike, k: int) -> dict[str, float]:
    """All single-target measures at once, keyed as the ``evaluate`` command prints them.

    >>> summary([1, 0], 2)["precision"]
    0.25
    """
    measures: tuple[Callable[[ArrayLike, int], float], ...] = (
        hit_rate,
        mrr,
        ndcg,
        precision,
        recall,
        f1,
    )
    return {measure.__name__: measure(ranks, k) for measure in measures}


def basket_values(recommended: ArrayLike, targets: list[set[int]], k: int) -> dict[str, FloatArray]:
    """Precision, recall, F1, hit, NDCG and average precision of each prediction, ``(n,)`` each.

    ``recommended`` ``(n, k_list)`` item indices, -1 = no item; ``targets`` n sets, none empty.
    Precision divides by ``k`` even when a list is shorter; the ideal NDCG and average precision
    divide by what ``min(k, targets)`` perfect places would give.

    >>> basket_values([[4, 7, 9], [1, 2, 3]], [{7, 8}, {5}], 3)["recall"].tolist()
    [0.5, 0.0]
    """
    assert k >= 1 and all(targets)
    lists = np.asarray(recommended, dtype=np.int64)[:, :k]
    assert len(lists) == len(targets)
    found = np.zeros(lists.shape)
    for row, items in enumerate(targets):
        wanted = np.fromiter(items, dtype=np.int64)
        found[row] = np.isin(lists[row], wanted) & (lists[row] >= 0)
    sizes = np.array([len(items) for items in targets], dtype=np.float64)
    places = np.arange(1, lists.shape[1] + 1)
    discount = 1.0 / np.log2(places + 1.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0))
    perfect = np.minimum(sizes, k).astype(np.int64)
    found_count = found.sum(axis=1)
    running_precision = np.cumsum(found, axis=1) / places
    return {
        "hit_rate": (found_count > 0).astype(np.float64),
        "precision": found_count / k,
        "recall": found_count / sizes,
        "f1": 2.0 * found_count / (k + sizes),
        "ndcg": found @ discount / ideal[perfect - 1],
        "average_precision": (running_precision * found).sum(axis=1) / perfect,
    }


def basket_measures(recommended: ArrayLike, targets: list[set[int]], k: int) -> dict[str, float]:
    """Means of :func:`basket_values`; predictions with an empty target set are left out.

    >>> m = basket_measures([[4, 7, 9]], [{7, 8}], 3)
    >>> round(m["precision"], 3), m["recall"], round(m["ndcg"], 3), m["average_precision"]
    (0.333, 0.5, 0.387, 0.25)
    """
    lists = np.asarray(recommended, dtype=np.int64)
    assert len(lists) == len(targets)
    used = np.flatnonzero([bool(wanted) for wanted in targets])
    values = basket_values(lists[used], [targets[row] for row in used], k)
    return {name: _mean(each) for name, each in values.items()}


def recommended_counts(recommended: ArrayLike, item_count: int) -> IntArray:
    """How often each of ``item_count`` items was recommended. ``(item_count,)`` int64.

    >>> recommended_counts([[0, 2], [2, -1]], 4).tolist()
    [1, 0, 2, 0]
    """
    items = np.asarray(recommended, dtype=np.int64).ravel()
    items = items[items >= 0]
    assert not items.size or items.max() < item_count
    return np.bincount(items, minlength=item_count)


def coverage(recommended: ArrayLike, item_count: int) -> float:
    """Share of the catalogue that appears in at least one list (Ge et al. 2010).

    >>> coverage([[0, 2], [2, -1]], 4)
    0.5
    """
    if item_count == 0:
        return float("nan")
    return float(np.count_nonzero(recommended_counts(recommended, item_count)) / item_count)


def gini(counts: ArrayLike) -> float:
    """Inequality of exposure: 0 = every item equally often, near 1 = one item takes all.

    >>> gini([5, 5, 5]), gini([0, 0, 0, 8])
    (0.0, 0.75)
    """
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    total, n = ordered.sum(), ordered.size
    if total == 0:
        return float("nan")
    return float((2.0 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def mean_popularity(recommended: ArrayLike, popularity: ArrayLike) -> float:
    """Average recommendation popularity, ARP (Yin et al. 2012): mean over lists of the list's mean.

    ``popularity`` ``(item_count,)`` is any count or share per item.

    >>> mean_popularity([[0, 1], [1, -1]], [10, 2])
    4.0
    """
    return _mean(_list_means(np.asarray(popularity, dtype=np.float64), recommended))


def popularity_percentile(recommended: ArrayLike, popularity: ArrayLike) -> float:
    """Popularity bias: mean percentile (0 rarest … 1 most popular) of recommended items.

    0.5 is what uniformly drawn items give; equal popularities share their mean percentile.

    >>> popularity_percentile([[2]], [1, 5, 9]), popularity_percentile([[0], [2]], [1, 5, 9])
    (1.0, 0.5)
    """
    counts = np.asarray(popularity, dtype=np.float64)
    ordered = np.sort(counts)
    below = np.searchsorted(ordered, counts, side="left")
    up_to = np.searchsorted(ordered, counts, side="right") - 1
    percentile = (below + up_to) / 2.0 / max(counts.size - 1, 1)
    return _mean(_list_means(percentile, recommended))


def novelty(recommended: ArrayLike, popularity: ArrayLike) -> float:
    """Mean self-information in bits, -log2 of an item's share of events (Zhou et al. 2010).

    Items without events count as if they had half an event.

    >>> novelty([[0], [1]], [4, 4])
    1.0
    """
    counts = np.maximum(np.asarray(popularity, dtype=np.float64), 0.5)
    return _mean(_list_means(-np.log2(counts / counts.sum()), recommended))


def intra_list_diversity(recommended: ArrayLike, vectors: ArrayLike) -> float:
    """Mean of 1 - cosine over all pairs inside a list, averaged over lists (Ziegler et al. 2005).

    ``vectors`` ``(item_count, d)``; an all-zero vector is unlike everything. Lists with fewer than
    two items are left out.

    >>> intra_list_diversity([[0, 1], [0, 2]], [[1, 0], [0, 1], [1, 0]])
    0.5
    """
    lists = np.asarray(recommended, dtype=np.int64)
    rows = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    present = (lists >= 0).astype(np.float64)
    sizes = present.sum(axis=1)
    # The sum of all pairwise cosines is |sum of unit vectors|²; the diagonal is each one's |u|².
    total = np.zeros((len(lists), rows.shape[1]))
    diagonal = np.zeros(len(lists))
    for place in range(lists.shape[1]):
        chosen = unit[np.maximum(lists[:, place], 0)] * present[:, place, None]
        total += chosen
        diagonal += (chosen * chosen).sum(axis=1)
    pairs = sizes * (sizes - 1)
    cosines = (total * total).sum(axis=1) - diagonal
    several = pairs > 0
    return _mean(1.0 - cosines[several] / pairs[several])


def mse(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Mean squared error.

    >>> mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    error = np.asarray(predicted, dtype=np.float64) - np.asarray(actual, dtype=np.float64)
    return _mean(error * error)


def rmse(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Root of the mean squared error.

    >>> rmse([1.0, 2.0], [1.0, 5.0]) == 4.5**0.5
    True
    """
    return float(np.sqrt(mse(predicted, actual)))


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values (n,)``: see :func:`bootstrap_intervals`.

    >>> bootstrap_interval([1.0, 1.0, 1.0], ["a", "a", "b"], seed=1)
    (1.0, 1.0)
    """
    value = np.asarray(values, dtype=np.float64)[:, None]
    both = bootstrap_intervals(value, groups, seed=seed, confidence=confidence, resamples=resamples)
    return float(both[0, 0]), float(both[0, 1])


def bootstrap_intervals(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> FloatArray:
    """Percentile intervals ``(m, 2)`` of the means of the columns of ``values (n, m)``.

    Whole groups are drawn again, ``groups (n,)``: predictions of one session or user are not
    independent (cluster bootstrap: Davison and Hinkley 1997, §3.8). All columns share the draws, so
    a column of differences gives a paired interval. The same seed gives the same intervals.

    >>> bootstrap_intervals([[1.0, 0.0], [1.0, 0.0]], ["a", "b"], seed=1).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    assert 0 < confidence < 1 and resamples >= 1
    value = np.asarray(values, dtype=np.float64)
    if not len(value):
        return np.full((value.shape[1], 2), np.nan)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.stack([np.bincount(member, column) for column in value.T], axis=1)
    sizes = np.bincount(member).astype(np.float64)
    group_count = sizes.size
    random = np.random.default_rng(seed)
    means: list[FloatArray] = []
    left = resamples
    while left > 0:
        rows = min(left, max(1, bootstrap_cells_max // group_count))
        drawn = random.integers(0, group_count, size=(rows, group_count))
        places = drawn + group_count * np.arange(rows)[:, None]
        times = np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape)
        times = times.astype(np.float64)
        means.append(times @ sums / (times @ sizes)[:, None])
        left -= rows
    tail = (1.0 - confidence) / 2.0
    result: FloatArray = np.quantile(np.concatenate(means), [tail, 1.0 - tail], axis=0).T
    return result


def _list_means(per_item: FloatArray, recommended: ArrayLike) -> FloatArray:
    """Mean of ``per_item`` over each list; lists without items are left out. ``(≤ n,)``."""
    lists = np.asarray(recommended, dtype=np.int64)
    present = lists >= 0
    sizes = present.sum(axis=1)
    sums = np.where(present, per_item[np.maximum(lists, 0)], 0.0).sum(axis=1)
    filled = sizes > 0
    result: FloatArray = sums[filled] / sizes[filled]
    return result
