"""Events for the demo, from the simulated shop or the user's file, sent at a steady rate."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from stream_app.demo.stats import Board
from stream_app.offline.eventfile import read_events
from stream_app.simulator import LIVE, Shop

Sent = tuple[bytes | None, bytes]  # key and JSON

tick_s = 0.05
shop_items, shop_customers = 1_500, 600
dirty_share = 0.004  # so that the dead-letter topic has something to show


class Source(Protocol):
    """Where events come from."""

    titles: Mapping[str, str]

    def take(self, n: int, now_s: float) -> list[Sent]:
        """Up to ``n`` next events as of ``now_s`` (unix seconds); none when there are no more."""
        ...


class ShopSource:
    """The simulated shop, living fast, its events stamped with the real time."""

    def __init__(self, rate: float, *, seed: int = 1) -> None:
        self._shop = Shop(
            seed=seed,
            n_items=shop_items,
            n_customers=shop_customers,
            rate=rate,
            pace=LIVE,
            dirty=dirty_share,
        )
        catalog = self._shop.catalog
        self.titles: Mapping[str, str] = dict(zip(catalog.ids, catalog.titles, strict=True))

    def take(self, n: int, now_s: float) -> list[Sent]:
        """The next ``n`` events, spread over the tick that ends at ``now_s``."""
        times = now_s - tick_s * (1.0 - np.arange(1, n + 1) / n) if n else np.zeros(0)
        return [*self._shop.records(self._shop.rows(n), times)]


class FileSource:
    """The user's own events, in time order, with their own times. Raises ``EventFileError``."""

    def __init__(self, path: Path) -> None:
        table = read_events(path)
        self._rows = zip(map(table.key, range(len(table))), table.iter_json(), strict=True)
        titles = table.texts.get("title", [])
        self.titles: Mapping[str, str] = {
            item: title
            for item, title in zip(table.item_id, titles, strict=False)
            if item and title
        }

    def take(self, n: int, now_s: float) -> list[Sent]:
        """The next ``n`` events of the file."""
        return [row for _, row in zip(range(n), self._rows, strict=False)]


class Feed:
    """Sends events of a source with ``producer`` (an ``AIOKafkaProducer``) and notes them."""

    def __init__(self, source: Source, producer: Any, topic: str, board: Board) -> None:
        self._source, self._producer, self._topic, self._board = source, producer, topic, board

    async def send(self, n: int) -> int:
        """Send up to ``n`` events; returns how many there were."""
        events = self._source.take(n, time.time())
        for key, value in events:
            at_s = time.monotonic()
            future = await self._producer.send(self._topic, value=value, key=key)
            future.add_done_callback(lambda done, at_s=at_s: self._acknowledged(done, at_s))
            self._board.sent += 1
            if (event := _shown(value)) is not None and key is not None:
                self._board.event_sent(key.decode(), event)
        return len(events)

    async def run(self, rate: float, seconds: float) -> None:
        """Send at ``rate`` events per second for ``seconds``, or until the source has no more."""
        begin_s = time.monotonic()
        sent = 0
        while (elapsed_s := time.monotonic() - begin_s) < seconds:
            due = int(elapsed_s * rate) - sent
            if due > 0:
                count = await self.send(due)
                if not count:
                    return
                sent += count
            await asyncio.sleep(tick_s)

    def _acknowledged(self, done: "asyncio.Future[Any]", at_s: float) -> None:
        if not done.cancelled() and done.exception() is None:
            record = done.result()
            self._board.freshness.sent((record.partition, record.offset), at_s)


def _shown(value: bytes) -> Mapping[str, Any] | None:
    """The event for the view; dirty records are not shown."""
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None
