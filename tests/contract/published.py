"""A shop in memory whose customers have lists, and what they see of them."""

import random
from collections.abc import AsyncIterator

import orjson

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.composition import Stages, compose
from stream_app.ports import RawBatch
from stream_app.recalling import Recall
from stream_app.settings import Settings, load_settings

NOW = 1_700_000_000.0
CUSTOMERS, ITEMS, EVENTS = 60, 30, 600


class Clock:
    """Three seconds later at every look: nothing waits for a refresh interval."""

    now = NOW

    def __call__(self) -> float:
        """Unix seconds."""
        self.now += 3.0
        return self.now


class Shop:
    """One worker in memory, and what its customers can see."""

    def __init__(self, **variables: str) -> None:
        more = {f"STREAM_APP_{name.upper()}": value for name, value in variables.items()}
        self.settings: Settings = load_settings(
            {
                "STREAM_APP_CLICKSTREAM_PARTITIONS": "1",
                "STREAM_APP_COOCCURRENCE_PARTITIONS": "1",
                **more,
            }
        )
        self.log, self.store, self.public = MemoryLog(), MemoryStore(), MemoryPublic()
        self.clock = Clock()
        self.published: list[RawBatch] = []
        self.said: dict[str, dict[str, object]] = {}
        self.offset = 0
        self.stages = self.start()

    def start(self) -> Stages:
        """A worker that knows nothing yet."""
        return compose(
            self.settings, store=self.store, public=self.public, log=self.log, clock=self.clock
        )

    async def open(self) -> None:
        """Take the partitions."""
        await self.stages.learn.assign(0)
        await self.stages.relate.assign(0)
        self.stages.withdraw.follow(self.stages.learn)

    async def send(self, values: list[bytes]) -> None:
        """Events, through both stages."""
        n = len(values)
        offsets = range(self.offset, self.offset + n)
        self.offset += n
        topic = self.settings.clickstream_topic
        none = [None] * n
        batch = RawBatch(topic, 0, self.offset, offsets, none, values, [-1] * n, [()] * n)
        await self.stages.learn.process(batch)
        await self.stages.relate.process(self.log.drain(self.settings.cooccurrence_topic, 0))
        await self.stages.relate.refresh()
        self.published.append(self.log.drain(self.settings.recommendations_topic, 0))

    async def refresh(self) -> int:
        """Let refresh records have their effect; returns how many there were."""
        await self.stages.withdraw.step()
        values = [v for v in self.log.drain(self.settings.clickstream_topic, 0).values if v]
        if values:
            await self.send(values)
        return len(values)

    async def take_over(self, *sold_out: str) -> None:
        """Another worker comes, hears what is ``sold_out`` and looks through what is published."""
        self.stages = self.start()
        for item in self.said:
            self.say(item, **self.said[item])
        for item in sold_out:
            self.say(item, stock=0)
        await self.open()
        await self.stages.withdraw.sweep(self.all_published)

    async def recall(self) -> int:
        """Have all items in memory; how many lists there are of them."""
        recall = Recall(self.stages.relate, self.stages.items, self.store)
        await recall.run()
        return recall.recalled

    async def all_published(self, partition: int) -> AsyncIterator[RawBatch]:
        """The records of the recommendations topic."""
        assert partition == 0
        for batch in self.published:
            yield batch

    def say(self, item: str, **fields: object) -> None:
        """A record of the catalog; without fields one that deletes."""
        value = orjson.dumps({"item_id": item, **fields}) if fields else None
        self.said[item] = fields
        batch = RawBatch(
            self.settings.catalog_topic, 0, 1, [0], [item.encode()], [value], [0], [()]
        )
        apply = self.stages.followers[0]._apply
        assert apply(batch) == []

    def rule(self, rule_id: str, **fields: object) -> None:
        """A record of the rules."""
        topic, key, value = self.settings.rules_topic, rule_id.encode(), orjson.dumps(fields)
        apply = {follower.topic: follower._apply for follower in self.stages.followers}[topic]
        assert apply(RawBatch(topic, 0, 1, [0], [key], [value], [0], [()])) == []

    async def lists(self, customer: str) -> dict[str, list[str]]:
        """What is published to a customer: ids by list."""
        fields = await self.public.get(f"rec:{customer}")
        assert isinstance(fields, dict)
        return {
            name.decode(): [entry["item_id"] for entry in orjson.loads(text)]
            for name, text in fields.items()
            if text.startswith(b"[")
        }

    async def holders(self, item: str) -> list[str]:
        """Keys with the item in a list."""
        keys = [f"rec:{who(k)}" for k in range(CUSTOMERS)]
        keys += [f"similar:item-{k}" for k in range(ITEMS)] + ["trending:all"]
        found = []
        for key in keys:
            value = await self.public.get(key)
            texts = [value] if isinstance(value, bytes) else list((value or {}).values())
            lists = [orjson.loads(text) for text in texts if text.startswith(b"[")]
            if any(entry["item_id"] == item for entries in lists for entry in entries):
                found.append(key)
        return found


def who(k: int) -> str:
    """A customer's public name; some are sessions."""
    return f"~s{k}" if k % 5 == 0 else f"c{k}"


def views() -> list[bytes]:
    chosen = random.Random(5)
    events = []
    for k in range(EVENTS):
        name = who(chosen.randrange(CUSTOMERS))
        given = {"session_id": name[1:]} if name[0] == "~" else {"user_id": name}
        item = f"item-{int(ITEMS * chosen.random() ** 2)}"
        events.append(orjson.dumps({"event": "view", "item_id": item, "ts": NOW + k, **given}))
    return events
