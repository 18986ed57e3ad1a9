"""Events per second over a backlog of a million events, in all and part by part."""

import asyncio
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import SETTLE_S, Place, started
from bench.measure import cpu_per_event, observe, window, with_total
from bench.options import Options
from bench.processes import resident_mb
from bench.results import Result, flat, median_of
from bench.servers import start_broker

EVENTS, WARM = 1_000_000, 50_000
_PARTS = ("1/5", "2/5", "3/5", "4/5", "5/5")


def run(options: Options) -> Result:
    """One worker with an empty store, ``options.runs`` times; medians."""
    events, warm = options.events(EVENTS), options.events(WARM)
    with ExitStack() as stack:
        broker = start_broker(stack)
        load = Load(events, n_customers=100_000, rate=5_000.0)
        asyncio.run(fill(load, broker.bootstrap, "clickstream"))
        place = Place(broker, "clickstream", load.partitions)
        found = median_of([_once(place, events, warm) for _ in range(options.runs)])
    rows = [{"part": part} | flat(found[part]) for part in ("all", *_PARTS)]
    summary = found["all"] | {
        "first_to_last": [found[part]["events_per_second"] for part in _PARTS],
        "worker_resident_mb": round(found["worker_mb"], 1),
    }
    notes = [f"broker: {broker.kind}"]
    return Result(summary, rows, ("part", "events_per_second"), notes, runs=options.runs)


def _once(place: Place, events: int, warm: int) -> dict[str, Any]:
    """The whole backlog, its parts and the worker's memory at the end."""
    with started(registry.pipeline(events, warm), place) as running:
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
        found: dict[str, Any] = {"all": whole.as_json()}
        found["worker_mb"] = resident_mb(running.parts["worker"])
    edges = [warm + (events - warm) * edge // len(_PARTS) for edge in range(len(_PARTS) + 1)]
    for part, (low, high) in zip(_PARTS, pairwise(edges), strict=True):
        begin = next(s for s in samples if s.counts.applied >= low)
        end = next(s for s in samples if s.counts.applied >= high)
        done = end.counts.applied - begin.counts.applied  # a trial may be over in fewer steps
        cpu = cpu_per_event(running.parts, begin.cpu_us, end.cpu_us, max(done, 1))
        found[part] = {
            "events_per_second": done / max(end.at_s - begin.at_s, 1e-9),
            "cpu_us_per_event": with_total(cpu),
        }
    return found
