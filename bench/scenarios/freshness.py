"""Milliseconds from when an event is due at the broker to its customer's list, topic and Redis."""

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import Place, Running
from bench.loadgen import LoadGenerator, Phase
from bench.measure import cpu_per_event, observe, usage, window, with_total
from bench.options import Options
from bench.results import Result, flat, median_of
from bench.servers import start_broker
from stream_app.settings import load_settings

LOADS = (0.25, 0.5, 0.75, 0.9)
RATES = (500.0, 1_000.0, 2_000.0, 4_000.0)  # events a second, whatever the maximum is
WARM_EVENTS = 120_000
LOAD_EVENTS = 10**9  # more than is ever sent; made as needed
WARM_S, SATURATION_S, PHASE_S, REST_S = 30.0, 12.0, 10.0, 2.0
WARM_SHARE = 0.25  # of the rate from the backlog: until the broker has compiled itself
PARTITIONS = load_settings({}).clickstream_partitions  # as the product comes
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}


def run(options: Options) -> Result:
    """Warm up, find the maximum with everything running, then each rate and load in turn."""
    warm = options.events(WARM_EVENTS)
    load = Load(LOAD_EVENTS, partitions=PARTITIONS)
    with ExitStack() as stack:
        broker = start_broker(stack)
        backlog = Load(warm, partitions=PARTITIONS)
        asyncio.run(fill(backlog, broker.bootstrap, "clickstream"))
        place = Place(broker, "clickstream", load.partitions)
        contender = registry.pipeline(warm, warm // 2)
        running = stack.enter_context(contest.started(contender, place))
        samples = observe(
            running.progress,
            running.parts,
            running.workers,
            warm=contender.warm,
            total=warm,
            settle_s=contest.SETTLE_S,
        )
        from_backlog = window(samples, running.parts, warm=contender.warm, total=warm)
        return asyncio.run(
            _loads(options, load, warm, running, place, from_backlog.events_per_second)
        )


async def _loads(
    options: Options, load: Load, warm: int, running: Running, place: Place, backlog_rate: float
) -> Result:
    generator = LoadGenerator(
        place.broker.bootstrap,
        running.servers.nodes[0],
        topic=place.topic,
        lists_topic=running.settings["STREAM_APP_RECOMMENDATIONS_TOPIC"],
        partitions=load.partitions,
        records=load.records(),
        there=warm,
    )
    async with generator:
        await generator.run(WARM_SHARE * backlog_rate, max(WARM_S * options.scale, 2.0))
        await asyncio.sleep(REST_S)
        maximum = await _maximum(generator, running, backlog_rate, options.scale)
        rates = (*RATES, *(share * maximum for share in LOADS))
        seconds = max(PHASE_S * options.scale, 2.0)
        rounds = [
            [await _phase(generator, running, rate, seconds) for rate in rates]
            for _ in range(options.runs)
        ]
    rows = [
        {"load": round(rate / maximum, 3), "events_per_second": rate} | median_of(column)
        for rate, column in zip(rates, zip(*rounds, strict=True), strict=True)
    ]
    summary = {
        "maximum_events_per_second": round(maximum, 1),
        "backlog_events_per_second": round(backlog_rate, 1),
        "loads": rows[len(RATES) :],
        "rates": rows[: len(RATES)],
    }
    notes = [
        f"broker: {place.broker.kind}",
        "the maximum is what the worker sustains while the load generator and both readers use the"
        f" same cores; alone, from a backlog, it did {backlog_rate:,.0f} events/s",
        f"{PARTITIONS} partitions, the default; p50_ms ... are the slower of topic and Redis",
        "CPU is per event sent, until all were answered; what the generator and its readers ask of"
        " broker and Redis is in it",
    ]
    return Result(summary, rows, ("load", "p99_ms"), notes, runs=options.runs)


async def _phase(
    generator: LoadGenerator, running: Running, rate: float, seconds: float
) -> dict[str, Any]:
    await asyncio.sleep(REST_S)
    before = usage(running.parts)
    phase = await generator.run(rate, seconds)
    cpu = cpu_per_event(running.parts, before, usage(running.parts), len(phase.sent))
    return measures(phase) | flat({"cpu_us_per_event": with_total(cpu)})


async def _maximum(
    generator: LoadGenerator, running: Running, backlog_rate: float, scale: float
) -> float:
    """Applied events per second while more than that is offered."""
    seconds = max(SATURATION_S * scale, 2.0)
    sending = asyncio.create_task(generator.run(1.2 * backlog_rate, seconds))
    await asyncio.sleep(0.25 * seconds)  # the queue has built up
    before, began = running.progress().applied, time.monotonic()
    await asyncio.sleep(0.6 * seconds)
    after, ended = running.progress().applied, time.monotonic()
    await sending
    return (after - before) / (ended - began)


def measures(phase: Phase) -> dict[str, Any]:
    """Percentiles of a phase in milliseconds, and how many events they are of."""
    topic_s, missing = phase.topic_s()
    read_s = np.array(phase.read_s)
    topic, read = _percentiles(topic_s), _percentiles(read_s)
    worst = {f"{name}_ms": max(topic[name], read[name]) for name in PERCENTILES}
    return worst | {
        **{f"topic_{name}_ms": value for name, value in topic.items()},
        **{f"redis_{name}_ms": value for name, value in read.items()},
        "events": len(phase.sent),
        "missing": missing,
        "redis_samples": len(read_s),
        "redis_unread": phase.unread,
    }


def _percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    if not len(seconds):
        return dict.fromkeys(PERCENTILES, float("inf"))
    values = np.percentile(seconds * 1000.0, list(PERCENTILES.values()))
    return {name: round(float(v), 2) for name, v in zip(PERCENTILES, values, strict=True)}
