"""Resident memory and rate through hours of a steady load by a constant population of customers."""

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import Place, Running
from bench.loadgen import LoadGenerator
from bench.measure import ContenderFailed, cpu_per_event, usage, with_total
from bench.memory import used
from bench.options import Options
from bench.processes import resident_mb
from bench.results import Result, flat
from bench.servers import start_broker

RATE = 5_000.0  # events per second: about half of what two shared cores sustain
SLICE_S = 60.0
PAST = 4_000_000  # events before: all customers are known, and nearly all neighbour tables full
PARTITIONS = 8
DEADLINE_S = 300.0


def run(options: Options) -> Result:
    """``SOAK_SECONDS`` in slices of a minute; the first tenth is warm-up."""
    past = options.events(PAST)
    with ExitStack() as stack:
        broker = start_broker(stack)
        asyncio.run(fill(Load(past, past=past), broker.bootstrap, "clickstream"))
        place = Place(broker, "clickstream", PARTITIONS)
        running = stack.enter_context(contest.started(registry.pipeline(past, 1), place))
        _wait_for(past, running)
        rows = asyncio.run(_slices(options, running, place))
    kept = rows[len(rows) // 10 :] if len(rows) >= 10 else rows
    hours = max((kept[-1]["at_s"] - kept[0]["at_s"]) / 3600.0, 1e-9)
    summary = {
        "seconds": rows[-1]["at_s"],
        "worker_mb_per_hour": _slope(kept, "worker_mb") if len(kept) > 1 else None,
        "redis_mb_per_hour": _slope(kept, "redis_mb") if len(kept) > 1 else None,
        "redis_rss_mb_per_hour": _slope(kept, "redis_rss_mb") if len(kept) > 1 else None,
        "rate_last_to_first": round(kept[-1]["applied_per_s"] / kept[0]["applied_per_s"], 3),
        "hours_after_warm_up": round(hours, 3),
    }
    notes = [
        f"broker: {broker.kind}",
        "redis_mb is what Redis says it uses, redis_rss_mb its resident memory; CPU is per event"
        " applied in the slice, by process",
    ]
    return Result(summary, rows, ("at_s", "worker_mb"), notes)


def _slope(rows: list[dict[str, Any]], name: str) -> float:
    at_h = np.array([row["at_s"] for row in rows]) / 3600.0
    return round(float(np.polyfit(at_h, [row[name] for row in rows], 1)[0]), 2)


def _wait_for(past: int, running: Running) -> None:
    """Until the events before are applied."""
    deadline = time.monotonic() + DEADLINE_S
    while running.progress().applied < past:
        if time.monotonic() > deadline or running.workers[0].poll() is not None:
            raise ContenderFailed(f"{running.progress().applied} of {past} events before")
        time.sleep(0.1)


async def _slices(options: Options, running: Running, place: Place) -> list[dict[str, Any]]:
    past = options.events(PAST)
    generator = LoadGenerator(
        place.broker.bootstrap,
        running.servers.nodes[0],
        topic=place.topic,
        lists_topic=running.settings["STREAM_APP_RECOMMENDATIONS_TOPIC"],
        partitions=PARTITIONS,
        # For ever, by one shop: the population stays, time goes on.
        records=Load(10**9, past=past).records(),
        there=past,
    )
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    async with generator:
        while time.monotonic() - started < options.soak_s:
            before, cpu, at = _now(running)
            length_s = min(SLICE_S, options.soak_s)
            phase = await generator.run(RATE * options.scale, length_s, probe=False)
            after, used_us, ended = _now(running)
            topic_s, missing = phase.topic_s()
            redis = used(running.servers.url)
            each = cpu_per_event(running.parts, cpu, used_us, max(after - before, 1))
            rows.append(
                {
                    "at_s": round(ended - started, 1),
                    "applied_per_s": round((after - before) / (ended - at), 1),
                    "worker_mb": round(resident_mb(running.parts["worker"]), 1),
                    "redis_mb": round(redis["used_memory"] / 2**20, 2),
                    "redis_rss_mb": round(redis["used_memory_rss"] / 2**20, 2),
                    **flat({"cpu_us_per_event": with_total(each)}),
                    "p99_ms": round(float(np.percentile(topic_s, 99)) * 1e3, 1),
                    "missing": missing,
                }
            )
    return rows


def _now(running: Running) -> tuple[int, tuple[float, ...], float]:
    return running.progress().applied, usage(running.parts), time.monotonic()
