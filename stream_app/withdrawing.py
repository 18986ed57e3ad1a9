"""WITHDRAW: what changes of items takes effect on every list that was published.

What must not be listed any more is crossed out of customers' lists at once
(:mod:`stream_app.delisting`). Then those customers are ranked anew, by a ``refresh`` record in
their own clickstream partition: it goes the way of all events, so order, versions and exactly-once
stay what they are. So is who has an item that rules see otherwise now, or one with another price
in a list that goes by prices. Item lists (``similar:``, ``trending:``) are published again by
RELATE.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.codec import ListsBlock
from stream_app.core.held import HeldLists, by_price, with_priced
from stream_app.core.journey import Journey
from stream_app.core.list_kinds import KINDS_OF_LISTS, LISTS
from stream_app.core.merchandising import Merchandise
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
WINDOWS_S = 0.5  # how often it is looked whether a campaign has begun
IDLE_SHARE = 3.0  # looking through everything rests this many times as long as it works


class Owners(Protocol):
    """Which clickstream partitions are this worker's; another object when it changed hands."""

    @property
    def owned(self) -> Mapping[int, object]: ...


# The records of a partition of the recommendations topic, from the beginning to its end of now.
Published = Callable[[int], AsyncIterator[RawBatch]]


class _Reason(msgspec.Struct, frozen=True):
    because: str | None = None


class _Entry(msgspec.Struct):
    item_id: str
    reason: _Reason = _Reason()


class _Lists(msgspec.Struct):
    user_id: str
    generated_at: float = 0.0
    lists: dict[str, list[_Entry]] = {}


class _Found(NamedTuple):
    """Items of customers: ``counts (n,)`` of ``texts`` each, which of them go by their price."""

    texts: list[str]
    priced: NDArray[np.bool_]
    counts: NDArray[np.int64]


_decode = msgspec.json.Decoder(_Lists).decode


