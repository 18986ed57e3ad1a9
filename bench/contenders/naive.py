"""Naive: the textbook Faust agent with redis-py, one event at a time, as a newcomer writes it."""

import json
import os
from typing import Any

import faust
import redis.asyncio

from bench.contenders.job import CONTEXT, CONTEXT_DECAY, LIST_SIZE, NEIGHBOURS_MAX, RECENT_MAX, Task
from bench.progress import Progress

task = Task.from_environment()
progress = Progress(task.progress)
client: Any = redis.asyncio.from_url(task.redis_url, protocol=2, decode_responses=True)

app = faust.App(
    task.group,
    broker=f"kafka://{task.bootstrap}",
    value_serializer="json",
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
    topic_allow_declare=False,
    datadir=os.environ["BENCH_DIR"],
)
clickstream = app.topic(task.topic, key_type=bytes)
recommendations = app.topic(task.out_topic, key_type=bytes)


@app.agent(clickstream)
async def recommend(events: Any) -> None:
    """Count the pairs of an event, rank, store and send the customer's list."""
    async for event in events:
        customer = event.get("user_id") or event["session_id"]
        item = event["item_id"]
        recent = await client.lrange(f"recent:{customer}", 0, RECENT_MAX - 1)
        for distance, other in enumerate(recent[: task.previous], 1):
            await client.zincrby(f"co:{item}", distance**-1.5, other)
            await client.zincrby(f"co:{other}", distance**-1.5, item)
        await client.lpush(f"recent:{customer}", item)
        await client.ltrim(f"recent:{customer}", 0, RECENT_MAX - 1)
        scores: dict[str, float] = {}
        weight = 1.0
        for seen in [item, *recent][:CONTEXT]:
            for other, count in await client.zrevrange(
                f"co:{seen}", 0, NEIGHBOURS_MAX - 1, withscores=True
            ):
                scores[other] = scores.get(other, 0.0) + weight * count
            weight *= CONTEXT_DECAY
        best = sorted(scores, key=lambda other: (-scores[other], other))[:LIST_SIZE]
        ranked = [{"item_id": other, "score": scores[other]} for other in best]
        await client.set(f"rec:{customer}", json.dumps(ranked))
        await recommendations.send(key=customer.encode(), value=ranked)
        pairs = 2 * min(len(recent), task.previous)
        progress.add(applied=1, pairs=pairs, lists=1)


if __name__ == "__main__":
    app.main()
