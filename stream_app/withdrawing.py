"""WITHDRAW: items that must not be listed any more leave every list that was published.

It is crossed out of customers' lists at once (:mod:`stream_app.delisting`). Then those customers
are ranked anew, by a ``refresh`` record in their own clickstream partition: it goes the way of all
events, so order, versions and exactly-once stay what they are. Item lists (``similar:``,
``trending:``) are published again by RELATE.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.codec import ListsBlock
from stream_app.core.catalog import Catalog
from stream_app.core.held import HeldLists
from stream_app.delisting import delist
from stream_app.errors import LogUnavailable
from stream_app.hashing import given_name, stable_hash
from stream_app.items import ItemReader
from stream_app.ports import Log, PublishedHashes, RawBatch, Record
from stream_app.relating import Relate
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.turns import Turns

log = logging.getLogger(__name__)

GONE_MAX = 200_000  # item hashes that wait; beyond that everything is looked through
CHUNK = 500  # refresh records sent at once
CHUNKS_PER_S = 20
IDLE_SHARE = 3.0  # looking through everything rests this many times as long as it works


class Owners(Protocol):
    """Which clickstream partitions are this worker's; another object when it changed hands."""

    @property
    def owned(self) -> Mapping[int, object]: ...


# The records of a partition of the recommendations topic, from the beginning to its end of now.
Published = Callable[[int], AsyncIterator[RawBatch]]


class _Entry(msgspec.Struct):
    item_id: str


class _Lists(msgspec.Struct):
    user_id: str
    generated_at: float = 0.0
    lists: dict[str, list[_Entry]] = {}


_decode = msgspec.json.Decoder(_Lists).decode


