"""Do the lists of each journey step beat one list for all? What was shown before each event.

Prequential: for every event of a known customer, the lists that their step had before it, and the
home list alone in as many places; then the event is learned. Called by ``evaluate-lists``.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core import metrics
from stream_app.core.journey import Journey
from stream_app.core.list_kinds import HOME, KINDS_OF_LISTS, LISTS
from stream_app.core.model import STEPS_MAX
from stream_app.core.ranking import Ranker
from stream_app.core.state import decode_users
from stream_app.errors import EventFileError
from stream_app.hashing import stable_hash
from stream_app.listing import Listing
from stream_app.offers import Offers
from stream_app.offline.described import Describer
from stream_app.offline.engine import Engine
from stream_app.offline.evaluate import event_bytes, learn, usable_rows
from stream_app.offline.evaluate_report import BOOTSTRAP_SEED
from stream_app.offline.eventfile import EventTable
from stream_app.ports import USERS
from stream_app.settings import Settings

ALL, EVERY_STEP = "all", "every step"  # rows of sums
_Shown = list[tuple[str, NDArray[np.uint64]]]


class StepLists:
    """The lists of the journey, and home alone, of one customer at a time."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        stages = engine.stages
        self._engine = engine
        self._lists = stages.learn.listing
        places = int((stages.learn.journey.lists @ KINDS_OF_LISTS["share"]).max() + 1)
        settings = settings.model_copy(update={"list_size": places * settings.list_size})
        offers = Offers(stages.catalog, stages.items, settings, lambda: 0.0)
        tables = stages.items.tables
        self._home = Listing(
            settings,
            _home_only(stages.learn.journey),
            stages.items,
            Ranker(tables, list_size=settings.list_size, rules=offers.rules),
            stages.learn.listing.candidates,
            offers,
            None,
        )

    async def shown(self, customer: str, *, anonymous: bool) -> tuple[str, _Shown, _Shown]:
        """The customer's step, and what it shows: by list, and of home alone."""
        stages = self._engine.stages
        key = np.array([stable_hash(customer, int(anonymous))], np.uint64)
        users = decode_users(key, await self._engine.store.load(USERS, [0], [key[0].tobytes()]))
        stages.items.tables.advance(float(users["last_ts"][0]))
        owned = stages.learn.owned[0]
        found = []
        for listing in (self._lists, self._home):
            _, kinds, lists = listing.rank(
                users, users, np.zeros((1, 2), np.uint32), owned.partition, owned.blend
            )
            ids = stages.items.tables.nodes["id"]
            found.append(
                [
                    (LISTS[kind], ids[lists.nodes[i, : lists.counts[i]]])
                    for i, kind in enumerate(kinds.tolist())
                ]
            )
        return stages.learn.journey.names[int(users["step"][0])], found[0], found[1]


def _home_only(journey: Journey) -> Journey:
    lists = np.zeros((STEPS_MAX, len(LISTS)), np.bool_)
    lists[:, HOME] = True
    return replace(journey, lists=lists)


async def evaluate_lists(
    train: EventTable,
    test: EventTable,
    settings: Settings,
    *,
    group: str,
    targets: frozenset[str],
    fresh: bool = False,
) -> dict[str, Any]:
    """By step and list, and in all: how often the next event's item was shown.

    Beside it, how often home alone would have shown it in as many places.

    ``fresh`` counts only events whose item the customer's lists cannot know from their own recent
    ones. ``gain_interval`` is that of the difference of hit rates, by cluster bootstrap.
    """
    engine = Engine(settings, list_size=settings.list_size)
    await engine.start()
    describer = Describer()
    rows = await learn(engine, train, group, describer)
    seen: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        seen[getattr(train, group)[row]].add(stable_hash(train.item_id[row] or ""))
    steps = StepLists(engine, settings)
    found: dict[tuple[str, str], list[tuple[str, int, int, int]]] = defaultdict(list)
    for row in usable_rows(test, group).tolist():
        who, item = getattr(test, group)[row], stable_hash(test.item_id[row] or "")
        if who in seen and test.event[row] in targets and not (fresh and item in seen[who]):
            step, lists, (home,) = await steps.shown(who, anonymous=group == "session_id")
            everything = np.unique(np.concatenate([ids for _, ids in lists]))
            for name, ids in (*lists, (ALL, everything)):
                hit, alone = item in ids, item in home[1][: len(ids)]
                found[step, name].append((who, int(hit), int(alone), len(ids)))
                if name == ALL:
                    found[EVERY_STEP, ALL].append((who, int(hit), int(alone), len(ids)))
        seen[who].add(item)
        engine.describe(describer.new_items(test, [row]))
        await engine.apply([event_bytes(test, row, group)])
    if not found:
        raise EventFileError("nothing to evaluate: choose another --group or --targets")
    return {
        "group": group,
        "targets": sorted(targets),
        "fresh": fresh,
        "by_step": {f"{step}: {name}": _row(rows) for (step, name), rows in sorted(found.items())},
    }


def _row(found: list[tuple[str, int, int, int]]) -> dict[str, Any]:
    who, hits, alone, places = zip(*found, strict=True)
    gain = np.array(hits, np.float64) - np.array(alone)
    return {
        "n": len(found),
        "places": float(np.mean(places)),
        "hit_rate": float(np.mean(hits)),
        "home_hit_rate": float(np.mean(alone)),
        "gain_interval": list(metrics.bootstrap_interval(gain, who, seed=BOOTSTRAP_SEED)),
    }
