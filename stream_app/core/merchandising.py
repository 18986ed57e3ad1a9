"""Merchandising rules: pin, boost, bury, include, exclude and caps, applied to ranked lists.

A rule names items by attribute (``brand=Acme``), price, or id, and where it holds: lists, journey
steps, a window of time. Rules are compiled to arrays over the rows of the catalog.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.core.catalog import Catalog
from stream_app.core.listing import ListedIds
from stream_app.core.ranking import Lists
from stream_app.core.scoring import PINNED
from stream_app.core.tables import ItemTables
from stream_app.hashing import short_hash, stable_hash

ACTIONS = ("pin", "boost", "bury", "include", "exclude", "cap")
RULES_POOL = 3  # with rules, as many times a list's length are ranked: some of it will go
PINS_MAX = 20  # items of one rule


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Empty ``lists`` and ``steps`` are all; times are unix seconds.

    ``match`` are labels ``name=value`` of which an item needs one per name; ``items`` are ids.
    ``factor`` multiplies the score (boost > 1, bury < 1), ``place`` is where a pinned item goes (0
    the first), ``most`` how many items of one value of ``by`` (category or brand) a list may have.
    """

    rule_id: str
    action: str
    match: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    price_min: float = 0.0
    price_max: float = float("inf")
    factor: float = 1.0
    place: int = 0
    by: str = ""
    most: int = 0
    lists: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    starts: float = 0.0
    ends: float = float("inf")

    @property
    def asks_catalog(self) -> bool:
        """Whether the rule is about what the catalog says of items."""
        return bool(self.match or self.price_min > 0.0 or self.price_max < float("inf"))

    def meant_for(self, list_name: str, step: str) -> bool:
        """Whether it is about such a list in that step of the journey."""
        return (not self.lists or list_name in self.lists) and (
            not self.steps or step in self.steps
        )

    def holds(self, list_name: str, step: str, ts: float) -> bool:
        """Whether it is in force for such a list at ``ts``, unix seconds."""
        return self.meant_for(list_name, step) and self.starts <= ts < self.ends

    def items_of(self, catalog: Catalog) -> NDArray[np.uint64]:
        """Hashes of the items that the rule is about, as far as they are known."""
        if not self.asks_catalog:
            return hashes(self.items)
        ids = np.asarray(catalog.ids[: catalog.rows_n][matching(catalog, self)], np.uint64)
        return np.intersect1d(ids, hashes(self.items)) if self.items else ids

    def is_about(self, catalog: Catalog, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """``(n,)`` which of ``ids`` (hashes) the rule names."""
        about = np.isin(ids, hashes(self.items)) if self.items else np.ones(len(ids), np.bool_)
        if self.asks_catalog:
            rows = catalog.rows(ids)
            known = np.flatnonzero(rows >= 0)
            fits = np.zeros(len(ids), np.bool_)
            fits[known] = matching(catalog, self, rows[known])
            about &= fits
        return about

    def bars(self, catalog: Catalog, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """``(n,)`` which of ``ids`` it keeps out of lists, where it holds."""
        if self.action not in ("exclude", "include"):
            return np.zeros(len(ids), np.bool_)
        about = self.is_about(catalog, ids)
        return about if self.action == "exclude" else ~about

    def barred(self, catalog: Catalog) -> NDArray[np.uint64]:
        """Hashes of what it keeps out, as far as items are known; none where it only ranks."""
        if self.action == "exclude":
            return self.items_of(catalog)
        if self.action != "include":
            return np.zeros(0, np.uint64)
        known = catalog.ids[: catalog.rows_n]
        barred: NDArray[np.uint64] = known[self.bars(catalog, known) & (known != 0)]
        return barred


def hashes(items: Sequence[str]) -> NDArray[np.uint64]:
    """``(n,)`` hashes of item ids."""
    return np.array([stable_hash(item) for item in items], np.uint64)


def matching(
    catalog: Catalog, rule: Rule, rows: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """``(n,)`` which of ``rows`` of the catalog, of all, have the labels and price a rule names.

    Labels with the same name are alternatives, those of different names all have to fit.
    """
    rows = np.arange(catalog.rows_n) if rows is None else rows
    fits = catalog.ids[rows] != 0
    names: dict[str, list[int]] = {}
    for label in rule.match:
        names.setdefault(label.partition("=")[0], []).append(short_hash(label))
    labels = catalog.labels  # every row has some, if none
    for wanted in names.values():
        counts = labels.counts[rows].astype(np.int64)
        first = np.cumsum(counts) - counts
        at = np.repeat(labels.starts[rows] - first, counts) + np.arange(int(counts.sum()))
        hit = np.isin(labels.data[at], np.array(wanted, np.uint32))
        has = np.zeros(len(rows), np.bool_)
        has[np.repeat(np.arange(len(rows)), counts)[hit]] = True
        fits &= has
    if rule.price_min > 0.0 or rule.price_max < np.inf:
        price = catalog.price[rows]
        fits &= (price >= rule.price_min) & (price <= rule.price_max)
    return np.asarray(fits, np.bool_)


class Merchandise:
    """The rules in force, compiled against one version of the catalog.

    ``permitted`` says which items may be listed at all; what the catalog lists, if not given.
    """

    def __init__(self, catalog: Catalog, permitted: ListedIds | None = None) -> None:
        self.catalog = catalog
        self.permitted = permitted or catalog.listed
        self.rules: tuple[Rule, ...] = ()
        self._version = -1
        self._matches: list[NDArray[np.bool_]] = []

    def set_rules(self, rules: Sequence[Rule]) -> None:
        """Replace all rules; they apply in the order of their ids."""
        self.rules = tuple(sorted(rules, key=lambda rule: rule.rule_id))
        self._version = -1

    def shown(self, ids: NDArray[np.uint64], now: float) -> NDArray[np.bool_]:
        """Which of ``(n,)`` items may be in lists that are no customer's, at ``now``.

        They are permitted, and no rule for all lists and steps keeps them out.
        """
        shown = self.permitted(ids)
        for rule in self.rules:
            if not (rule.lists or rule.steps) and rule.starts <= now < rule.ends:
                shown &= ~rule.bars(self.catalog, ids)
        return shown

    def said(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """``(n, r)`` which rules name which of ``ids`` for what the catalog says of them."""
        asking = [rule for rule in self.rules if rule.asks_catalog]
        found = np.zeros((len(ids), len(asking)), np.bool_)
        for k, rule in enumerate(asking):
            found[:, k] = rule.is_about(self.catalog, ids)
        return found

    def begun(self, since: float, now: float) -> NDArray[np.uint64]:
        """Items that rules keep out whose window opened after ``since``, until ``now``."""
        barred = [
            rule.barred(self.catalog)
            for rule in self.rules
            if since < rule.starts <= now < rule.ends
        ]
        return np.concatenate(barred) if barred else np.zeros(0, np.uint64)

    def apply(
        self,
        lists: Lists,
        tables: ItemTables,
        places: Sequence[tuple[str, str]],
        ts: NDArray[np.float64],
        *,
        size: int,
    ) -> Lists:
        """``lists (n, wide)`` after the rules, each with at most ``size`` entries.

        ``places`` are the list's name and the customer's step of each list, ``ts (n,)`` its time.
        """
        if self._version != self.catalog.version:
            self._version = self.catalog.version
            self._matches = [matching(self.catalog, rule) for rule in self.rules]
        table = _Table(lists, tables.nodes["id"], self.catalog)
        caps, pins = [], []
        for rule, match in zip(self.rules, self._matches, strict=True):
            where = _where(rule, places, ts)
            if not where.any():
                continue
            if rule.action == "cap":
                caps.append((rule, where))
            elif rule.action == "pin":
                pins.append((rule, where))
            else:
                table.weigh(rule, where[:, None] & table.used, match)
        table.sort()
        for rule, where in caps:
            table.cap(rule, where)
        for rule, where in pins:
            ids = hashes(rule.items[:PINS_MAX])
            tables.set_names(ids, rule.items[:PINS_MAX])
            ids = ids[self.permitted(ids)]
            for k, (item, node) in enumerate(zip(ids, tables.lookup(ids).tolist(), strict=True)):
                table.pin(item, node, rule.place + k, where & (rule.place + k < size))
        return table.lists(size)


def _where(
    rule: Rule, places: Sequence[tuple[str, str]], ts: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """``(n,)`` for which lists a rule is meant."""
    fits = {place: rule.meant_for(*place) for place in set(places)}
    named = np.array([fits[place] for place in places], np.bool_)
    return named & (ts >= rule.starts) & (ts < rule.ends)


class _Table:
    """Lists being changed: arrays ``(n, wide)``, of which ``used`` entries count, best first."""

    def __init__(self, lists: Lists, node_ids: NDArray[np.uint64], catalog: Catalog) -> None:
        self.used = np.arange(lists.nodes.shape[1]) < lists.counts[:, None]
        self.nodes, self.scores = lists.nodes.copy(), lists.scores.copy()
        self.sources, self.because = lists.sources.copy(), lists.because.copy()
        self.ids = np.where(self.used, node_ids[lists.nodes], np.uint64(0))
        self.rows = catalog.rows(self.ids.ravel()).reshape(self.ids.shape)
        self._catalog = catalog

    def weigh(self, rule: Rule, here: NDArray[np.bool_], match: NDArray[np.bool_]) -> None:
        """Boost, bury, exclude or include what ``match (rows,)`` says."""
        hit = np.zeros(here.shape, np.bool_)
        known = here & (self.rows >= 0)
        hit[known] = match[self.rows[known]]
        if rule.items:
            hit = here if not rule.asks_catalog else hit
            hit = hit & np.isin(self.ids, hashes(rule.items))
        if rule.action in ("boost", "bury"):
            self.scores[hit] *= rule.factor
        elif rule.action == "exclude":
            self.used &= ~hit
        else:
            self.used &= ~here | hit

    def sort(self) -> None:
        """Best first; equal scores keep their order."""
        self._arrange(np.argsort(np.where(self.used, -self.scores, np.inf), axis=1, kind="stable"))

    def cap(self, rule: Rule, where: NDArray[np.bool_]) -> None:
        """Drop what is beyond ``rule.most`` entries of one brand or category."""
        column = self._catalog.brand if rule.by == "brand" else self._catalog.category
        known = self.used & (self.rows >= 0)
        value = np.zeros(self.rows.shape, np.uint32)
        value[known] = column[self.rows[known]]
        same = (value[:, :, None] == value[:, None, :]) & known[:, None, :]
        before = np.tril(same, -1).sum(axis=2)
        self.used &= ~((value != 0) & (before >= rule.most) & where[:, None])
        self._arrange(np.argsort(~self.used, axis=1, kind="stable"))

    def pin(self, item: np.uint64, node: int, place: int, where: NDArray[np.bool_]) -> None:
        """Put ``item`` at ``place`` (or the end of a shorter list), wherever it was before."""
        self.used &= ~(where[:, None] & (self.ids == item))
        self._arrange(np.argsort(~self.used, axis=1, kind="stable"))
        n, wide = self.used.shape
        at = np.minimum(place, self.used.sum(axis=1))
        keys = np.where(self.used, np.arange(wide, dtype=np.float64), np.inf)
        keys = np.concatenate((keys, np.where(where, at - 0.5, np.inf)[:, None]), axis=1)
        # It takes the score of the entry it comes before: scores go on falling.
        beside = self.scores[np.arange(n), np.minimum(at, wide - 1)]
        more = {
            "nodes": node,
            "scores": beside,
            "sources": PINNED,
            "because": -1,
            "ids": item,
            "rows": self._catalog.rows(np.array([item], np.uint64))[0],
            "used": where,
        }
        for name, extra in more.items():
            column = getattr(self, name)
            wider = np.concatenate((column, np.zeros((n, 1), column.dtype)), axis=1)
            wider[:, -1] = extra
            setattr(self, name, wider)
        self._arrange(np.argsort(keys, axis=1, kind="stable"))

    def _arrange(self, order: NDArray[np.int64]) -> None:
        for name in ("nodes", "scores", "sources", "because", "ids", "rows", "used"):
            setattr(self, name, np.take_along_axis(getattr(self, name), order, axis=1))

    def lists(self, size: int) -> Lists:
        """What is left, at most ``size`` of each."""
        counts = np.minimum(self.used.sum(axis=1), size)
        return Lists(
            counts,
            self.nodes[:, :size],
            self.scores[:, :size],
            self.sources[:, :size],
            self.because[:, :size],
        )
