"""What diversity costs: hit rate and MRR of the same predictions at several weights of unlikeness.

Live, test-then-learn, as in :mod:`stream_app.offline.evaluate`, one pass for all weights.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core import metrics
from stream_app.core.catalog import Catalog
from stream_app.hashing import stable_hash
from stream_app.offline.described import Describer
from stream_app.offline.engine import Engine
from stream_app.offline.evaluate import event_bytes, learn, usable_rows
from stream_app.offline.eventfile import EventTable
from stream_app.settings import Settings

_MEASURED = 2_000  # lists of each weight that unlikeness is measured on, evenly over the test


def last_words(events: EventTable) -> EventTable:
    """``events`` with the last word of each title as category: what kind of thing an item is.

    For shops that name their items "white hanging heart t-light holder" and have no categories.
    """
    titles = events.texts.get("title", [None] * len(events))
    kinds = [title.split()[-1] if title else None for title in titles]
    return replace(events, texts={**events.texts, "category": kinds})


async def diversity_cost(
    train: EventTable,
    test: EventTable,
    settings: Settings,
    *,
    group: str,
    k: int,
    weights: Sequence[float],
) -> dict[str, Any]:
    """Measures by weight, the first of them 0: ``hit_rate``, ``mrr``, ``categories`` (distinct ones
    in a list), ``unlike`` (share of pairs in a list that differ in category) and ``diversity``
    (mean of 1 - cosine of pairs, see :meth:`Engine.diversity`).
    """
    engine = Engine(settings, list_size=k, diversities=weights)
    await engine.start()
    describer = Describer()
    rows = await learn(engine, train, group, describer)
    groups = {getattr(train, group)[row] for row in rows}
    ranks: list[list[int]] = []
    lists: list[list[NDArray[np.uint64]]] = []
    for row in usable_rows(test, group).tolist():
        who, item = getattr(test, group)[row], np.uint64(stable_hash(test.item_id[row] or ""))
        if who in groups:
            found = await engine.predict(
                who,
                anonymous=group == "session_id",
                ts=float(test.ts[row]),
                segments=test.segments(row),
            )
            at = [np.flatnonzero(listed == item) for listed in found[1:]]
            ranks.append([int(hit[0]) + 1 if len(hit) else 0 for hit in at])
            lists.append(found[1:])
        groups.add(who)
        engine.describe(describer.new_items(test, [row]))
        await engine.apply([event_bytes(test, row, group)])
    measured = lists[:: len(lists) // _MEASURED + 1]
    by_weight = {}
    for v, weight in enumerate(weights):
        reached = metrics.summary(np.array([row[v] for row in ranks], np.int64), k)
        shown = [found[v] for found in measured]
        kinds = [_categories(engine.stages.catalog, found) for found in shown]
        by_weight[f"{weight:g}"] = {
            "hit_rate": reached["hit_rate"],
            "mrr": reached["mrr"],
            "categories": float(np.mean([len(np.unique(of)) for of in kinds])),
            "unlike": float(np.mean([_unlike(of) for of in kinds])),
            "diversity": engine.diversity(shown),
        }
    return {"group": group, "k": k, "n": len(ranks), "by_weight": by_weight}


def _categories(catalog: Catalog, items: NDArray[np.uint64]) -> NDArray[np.uint32]:
    rows = catalog.rows(items)
    return catalog.category[rows[rows >= 0]]


def _unlike(categories: NDArray[np.uint32]) -> float:
    """The share of pairs that differ.

    >>> _unlike(np.array([1, 1, 2], np.uint32)).__round__(3)
    0.667
    """
    n = len(categories)
    if n < 2:
        return 0.0
    _, counts = np.unique(categories, return_counts=True)
    return float(1.0 - (counts * (counts - 1)).sum() / (n * (n - 1)))
