"""Events per second, and milliseconds to lists, by workers, partitions, items and customers."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import Place, Running
from bench.loadgen import LoadGenerator
from bench.measure import Window
from bench.memory import by_kind, keys, used
from bench.options import Options
from bench.processes import resident_mb
from bench.results import Result, flat
from bench.scenarios.freshness import measures
from bench.servers import Broker, start_broker

EVENTS, WARM = 200_000, 80_000
SIZES = "items_and_customers"
# The same traffic on shops of every size; in the small ones a customer comes again sooner.
SIZED_RATE = 200.0
# Events before it, which name customers and items of the shop. Who comes once comes again: so many
# name about 190,000 of a million customers and 220,000 of as many items, 2.5 times as many 280,000.
PAST_MAX = 1_200_000
FRESH_RATE = 1_000.0  # events per second, the same for every case
FRESH_WARM_S, FRESH_S = 4.0, 12.0


@dataclass(frozen=True, slots=True)
class Case:
    """One point of a series."""

    series: str
    at: int
    load: Load
    warm: int
    workers: int = 1


def cases(options: Options) -> list[Case]:
    """Workers and partitions on the usual load; sizes on as many events as fill them."""
    events, warm = options.events(EVENTS), options.events(WARM)
    sixteen = Load(events, partitions=16)
    found = [Case("workers", n, sixteen, warm, n) for n in (1, 2, 4)]
    found += [Case("partitions", n, Load(events, partitions=n), warm) for n in (1, 4, 16)]
    for exponent in (3, 4, 5, 6):
        size = 10**exponent
        past = min(3 * size, options.events(PAST_MAX))
        load = Load(past + events, n_items=size, n_customers=size, rate=SIZED_RATE, past=past)
        found.append(Case(SIZES, size, load, past + warm))
    return found


def run(options: Options) -> Result:
    """Each case once on a topic of its own; one broker for each series."""
    rows = []
    for series in ("workers", "partitions", SIZES):
        with ExitStack() as stack:
            broker = start_broker(stack)
            for case in cases(options):
                if case.series == series:
                    topic = f"clickstream-{case.at}"
                    asyncio.run(fill(case.load, broker.bootstrap, topic))
                    rows.append(_measured(case, broker, topic, options.scale))
    summary: dict[str, Any] = {}
    for row in rows:
        summary.setdefault(row["series"], {})[str(row["at"])] = row["events_per_second"]
    sizes = summary[SIZES]
    summary["from_1e4_to_1e6"] = round(sizes["1000000"] / sizes["10000"], 3)
    listed = {row["at"]: row["lists_per_second"] for row in rows if row["series"] == SIZES}
    summary["lists_from_1e4_to_1e6"] = round(listed[10**6] / listed[10**4], 3)
    notes = [
        f"broker: {broker.kind}",
        f"one run of each case; sizes and workers on {Load(1).partitions} and 16 partitions",
        "customers and items are those that have state in Redis after it",
        f"p50_ms, p99_ms: from when an event is due to its list on the topic and in Redis, at"
        f" {FRESH_RATE:,.0f} events/s after the backlog, as in `freshness`",
    ]
    return Result(
        summary,
        [{"case": f"{r['series']} {r['at']:,}"} | r for r in rows],
        ("case", "events_per_second"),
        notes,
    )


def _measured(case: Case, broker: Broker, topic: str, scale: float) -> dict[str, Any]:
    def left_behind(running: Running, window: Window) -> dict[str, Any]:
        lists = asyncio.run(_lists_since(window.began_at, running, place))
        kinds = by_kind(running.servers.url)
        customers, items = (
            int(kinds.get(kind, {"keys": 0})["keys"]) for kind in ("customer state", "item state")
        )
        found = {
            "customers": customers,
            "items": items,
            "lists_per_event": round(lists / window.events, 3),
            "lists_per_second": round(lists / window.seconds, 1),
            "worker_mb": round(resident_mb(running.parts["worker"]), 1),
            "redis_mb": round(used(running.servers.url)["used_memory"] / 2**20, 1),
            "redis_keys": keys(running.servers.url),
        }
        return found | asyncio.run(_freshness(case, running, place, scale))

    place = Place(broker, topic, case.load.partitions)
    contender = registry.pipeline(
        case.load.events, case.warm, workers=case.workers, timeout_s=600.0
    )
    window, found = contest.run(contender, place, afterwards=left_behind)
    return {"series": case.series, "at": case.at} | flat(window.as_json()) | found


async def _freshness(case: Case, running: Running, place: Place, scale: float) -> dict[str, Any]:
    """The same shop goes on, at the same rate in every case."""
    warm_s, seconds = (max(s * scale, 2.0) for s in (FRESH_WARM_S, FRESH_S))
    more = int(FRESH_RATE * warm_s) + int(FRESH_RATE * seconds)
    there = case.load.events
    generator = LoadGenerator(
        place.broker.bootstrap,
        running.servers.nodes[0],
        topic=place.topic,
        lists_topic=running.settings["STREAM_APP_RECOMMENDATIONS_TOPIC"],
        partitions=place.partitions,
        records=replace(case.load, events=there + more).records(),
        there=there,
    )
    async with generator:
        await generator.run(FRESH_RATE, warm_s)
        found = measures(await generator.run(FRESH_RATE, seconds))
    return {name: found[name] for name in ("p50_ms", "p99_ms", "missing")}


async def _lists_since(began_at: float, running: Running, place: Place) -> int:
    """Customers' records on the topic of lists since ``began_at``."""
    topic = running.settings["STREAM_APP_RECOMMENDATIONS_TOPIC"]
    tps = [TopicPartition(topic, p) for p in range(place.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=place.broker.bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(tps)
        begins = await consumer.offsets_for_times(dict.fromkeys(tps, int(began_at * 1000)))
        return sum(ends[tp] - begins[tp].offset for tp in tps if begins[tp] is not None)
    finally:
        await consumer.stop()
