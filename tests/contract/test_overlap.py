"""A batch is computed while the one before is published, and committed only after that."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import orjson

from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.codec import decode_outbox
from stream_app.composition import Stages
from stream_app.ports import USERS, Log, RawBatch, Record
from tests.contract.shop_run import CLICKS, LISTS, STEP_EVENTS, Run, catalogue, take_over


class SlowLog:
    """Lists are appended when the test lets them, or never."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.asked = 0
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Append, lists when ``open`` is set, and unless there is an ``error``."""
        if topic == LISTS:
            self.asked += 1
            await self.open.wait()
            if self.error is not None:
                raise self.error
        await self._log.send(topic, partition, records)


class Scene:
    """One worker whose partition 0 has two batches, and what has been heard of them."""

    def __init__(self) -> None:
        self.run = Run(MemoryStore(), MemoryPublic(), 2_000)
        self.log = SlowLog(self.run.tape.log)
        self.heard: list[str] = []
        self.stages: Stages

    async def begin(self) -> None:
        """Claim everything."""
        await self.run.fill()
        self.stages = await take_over(self.run.worker(log=self.log))
        await self.stages.items.load(catalogue(self.run.events))

    def batch(self, number: int) -> RawBatch:
        """Batch ``number`` of partition 0, which tells when it is stored."""
        start = number * STEP_EVENTS
        found = self.run.tape.batch(CLICKS, 0, start, start + STEP_EVENTS)
        return replace(found, stored=lambda: self.heard.append(f"{number} stored"))

    async def both(self) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        """Begin, and let two batches go as far as they can; lists are held up."""
        await self.begin()
        first = asyncio.create_task(self.stages.learn.process(self.batch(0)))
        await settled()
        assert self.heard == ["0 stored"] and not first.done()
        second = asyncio.create_task(self.stages.learn.process(self.batch(1)))
        await settled()
        return first, second


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(200):
        await asyncio.sleep(0)


def versions(run: Run) -> list[int]:
    """Of the lists on the topic, in order."""
    return [orjson.loads(value)["version"] for _, value, _ in run.tape.rows(LISTS, 0)]


async def test_the_next_batch_is_computed_and_waits_with_its_commit() -> None:
    scene = Scene()
    first, second = await scene.both()
    assert scene.log.asked == 1, "the second has not published"
    claim = await scene.run.state.claim(USERS, 0)
    assert claim.cursor == STEP_EVENTS, "nor committed: the outbox is that of the first"
    lists = decode_outbox(claim.outbox).lists
    assert lists is not None and max(lists.versions) <= STEP_EVENTS
    first.cancel()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_lists_are_published_in_order() -> None:
    scene = Scene()
    first, second = await scene.both()
    scene.log.open.set()
    await asyncio.gather(first, second)
    assert scene.heard == ["0 stored", "1 stored"]
    found = versions(scene.run)
    of_first = [version for version in found if version <= STEP_EVENTS]
    assert of_first and found[: len(of_first)] == of_first and len(found) > len(of_first)
    assert not scene.stages.learn.owned[0].calls


async def test_what_could_not_be_published_is_not_overwritten() -> None:
    scene = Scene()
    first, second = await scene.both()
    scene.log.error = ValueError("a list that no log takes")
    scene.log.open.set()
    found = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(one) for one in found] == [ValueError, ValueError]
    heir = await take_over(scene.run.worker())
    assert heir.learn.owned[0].cursor == STEP_EVENTS
    assert versions(scene.run), "the heir publishes them from the outbox"


async def test_after_an_erasure_the_next_batch_waits_for_all_of_it() -> None:
    scene = Scene()
    await scene.begin()
    batch = scene.batch(0)
    key = next(key for key in batch.keys if key)
    erasure = orjson.dumps({"event": "erase", "user_id": key.decode(), "ts": 1_700_000_000})
    batch = replace(batch, keys=[*batch.keys[:-1], key], values=[*batch.values[:-1], erasure])
    scene.log.open.set()
    await scene.stages.learn.process(batch)
    assert scene.heard == [], "the next one has to know of it"
    assert len(scene.stages.learn.admission.suppression)
