"""CATALOG: a batch of the catalog topic into the catalog in memory, as every worker does.

What changes for lists that are out already is told: items that must not be listed any more, those
that rules name now and did not before, or the other way round, and those with another price.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.catalog_wire import CATALOG_REASONS, decode_item
from stream_app.core.catalog import CatalogItem
from stream_app.core.merchandising import Merchandise
from stream_app.errors import EventRejected
from stream_app.events import Reject
from stream_app.hashing import stable_hash
from stream_app.ports import RawBatch
from stream_app.settings import Settings

OnItems = Callable[[NDArray[np.uint64]], None]


class _Standing(NamedTuple):
    """What lists depend on, of ``(n,)`` items."""

    permitted: NDArray[np.bool_]
    named: NDArray[np.bool_]  # (n, rules)
    price: NDArray[np.float32]  # NaN unknown


class Cataloging:
    """Keeps the catalog of ``merchandise`` as the topic says.

    ``on_changed`` is told which items lists may not hold as they do: not any more, or because rules
    see them otherwise; ``on_repriced`` which others have another price.
    """

    def __init__(
        self,
        merchandise: Merchandise,
        settings: Settings,
        on_changed: OnItems,
        on_repriced: OnItems = lambda _: None,
    ) -> None:
        self.catalog = merchandise.catalog
        self._merchandise = merchandise
        self._chars_max = settings.id_chars_max
        self._on_changed = on_changed
        self._on_repriced = on_repriced

    def apply(self, batch: RawBatch) -> list[Reject]:
        """Apply a batch of one partition; returns what is wrong with its bad records."""
        latest: dict[str, tuple[int, CatalogItem | None]] = {}
        rejects: list[Reject] = []
        for row, (key, value, ms) in enumerate(
            zip(batch.keys, batch.values, batch.timestamps_ms, strict=True)
        ):
            try:
                item_id, item = decode_item(
                    key, value, ts=max(ms, 0) / 1000.0, chars_max=self._chars_max
                )
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail))
            else:
                latest[item_id] = row, item
        ids = np.array([stable_hash(item_id) for item_id in latest], np.uint64)
        before = self._standing(ids)
        self._upsert([(row, item) for row, item in latest.values() if item], rejects)
        gone = [item is None for _, item in latest.values()]
        self.catalog.delete(ids[gone])
        self._tell(ids, before, self._standing(ids))
        return sorted(rejects)

    def _standing(self, ids: NDArray[np.uint64]) -> _Standing:
        rows = self.catalog.rows(ids)
        price = np.where(rows >= 0, self.catalog.price[rows], np.float32(np.nan))
        return _Standing(self._merchandise.permitted(ids), self._merchandise.said(ids), price)

    def _tell(self, ids: NDArray[np.uint64], before: _Standing, after: _Standing) -> None:
        otherwise = (before.named != after.named).any(axis=1)
        changed = before.permitted & (~after.permitted | otherwise)
        same = (before.price == after.price) | (np.isnan(before.price) & np.isnan(after.price))
        repriced = before.permitted & ~changed & ~same
        if changed.any():
            self._on_changed(ids[changed])
        if repriced.any():
            self._on_repriced(ids[repriced])

    def _upsert(self, items: list[tuple[int, CatalogItem]], rejects: list[Reject]) -> None:
        first = next((item.embedding for _, item in items if item.embedding), ())
        good = []
        for row, item in items:
            problem = self.catalog.problem(item, len(first))
            if problem is None:
                good.append((row, item))
            else:
                rejects.append(Reject(row, "bad_embedding", problem))
        rows = self.catalog.upsert([item for _, item in good])
        for (row, item), at in zip(good, rows.tolist(), strict=True):
            if at < 0:
                detail = f"{CATALOG_REASONS['no_room']}: {item.item_id!r} is left out"
                rejects.append(Reject(row, "no_room", detail))
