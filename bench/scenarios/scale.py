"""Events per second by workers, by partitions, and by numbers of items and customers."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contest import Place, Running
from bench.memory import used
from bench.options import Options
from bench.processes import resident_mb
from bench.results import Result, flat
from bench.servers import Broker, start_broker

EVENTS, WARM = 200_000, 80_000


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
        # A million customers are only there when a million events have named them.
        n = max(events, min(3 * size, options.events(1_200_000)))
        load = Load(n, n_items=size, n_customers=size, rate=max(1_000.0, size / 50.0))
        found.append(Case("items_and_customers", size, load, n - events + warm))
    return found


def run(options: Options) -> Result:
    """Each case once on a topic of its own; one broker for those with the same load."""
    rows = []
    for series in ("workers", "partitions", "items_and_customers"):
        with ExitStack() as stack:
            broker = start_broker(stack)
            topics: dict[Load, str] = {}
            for case in cases(options):
                if case.series == series:
                    if case.load not in topics:
                        topics[case.load] = f"clickstream-{len(topics)}"
                        asyncio.run(fill(case.load, broker.bootstrap, topics[case.load]))
                    rows.append(_measured(case, broker, topics[case.load]))
    summary: dict[str, Any] = {}
    for row in rows:
        summary.setdefault(row["series"], {})[str(row["at"])] = row["events_per_second"]
    sizes = summary["items_and_customers"]
    summary["from_1e4_to_1e6"] = round(sizes["1000000"] / sizes["10000"], 3)
    notes = [f"broker: {broker.kind}", "one run of each case"]
    return Result(
        summary,
        [{"case": f"{r['series']} {r['at']:,}"} | r for r in rows],
        ("case", "events_per_second"),
        notes,
    )


def _measured(case: Case, broker: Broker, topic: str) -> dict[str, Any]:
    def memory(running: Running) -> dict[str, Any]:
        return {
            "worker_mb": round(resident_mb(running.parts["worker"]), 1),
            "redis_mb": round(used(running.servers.url)["used_memory"] / 2**20, 1),
        }

    place = Place(broker, topic, case.load.partitions)
    contender = registry.pipeline(
        case.load.events, case.warm, workers=case.workers, timeout_s=600.0
    )
    window, found = contest.run(contender, place, afterwards=memory)
    return {"series": case.series, "at": case.at} | flat(window.as_json()) | found
