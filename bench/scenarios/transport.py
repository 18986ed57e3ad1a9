"""Events per second from Kafka to an empty handler: our micro-batch transport and stock Faust."""

import asyncio
from contextlib import ExitStack

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import Place
from bench.options import Options
from bench.results import Result, flat, median_of
from bench.servers import start_broker

EVENTS, WARM = 1_000_000, 200_000
STOCK_EVENTS, STOCK_WARM = 30_000, 5_000


def run(options: Options) -> Result:
    """Both in turn."""
    n = options.events
    contenders = [
        registry.transport(n(EVENTS), n(WARM)),
        registry.stock(n(STOCK_EVENTS), n(STOCK_WARM)),
    ]
    with ExitStack() as stack:
        broker = start_broker(stack)
        load = Load(n(EVENTS))
        asyncio.run(fill(load, broker.bootstrap, "clickstream"))
        place = Place(broker, "clickstream", load.partitions)
        runs = [
            [contest.run(contender, place)[0].as_json() for contender in contenders]
            for _ in range(options.runs)
        ]
    medians = [median_of(column) for column in zip(*runs, strict=True)]
    rows = [
        {"contender": c.title} | flat(median) for c, median in zip(contenders, medians, strict=True)
    ]
    summary = {c.name: median for c, median in zip(contenders, medians, strict=True)}
    notes = [f"broker: {broker.kind}"]
    return Result(summary, rows, ("contender", "events_per_second"), notes, runs=options.runs)
