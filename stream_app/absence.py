"""Why an item is not in a customer's list, or where in it: ``recommend --why-not``.

The list is made as LEARN would make it now, and again with one rule less each time: what brings the
item back is what keeps it out. Nothing is claimed or written.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.candidates import no_segments
from stream_app.composition import Stages
from stream_app.core.cycles import LEAST, cycle_of
from stream_app.core.list_kinds import KINDS_OF_LISTS, own_items
from stream_app.core.merchandising import Merchandise
from stream_app.core.ranking import LISTS
from stream_app.core.rules import BARS, Rules, bar, bought_at, cycle_s
from stream_app.core.scoring import SOURCES
from stream_app.hashing import stable_hash
from stream_app.listing import Listing
from stream_app.reasons import Explainer

RANKED_MAX = 1_000  # beyond this place an item is simply far behind
_DAY_S = 86_400.0
# What shapes a list, and the setting without which it would not.
_SHAPES = {
    "category_full": "category_max",
    "brand_full": "brand_max",
    "diversity": "diversity",
    "exploration": "exploration",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an item in list ``list_name``.

    ``place`` is where it is in the list, 0 if it is not; ``reason`` then says why: one of
    :data:`~stream_app.core.rules.BARS`, ``rule`` (merchandising, by ``rules``), ``diversity``,
    ``exploration``, ``kind`` (not for such a list), ``no_list``, ``no_candidate`` or ``behind``.
    ``rank`` is its place by score among all that the shop's settings allow, 0 without a score.
    """

    list_name: str
    place: int = 0
    reason: str = ""
    rules: tuple[str, ...] = ()
    rank: int = 0
    score: float = 0.0
    source: str = ""  # of an item in the list
    parts: dict[str, float] = field(default_factory=dict)  # of the score, by source
    shares: dict[str, float] = field(default_factory=dict)  # of the source's values
    bought: dict[str, float | str] = field(default_factory=dict)  # when, until when, why so long


class _Asked:
    """One list of the explainer's customer, made anew as often as it is asked for."""

    def __init__(self, stages: Stages, explainer: Explainer, name: str, now: float) -> None:
        self.stages, self.explainer, self.name = stages, explainer, name
        self.kind = LISTS.index(name)
        self.listing = stages.learn.listing.only(self.kind)
        self.listing.candidates.exhaustive = True  # nobody waits for it
        self.users = explainer.customers().copy()
        journey = stages.learn.journey
        step = int(self.users["step"][0])
        self.step = journey.names[step]
        if not journey.lists[step, self.kind]:  # as such a list is made: at the partition's time
            watermark = explainer.partition["watermark"]
            self.users["last_ts"] = np.maximum(self.users["last_ts"], watermark)
        self.ts = float(self.users["last_ts"][0])
        self.now = max(now, self.ts)

    async def load(self, item: Any) -> None:
        """Read what the list is drawn from, and what is known of ``item``."""
        own = own_items(self.users, self.listing.wanted)
        items = self.stages.items
        for _ in range(3):  # what one read makes known, the next one reads
            await items.load(np.append(own, item))
        items.tables.advance(self.ts)

    def rows(self, listing: Listing) -> tuple[NDArray[Any], ...] | None:
        """Nodes, scores and sources of the list that ``listing`` makes; ``None``: there is none."""
        shown = self.stages.learn.admission.impersonal(self.users)
        owners, _, lists = listing.rank(
            self.users,
            shown,
            no_segments(1),
            self.explainer.partition,
            self.explainer.blend,
            self.explainer.cycles,
            asked_at=np.full(1, self.now),
        )
        if not len(owners):
            return None
        n = int(lists.counts[0])
        return lists.nodes[0, :n], lists.scores[0, :n], lists.sources[0, :n]

    def has(self, listing: Listing, node: int) -> bool:
        """Whether the list as ``listing`` makes it has the item."""
        found = self.rows(listing)
        return found is not None and node in found[0]


async def why_not(
    stages: Stages, explainer: Explainer, item: str, list_name: str, *, now: float
) -> Answer:
    """Why ``item`` is not in a list of the customer that ``explainer`` has loaded, or where it is.

    ``now`` (unix seconds) decides which windows of merchandising rules are open.
    """
    asked, key = _Asked(stages, explainer, list_name, now), np.uint64(stable_hash(item))
    await asked.load(key)
    node = int(stages.items.tables.ensure(np.array([key], np.uint64))[0])
    stages.items.tables.set_names(np.array([key], np.uint64), [item])
    found = asked.rows(asked.listing)
    if found is None:
        return Answer(list_name, reason="no_list")
    given = explainer.explain(list_name, [item]).items[item]
    rank = _rank(asked, node, given.score)
    told = Answer(list_name, rank=rank, score=given.score, parts=given.parts, shares=given.shares)
    nodes, _, sources = found
    if node in nodes:
        at = int(np.flatnonzero(nodes == node)[0])
        return replace(told, place=at + 1, source=(*SOURCES, "pinned")[int(sources[at])])
    barred = _barred(asked, key)
    if barred:
        bought = _bought(asked, key) if barred == "bought" else {}
        return replace(told, reason=barred, bought=bought)
    rules = _kept_out_by(asked, key, node)
    if rules:
        return replace(told, reason="rule", rules=rules)
    return replace(told, reason=_shaped_out(asked, node) or _unranked(given.score, rank))


