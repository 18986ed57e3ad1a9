"""Outbox to topics and public keys. Called after the commit, and again after a crash."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.codec import ListsBlock, Outbox, json_text
from stream_app.core.journey import STEPS
from stream_app.core.ranking import LISTS, Lists
from stream_app.items import ItemReader
from stream_app.ports import Log, PublicHash, PublicStore, Record
from stream_app.retrying import retrying
from stream_app.settings import Settings

_PERSONAL = ("rec", "profile")
_STEPS = [json_text(step) for step in STEPS]


class Publisher:
    """Sends what a commit put into the outbox, in order, until it is acknowledged."""

    def __init__(
        self, log: Log, public: PublicStore, reader: ItemReader, settings: Settings
    ) -> None:
        self._log = log
        self._public = public
        self._reader = reader
        self._settings = settings

    async def publish(
        self, partition: int, epoch: int, outbox: Outbox, texts: Sequence[bytes]
    ) -> None:
        """Transitions to RELATE; each customer's lists to the topic and to ``rec:<user_id>``.

        ``texts`` are the lists of the outbox as JSON.
        """
        await asyncio.gather(
            *(
                self._send(self._settings.cooccurrence_topic, q, [Record(None, value)])
                for q, value in outbox.transitions
            ),
            self._publish_lists(partition, epoch, outbox.lists, texts),
            self._publish_profiles(outbox.profiles),
        )
        if outbox.erased:
            await self._erase(partition, outbox.erased)

    async def republish(self, partition: int, epoch: int, outbox: Outbox) -> None:
        """The same after a crash: the names of the items have to be read first."""
        texts: list[bytes] = []
        if outbox.lists is not None:
            ids = np.frombuffer(outbox.lists.items + outbox.lists.because, np.uint64)
            await retrying(lambda: self._reader.load(np.unique(ids)), "reading items")
            self._reader.learn_names(outbox.lists.names)
            texts = self._unpacked(outbox.lists)
        await self.publish(partition, epoch, outbox, texts)

    def _unpacked(self, block: ListsBlock) -> list[bytes]:
        """Render a packed block, whose item tables are in memory."""
        counts = np.frombuffer(block.counts, np.uint8).astype(np.int64)
        width = int(counts.max(initial=1))
        used = np.arange(width) < counts[:, None]
        columns: dict[str, NDArray[Any]] = {
            "nodes": self._reader.tables.lookup(np.frombuffer(block.items, np.uint64)),
            "scores": np.frombuffer(block.scores, np.float32).astype(np.float64),
            "sources": np.frombuffer(block.sources, np.uint8),
            "because": self._reader.tables.lookup(np.frombuffer(block.because, np.uint64)),
        }
        wide: dict[str, NDArray[Any]] = {}
        for name, column in columns.items():
            wide[name] = np.zeros((len(counts), width), column.dtype)
            wide[name][used] = column
        return self._reader.render(Lists(counts=counts, **wide))

    async def _send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        await retrying(
            lambda: self._log.send(topic, partition, records), f"sending to {topic}-{partition}"
        )

    async def _publish_lists(
        self, partition: int, epoch: int, block: ListsBlock | None, texts: Sequence[bytes]
    ) -> None:
        if block is None or not block.customers:
            return
        fields: list[list[tuple[str, bytes]]] = [[] for _ in block.customers]
        owners = np.frombuffer(block.list_owner, np.uint32).tolist()
        for owner, kind, text in zip(owners, block.list_kind, texts, strict=True):
            fields[owner].append((LISTS[kind], text))
        records, hashes = self._records(partition, epoch, block, fields)
        topic = self._settings.recommendations_topic
        # The topic first: what a page reads from Redis has been announced.
        await self._send(topic, partition, records)
        await retrying(lambda: self._public.put_hashes(hashes), "writing public lists")

    async def _publish_profiles(self, profiles: Sequence[tuple[str, bytes]]) -> None:
        if profiles:
            pairs = [(f"profile:{customer}", text) for customer, text in profiles]
            await retrying(lambda: self._public.put_values(pairs), "writing profiles")

    async def _erase(self, partition: int, customers: Sequence[str]) -> None:
        """Delete public keys, and tombstone what was said on the topic."""
        keys = [(f"{kind}:{customer}", b"") for customer in customers for kind in _PERSONAL]
        await retrying(lambda: self._public.put_values(keys), "erasing customers")
        tombstones = [Record(customer.encode(), None) for customer in customers]
        await self._send(self._settings.recommendations_topic, partition, tombstones)

    def _records(
        self,
        partition: int,
        epoch: int,
        block: ListsBlock,
        fields: list[list[tuple[str, bytes]]],
    ) -> tuple[list[Record], list[PublicHash]]:
        topic = json_text(self._settings.clickstream_topic)
        generated = b"%.6f" % block.generated_at
        records, hashes = [], []
        for customer, version, steps, entered, lists in zip(
            block.customers, block.versions, block.steps, block.entered_at, fields, strict=True
        ):
            step, previous, likely = (_STEPS[s] for s in steps)
            entered_at = b"%.3f" % entered
            source = b'{"topic":%b,"partition":%d,"offset":%d}' % (topic, partition, version - 1)
            value = (
                b'{"user_id":%b,"version":%d,"epoch":%d,"generated_at":%b,"step":%b,'
                b'"previous_step":%b,"next_step":%b,"entered_at":%b,"source":%b,"lists":{%b}}'
            ) % (
                json_text(customer),
                version,
                epoch,
                generated,
                step,
                previous,
                likely,
                entered_at,
                source,
                b",".join([b'"%b":%b' % (name.encode(), text) for name, text in lists]),
            )
            records.append(Record(customer.encode("utf-8", "surrogatepass"), value))
            hashes.append(
                PublicHash(
                    f"rec:{customer}",
                    version,
                    epoch,
                    [
                        (b"step", step[1:-1]),
                        (b"previous_step", previous[1:-1]),
                        (b"next_step", likely[1:-1]),
                        (b"entered_at", entered_at),
                        (b"generated_at", generated),
                        (b"source", source),
                        *((name.encode(), text) for name, text in lists),
                    ],
                )
            )
        return records, hashes
