"""The lists of customers: ranked from all sources, then as the merchandiser wants them."""

from copy import copy

import numpy as np
from numpy.typing import NDArray

from stream_app.blend_file import load_blend
from stream_app.candidates import Candidates, no_segments
from stream_app.core.catalog import CatalogView
from stream_app.core.explaining import Parts
from stream_app.core.journey import Journey
from stream_app.core.list_kinds import KINDS_OF_LISTS, possible, sizes
from stream_app.core.merchandising import RULES_POOL, Merchandise
from stream_app.core.ranking import LISTS, Lists, Ranker
from stream_app.core.rules import Rules
from stream_app.core.scoring_extra import Extra, joined, spread
from stream_app.items import ItemReader
from stream_app.offers import Offers
from stream_app.settings import Settings


class Listing:
    """What LEARN publishes and ``rules dry-run`` shows."""

    def __init__(
        self,
        settings: Settings,
        journey: Journey,
        items: ItemReader,
        ranker: Ranker,
        candidates: Candidates,
        offers: Offers,
        merchandise: Merchandise | None,
    ) -> None:
        self._size = settings.list_size
        self._published = settings.blend_weights == "published"
        self._pinned = load_blend(settings, journey.names, items.tables.model)
        self._journey = journey
        self.wanted = journey.lists  # (steps, lists)
        self._items = items
        self._ranker = ranker
        self.candidates = candidates
        self._offers = offers
        self._merchandise = merchandise

    @property
    def ruled(self) -> bool:
        """Whether merchandising rules are in force."""
        return bool(self._merchandise and self._merchandise.rules)

    @property
    def rules(self) -> Rules:
        """The shop's settings for what may be listed."""
        return self._ranker.rules

    def weights(self, learned: NDArray[np.void]) -> NDArray[np.void] | None:
        """What to rank with as ``(p,) BLEND``: ``learned`` or pinned; ``None`` as published."""
        if self._published:
            return None
        return learned if self._pinned is None else self._pinned.repeat(len(learned))

    def catalog(self) -> CatalogView:
        """What the catalog says of items, as ranking sees it."""
        return self._offers.view()

    def under(self, merchandise: Merchandise | None) -> "Listing":
        """The same, as it would be under other merchandising rules, or none."""
        other = copy(self)
        other._merchandise = merchandise
        return other

    def by(self, rules: Rules, *, size: int | None = None) -> "Listing":
        """The same by other settings of the shop, perhaps with lists of another size."""
        other = copy(self)
        other._ranker = copy(self._ranker)
        other._ranker.rules = rules
        other._size = self._size if size is None else size
        return other

    def only(self, kind: int) -> "Listing":
        """The same with lists of this kind in every step, and no others."""
        other = copy(self)
        other.wanted = np.zeros_like(self.wanted)
        other.wanted[:, kind] = True
        return other

    def rank(
        self,
        users: NDArray[np.void],
        shown: NDArray[np.void],
        segments: NDArray[np.uint32],
        partitions: NDArray[np.void],
        blend: NDArray[np.void],
        cycles: NDArray[np.void] | None = None,
        homes: NDArray[np.int64] | None = None,
        asked_at: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], Lists]:
        """Owner, kind and entries of the lists that customers have in their journey's step.

        Those that they gave no reason for yet are left out: nothing in the cart, nothing searched.

        ``shown`` are the same ``users`` as far as they let themselves be known, ``segments (n, 2)``
        where they are; ``homes (n,)`` are the rows of their ``partitions``, of the ``blend`` and of
        the ``cycles`` learned there, 0 where not given. ``asked_at (n,)`` are times that rules
        have come to, where those are later than the last event.
        """
        view = self._offers.view()
        wanted = self.wanted[users["step"]]
        owners, where = np.nonzero(possible(wanted, shown, searchable=len(view.flags) > 0))
        kinds, times = where.astype(np.uint8), users["last_ts"][owners]
        outside = (
            self.candidates.draw(shown, owners, kinds, times, segments[owners]),
            self._exploration(shown, owners, kinds),
        )
        rules = self._merchandise if self.ruled else None
        size = self._size
        self._ranker.list_size = size * RULES_POOL if rules else size
        lists = self._ranker.rank(
            shown,
            owners,
            kinds,
            times,
            partitions,
            self._items.popular(),
            joined([e for e in outside if e is not None], len(owners)),
            self.weights(blend),
            catalog=view,
            fallback=self._offers.fallback(),
            cycles=cycles,
            homes=None if homes is None else homes[owners],
        )
        if rules:
            steps = [self._journey.names[step] for step in users["step"][owners].tolist()]
            places = [(LISTS[kind], step) for kind, step in zip(kinds.tolist(), steps, strict=True)]
            moments = times if asked_at is None else np.maximum(times, asked_at[owners])
            lists = rules.apply(lists, self._items.tables, places, moments, size=size)
            lists = lists._replace(counts=np.minimum(lists.counts, sizes(size)[kinds]))
        return owners, kinds, lists

    def _exploration(
        self, users: NDArray[np.void], owners: NDArray[np.int64], kinds: NDArray[np.uint8]
    ) -> Extra | None:
        """New items, for the lists in which they may be tried."""
        at = np.flatnonzero(KINDS_OF_LISTS["filled"][kinds])
        extra = self._offers.exploration(users, owners[at], kinds[at])
        return None if extra is None else spread(extra, at, len(owners))

    def take_apart(
        self,
        users: NDArray[np.void],
        shown: NDArray[np.void],
        partition: NDArray[np.void],
        blend: NDArray[np.void],
        kind: int,
        nodes: NDArray[np.int64],
    ) -> tuple[Parts, NDArray[np.float64]]:
        """What each source gives ``nodes`` in list ``kind`` of one customer, and the weights."""
        ts, kinds = users["last_ts"], np.full(1, kind, np.uint8)
        extra = self.candidates.draw(shown, np.zeros(1, np.int64), kinds, ts, no_segments(1))
        return self._ranker.take_apart(
            shown,
            kind,
            float(ts[0]),
            partition,
            self._items.popular(),
            nodes,
            extra,
            self.weights(blend),
        )
