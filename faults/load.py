"""What is sent while the faults strike: the simulated shop, and records nobody should send."""

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
import orjson

from faults.options import Options
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.ports import Record
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.simulator import LIVE, Shop

TICK_S = 0.1
ITEMS_N, CUSTOMERS_N = 400, 300
RECENT_MAX = 5_000
DAY_S = 86_400.0
Pair = tuple[bytes, bytes]


class Load:
    """Sends at a steady rate; what Kafka does not take waits and follows."""

    def __init__(self, options: Options, settings: Settings, bootstrap: str) -> None:
        self._options = options
        self._settings = settings
        self._log = KafkaLog([bootstrap], client_id="faults-load")
        self._recent: deque[Pair] = deque(maxlen=RECENT_MAX)
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        self.flowing = asyncio.Event()
        self.flowing.set()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._feed())

    async def stop(self) -> None:
        """Send no more; what was being sent is there or not, the log says."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._log.stop()

    async def _feed(self) -> None:
        shop = Shop(
            seed=self._options.seed,
            n_items=ITEMS_N,
            n_customers=CUSTOMERS_N,
            rate=self._options.rate,
            pace=LIVE,
            dirty=self._options.dirty,
        )
        last = time.monotonic()
        while True:
            if not self.flowing.is_set():
                await self.flowing.wait()
                last = time.monotonic()
            due = int((time.monotonic() - last) * self._options.rate)
            if due > 0:
                last += due / self._options.rate
                now = time.time()
                times = now - TICK_S * (1.0 - np.arange(1, due + 1) / due)
                records = shop.records(shop.rows(due), times)
                await self.send(records)
                self._recent.extend(pair for pair in records if len(pair[1]) < 2_000)
            await asyncio.sleep(TICK_S)

    async def send(self, events: Sequence[Pair]) -> None:
        """Append by key, in order; returns when all are acknowledged."""
        records: dict[int, list[Record]] = defaultdict(list)
        for key, value in events:
            records[partition_of(key, self._options.partitions)].append(Record(key, value))
        topic = self._settings.clickstream_topic
        for partition, part in records.items():
            await retrying(
                lambda p=partition, r=part: self._log.send(topic, p, r),  # type: ignore[misc]
                "sending load",
            )
        self.sent += len(events)

    def disorder(self, draw: random.Random, n: int) -> list[Pair]:
        """Events sent before, once more: as they were, shuffled, years late, or from the future.

        Half have their old ``event_id`` (where they have one), half none, so they count again.
        """
        chosen = [draw.choice(self._recent) for _ in range(n if self._recent else 0)]
        found = []
        for number, (key, value) in enumerate(chosen):
            try:
                event = orjson.loads(value)
            except orjson.JSONDecodeError:
                continue
            if not isinstance(event, dict) or not isinstance(event.get("ts"), int | float):
                continue
            off_s = (0.0, -DAY_S * 400, -DAY_S * 40, 3_600.0, DAY_S * 400)[number % 5]
            event["ts"] += off_s
            if number % 2:
                event.pop("event_id", None)
            found.append((key, orjson.dumps(event)))
        return found


def hostile(draw: random.Random, n: int) -> list[Pair]:
    """Records that are no events, of every kind we could think of; a few are huge."""
    return [(b"hostile-%d" % draw.randrange(50), _bad(draw, number)) for number in range(n)]


def _bad(draw: random.Random, number: int) -> bytes:
    event = {"event": "view", "ts": time.time(), "user_id": "hostile", "item_id": "x"}
    wrong: dict[str, object] = {
        "item_id": "y" * 10_000,
        "user_id": "line\nfeed",
        "session_id": "\u0000",
        "event": "../../etc/passwd",
        "price": -1e308,
        "quantity": 1e300,
        "ts": draw.choice([-1.0, 1e18, 2.0**63, 1_700_000_000_000]),
        "event_id": "",
    }
    turn = number % 12
    if turn < len(wrong):
        name = list(wrong)[turn]
        return orjson.dumps(event | {name: wrong[name]})
    if turn == 8:
        return b"[" * 100_000 if number % 24 == 8 else b"[" * 500
    if turn == 9:
        return draw.randbytes(draw.randrange(1, 300))
    if turn == 10:
        return b'{"event":"view","ts":NaN,"user_id":1e999,"item_id":{}}'
    return b'{"a":' * 300 + b"1" + b"}" * 300
