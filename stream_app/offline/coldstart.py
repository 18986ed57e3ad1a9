"""New items: how many are recommended early, and are they hit, with and without content?

Live, test-then-learn, as in :mod:`stream_app.offline.evaluate`. An item is new until it has had
``NEW_EVENTS`` events. What a list may know of an item's description comes with its first event, or,
in a pass of its own, from a catalog that was there before the test part began.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stream_app.errors import EventFileError
from stream_app.hashing import stable_hash
from stream_app.offline.described import Describer
from stream_app.offline.engine import Engine, configured
from stream_app.offline.evaluate import event_bytes, learn, usable_rows
from stream_app.offline.evaluate_report import measured
from stream_app.offline.eventfile import EventTable
from stream_app.settings import Settings

NEW_EVENTS = 10
WITH, WITHOUT, BEFOREHAND = "with content", "without content", "with content, catalog beforehand"
MEASURES = ("hit_rate", "mrr")


@dataclass(slots=True)
class _Variant:
    """Hits of new items by whether it was their first event, and what was recommended."""

    later: list[tuple[float, float]] = field(default_factory=list)  # MEASURES, 1 … 9 events
    first: list[tuple[float, float]] = field(default_factory=list)  # before the first event
    recommended: set[int] = field(default_factory=set)


async def cold_start(
    train: EventTable,
    test: EventTable,
    settings: Settings,
    *,
    group: str,
    k: int,
    every: int = 1,
) -> dict[str, Any]:
    """Measures by variant. ``recommended`` is the share of the items first seen in ``test`` that
    were in anybody's list while they were new; ``later`` the hit rate and MRR of predictions of
    items with 1 to 9 events, ``first`` that of their very first event, with 95 % intervals;
    ``later_gain`` is by how much the variant is ahead of the one without content, paired.

    Lists are made for all events of new items, and for one in ``every`` of the others.
    Raises ``EventFileError`` when the test part has no new item.
    """
    usual = configured(settings)
    sources = [usual | {"content"}, usual - {"content"}]
    asked = {"group": group, "k": k, "every": every}
    counts, who, variants = await _pass(train, test, settings, sources, asked, beforehand=False)
    _, _, known = await _pass(train, test, settings, sources[:1], asked, beforehand=True)
    found = dict(zip((WITH, WITHOUT, BEFOREHAND), (*variants, *known), strict=True))
    if not who["later"] or not who["first"]:
        raise EventFileError(
            "no new item that a known customer asks for: choose a smaller --split, or a longer FILE"
        )
    without = np.array(found[WITHOUT].later)
    return {
        **asked,
        "new_items": counts,
        "predictions_of_new_items": len(who["later"]),
        "first_events": len(who["first"]),
        "variants": {
            name: {
                "recommended": len(part.recommended) / counts,
                "later": measured(np.array(part.later), who["later"], MEASURES),
                "later_gain": measured(np.array(part.later) - without, who["later"], MEASURES),
                "first": measured(np.array(part.first), who["first"], MEASURES),
            }
            for name, part in found.items()
        },
    }


async def _pass(
    train: EventTable,
    test: EventTable,
    settings: Settings,
    sources: list[frozenset[str]],
    asked: dict[str, Any],
    *,
    beforehand: bool,
) -> tuple[int, dict[str, list[str]], list[_Variant]]:
    """How many items were new, whose the predictions were, and what each of ``sources`` reached."""
    group, k, every = asked["group"], asked["k"], asked["every"]
    engine = Engine(settings, list_size=k, sources=sources)
    await engine.start()
    describer = Describer()
    rows = await learn(engine, train, group, describer)
    seen = Counter(stable_hash(train.item_id[row] or "") for row in rows)
    old, groups = frozenset(seen), {getattr(train, group)[row] for row in rows}
    who: dict[str, list[str]] = {"later": [], "first": []}
    variants = [_Variant() for _ in sources]
    tested = usable_rows(test, group).tolist()
    if beforehand and tested:
        begin = float(test.ts[tested[0]])
        engine.describe([replace(item, ts=begin) for item in describer.new_items(test, tested)])
    waiting: list[int] = []  # rows to learn before the next list
    for at, row in enumerate(tested):
        customer, item = getattr(test, group)[row], stable_hash(test.item_id[row] or "")
        is_new = item not in old and seen[item] < NEW_EVENTS
        if customer in groups and (is_new or at % every == 0):
            await engine.apply([event_bytes(test, learned, group) for learned in waiting])
            waiting.clear()
            lists = await engine.predict(
                customer,
                anonymous=group == "session_id",
                ts=float(test.ts[row]),
                segments=test.segments(row),
            )
            if is_new:
                who["later" if seen[item] else "first"].append(customer)
            for variant, ids in zip(variants, lists, strict=True):
                listed = ids.tolist()
                if is_new:
                    rank = listed.index(item) + 1 if item in listed else 0
                    kept = variant.later if seen[item] else variant.first
                    kept.append((float(rank > 0), 1.0 / rank if rank else 0.0))
                variant.recommended.update(
                    i for i in listed if i not in old and seen[i] < NEW_EVENTS
                )
        groups.add(customer)
        seen[item] += 1
        engine.describe(describer.new_items(test, [row]))
        waiting.append(row)
    return len(seen.keys() - old), who, variants
