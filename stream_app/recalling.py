"""RECALL: tables of items that nobody has touched since the worker started come into memory.

What is sold out is looked for in the tables in memory (``Relate.withdraw``). After a claim those of
the partition are read, beside the stream, as many as there is room for; lists that were published
with what must not be listed by now, while nobody was there, are renewed.
"""

import asyncio
import logging
import time

import numpy as np
from numpy.typing import NDArray

from stream_app.core.listing import holding_any
from stream_app.items import SEGMENTS_ID, TOP_ID, ItemReader
from stream_app.ports import ACCOUNTS_ID, ITEMS
from stream_app.relating import Owned, Relate
from stream_app.retrying import retrying
from stream_app.timers import StateScan

log = logging.getLogger(__name__)

ROOM_SHARE = 0.75  # of the tables in memory; the rest is left to items of other partitions
PAGE_ITEMS = 500
IDLE_SHARE = 3.0  # rests this many times as long as it works
_ID_BYTES, _OTHERS = 8, (ACCOUNTS_ID, TOP_ID, SEGMENTS_ID)


class Recall:
    """``recalled`` counts the items looked at."""

    def __init__(self, relate: Relate, items: ItemReader, scan: StateScan) -> None:
        self.recalled = 0
        self._relate = relate
        self._items = items
        self._scan = scan
        self._done: dict[int, Owned] = {}

    async def run(self) -> None:
        """Look through the partitions that came since the last call."""
        for partition, owned in list(self._relate.owned.items()):
            if self._done.get(partition) is not owned:
                await self._look_through(partition, owned)
                self._done[partition] = owned
        for partition in self._done.keys() - self._relate.owned.keys():
            del self._done[partition]

    async def _look_through(self, partition: int, owned: Owned) -> None:
        async for keys in self._scan.scan(ITEMS, partition):
            own = [key for key in keys if len(key) == _ID_BYTES and key not in _OTHERS]
            ids = np.frombuffer(b"".join(own), np.uint64)
            for at in range(0, len(ids), PAGE_ITEMS):
                if self._relate.owned.get(partition) is not owned:
                    return
                if not self._room:
                    log.info("items of partition %d beyond ITEM_TABLES_MAX are not read", partition)
                    return
                started = time.monotonic()
                await self._page(partition, ids[at : at + PAGE_ITEMS])
                await asyncio.sleep(IDLE_SHARE * (time.monotonic() - started))

    async def _page(self, partition: int, ids: NDArray[np.uint64]) -> None:
        await retrying(lambda: self._items.load(ids), "reading items")
        self.recalled += len(ids)
        stale = holding_any(self._items.tables, ids, self._relate.listed)
        await self._relate.publish_now(partition, stale)

    @property
    def _room(self) -> bool:
        tables = self._items.tables
        used = int(np.count_nonzero(tables.row_node >= 0))
        return used + PAGE_ITEMS < ROOM_SHARE * tables.rows_max and not tables.full()
