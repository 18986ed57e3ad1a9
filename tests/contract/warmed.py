"""Print what a log compiles or loads after the warm-up: ``python -m tests.contract.warmed``."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.composition import Stages, compose
from stream_app.core.catalog import CatalogItem
from stream_app.core.linking import Kernel
from stream_app.core.merchandising import Rule
from stream_app.ports import Record
from stream_app.settings import Settings, load_settings
from stream_app.timers import Timers
from stream_app.warmup import warm_up
from tests.contract.shop_run import Tape

NOW, DAY_S, ITEMS = 1_700_000_000.0, 86_400.0, 1_500


class Shop:
    """One worker in memory after the other; each does all that a worker does on its loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.now = settings, NOW
        self.tape, self.state, self.public = Tape(), MemoryStore(), MemoryPublic()
        self.stages: Stages
        self.timers: Timers

    async def start(self) -> None:
        """A worker takes over; what the one before had in its outbox is published again."""
        log = self.tape.log
        self.stages = compose(
            self.settings, store=self.state, public=self.public, log=log, clock=lambda: self.now
        )
        learn = self.stages.learn
        self.timers = Timers(self.settings, self.state, self.state, log, learn, lambda: self.now)
        for stage in (self.stages.relate, self.stages.stock):
            await stage.assign(0)
        for p in range(self.settings.clickstream_partitions):
            await learn.assign(p)
        self.stages.withdraw.follow(learn)
        words = ("red", "blue", "wool")
        self.stages.catalog.upsert(
            [
                CatalogItem(f"item-{k}", title=f"{words[k % 3]} thing", price=1.0 + k, stock=5.0)
                for k in range(40)
            ]
        )
        bar, pin = Rule("1", "exclude", items=("item-0",)), Rule("2", "pin", items=("item-29",))
        self.stages.merchandise.set_rules((bar, pin))

    async def work(self) -> None:
        """All stages take what waits for them, until nothing does."""
        kept = (
            (self.settings.clickstream_topic, self.stages.learn),
            (self.settings.cooccurrence_topic, self.stages.relate),
            (self.settings.sales_topic, self.stages.stock),
        )
        waits = True
        while waits:
            waits = False
            for topic, stage in kept:
                batches = [
                    self.tape.batch(topic, p, owned.cursor or 0) for p, owned in stage.owned.items()
                ]
                some = [batch for batch in batches if len(batch)]
                await asyncio.gather(*map(stage.process, some))  # LEARN computes them together
                waits = waits or bool(some)
        await self.stages.relate.refresh()
        await self.stages.stock.refresh()

    async def happen(self, *events: Mapping[str, Any]) -> None:
        """Events a second apart, as one batch."""
        records = []
        for event in events:
            self.now += 1.0
            records.append(Record(b"k", orjson.dumps({"ts": self.now, **event})))
        for p in range(self.settings.clickstream_partitions):
            await self.tape.log.send(self.settings.clickstream_topic, p, records)
        await self.work()

    async def later(self, seconds: float) -> None:
        """Time-outs fall due."""
        self.now += seconds
        await self.timers.survey()
        await self.timers.announce()
        await self.work()


async def live(shop: Shop) -> None:
    """A log with every kind of event in batches of every size."""
    ada, guest = {"user_id": "ada"}, {"session_id": "guest"}
    await shop.start()
    await shop.happen({"event": "view", "item_id": "item-1", **ada})
    await shop.happen({"event": "search", "query": "red thing", **ada})
    kinds = ("view", "click", "impression", "wishlist", "add_to_cart", "remove_from_cart", "refund")
    for n in (1, 2, 300):
        await shop.happen(
            *(
                {
                    "event": kinds[k % 7],
                    "item_id": f"item-{k * k % 37}",
                    "user_id": f"u{k % 23}",
                    "channel": "web",
                    "price": 2.0,
                }
                for k in range(n)
            )
        )
    await shop.happen({"event": "add_to_cart", "item_id": "item-3", **guest})
    await shop.happen({"event": "view", "item_id": "item-4", **guest, **ada})  # becomes known
    await shop.later(DAY_S / 12.0)
    buy = {"event": "purchase", "item_id": "item-3", "price": 2.0, "order_id": "o1"}
    await shop.happen({**buy, **ada})
    await shop.happen(*({**buy, "user_id": f"u{k}", "order_id": f"o{k}"} for k in range(2, 20)))
    await shop.start()
    shop.stages.withdraw.changed(shop.stages.catalog.ids[:2])
    await shop.stages.withdraw.step()
    await shop.work()
    await shop.later(40.0 * DAY_S)
    views = (
        {"event": "view", "item_id": f"new-{k}", "user_id": f"u{k % 50}"} for k in range(ITEMS)
    )
    await shop.happen(*views)
    await shop.happen({"event": "erase", **ada})
    await shop.later(DAY_S)


def loaded() -> dict[str, int]:
    """How many specialisations each kernel has that Python can call."""
    return {
        f"{module.__name__}.{name}": len(kernel.overloads)
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("stream_app")
        for name, kernel in vars(module).items()
        if isinstance(kernel, Kernel)
    }


def main(sources: str) -> None:
    """Warm up, live, and print the names of kernels that have more than before."""
    few = {"STREAM_APP_CLICKSTREAM_PARTITIONS": "2", "STREAM_APP_COOCCURRENCE_PARTITIONS": "1"}
    settings = load_settings({**few, "STREAM_APP_EXTRA_SOURCES": sources})
    warm_up(settings)
    before = loaded()
    asyncio.run(live(Shop(settings)))
    print(*(name for name, n in loaded().items() if n > before.get(name, 0)))


if __name__ == "__main__":
    main(sys.argv[1])
