"""Microseconds of the worker's CPU by stage, for large batches and for small ones."""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from bench.contest import ROOT, python_module
from bench.options import Options
from bench.results import Result
from bench.servers import Broker, one_redis, start_broker

EVENTS, WARM, LARGE = 200_000, 100_000, 2_000
SMALL_EVENTS, SMALL_WARM, SMALL = 12_000, 4_000, 16  # what a lightly loaded worker gets at a time


def measured(
    broker: Broker,
    redis_url: str,
    *,
    events: int,
    warm: int,
    batch: int,
    items: int = 10_000,
    customers: int = 20_000,
    file: Path | None = None,
) -> dict[str, Any]:
    """Run :mod:`bench.inprocess` in a fresh process."""
    words = [*map(str, (events, warm, batch, items, customers)), *([str(file)] if file else [])]
    command = python_module("bench.inprocess", broker.bootstrap, redis_url, *words)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"bench.inprocess failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return found


def run(options: Options) -> Result:
    """Both sizes, each on an empty server."""
    n = options.events
    with ExitStack() as stack:
        broker = start_broker(stack)
        with one_redis() as servers:
            large = measured(broker, servers.url, events=n(EVENTS), warm=n(WARM), batch=LARGE)
        with one_redis() as servers:
            small = measured(
                broker, servers.url, events=n(SMALL_EVENTS), warm=n(SMALL_WARM), batch=SMALL
            )
    few = {row["stage"]: row for row in small["stages"]}
    rows = [
        row
        | {
            "small_cpu_us_per_event": few.get(row["stage"], {}).get("cpu_us_per_event"),
            "small_cpu_us_per_call": few.get(row["stage"], {}).get("cpu_us_per_call"),
        }
        for row in large["stages"]
    ]
    summary = {
        "batch": LARGE,
        "small_batch": SMALL,
        "lists_per_event": round(large["lists"] / large["events"], 3),
        "cpu_us_per_event": {row["stage"]: row["cpu_us_per_event"] for row in rows},
        "small_cpu_us_per_call": {row["stage"]: row["small_cpu_us_per_call"] for row in rows},
    }
    notes = [
        f"batches of {LARGE} events, in columns small_* of {SMALL}; one after the other, by one"
        " process; > is part of the stage before it",
        "store and log are parts of LEARN > publish, LEARN and RELATE; log: send is inclusive, and"
        " as a batch sends to all partitions side by side it counts the same time several times",
    ]
    return Result(summary, rows, ("stage", "cpu_us_per_event"), notes)
