"""Evaluate whole baskets: of what a customer buys next, how much did one list beforehand name?

A basket is all that has one ``session_id``, an order or a visit. The list is made at its first
event, with what was known before it; the targets are the distinct items of the basket. Learning is
as in :mod:`stream_app.offline.evaluate`, *frozen* or *live*.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core import metrics
from stream_app.core.model import Model
from stream_app.errors import ConfigurationError, EventFileError
from stream_app.hashing import stable_hash
from stream_app.offline.described import Describer
from stream_app.offline.engine import Engine
from stream_app.offline.evaluate import (
    WITHOUT,
    Question,
    event_bytes,
    learn,
    list_indices,
    usable_rows,
)
from stream_app.offline.evaluate_report import ALL, by_variant, gains, measured
from stream_app.offline.eventfile import EventTable
from stream_app.settings import Settings

MEASURES = ("hit_rate", "recall", "precision", "f1", "ndcg", "average_precision")


@dataclass(slots=True)
class Baskets:
    """One row per predicted basket: its items, its customer, the lists of each variant."""

    targets: list[set[int]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    lists: list[list[NDArray[np.uint64]]] = field(default_factory=list)
    seconds: float = 0.0


def baskets_of(events: EventTable, rows: list[int], targets: frozenset[str]) -> dict[str, set[int]]:
    """Distinct items by session; events of other types count for nothing."""
    found: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        session = events.session_id[row]
        if session and events.event[row] in targets:
            found[session].add(stable_hash(events.item_id[row] or ""))
    return found


async def evaluate_baskets(
    train: EventTable,
    test: EventTable,
    question: Question,
    settings: Settings,
    model: Model | None = None,
) -> dict[str, Any]:
    """Measures of one list per basket of ``test``; baskets begun in ``train`` are left out.

    Raises ``ConfigurationError`` unless customers are users and the files have sessions.
    """
    if question.group != "user_id" or not all(any(t.session_id) for t in (train, test)):
        raise ConfigurationError(
            "--basket: needs --group user_id and files whose session_id says what was one basket"
        )
    engine = question.engine(settings, model)
    await engine.start()
    describer = Describer()
    rows = await learn(engine, train, question.group, describer)
    known = Counter(stable_hash(train.item_id[row] or "") for row in rows)
    customers = {train.user_id[row] or "" for row in rows}
    begun = {train.session_id[row] for row in rows}
    found = await _test(engine, test, question, customers, begun, known, describer)
    if not found.targets:
        raise EventFileError(
            "nothing to evaluate: no customer with an earlier event begins a basket in the test"
            " part; choose another --split or --targets"
        )
    return _report(found, question, list(question.variants(settings)), known)


async def _test(
    engine: Engine,
    test: EventTable,
    question: Question,
    customers: set[str],
    begun: set[str | None],
    known: Counter[int],
    describer: Describer,
) -> Baskets:
    found, live = Baskets(), question.protocol == "live"
    rows = usable_rows(test, question.group).tolist()
    baskets = baskets_of(test, rows, question.targets)
    for row in rows:
        who, session = test.user_id[row] or "", test.session_id[row]
        basket = baskets.get(session or "")
        if basket and session not in begun and who in customers:
            started = time.perf_counter()
            lists = await engine.predict(
                who, anonymous=False, ts=float(test.ts[row]), segments=test.segments(row)
            )
            found.seconds += time.perf_counter() - started
            found.targets.append(basket)
            found.groups.append(who)
            found.lists.append(lists)
        begun.add(session)
        customers.add(who)
        known[stable_hash(test.item_id[row] or "")] += 1
        engine.describe(describer.new_items(test, [row]))
        await engine.apply([event_bytes(test, row, question.group)], relate=live)
    return found


def _report(
    found: Baskets, question: Question, labels: list[str], known: Counter[int]
) -> dict[str, Any]:
    n, k = len(found.targets), question.k
    index = {item: number for number, item in enumerate(known)}
    targets = [{index[item] for item in basket} for basket in found.targets]
    values, shown = {}, {}
    for at, label in enumerate(("", *labels)):
        shown[label] = list_indices([lists[at] for lists in found.lists], index, k)
        each = metrics.basket_values(shown[label], targets, k)
        values[label] = np.stack([each[name] for name in MEASURES], axis=1)
    blend, events = values.pop(""), [ALL] * n
    alone = {name: part for name, part in values.items() if not name.startswith(WITHOUT)}
    popularity = np.fromiter(known.values(), np.float64)
    return {
        "protocol": question.protocol,
        "group": question.group,
        "k": k,
        "targets": sorted(question.targets),
        "basket_items": float(np.mean([len(basket) for basket in targets])),
        **measured(blend, found.groups, MEASURES),
        "coverage": metrics.coverage(shown[""], len(index)),
        "popularity_percentile": metrics.popularity_percentile(shown[""], popularity),
        "novelty_bits": metrics.novelty(shown[""], popularity),
        "items": len(index),
        "by_source": by_variant(alone, found.groups, events, MEASURES),
        "gain": gains(blend, alone, found.groups, events, MEASURES),
        "by_ablation": {
            name: measured(part, found.groups, MEASURES)
            | {"gain": gains(blend, {name: part}, found.groups, events, MEASURES)[ALL]}
            for name, part in values.items()
            if name.startswith(WITHOUT)
        },
        "predictions_per_second": n / max(found.seconds, 1e-9),
    }
