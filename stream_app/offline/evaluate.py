"""Evaluate the live model on event files: what was the rank of what the customer did next?

*Frozen* learns from the training file only; in the test file a customer's own earlier events are
known and nothing else is learned. *Live* is prequential: predict each event, then learn from it.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core import metrics
from stream_app.core.journey import STEPS
from stream_app.core.model import KIND, KIND_WEIGHTS, Model
from stream_app.core.rules import Rules, make_rules
from stream_app.errors import ConfigurationError, EventFileError
from stream_app.hashing import stable_hash
from stream_app.offline.described import Describer
from stream_app.offline.engine import BLENDABLE, Engine, configured
from stream_app.offline.evaluate_report import (
    ALL,
    MEASURES,
    by_label,
    by_variant,
    gains,
    measured,
    values_of_ranks,
)
from stream_app.offline.eventfile import EVENT_ALIASES, EventTable
from stream_app.offline.ratings import rating_errors
from stream_app.settings import Settings

PROTOCOLS = ("frozen", "live")
GROUPS = ("session_id", "user_id")
TARGETS = frozenset(kind for kind, number in KIND.items() if KIND_WEIGHTS[number] > 0)
WITHOUT = "without "  # a source that is left out


@dataclass(slots=True)
class Predictions:
    """One row per predicted event: rank of the target (0 = not listed), group, step, list."""

    ranks: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    lists: list[NDArray[np.uint64]] = field(default_factory=list)
    single_ranks: list[list[int]] = field(default_factory=list)  # of each variant
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """What to evaluate."""

    protocol: str
    group: str
    k: int
    targets: frozenset[str]
    exclude_seen: bool
    sources: frozenset[str] | None = None  # None: those that the worker blends
    compare: bool = False  # also each source alone
    ablate: bool = False  # also all but each one
    exclude_bought: bool = False
    diversity: float = 0.0

    def alone(self) -> list[str]:
        """The sources that are measured one by one: those that are blended, or could be."""
        return [s for s in BLENDABLE if self.sources is None or s in self.sources]

    def blended(self, settings: Settings) -> list[str]:
        """The sources that take part, in their order."""
        taken = configured(settings) if self.sources is None else self.sources
        return [s for s in BLENDABLE if s in taken]

    def variants(self, settings: Settings) -> dict[str, frozenset[str]]:
        """By label, what to rank with besides the blend: single sources, then all but one."""
        names = self.blended(settings)
        alone = {name: frozenset({name}) for name in self.alone() if self.compare}
        if not self.ablate or len(names) < 2:
            return alone
        return alone | {WITHOUT + name: frozenset(names) - {name} for name in names}

    def engine(self, settings: Settings, model: Model | None) -> Engine:
        """What ranks with the blend, then with each variant; not started."""
        return Engine(
            settings,
            list_size=self.k,
            rules=self.rules(),
            sources=[self.sources, *self.variants(settings).values()],
            model=model,
        )

    def rules(self) -> Rules:
        """What may be listed."""
        return make_rules(
            seen=self.exclude_seen,
            bought_s=1e18 if self.exclude_bought else 0.0,
            diversity=self.diversity,
        )


def sources_of(text: str | None) -> frozenset[str] | None:
    """Names of sources in a comma-separated list; nothing means those that the worker blends."""
    if not text:
        return None
    if text == "all":
        return frozenset(BLENDABLE)
    names = frozenset(name.strip() for name in text.split(","))
    if names - set(BLENDABLE):
        unknown = ", ".join(sorted(names - set(BLENDABLE)))
        raise ConfigurationError(f"--sources {unknown}: choose of {', '.join(BLENDABLE)}, or all")
    return names


def weights_of(text: str) -> list[float]:
    """Weights of diversity in a comma-separated list.

    >>> weights_of("0, 0.5")
    [0.0, 0.5]
    """
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = [-1.0]
    if not all(0.0 <= weight <= 1.0 for weight in weights):
        raise ConfigurationError(f"--weights {text!r}: numbers from 0 to 1, comma-separated")
    return weights


def targets_of(text: str | None) -> frozenset[str]:
    """Event types named in a comma-separated list; aliases as in event files.

    >>> sorted(targets_of("cart,purchase"))
    ['add_to_cart', 'purchase']
    """
    if not text:
        return TARGETS
    found = set()
    for name in text.split(","):
        kind = EVENT_ALIASES.get(name.strip().lower())
        if kind is None:
            raise ConfigurationError(f"--targets: {name!r} is no event type; use {sorted(TARGETS)}")
        found.add(kind)
    return frozenset(found)


def group_of(train: EventTable, test: EventTable, wanted: str | None) -> str:
    """The column that says which events belong together: as wanted, else what the files have."""
    if wanted is not None and wanted not in GROUPS:
        raise ConfigurationError(f"--group {wanted}: use one of {', '.join(GROUPS)}")
    for group in [wanted] if wanted else GROUPS:
        if all(any(column) for column in (getattr(train, group), getattr(test, group))):
            return group
    raise EventFileError(
        f"{train.name} and {test.name} have no column {wanted or 'session_id or user_id'} with"
        " values in both: name the one they have with --group"
    )


def usable_rows(events: EventTable, group: str) -> NDArray[np.int64]:
    """Rows that say who and what; the others cannot be predicted or learned from."""
    keys = getattr(events, group)
    return np.array(
        [row for row in range(len(events)) if keys[row] and events.item_id[row]], np.int64
    )


def event_bytes(events: EventTable, row: int, group: str) -> bytes:
    """The event as JSON; grouped by session, the session is the customer."""
    event = events.row(row)
    if group == "session_id":
        event.pop("user_id", None)
    return orjson.dumps(event)


def split_by_time(events: EventTable, share: float) -> tuple[EventTable, EventTable]:
    """The first ``share`` of the events to learn from, the rest to test on."""
    cut = round(len(events) * share)
    return events.part(0, cut), events.part(cut, len(events))


async def learn(engine: Engine, train: EventTable, group: str, describer: Describer) -> list[int]:
    """Send the training file through the pipeline; returns its usable rows."""
    rows: list[int] = usable_rows(train, group).tolist()
    for start in range(0, len(rows), 1_000):
        chunk = rows[start : start + 1_000]
        engine.describe(describer.new_items(train, chunk))
        await engine.apply([event_bytes(train, row, group) for row in chunk])
    return rows


async def evaluate(
    train: EventTable,
    test: EventTable,
    question: Question,
    settings: Settings,
    model: Model | None = None,
) -> dict[str, Any]:
    """Measures of the model on ``test`` after learning ``train``; keys as ``evaluate`` prints."""
    engine = question.engine(settings, model)
    await engine.start()
    describer = Describer()
    rows = await learn(engine, train, question.group, describer)
    keys = getattr(train, question.group)
    groups = {keys[row] for row in rows}
    known = Counter(stable_hash(train.item_id[row] or "") for row in rows)
    predictions = await _test(engine, test, question, groups, known, describer)
    result = _report(predictions, question, list(question.variants(settings)), known)
    result["diversity"] = engine.diversity(predictions.lists[:: len(predictions.lists) // 500 + 1])
    ratings = rating_errors(
        _ratings(train, question.group),
        _ratings(test, question.group),
        live=question.protocol == "live",
    )
    return result | ({"ratings": ratings} if ratings else {})


def _ratings(events: EventTable, group: str) -> Iterator[tuple[str, str, float]]:
    """Who gave what which rating, in time order; nothing for files without ratings."""
    column, keys = events.numbers.get("rating"), getattr(events, group)
    if column is None:
        return
    for row in range(len(events)):
        if keys[row] and events.item_id[row] and not np.isnan(column[row]):
            yield keys[row], events.item_id[row] or "", float(column[row])


async def _test(
    engine: Engine,
    test: EventTable,
    question: Question,
    groups: set[str],
    known: Counter[int],
    describer: Describer,
) -> Predictions:
    predictions = Predictions()
    keys = getattr(test, question.group)
    anonymous = question.group == "session_id"
    live = question.protocol == "live"
    for row in usable_rows(test, question.group).tolist():
        who, kind = keys[row], test.event[row]
        item = stable_hash(test.item_id[row] or "")
        if who in groups and kind in question.targets:
            started = time.perf_counter()
            found, *single = await engine.predict(
                who, anonymous=anonymous, ts=float(test.ts[row]), segments=test.segments(row)
            )
            predictions.seconds += time.perf_counter() - started
            predictions.ranks.append(_rank(found, item))
            predictions.single_ranks.append([_rank(other, item) for other in single])
            predictions.groups.append(who)
            predictions.kinds.append(kind)
            predictions.steps.append(await engine.step_of(who, anonymous=anonymous))
            predictions.lists.append(found)
        groups.add(who)
        known[item] += 1
        engine.describe(describer.new_items(test, [row]))
        await engine.apply([event_bytes(test, row, question.group)], relate=live)
    return predictions


def _rank(found: NDArray[np.uint64], item: int) -> int:
    at = np.flatnonzero(found == item)
    return int(at[0]) + 1 if len(at) else 0


def list_indices(
    lists: list[NDArray[np.uint64]], index: dict[int, int], k: int
) -> NDArray[np.int64]:
    """Lists of item ids as ``(n, k)`` places in ``index``, -1 where a list has no more."""
    found = np.full((len(lists), k), -1, np.int64)
    for row, ids in enumerate(lists):
        found[row, : len(ids)] = [index.get(item, -1) for item in ids.tolist()]
    return found


def _report(
    predictions: Predictions, question: Question, labels: list[str], known: Counter[int]
) -> dict[str, Any]:
    n, k, groups = len(predictions.ranks), question.k, predictions.groups
    if not n:
        raise EventFileError(
            "nothing to evaluate: no test event of the wanted types has an earlier event in its"
            f" {question.group}; choose another --group or --targets"
        )
    index = {item: number for number, item in enumerate(known)}
    lists = list_indices(predictions.lists, index, k)
    popularity = np.fromiter(known.values(), np.float64)
    values = values_of_ranks(predictions.ranks, k)
    others = {
        label: values_of_ranks([row[at] for row in predictions.single_ranks], k)
        for at, label in enumerate(labels)
    }
    alone = {label: each for label, each in others.items() if not label.startswith(WITHOUT)}
    less = {label: each for label, each in others.items() if label.startswith(WITHOUT)}
    places = np.bincount(predictions.ranks, minlength=k + 1)[1 : k + 1]
    steps = [STEPS[step] for step in predictions.steps]
    return {
        "protocol": question.protocol,
        "group": question.group,
        "k": k,
        "targets": sorted(question.targets),
        **metrics.summary(predictions.ranks, k),
        **measured(values, groups, MEASURES),
        "coverage": metrics.coverage(lists, len(index)),
        "popularity_percentile": metrics.popularity_percentile(lists, popularity),
        "novelty_bits": metrics.novelty(lists, popularity),
        "gini": metrics.gini(metrics.recommended_counts(lists, len(index))),
        "items": len(index),
        "rank_shares": (places / n).tolist(),
        "by_step": by_label(values, groups, steps, MEASURES),
        "by_event": by_label(values, groups, predictions.kinds, MEASURES),
        "by_source": by_variant(alone, groups, predictions.kinds, MEASURES),
        "gain": gains(values, alone, groups, predictions.kinds, MEASURES),
        "by_ablation": {
            label: measured(each, groups, MEASURES)
            | {"gain": gains(values, {label: each}, groups, [ALL] * n, MEASURES)[ALL]}
            for label, each in less.items()
        },
        "predictions_per_second": n / max(predictions.seconds, 1e-9),
    }