class Withdraw:
    """Remembers what was published to whom and has it ranked anew when an item changes.

    ``crossed_out`` counts customers whose lists were shortened, ``refreshed`` the refresh records
    sent, ``swept`` the customers looked through.
    """

    def __init__(
        self,
        settings: Settings,
        merchandise: Merchandise,
        journey: Journey,
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
        self._merchandise = merchandise
        self._by_price = journey.lists.any(axis=0) & (KINDS_OF_LISTS["price_share"] > 0.0)
        self._log = log
        self._public = public
        self._relate = relate
        self._items = items
        self._turns = turns
        self._clock = clock
        self._held: dict[int, HeldLists] = {}
        self._owners: dict[int, object] = {}
        self._looked_at = clock()
        self._gone: dict[int, None] = {}
        self._repriced: dict[int, None] = {}
        self._late: dict[int, dict[str, None]] = {}
        self._late_items: set[int] = set()
        self._to_sweep: dict[int, None] = {}
        self._items_gone: dict[int, None] = {}  # for item lists
        self._to_rank: dict[int, dict[str, None]] = {}
        self._wake = asyncio.Event()
        self._list_items = asyncio.Event()
        self._rank = asyncio.Event()
        self._reprice = asyncio.Event()

    def changed(self, ids: NDArray[np.uint64]) -> None:
        """Items (hashes) that must not be listed from now on, or that rules see otherwise."""
        self._gone.update(dict.fromkeys(ids.tolist()))
        if len(self._gone) > GONE_MAX:
            self._gone.clear()
            self._to_sweep.update(dict.fromkeys(self._held))
        self._wake.set()

    def repriced(self, ids: NDArray[np.uint64]) -> None:
        """Other items that have another price."""
        if self._held and self._by_price.any():
            self._repriced.update(dict.fromkeys(ids.tolist()))
            self._reprice.set()

    def published(self, partition: int, block: ListsBlock | None, erased: Sequence[str]) -> None:
        """Lists of a batch of ``partition`` are out; ``erased`` customers have none any more."""
        held = self._held.get(partition)
        if held is None:
            return
        if block is not None and block.customers:
            owners = np.frombuffer(block.list_owner, np.uint32)
            counts = np.frombuffer(block.counts, np.uint8)
            items = np.frombuffer(block.items, np.uint64)
            priced = self._by_price[np.frombuffer(block.list_kind, np.uint8)]
            because = np.frombuffer(block.because, np.uint64)
            held.put(block.customers, owners, *with_priced(priced, counts, items, because))
            # Ranked before an item was gone and published after; or published once more.
            bad = ~self._merchandise.permitted(items)
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
            group.create_task(_whenever(self._reprice, self._look_at_prices))
            group.create_task(self._watch_windows())

    async def step(self) -> None:
        """Handle what has changed by now."""
        self._open_windows()
        await self._cross_out()
        await self._look_at_prices()
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

    async def _watch_windows(self) -> None:
        while True:
            await asyncio.sleep(WINDOWS_S)
            self._open_windows()

    def _open_windows(self) -> None:
        """What rules keep out that have begun since the last look."""
        since, self._looked_at = self._looked_at, self._clock()
        begun = self._merchandise.begun(since, self._looked_at)
        if len(begun):
            self.changed(begun)

    async def _look_at_prices(self) -> None:
        """Find the customers in whose lists the price of an item matters that has another now."""
        repriced, self._repriced = self._repriced, {}
        ids = by_price(np.fromiter(repriced, np.uint64, len(repriced)))
        for partition, held in list(self._held.items()) if repriced else ():
            self._to_rank.setdefault(partition, {}).update(dict.fromkeys(held.holders(ids)))
            await asyncio.sleep(0)  # that took milliseconds
        self._rank.set()

    def _unlisted(self, gone: NDArray[np.uint64]) -> set[str]:
        """Items to cross out everywhere; a rule may keep one out of some lists only."""
        late, self._late_items = self._late_items, set()
        barred = gone[~self._merchandise.shown(gone, self._clock())]
        return self._items.names(np.append(barred, np.fromiter(late, np.uint64, len(late))))

    async def _publish_item_lists(self) -> None:
        gone, self._items_gone = self._items_gone, {}
        if gone:
            async with self._turns.held_back():
                await self._relate.withdraw(np.fromiter(gone, np.uint64, len(gone)))

    async def _rank_anew(self) -> None:
        to_rank, self._to_rank = self._to_rank, {}
        await self._refresh({p: list(names) for p, names in to_rank.items() if names})

    async def _refresh(self, customers: Mapping[int, Sequence[str]]) -> None:
        """Have customers of partitions ranked anew, at a pace that leaves room for their events."""
        most = max(map(len, customers.values()), default=0)
        chunk = max(CHUNK // max(len(customers), 1), 1)
        for at in range(0, most, chunk):
            if at:
                await asyncio.sleep(1.0 / CHUNKS_PER_S)
            some = {p: names[at : at + chunk] for p, names in customers.items()}
            await asyncio.gather(*(self._send(p, names) for p, names in some.items() if names))

    async def _send(self, partition: int, names: Sequence[str]) -> None:
        topic, records = self._settings.clickstream_topic, [self._record(name) for name in names]
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
            await self._refresh({partition: names})

    def _look_through(
        self,
        held: HeldLists,
        batch: RawBatch,
        affected: dict[str, None],
        unlisted: set[str],
    ) -> None:
        """Which customers have an item in their last lists that must not be there, and which."""
        oldest = self._clock() - self._settings.list_ttl_days * 86_400.0
        latest: dict[str, _Lists] = {}
        for value in batch.values:
            if value is None:
                continue
            try:
                record = _decode(value)
            except msgspec.MsgspecError as exc:
                log.warning("a record of %s is not ours: %s", batch.topic, exc)
                continue
            if record.generated_at >= oldest and not held.is_live(record.user_id):
                latest[record.user_id] = record
        if not latest:
            return
        self.swept += len(latest)
        found = self._found(latest)
        hashes = np.array([stable_hash(text) for text in found.texts], np.uint64)
        bad = ~self._merchandise.shown(hashes, self._clock()) & ~found.priced
        unlisted.update(found.texts[k] for k in np.flatnonzero(bad).tolist())
        owners = np.repeat(np.arange(len(latest)), found.counts)
        hit = np.bincount(owners, bad, len(latest)) > 0
        for name, barred in zip(latest, hit.tolist(), strict=True):
            affected.pop(name, None)  # the last record counts
            if barred:
                affected[name] = None
        if len(held) + len(latest) <= self._customers_max:
            items = np.where(found.priced, by_price(hashes), hashes)
            held.put(list(latest), np.arange(len(latest)), found.counts, items, live=False)
        else:
            held.complete = False

    def _found(self, latest: Mapping[str, _Lists]) -> _Found:
        """The items in the lists of each customer, then once more those that go by their price."""
        kinds = {LISTS[kind] for kind in np.flatnonzero(self._by_price).tolist()}
        texts: list[str] = []
        priced: list[bool] = []
        counts = np.zeros(len(latest), np.int64)
        for k, record in enumerate(latest.values()):
            items = [entry.item_id for entries in record.lists.values() for entry in entries]
            going = [entry for kind in kinds for entry in record.lists.get(kind, ())]
            because = [entry.reason.because for entry in going]
            again = [*(entry.item_id for entry in going), *filter(None, because)]
            texts += items + again
            priced += [False] * len(items) + [True] * len(again)
            counts[k] = len(items) + len(again)
        return _Found(texts, np.array(priced, np.bool_), counts)


async def _whenever(event: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await event.wait()
        event.clear()
        await act()
