"""CATALOG: a batch of the catalog topic into the catalog in memory, as every worker does."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream_app.catalog_wire import CATALOG_REASONS, decode_item
from stream_app.core.catalog import Catalog, CatalogItem
from stream_app.errors import EventRejected
from stream_app.events import Reject
from stream_app.hashing import stable_hash
from stream_app.ports import RawBatch
from stream_app.settings import Settings


class Cataloging:
    """Keeps ``catalog`` as the topic says; tells ``on_gone`` which items must not be listed now."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        on_gone: Callable[[NDArray[np.uint64]], None],
    ) -> None:
        self.catalog = catalog
        self._chars_max = settings.id_chars_max
        self._on_gone = on_gone

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
        listed = self.catalog.listed(ids)
        self._upsert([(row, item) for row, item in latest.values() if item], rejects)
        gone = [item is None for _, item in latest.values()]
        self.catalog.delete(ids[gone])
        withdrawn = ids[listed & ~self.catalog.listed(ids)]
        if len(withdrawn):
            self._on_gone(withdrawn)
        return sorted(rejects)

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
