"""Sum up what an evaluation measured: means with intervals, by part, and what the blend gains.

Called by :mod:`stream_app.offline.evaluate` and :mod:`stream_app.offline.evaluate_baskets`. Values
are ``(n, m)``: a row per prediction, a column per measure. Customers are drawn again as a whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_app.core import metrics

BOOTSTRAP_SEED = 1
MEASURES = ("hit_rate", "mrr", "ndcg")
ALL = "all"  # events
Floats = NDArray[np.float64]


def values_of_ranks(ranks: Sequence[int], k: int) -> Floats:
    """``MEASURES`` of each prediction, ``(n, 3)``.

    >>> values_of_ranks([1, 0, 3], 5).tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.3333333333333333, 0.5]]
    """
    found = np.array(ranks, np.int64)
    each = metrics.hits, metrics.reciprocal_ranks, metrics.discounted_gains
    return np.stack([of(found, k) for of in each], axis=1)


def measured(values: Floats, groups: ArrayLike, names: Sequence[str]) -> dict[str, Any]:
    """``n``, and by name of each column its mean and ``<name>_interval``, 95 %.

    >>> measured(np.array([[1.0], [0.0]]), ["a", "a"], ["hit_rate"])
    {'n': 2, 'hit_rate': 0.5, 'hit_rate_interval': [0.5, 0.5]}
    """
    intervals = metrics.bootstrap_intervals(values, groups, seed=BOOTSTRAP_SEED)
    found: dict[str, Any] = {"n": len(values)}
    for name, mean, interval in zip(names, values.mean(axis=0), intervals, strict=True):
        found |= {name: float(mean), f"{name}_interval": interval.tolist()}
    return found


def by_label(
    values: Floats, groups: Sequence[str], labels: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """:func:`measured` of the predictions of each label, in order of the labels."""
    who, which = np.array(groups), np.array(labels)
    return {
        label: measured(values[which == label], who[which == label], names)
        for label in sorted(set(labels))
    }


def by_variant(
    variants: Mapping[str, Floats],
    groups: Sequence[str],
    events: Sequence[str],
    names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """:func:`measured` of each variant, and in ``by_event`` its means by event type."""
    which = np.array(events)
    return {
        variant: measured(values, groups, names)
        | {
            "by_event": {
                event: dict(zip(names, values[which == event].mean(axis=0).tolist(), strict=True))
                for event in sorted(set(events))
            }
        }
        for variant, values in variants.items()
    }


def gains(
    blend: Floats,
    alone: Mapping[str, Floats],
    groups: Sequence[str],
    events: Sequence[str],
    names: Sequence[str],
) -> dict[str, dict[str, dict[str, Any]]]:
    """By event type (``ALL``: every one) and measure: what the blend has more than the best source.

    The ``source`` is the one with the best mean on these very predictions, so chance is on its
    side; ``interval`` is the 95 % interval of the paired difference.
    """
    if not alone:
        return {}
    who, which = np.array(groups), np.array(events)
    kinds = sorted(set(events))
    found = {}
    for event in (ALL, *(kinds if len(kinds) > 1 else ())):
        rows = np.flatnonzero((which == event) | (event == ALL))
        stacked = np.stack([values[rows] for values in alone.values()])
        best = stacked.mean(axis=1).argmax(axis=0)
        columns = np.arange(len(names))
        rivals = stacked[best, :, columns].T
        part = measured(blend[rows] - rivals, who[rows], names)
        found[event] = {
            name: {
                "source": list(alone)[best[column]],
                "gain": part[name],
                "interval": part[f"{name}_interval"],
            }
            for column, name in enumerate(names)
        }
    return found
