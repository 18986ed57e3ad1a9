"""What may be offered: the shop's rules over the catalog, new items to try, and what fills gaps."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream_app.core.catalog import LISTED, Catalog, CatalogView
from stream_app.core.rules import Rules, make_rules
from stream_app.core.scoring import EXPLORATION, POPULAR
from stream_app.core.scoring_extra import Extra
from stream_app.core.shaping import EMPTY_CATALOG, Fallback
from stream_app.hashing import short_hash, stable_hash
from stream_app.items import TOP_MAX, ItemReader
from stream_app.settings import Settings

NEWEST_MAX = 500  # of the catalog: those that exploration draws from, and the last resort
TRIED_MAX = 8  # candidates for the places of one list, of which rules may take some
_DAY_S = 86_400.0


def rules_of(settings: Settings) -> Rules:
    """The rules an operator has set."""
    return make_rules(
        seen=settings.exclude_seen,
        cart=settings.exclude_cart,
        bought_s=settings.exclude_bought_days * _DAY_S,
        cycles_s={
            short_hash(name): days * _DAY_S for name, days in settings.repurchase_cycles().items()
        },
        learned_share=settings.repurchase_share,
        price_min=settings.price_min,
        price_max=settings.price_max or np.inf,
        excluded=[stable_hash(item) for item in settings.excluded()],
        category_max=settings.category_max,
        brand_max=settings.brand_max,
        diversity=settings.diversity,
        exploration=settings.exploration_share,
    )


class Offers:
    """The catalog as ranking needs it; refreshed when it has changed, at most every refresh_s."""

    def __init__(
        self, catalog: Catalog, items: ItemReader, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self.rules = rules_of(settings)
        self._catalog = catalog
        self._items = items
        self._refresh_s = settings.refresh_s
        self._clock = clock
        self._newest: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._names: list[str] = []
        self._version = 0
        self._read_at = -np.inf

    def view(self) -> CatalogView:
        """The catalog's arrays; an empty one costs nothing."""
        return self._catalog.view() if self._catalog.rows_n else EMPTY_CATALOG

    def fallback(self) -> Fallback:
        """Popular items, then the newest of the catalog; nothing where nothing is filtered."""
        if not (self.rules.any or self.rules.shaped or self._catalog.rows_n):
            return Fallback(np.zeros(0, np.int64), np.zeros(0, np.uint8))
        popular, _ = self._items.top(TOP_MAX)
        nodes = self._items.tables.ensure(np.concatenate((popular, self._new_ids())))
        sources = np.full(len(nodes), EXPLORATION, np.uint8)
        sources[: len(popular)] = POPULAR
        self._items.tables.set_names(self._newest, self._names)
        return Fallback(nodes, sources)

    def exploration(
        self, users: NDArray[np.void], owners: NDArray[np.int64], kinds: NDArray[np.uint8]
    ) -> Extra | None:
        """New items for lists ``kinds (m,)`` of ``users[owners]``, drawn by a hash of who and when.

        The draw changes with every event of the customer and is the same in a replay.
        """
        newest = self._new_ids() if self.rules.exploration > 0.0 else self._newest[:0]
        if not len(newest) or not len(owners):
            return None
        self._items.tables.set_names(newest, self._names)
        seed = users["id"][owners] ^ (users["offset"][owners] + 2).astype(np.uint64)
        draw = _mixed(
            seed[:, None] + (kinds[:, None] * TRIED_MAX + np.arange(TRIED_MAX)).astype("u8")
        )
        picks = np.sort((draw % np.uint64(len(newest))).astype(np.int64), axis=1)
        # Each once in a list; the order of the draw does not matter.
        once = np.ones(picks.shape, np.bool_)
        once[:, 1:] = picks[:, 1:] != picks[:, :-1]
        nodes = self._items.tables.ensure(newest)[picks[once]]
        starts = np.zeros(len(owners) + 1, np.int64)
        np.cumsum(once.sum(axis=1), out=starts[1:])
        n = len(nodes)
        return Extra(starts, nodes, np.ones(n, np.float32), np.full(n, EXPLORATION, np.uint8))

    def _new_ids(self) -> NDArray[np.uint64]:
        """The newest items that may be listed, newest first; ties by id."""
        catalog = self._catalog
        if catalog.version != self._version and self._clock() - self._read_at >= self._refresh_s:
            self._version, self._read_at = catalog.version, self._clock()
            n = catalog.rows_n
            dated = LISTED[catalog.flags[:n]] & (catalog.ids[:n] != 0) & (catalog.added_ts[:n] > 0)
            rows = np.flatnonzero(dated)
            order = np.lexsort((catalog.ids[rows], -catalog.added_ts[rows]))[:NEWEST_MAX]
            self._newest = catalog.ids[rows[order]].copy()
            self._names = [catalog.texts(row).item_id for row in rows[order].tolist()]
        return self._newest


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64-bit finaliser of MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        z = (z ^ (z >> np.uint64(33))) * np.uint64(factor)
    return z ^ (z >> np.uint64(33))
