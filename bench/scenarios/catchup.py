"""Events per second over a backlog of a million events, in all and part by part."""

import asyncio
from contextlib import ExitStack
from typing import Any

from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import SETTLE_S, Place, started
from bench.measure import cpu_per_event, observe, window, with_total
from bench.options import Options
from bench.processes import resident_mb
from bench.results import Result, flat
from bench.servers import start_broker

EVENTS, WARM = 1_000_000, 50_000
PARTS = 5


def run(options: Options) -> Result:
    """One worker, one time."""
    events, warm = options.events(EVENTS), options.events(WARM)
    with ExitStack() as stack:
        broker = start_broker(stack)
        load = Load(events, n_customers=100_000, rate=5_000.0)
        asyncio.run(fill(load, broker.bootstrap, "clickstream"))
        place = Place(broker, "clickstream", load.partitions)
        running = stack.enter_context(started(registry.pipeline(events, warm), place))
        samples = observe(
            running.progress,
            running.parts,
            running.workers,
            warm=warm,
            total=events,
            settle_s=SETTLE_S,
            timeout_s=600.0,
        )
        whole = window(samples, running.parts, warm=warm, total=events)
        memory_mb = resident_mb(running.parts["worker"])
        rows = [{"part": "all"} | flat(whole.as_json())]
        for number in range(PARTS):
            low, high = (warm + (events - warm) * edge // PARTS for edge in (number, number + 1))
            begin = next(s for s in samples if s.counts.applied >= low)
            end = next(s for s in samples if s.counts.applied >= high)
            done = end.counts.applied - begin.counts.applied
            row: dict[str, Any] = {"part": f"{number + 1}/{PARTS}", "events_per_second": None}
            if done:  # a trial may be over in fewer steps
                cpu = cpu_per_event(running.parts, begin.cpu_us, end.cpu_us, done)
                row["events_per_second"] = done / (end.at_s - begin.at_s)
                row |= flat({"cpu_us_per_event": with_total(cpu)})
            rows.append(row)
    summary = whole.as_json() | {
        "first_to_last": [row["events_per_second"] for row in rows[1:]],
        "worker_resident_mb": round(memory_mb, 1),
    }
    return Result(summary, rows, ("part", "events_per_second"), [f"broker: {broker.kind}"])