class Withdraw:
    """Remembers what was published to whom and has it ranked anew when an item is gone.

    ``crossed_out`` counts customers whose lists were shortened, ``refreshed`` the refresh records
    sent, ``swept`` the customers looked through.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        log: Log,
        public: PublishedHashes,
        relate: Relate,
        items: ItemReader,
        turns: Turns,
        clock: Callable[[], float],
    ) -> None:
        self.crossed_out = 0
        self.refreshed = 0
        self.swept = 0
        self._settings = settings
        self._catalog = catalog
        self._log = log
        self._public = public
        self._relate = relate
        self._items = items
        self._turns = turns
        self._clock = clock
        self._held: dict[int, HeldLists] = {}
        self._owners: dict[int, object] = {}
        self._gone: dict[int, None] = {}
        self._late: dict[int, dict[str, None]] = {}
        self._late_items: set[int] = set()
        self._to_sweep: dict[int, None] = {}
        self._items_gone: dict[int, None] = {}  # for item lists
        self._to_rank: dict[int, dict[str, None]] = {}
        self._wake = asyncio.Event()
        self._list_items = asyncio.Event()
        self._rank = asyncio.Event()

    def gone(self, ids: NDArray[np.uint64]) -> None:
        """Items (hashes) that must not be listed from now on."""
        self._gone.update(dict.fromkeys(ids.tolist()))
        if len(self._gone) > GONE_MAX:
            self._gone.clear()
            self._to_sweep.update(dict.fromkeys(self._held))
        self._wake.set()

    def published(self, partition: int, block: ListsBlock | None, erased: Sequence[str]) -> None:
        """Lists of a batch of ``partition`` are out; ``erased`` customers have none any more."""
        held = self._held.get(partition)
        if held is None:
            return
        if block is not None and block.customers:
            owners = np.frombuffer(block.list_owner, np.uint32)
            counts = np.frombuffer(block.counts, np.uint8)
            items = np.frombuffer(block.items, np.uint64)
            held.put(block.customers, owners, counts, items)
            # Ranked before an item was gone and published after; or published once more.
            bad = ~self._catalog.listed(items)
            if bad.any():
                lists = np.unique(np.repeat(owners, counts)[bad])
                names = [block.customers[k] for k in lists.tolist()]
                self._late_items.update(items[bad].tolist())
                self._late.setdefault(partition, {}).update(dict.fromkeys(names))
                self._wake.set()
        if erased:
            held.drop(erased)

    def follow(self, owners: Owners) -> None:
        """Start over with partitions that came, and forget those that went."""
        for partition, owner in owners.owned.items():
            if self._owners.get(partition) is not owner:
                self._owners[partition] = owner
                self._held[partition] = HeldLists(customers_max=self._customers_max)
                self._to_sweep[partition] = None
        for partition in self._owners.keys() - owners.owned.keys():
            del self._owners[partition], self._held[partition]
            self._to_sweep.pop(partition, None)

    @property
    def _customers_max(self) -> int:
        return max(self._settings.held_lists_max // self._settings.clickstream_partitions, 1)

    def sizes(self) -> tuple[int, int]:
        """Customers whose lists are known, and bytes of memory for that."""
        held = list(self._held.values())
        return sum(map(len, held)), sum(some.nbytes for some in held)

    async def run(self) -> None:
        """Handle what is gone, until cancelled; what pages read does not wait for the rest."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_whenever(self._wake, self._cross_out))
            group.create_task(_whenever(self._list_items, self._publish_item_lists))
            group.create_task(_whenever(self._rank, self._rank_anew))

    async def step(self) -> None:
        """Handle what is gone now."""
        await self._cross_out()
        await self._publish_item_lists()
        await self._rank_anew()

    async def _cross_out(self) -> None:
        """Find the customers whose lists hold what is gone, and shorten these in Redis."""
        ids = np.fromiter(self._gone, np.uint64, len(self._gone))
        self._items_gone.update(self._gone)
        self._gone.clear()
        self._list_items.set()
        late, self._late = self._late, {}
        affected = {partition: list(names) for partition, names in late.items()}
        for partition, held in self._held.items() if len(ids) else ():
            holders = late.get(partition, {}) | dict.fromkeys(held.holders(ids))
            affected[partition] = list(holders)
            if not held.complete:
                self._to_sweep[partition] = None
        everyone = [name for names in affected.values() for name in names]
        for partition, names in affected.items():
            self._to_rank.setdefault(partition, {}).update(dict.fromkeys(names))
        unlisted = self._unlisted(ids)
        if everyone and unlisted:
            async with self._turns.held_back():
                self.crossed_out += await delist(self._public, unlisted, everyone)
        self._rank.set()

    def _unlisted(self, gone: NDArray[np.uint64]) -> set[str]:
        """Items to cross out everywhere; a rule may keep one out of some lists only."""
        late, self._late_items = self._late_items, set()
        barred = gone[~self._catalog.listed(gone)]
        return self._items.names(np.append(barred, np.fromiter(late, np.uint64, len(late))))

    async def _publish_item_lists(self) -> None:
        gone, self._items_gone = self._items_gone, {}
        if gone:
            async with self._turns.held_back():
                await self._relate.withdraw(np.fromiter(gone, np.uint64, len(gone)))

    async def _rank_anew(self) -> None:
        to_rank, self._to_rank = self._to_rank, {}
        await asyncio.gather(*(self._refresh(p, list(names)) for p, names in to_rank.items()))

    async def _refresh(self, partition: int, names: Sequence[str]) -> None:
        """Have customers ranked anew, at a pace that leaves room for their events."""
        for at in range(0, len(names), CHUNK):
            if at:
                await asyncio.sleep(1.0 / CHUNKS_PER_S)
            await self._send(partition, [self._record(name) for name in names[at : at + CHUNK]])

    async def _send(self, partition: int, records: Sequence[Record]) -> None:
        topic = self._settings.clickstream_topic
        await retrying(lambda: self._log.send(topic, partition, records), "sending refreshes")
        self.refreshed += len(records)

    def _record(self, name: str) -> Record:
        text, anonymous = given_name(name)
        customer = "session_id" if anonymous else "user_id"
        event = {"event": "refresh", customer: text, "ts": self._clock()}
        return Record(text.encode("utf-8", "surrogatepass"), orjson.dumps(event))

    # -- what is not in memory -----------------------------------------------------------------

    async def sweep(self, published: Published) -> None:
        """Look through all lists of partitions that have to be, in the topic they went to.

        After a start or a change of hands that fills the memory again; customers that find no room
        there are always looked up this way. It takes its time.
        """
        while self._to_sweep:
            partition = next(iter(self._to_sweep))
            del self._to_sweep[partition]
            try:
                await self._sweep(partition, published)
            except LogUnavailable:
                self._to_sweep[partition] = None
                raise

    async def _sweep(self, partition: int, published: Published) -> None:
        owner = self._owners.get(partition)
        affected: dict[str, None] = {}
        unlisted: set[str] = set()
        async for batch in published(partition):
            if self._owners.get(partition) is not owner:
                return
            started = time.monotonic()
            self._look_through(self._held[partition], batch, affected, unlisted)
            await asyncio.sleep(IDLE_SHARE * (time.monotonic() - started))
        held = self._held.get(partition)
        if held is not None:
            names = [name for name in affected if not held.is_live(name)]
            self.crossed_out += await delist(self._public, unlisted, names)
            await self._refresh(partition, names)

    def _look_through(
        self,
        held: HeldLists,
        batch: RawBatch,
        affected: dict[str, None],
        unlisted: set[str],
    ) -> None:
        """Which customers have an item in their last lists that must not be there, and which."""
        oldest = self._clock() - self._settings.list_ttl_days * 86_400.0
        latest: dict[str, list[str]] = {}
        for value in batch.values:
            if value is None:
                continue
            try:
                record = _decode(value)
            except msgspec.MsgspecError as exc:
                log.warning("a record of %s is not ours: %s", batch.topic, exc)
                continue
            if record.generated_at >= oldest and not held.is_live(record.user_id):
                latest[record.user_id] = [
                    entry.item_id for entries in record.lists.values() for entry in entries
                ]
        if not latest:
            return
        self.swept += len(latest)
        names, counts = list(latest), np.array([len(ids) for ids in latest.values()], np.int64)
        texts = [text for items in latest.values() for text in items]
        hashes = np.array([stable_hash(text) for text in texts], np.uint64)
        owners = np.repeat(np.arange(len(names)), counts)
        bad = ~self._catalog.listed(hashes)
        unlisted.update(texts[k] for k in np.flatnonzero(bad).tolist())
        hit = np.bincount(owners, bad, len(names)) > 0
        for name, barred in zip(names, hit.tolist(), strict=True):
            affected.pop(name, None)  # the last record counts
            if barred:
                affected[name] = None
        if len(held) + len(names) <= self._customers_max:
            held.put(names, np.arange(len(names)), counts, hashes, live=False)
        else:
            held.complete = False


async def _whenever(event: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await event.wait()
        event.clear()
        await act()
