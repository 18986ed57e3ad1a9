"""The job as a competent user would write it with redis-py: batches, pipelines, local sums.

For every event: the customer's recent items, a weighted count for each pair with the items before
it, in both directions. For every customer touched by a batch: the ten best items by the counts of
their recent items, to Redis and to a topic. No sessions, journeys, fences, decay or dead letters:
the peers do less than the product.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.progress import Progress

RECENT_MAX = 6
NEIGHBOURS_MAX = 50
LIST_SIZE = 10
CONTEXT = 5
CONTEXT_DECAY = 0.4

Queue = Callable[[Any], object]  # puts commands into a redis-py pipeline
Steps = Generator[Queue, list[Any], list[tuple[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class Task:
    """What the harness asks for: where to read, where to write, how many items back pairs go."""

    bootstrap: str
    redis_url: str
    topic: str
    out_topic: str
    group: str
    previous: int
    batch: int
    progress: Path

    @staticmethod
    def from_environment() -> "Task":
        """The variables that :mod:`bench.measure` sets."""
        get = os.environ.__getitem__
        return Task(
            get("BENCH_BOOTSTRAP"),
            get("BENCH_REDIS_URL"),
            get("BENCH_TOPIC"),
            get("BENCH_OUT_TOPIC"),
            get("BENCH_GROUP"),
            int(get("BENCH_PREVIOUS")),
            int(get("BENCH_BATCH")),
            Path(get("BENCH_PROGRESS")),
        )


class Job:
    """Turns a batch of raw events into three pipelines and the lists to send."""

    def __init__(self, task: Task) -> None:
        self._previous = task.previous
        self.progress = Progress(task.progress)

    def steps(self, values: Sequence[bytes]) -> Steps:
        """Yield each pipeline's commands, receive its replies, return (customer, list) records."""
        events = [_parsed(value) for value in values]
        customers = list(dict.fromkeys(customer for customer, _ in events))
        replies = yield lambda pipe: [
            pipe.lrange(f"recent:{customer}", 0, RECENT_MAX - 1) for customer in customers
        ]
        recent = {
            customer: [item.decode() for item in items]
            for customer, items in zip(customers, replies, strict=True)
        }
        sums, added, pairs = self._learn(events, recent)
        context = list(dict.fromkeys(item for c in customers for item in recent[c][:CONTEXT]))
        replies = yield lambda pipe: _queue_counts(pipe, sums, added, context)
        tables = dict(zip(context, replies[-len(context) :] if context else (), strict=True))
        lists = [(customer, _list(recent[customer], tables)) for customer in customers]
        yield lambda pipe: [pipe.set(f"rec:{customer}", text) for customer, text in lists]
        self.progress.add(pairs=pairs, lists=len(lists))
        return [(customer.encode(), text) for customer, text in lists]

    def _learn(
        self, events: Sequence[tuple[str, str]], recent: dict[str, list[str]]
    ) -> tuple[dict[str, Counter[str]], dict[str, list[str]], int]:
        """Counts by item and new items by customer; ``recent`` moves on."""
        sums: dict[str, Counter[str]] = defaultdict(Counter)
        added: dict[str, list[str]] = defaultdict(list)
        pairs = 0
        for customer, item in events:
            items = recent[customer]
            for distance, other in enumerate(items[: self._previous], 1):
                weight = distance**-1.5
                sums[other][item] += weight
                sums[item][other] += weight
                pairs += 2
            items.insert(0, item)
            del items[RECENT_MAX:]
            added[customer].append(item)
        return sums, added, pairs

    def done(self, events: int) -> None:
        """Count events whose lists are sent."""
        self.progress.add(applied=events)

    async def run(self, redis: Any, values: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Do a batch on a ``redis.asyncio.Redis``."""
        steps = self.steps(values)
        try:
            queue = next(steps)
            while True:
                pipe = redis.pipeline(transaction=False)
                queue(pipe)
                queue = steps.send(await pipe.execute())
        except StopIteration as end:
            return list(end.value)

    def run_sync(self, redis: Any, values: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Do a batch on a ``redis.Redis``."""
        steps = self.steps(values)
        try:
            queue = next(steps)
            while True:
                pipe = redis.pipeline(transaction=False)
                queue(pipe)
                queue = steps.send(pipe.execute())
        except StopIteration as end:
            return list(end.value)


def _parsed(value: bytes) -> tuple[str, str]:
    event = orjson.loads(value)
    return event.get("user_id") or event["session_id"], event["item_id"]


def _queue_counts(
    pipe: Any, sums: dict[str, Counter[str]], added: dict[str, list[str]], context: list[str]
) -> None:
    for item, others in sums.items():
        for other, weight in others.items():
            pipe.zincrby(f"co:{item}", weight, other)
    for customer, items in added.items():
        pipe.lpush(f"recent:{customer}", *items)
        pipe.ltrim(f"recent:{customer}", 0, RECENT_MAX - 1)
    for item in context:
        pipe.zrevrange(f"co:{item}", 0, NEIGHBOURS_MAX - 1, withscores=True)


def _list(items: Sequence[str], tables: dict[str, list[tuple[bytes, float]]]) -> bytes:
    scores: dict[bytes, float] = defaultdict(float)
    weight = 1.0
    for item in items[:CONTEXT]:
        for other, count in tables[item]:
            scores[other] += weight * count
        weight *= CONTEXT_DECAY
    best = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))[:LIST_SIZE]
    return orjson.dumps([{"item_id": item.decode(), "score": score} for item, score in best])
