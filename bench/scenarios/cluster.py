"""Events per second of the full job on a Redis Cluster of three on loopback, beside one server."""

import asyncio
from contextlib import ExitStack

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import Place
from bench.options import Options
from bench.results import Result, flat, median_of
from bench.servers import one_redis, redis_cluster, start_broker

EVENTS, WARM = 200_000, 80_000
KINDS = {"one server": one_redis, "cluster of 3": redis_cluster}


def run(options: Options) -> Result:
    """Both in turn."""
    contender = registry.pipeline(options.events(EVENTS), options.events(WARM))
    found: dict[str, list[dict[str, object]]] = {name: [] for name in KINDS}
    with ExitStack() as stack:
        broker = start_broker(stack)
        load = Load(contender.events)
        asyncio.run(fill(load, broker.bootstrap, "clickstream"))
        place = Place(broker, "clickstream", load.partitions)
        for _ in range(options.runs):
            for name, kind in KINDS.items():
                found[name].append(contest.run(contender, place, redis_kind=kind)[0].as_json())
    medians = {name: median_of(runs) for name, runs in found.items()}
    rows = [{"redis": name} | flat(median) for name, median in medians.items()]
    one, three = (median["events_per_second"] for median in medians.values())
    summary = {"cluster_to_one_server": round(three / one, 3)} | medians
    notes = [f"broker: {broker.kind}"]
    return Result(summary, rows, ("redis", "events_per_second"), notes, runs=options.runs)
