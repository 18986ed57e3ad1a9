"""The topics that a worker reads whole, from before its first event until it stops."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence

from stream_app.adapters.broadcast import Broadcast, partition_batches
from stream_app.adapters.kafka import Security
from stream_app.composition import Stages
from stream_app.errors import LogUnavailable, StoreUnavailable
from stream_app.following import Follower
from stream_app.ports import RawBatch
from stream_app.recalling import Recall
from stream_app.settings import Settings
from stream_app.timers import StateScan

OWNERS_CHECK_S = 0.5

log = logging.getLogger(__name__)


class Broadcasts:
    """Catalog, users and rules of one worker. ``readers`` are by topic."""

    def __init__(
        self,
        settings: Settings,
        stages: Stages,
        security: Security,
        followers: Sequence[Follower],
    ) -> None:
        self._settings = settings
        self._stages = stages
        self._security = security
        self.readers = {
            follower.topic: Broadcast(
                follower.topic,
                follower.process,
                brokers=settings.bootstrap.split(","),
                security=security,
            )
            for follower in followers
        }
        self._followers = followers

    async def load(self) -> None:
        """Read every topic to its end; the worker joins its group after that."""
        started = time.monotonic()
        for topic, reader in self.readers.items():
            if not await reader.load():
                log.warning(
                    "topic %s does not exist: going on without; create it with the topics command",
                    topic,
                )
        self._stages.ruling.loaded()
        log.info(
            "%d items and %d customers read after %.1f s",
            len(self._stages.catalog),
            len(self._stages.audience),
            time.monotonic() - started,
        )

    async def follow(self, scan: StateScan) -> None:
        """Follow the topics and act on them; ends only with an error that stops the worker.

        ``scan`` lists the items of partitions that come.
        """
        async with asyncio.TaskGroup() as group:
            for reader in self.readers.values():
                group.create_task(reader.follow())
            group.create_task(self._stages.withdraw.run())
            group.create_task(self._sweep())
            group.create_task(self._recall(scan))

    async def _sweep(self) -> None:
        """Know what was published by partitions that came to this worker."""
        withdraw = self._stages.withdraw
        while True:
            withdraw.follow(self._stages.learn)
            try:
                await withdraw.sweep(self._published)
            except LogUnavailable as exc:
                log.warning("%s; published lists are read again later", exc)
            await asyncio.sleep(OWNERS_CHECK_S)

    async def _recall(self, scan: StateScan) -> None:
        """Have the items of partitions that came to this worker in memory."""
        recall = Recall(self._stages.relate, self._stages.items, scan)
        while True:
            try:
                await recall.run()
            except StoreUnavailable as exc:
                log.warning("%s; items are read again later", exc)
            await asyncio.sleep(OWNERS_CHECK_S)

    def _published(self, partition: int) -> AsyncIterator[RawBatch]:
        settings = self._settings
        return partition_batches(
            settings.recommendations_topic,
            partition,
            brokers=settings.bootstrap.split(","),
            security=self._security,
        )

    async def dead_letter(self) -> None:
        """Dead-letter bad records, if it is this worker's turn."""
        if 0 in self._stages.learn.owned:
            for follower in self._followers:
                await follower.dead_letter()

    async def close(self) -> None:
        """Disconnect."""
        for reader in self.readers.values():
            await reader.close()
