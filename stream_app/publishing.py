"""Outbox to topics and public keys. Called after the commit, and again after a crash."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.codec import KNOWN_SOURCES, ListsBlock, Outbox, json_text
from stream_app.core.catalog import Catalog
from stream_app.core.journey import Journey
from stream_app.core.listing import ListedIds
from stream_app.core.ranking import LISTS, Lists
from stream_app.core.records import (
    Texts,
    chosen,
    numbers,
    one_after_another,
    render_records,
    texts,
)
from stream_app.items import ItemReader
from stream_app.ports import Log, PublicHash, PublicStore, Record
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.suppression import erasure_record

T = TypeVar("T")
_PERSONAL = ("rec", "profile")
_FIRST = 3  # user_id, version and epoch are not among the fields of a hash
_LIST_NAMES = [name.encode() for name in LISTS]


OnPublished = Callable[[int, ListsBlock | None, Sequence[str]], None]


class Messages(NamedTuple):
    """The lists of one batch as they go to the topic and to ``rec:<user_id>``.

    ``catalog_version`` is that of the catalog when they were rendered.
    """

    records: Sequence[Record] = ()
    hashes: Sequence[PublicHash] = ()
    catalog_version: int = 0


class Publisher:
    """Sends what a commit put into the outbox, in order, until it is acknowledged."""

    def __init__(
        self,
        log: Log,
        public: PublicStore,
        reader: ItemReader,
        settings: Settings,
        journey: Journey,
        catalog: Catalog,
        permitted: ListedIds,
    ) -> None:
        self._catalog = catalog
        self._permitted = permitted
        self._log = log
        self._public = public
        self._reader = reader
        self._settings = settings
        self._steps = [json_text(step) for step in journey.names]
        self.on_published: OnPublished = lambda _partition, _lists, _erased: None

    def render(
        self,
        places: Sequence[tuple[int, int]],
        blocks: Sequence[ListsBlock],
        lists: Lists,
    ) -> list[Messages]:
        """What to send of each of ``blocks``; ``lists`` are the same with the nodes of now.

        ``places`` are the partition and the epoch of each.
        """
        sizes = [len(block.customers) for block in blocks]
        bounds, n = [0, *accumulate(sizes)], sum(sizes)
        if not n:
            return [Messages()] * len(blocks)
        owners = np.concatenate(
            [
                np.frombuffer(block.list_owner, np.uint32).astype(np.int64) + start
                for block, start in zip(blocks, bounds[:-1], strict=True)
            ]
        )
        kinds_of = b"".join([block.list_kind for block in blocks])
        kinds = np.frombuffer(kinds_of, np.uint8)
        columns = self._columns(places, blocks, sizes)
        rendered = render_records(columns, self._reader.listed(lists), owners, kinds, LISTS, n)
        text, ends = rendered.text, rendered.ends.tolist()
        # All texts are cut at once, customer after customer: their fields, and their lists.
        fields = _cut(text, rendered.fields[:, _FIRST:].reshape(-1, 2))
        shown = _cut(text, rendered.lists)
        names = _Names(tuple(name.encode() for some, _ in columns for name in some)[_FIRST:])
        width, last = len(fields) // n, rendered.last.tolist()
        found, begin, at, first = [], 0, 0, 0
        for k, ((_, epoch), block) in enumerate(zip(places, blocks, strict=True)):
            records, hashes = [], []
            for row, customer, version in zip(
                range(bounds[k], bounds[k + 1]), block.customers, block.versions, strict=True
            ):
                own = names.with_lists(kinds_of[first : last[row]])
                values = fields[at : at + width] + shown[first : last[row]]
                records.append(Record(customer.encode(), text[begin : ends[row]]))
                hashes.append(PublicHash(f"rec:{customer}", version, epoch, own, values))
                begin, at, first = ends[row], at + width, last[row]
            found.append(Messages(records, hashes, self._catalog.version))
        return found

    def _columns(
        self, places: Sequence[tuple[int, int]], blocks: Sequence[ListsBlock], sizes: Sequence[int]
    ) -> list[tuple[tuple[str, ...], Texts]]:
        """The public fields of a customer besides the lists, in the order of the record."""
        steps_n, blocks_n = len(self._steps), len(blocks)
        versions = [np.array(block.versions, np.int64) for block in blocks]
        table = [*self._steps, *(b"%d" % epoch for _, epoch in places)]
        table += [b"%.6f" % block.generated_at for block in blocks]
        rows = np.empty((5, sum(sizes)), np.int64)
        rows[0] = np.repeat(np.arange(steps_n, steps_n + blocks_n), sizes)
        rows[1] = rows[0] + blocks_n
        rows[2:] = np.array(_all(block.steps for block in blocks), np.int64).T
        topic = json_text(self._settings.clickstream_topic)
        sources = [
            numbers(
                own - 1,
                before=b'{"topic":%b,"partition":%d,"offset":' % (topic, partition),
                after=b"}",
            )
            for own, (partition, _) in zip(versions, places, strict=True)
        ]
        entered_at = np.array(_all(block.entered_at for block in blocks))
        entered_ms = np.rint(entered_at * 1000.0).astype(np.int64)
        customers = _all(block.customers for block in blocks)
        scalars = tuple(blocks[0].scalars)
        found = [text for name in scalars for block in blocks for text in block.scalars[name]]
        same = ("epoch", "generated_at", "step", "previous_step", "next_step")
        return [
            (("user_id",), texts([json_text(customer) for customer in customers])),
            (("version",), numbers(np.concatenate(versions))),
            (same, chosen(table, rows)),
            (("entered_at",), numbers(entered_ms, decimals=3)),
            (("source",), one_after_another(sources)),
            (scalars, texts(found)),
        ]

    async def publish(self, partition: int, outbox: Outbox, messages: Messages) -> None:
        """Each customer's lists to the topic and to ``rec:<user_id>``; ``messages`` are those.

        They go without what must not be listed by now.
        """
        outbox.lists, messages = self._as_of_now(partition, outbox.lists, messages)
        sending = [
            self._send(self._settings.clickstream_topic, p, [Record(key, value)])
            for p, key, value in outbox.clicks
        ]
        if messages.hashes:
            topic = self._settings.recommendations_topic
            sending.append(self._send(topic, partition, messages.records))
            sending.append(self._put(partition, outbox.lists, messages))
        if outbox.profiles:
            sending.append(self._publish_profiles(outbox.profiles))
        await asyncio.gather(*sending)
        if outbox.erased:
            await self._erase(partition, outbox.erased)
        if outbox.erasures:  # what a replay of the log must not bring back
            suppressed = [erasure_record(*erasure) for erasure in outbox.erasures]
            await self._send(self._settings.erasures_topic, partition, suppressed)
        self.on_published(partition, None, outbox.erased)

    async def hand_over(
        self, transitions: Sequence[tuple[int, bytes]], sales: Sequence[tuple[int, bytes]]
    ) -> None:
        """Records with their item partitions to RELATE and to STOCK."""
        topics = self._settings.cooccurrence_topic, self._settings.sales_topic
        records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for topic, part in zip(topics, (transitions, sales), strict=True):
            for q, value in part:
                records[topic, q].append(Record(None, value))
        await asyncio.gather(*(self._send(*place, some) for place, some in records.items()))

    async def republish(self, partition: int, epoch: int, outbox: Outbox) -> None:
        """The same after a crash: the names of the items have to be read first."""
        messages = Messages()
        if outbox.lists is not None:
            ids = np.frombuffer(outbox.lists.items + outbox.lists.because, np.uint64)
            await retrying(lambda: self._reader.load(np.unique(ids)), "reading items")
            self._reader.learn_names(outbox.lists.names)
            lists = self._unpacked(outbox.lists)
            (messages,) = self.render([(partition, epoch)], [outbox.lists], lists)
        await self.publish(partition, outbox, messages._replace(catalog_version=-1))

    def _as_of_now(
        self, partition: int, block: ListsBlock | None, messages: Messages
    ) -> tuple[ListsBlock | None, Messages]:
        """The same, or without items that the catalog has taken back since they were ranked."""
        if block is None or messages.catalog_version == self._catalog.version:
            return block, messages
        items = np.frombuffer(block.items, np.uint64)
        kept = self._permitted(items)
        if kept.all() or (self._reader.tables.lookup(items) < 0).any():
            return block, messages
        counts = np.frombuffer(block.counts, np.uint8)
        lists = np.repeat(np.arange(len(counts)), counts)[kept]
        because = np.frombuffer(block.because, np.uint64)
        now = msgspec.structs.replace(
            block,
            counts=np.bincount(lists, minlength=len(counts)).astype(np.uint8).tobytes(),
            items=items[kept].tobytes(),
            because=because[kept].tobytes(),
            scores=np.frombuffer(block.scores, np.float32)[kept].tobytes(),
            sources=np.frombuffer(block.sources, np.uint8)[kept].tobytes(),
        )
        epoch = messages.hashes[0].epoch
        return now, self.render([(partition, epoch)], [now], self._unpacked(now))[0]

    def _unpacked(self, block: ListsBlock) -> Lists:
        """The lists of a packed block, whose item tables are in memory."""
        counts = np.frombuffer(block.counts, np.uint8).astype(np.int64)
        width = int(counts.max(initial=1))
        used = np.arange(width) < counts[:, None]
        columns: dict[str, NDArray[Any]] = {
            "nodes": self._reader.tables.lookup(np.frombuffer(block.items, np.uint64)),
            "scores": np.frombuffer(block.scores, np.float32).astype(np.float64),
            "sources": KNOWN_SOURCES[np.frombuffer(block.sources, np.uint8)],
            "because": self._reader.tables.lookup(np.frombuffer(block.because, np.uint64)),
        }
        wide: dict[str, NDArray[Any]] = {}
        for name, column in columns.items():
            wide[name] = np.zeros((len(counts), width), column.dtype)
            wide[name][used] = column
        return Lists(counts=counts, **wide)

    async def _send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        await retrying(
            lambda: self._log.send(topic, partition, records), f"sending to {topic}-{partition}"
        )

    async def _put(self, partition: int, block: ListsBlock | None, messages: Messages) -> None:
        await retrying(lambda: self._public.put_hashes(messages.hashes), "writing public lists")
        self.on_published(partition, block, ())  # as soon as pages can read them

    async def _publish_profiles(self, profiles: Sequence[tuple[str, bytes]]) -> None:
        pairs = [(f"profile:{customer}", text) for customer, text in profiles]
        await retrying(lambda: self._public.put_values(pairs), "writing profiles")

    async def _erase(self, partition: int, customers: Sequence[str]) -> None:
        """Delete public keys, and tombstone what was said on the topic."""
        keys = [(f"{kind}:{customer}", b"") for customer in customers for kind in _PERSONAL]
        await retrying(lambda: self._public.put_values(keys), "erasing customers")
        tombstones = [Record(customer.encode(), None) for customer in customers]
        await self._send(self._settings.recommendations_topic, partition, tombstones)


def _all(parts: Iterable[Iterable[T]]) -> list[T]:
    """What is in the parts, one part after the other."""
    return list(chain.from_iterable(parts))


def _cut(text: bytes, places: NDArray[np.int64]) -> list[bytes]:
    """The pieces of ``text`` from and to ``places (n, 2)``."""
    return [text[a:b] for a, b in zip(*places.T.tolist(), strict=True)]


class _Names:
    """Field names of hashes: one tuple for all customers with the same lists."""

    def __init__(self, scalars: tuple[bytes, ...]) -> None:
        self._scalars = scalars
        self._by_kinds: dict[bytes, tuple[bytes, ...]] = {}

    def with_lists(self, kinds: bytes) -> tuple[bytes, ...]:
        found = self._by_kinds.get(kinds)
        if found is None:
            found = (*self._scalars, *(_LIST_NAMES[kind] for kind in kinds))
            self._by_kinds[kinds] = found
        return found
