"""New items: how many are recommended early, and are they hit, with and without content?

Live, test-then-learn, as in :mod:`stream_app.offline.evaluate`. An item is new until it has had
``NEW_EVENTS`` events; what is known of its description is what its first event says.
"""

from collections import Counter
from typing import Any

import numpy as np

from stream_app.hashing import stable_hash
from stream_app.offline.described import Describer
from stream_app.offline.engine import Engine, configured
from stream_app.offline.evaluate import event_bytes, usable_rows
from stream_app.offline.eventfile import EventTable
from stream_app.settings import Settings

NEW_EVENTS = 10
VARIANTS = "with content", "without content"


async def cold_start(
    train: EventTable, test: EventTable, settings: Settings, *, group: str, k: int
) -> dict[str, Any]:
    """Measures by variant: ``recommended`` is the share of the items first seen in ``test`` that
    were in anybody's list while they were new, ``hit_rate`` that of predictions of new items.
    """
    usual = configured(settings)
    engine = Engine(settings, list_size=k, sources=[usual | {"content"}, usual - {"content"}])
    await engine.start()
    describer = Describer()
    rows = usable_rows(train, group)
    for start in range(0, len(rows), 1_000):
        chunk = rows[start : start + 1_000].tolist()
        engine.describe(describer.new_items(train, chunk))
        await engine.apply([event_bytes(train, row, group) for row in chunk])
    seen = Counter(stable_hash(train.item_id[row] or "") for row in rows.tolist())
    old = frozenset(seen)
    groups = {getattr(train, group)[row] for row in rows.tolist()}
    recommended: list[set[int]] = [set() for _ in VARIANTS]
    hits, asked = np.zeros(len(VARIANTS)), 0
    for row in usable_rows(test, group).tolist():
        who, item = getattr(test, group)[row], stable_hash(test.item_id[row] or "")
        if who in groups:
            lists = await engine.predict(
                who,
                anonymous=group == "session_id",
                ts=float(test.ts[row]),
                segments=test.segments(row),
            )
            is_new = 0 < seen[item] < NEW_EVENTS
            asked += is_new
            for v, found in enumerate(lists):
                listed = found.tolist()
                hits[v] += is_new and item in listed
                recommended[v].update(i for i in listed if i not in old and seen[i] < NEW_EVENTS)
        groups.add(who)
        seen[item] += 1
        engine.describe(describer.new_items(test, [row]))
        await engine.apply([event_bytes(test, row, group)])
    born = [item for item in seen if item not in old]
    return {
        "group": group,
        "k": k,
        "new_items": len(born),
        "predictions_of_new_items": asked,
        "variants": {
            name: {
                "recommended": len(recommended[v]) / max(len(born), 1),
                "hit_rate": float(hits[v]) / max(asked, 1),
            }
            for v, name in enumerate(VARIANTS)
        },
    }