def _settings(asked: _Asked) -> Rules:
    offered = asked.stages.learn.listing.rules
    return offered._replace(learned=asked.explainer.cycles)


def _barred(asked: _Asked, key: Any) -> str:
    """What of the catalog and the settings keeps the item out, by name."""
    customer = asked.users.view(np.recarray)[0]
    view = asked.listing.catalog()
    return BARS[bar(_settings(asked), view, customer, asked.kind, asked.ts, key)]


def _kept_out_by(asked: _Asked, key: Any, node: int) -> tuple[str, ...]:
    """Ids of the merchandising rules that keep the item out: each alone, or all together."""
    merchandise = asked.stages.merchandise
    here = [rule for rule in merchandise.rules if rule.holds(asked.name, asked.step, asked.now)]
    one = np.array([key], np.uint64)
    naming = tuple(rule.rule_id for rule in here if rule.bars(merchandise.catalog, one)[0])
    if naming or not here or not asked.has(asked.listing.under(None), node):
        return naming
    others = Merchandise(merchandise.catalog, merchandise.permitted)
    alone = []
    for rule in here:
        others.set_rules([other for other in merchandise.rules if other is not rule])
        if asked.has(asked.listing.under(others), node):
            alone.append(rule.rule_id)
    return tuple(alone) or tuple(rule.rule_id for rule in here)


def _shaped_out(asked: _Asked, node: int) -> str:
    """Which cap, or what else shapes a list, the item gave way to; empty: to none."""
    rules = asked.stages.learn.listing.rules
    on = {name: setting for name, setting in _SHAPES.items() if getattr(rules, setting)}
    for name, setting in on.items():
        if asked.has(asked.listing.by(_without(rules, setting)), node):
            return name
    if len(on) > 1 and asked.has(asked.listing.by(_without(rules, *on.values())), node):
        return next(iter(on))
    return ""


def _without(rules: Rules, *settings: str) -> Rules:
    """``rules`` without these shapes."""
    off: dict[str, Any] = {setting: type(getattr(rules, setting))(0) for setting in settings}
    changed = rules._replace(**off)
    shaped = any(getattr(changed, setting) for setting in _SHAPES.values())
    return changed._replace(shaped=shaped)


def _unranked(score: float, rank: int) -> str:
    if rank:
        return "behind"
    return "kind" if score > 0.0 else "no_candidate"


def _rank(asked: _Asked, node: int, score: float) -> int:
    """Its place by score among what the settings allow, itself included; 0 if that has no place."""
    rules = _without(asked.stages.learn.listing.rules, *_SHAPES.values())
    found = asked.rows(asked.listing.under(None).by(rules, size=RANKED_MAX))
    if found is None:
        return 0
    nodes, scores, _ = found
    at = np.flatnonzero((nodes == node) & (scores > 0.0))  # what only fills up has no score
    if len(at):
        return int(at[0]) + 1
    # What such a list does not take has no place in it; what is barred has the one it would have.
    narrow = not KINDS_OF_LISTS["plain"][asked.kind]
    return 0 if narrow or score <= 0.0 else int((scores > score).sum()) + 1


def _bought(asked: _Asked, key: Any) -> dict[str, float | str]:
    rules, customer = _settings(asked), asked.users.view(np.recarray)[0]
    view = asked.listing.catalog()
    at, stays_s = bought_at(customer, key), float(cycle_s(rules, view, key))
    n, usual_s = cycle_of(rules.learned.view(np.recarray)[0], key)
    plain = cycle_s(rules._replace(learned_share=0.0), view, key)
    if stays_s == rules.bought_s:
        why = "set by STREAM_APP_EXCLUDE_BOUGHT_DAYS, nothing else is known of this item"
    elif stays_s == plain:
        why = "set for its category by STREAM_APP_REPURCHASE_DAYS"
    elif n >= LEAST:
        why = (
            f"customers buy it again after {usual_s / _DAY_S:.1f} days, seen {n:.0f} times,"
            f" and it stays out for {rules.learned_share:g} of that"
        )
    else:
        why = f"learned of its category, {rules.learned_share:g} of the usual time"
    return {"at": at, "until": at + stays_s, "because": why}
