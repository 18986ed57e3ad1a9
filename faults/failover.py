"""``python -m faults.failover``: the store's primaries fail over under load; G1 to G5 must hold.

Two workers, Apache Kafka, real servers: a primary behind Sentinel, or a cluster of three with a
replica each. Primaries are killed, killed while their replica lags (acknowledged writes are lost),
and paused (they come back and take writes that are lost) in turn. Last line: one JSON object.
"""

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from faults.__main__ import console, finished, first_events
from faults.checks import Verdict
from faults.cluster import Cluster
from faults.options import Options
from faults.topologies import STORES, Replicated
from stream_app.adapters.topics import consume
from stream_app.hashing import given_name

WAYS = ("behind", "kill", "pause")
GAP_S, BEHIND_S = (2.0, 6.0), (1.0, 3.0)
RECOVERY_TIMEOUT_S = 60.0
KEPT = Path(".cache/faults")
ROLLED_BACK = ("store rolled back, rewinding", "the store is at")


async def run(options: Options, mode: str, times: int) -> tuple[Verdict, list[float], int]:
    """The verdict, the seconds until all was applied after each fail-over, and the roll-backs."""
    cluster = Cluster(options, STORES[mode])
    draw = random.Random(options.seed)
    waits: list[float] = []
    try:
        await cluster.start()
        assert cluster.replicated is not None
        late = await first_events(cluster)
        for number in range(0 if late else times):
            await asyncio.sleep(draw.uniform(*GAP_S))
            await _one(cluster, cluster.replicated, WAYS[number % len(WAYS)], draw, waits)
        await _closing_events(cluster)
        leading = cluster.primaries()
        verdict = await finished(cluster, late, KEPT)
        if cluster.primaries() != leading:
            verdict.note("a primary failed over by itself at the end: the machine is too slow")
        for worker in cluster.workers:
            if worker.exits:
                verdict.note(f"{worker.name} ended by itself with {worker.exits}")
        said = [worker.log_path.read_text(errors="replace") for worker in cluster.workers]
        return verdict, waits, sum(text.count(words) for text in said for words in ROLLED_BACK)
    finally:
        await cluster.close()


async def _one(
    cluster: Cluster, store: Replicated, how: str, draw: random.Random, waits: list[float]
) -> None:
    primaries = await asyncio.to_thread(store.primaries)
    primary = draw.choice(primaries)
    began = time.monotonic()
    cluster.store_lives += 1
    await asyncio.to_thread(store.fail_over, primary, how, draw.uniform(*BEHIND_S))
    cluster.store_lives += 1
    ended = time.monotonic()
    rest = await cluster.caught_up(await cluster.ends(), timeout_s=RECOVERY_TIMEOUT_S)
    waits.append(float("inf") if rest else time.monotonic() - ended)
    console.print(
        f"{len(waits):3d} {how:<7} port {primary.port}  lasted {ended - began:4.1f} s"
        f"  recovery {waits[-1]:.1f} s  sent {cluster.load.sent:,}"
    )


async def _closing_events(cluster: Cluster) -> None:
    """One event of every customer: on a cluster their lists lie in other slots than their state."""
    cluster.load.flowing.clear()
    if await cluster.settled(timeout_s=RECOVERY_TIMEOUT_S):
        return  # which is found out once more, and reported, at the end
    topic, pairs = cluster.settings.recommendations_topic, {}
    async for record in consume(topic, brokers=[cluster.kafka.bootstrap]):
        text, anonymous = given_name((record.key or b"").decode())
        event = {"event": "view", "ts": time.time(), "item_id": "closing"}
        who = {"session_id" if anonymous else "user_id": text}
        pairs[record.key] = text.encode(), orjson.dumps(event | who)
    await cluster.load.send(list(pairs.values()))


def main(arguments: Sequence[str]) -> int:
    """Run and report; 0 when every guarantee held."""
    parser = argparse.ArgumentParser("python -m faults.failover", description=__doc__)
    parser.add_argument("--mode", choices=tuple(STORES), default="sentinel")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=2 * len(WAYS), help="fail-overs")
    parser.add_argument("--rate", type=float, default=300.0, help="events per second")
    given = parser.parse_args(arguments)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    options = Options(given.seed, 1, given.rate, (), 0, dirty=0.02)
    verdict, waits, rolled_back = asyncio.run(run(options, given.mode, given.times))
    for example in verdict.examples:
        console.print(f"WRONG: {example}", markup=False)
    line = {
        "mode": given.mode,
        "fail_overs": len(waits),
        "recovery_s": [round(wait, 1) for wait in waits],
        "rolled_back_partitions": rolled_back,
        **verdict.counts,
        "passed": verdict.passed and len(waits) == given.times,
        "seed": given.seed,
    }
    print(orjson.dumps(line).decode(), flush=True)
    return 0 if line["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
