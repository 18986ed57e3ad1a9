"""Events per second of the full job by one worker, broker and Redis on the same machine."""

import asyncio
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from bench import contest
from bench.backlog import Load, fill
from bench.contenders import registry
from bench.contenders.registry import CannotRun
from bench.contest import BATCH, ROOT, Contender, Place, python_module
from bench.machine import versions_of
from bench.measure import ContenderFailed
from bench.options import Options
from bench.prime import Prime
from bench.results import Result, flat, median_of
from bench.servers import start_broker
from bench.tape import Tape
from stream_app.core.model import PREVIOUS_MAX

# A window ends up to two seconds after its last event, which more events would make less of. But
# tables fill with them, and those of the peers do not: they get few.
EVENTS, WARM = 700_000, 100_000
PEER_EVENTS, PEER_WARM = 150_000, 30_000  # their progress moves in steps of up to BATCH
NAIVE_EVENTS, NAIVE_WARM, NAIVE_PREVIOUS = 2_500, 500, 5
PRIME_EVENTS = 100_000
TAPE_EVENTS = 260_000
TOTALS_US = "cpu_us_per_event"


def compete(options: Options, *, names: set[str] | None = None) -> Result:
    """All contenders in turn, ``options.runs`` times; medians."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        tape_path = directory / "tape"
        tape = _record(tape_path, options.events(TAPE_EVENTS))
        contenders = [
            c for c in _contenders(options, tape_path) if names is None or c.name in names
        ]
        broker = start_broker(stack)
        load = Load(options.events(EVENTS))
        primed = min(options.events(PRIME_EVENTS), load.events // 2)
        asyncio.run(fill(load, broker.bootstrap, "clickstream"))
        asyncio.run(fill(load, broker.bootstrap, "clickstream-tail", skip=primed))
        prime = Prime(islice(load.records(), primed))
        place = Place(broker, "clickstream", load.partitions, "clickstream-tail", prime)
        found, failed = _rounds(contenders, place, options.runs)
    result = _result(contenders, found, failed, tape, broker.kind)
    python, pom = registry.PEERS / "bin" / "python", ROOT / "bench" / "kafka_streams" / "pom.xml"
    return replace(result, runs=options.runs, versions=versions_of(found, python, pom))


def run(options: Options) -> Result:
    """See the module."""
    return compete(options)


def _contenders(options: Options, tape: Path) -> list[Contender]:
    n = options.events
    # A small scale shortens the warm-up too: its share stays what it is.
    naive = n(NAIVE_EVENTS), n(NAIVE_EVENTS) * NAIVE_WARM // NAIVE_EVENTS
    return [
        registry.pipeline(n(EVENTS), n(WARM)),
        registry.pipeline_one_list(n(EVENTS), n(WARM), tape.with_name("one_list.toml")),
        registry.floor(n(EVENTS), n(WARM), tape),
        registry.naive(*naive, NAIVE_PREVIOUS),
        registry.naive(*naive, PREVIOUS_MAX),
        *registry.peers(n(PEER_EVENTS), n(PEER_WARM)),
        registry.kafka_streams(n(2 * WARM), n(WARM)),
    ]


def _record(path: Path, events: int) -> Tape:
    command = python_module("bench.tape", str(path), str(events), str(BATCH))
    subprocess.run(command, cwd=ROOT, check=True)
    return Tape.read(path)


def _rounds(
    contenders: list[Contender], place: Place, runs: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Interleaved: every contender once in each round, so that a noisy minute hits all alike."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    failed: dict[str, str] = {}
    for number in range(runs):
        for contender in (
            contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
        ):
            if contender.name in failed:
                continue
            try:
                window, _ = contest.run(contender, place)
            except (ContenderFailed, CannotRun) as exc:
                failed[contender.name] = str(exc)
            else:
                found[contender.name].append(window.as_json())
                print(f"{number + 1}/{runs} {contender.title}: {window.events_per_second:,.0f}/s")
    return found, failed


def _ratios(ours: Mapping[str, Any], rivals: Mapping[str, float | None]) -> dict[str, float | None]:
    rate = ours.get("events_per_second")
    return {
        name: round(rate / other, 3) if rate and other else None for name, other in rivals.items()
    }


def _result(
    contenders: list[Contender],
    found: dict[str, list[dict[str, Any]]],
    failed: dict[str, str],
    tape: Tape,
    broker: str,
) -> Result:
    medians = {name: median_of(runs) for name, runs in found.items()}
    for name in ("pipeline", "pipeline_one_list", "floor"):  # they do not count; the recording did
        if name in medians:
            medians[name]["pairs_per_event"] = round(tape.pairs_per_event, 3)
            medians[name]["lists_per_event"] = round(tape.lists_per_event, 3)
    if "floor" in medians:
        medians["floor"]["pairs_per_event"] = 0.0
    rates = {name: median["events_per_second"] for name, median in medians.items()}
    peers = {c.name for c in contenders if c.primed and not c.name.startswith("naive")}
    rivals = {
        "naive": rates.get(f"naive_{NAIVE_PREVIOUS}"),
        "naive_same_pairs": rates.get(f"naive_{PREVIOUS_MAX}"),
        "floor": rates.get("floor"),
        "best_python_peer": max((rates[name] for name in peers & rates.keys()), default=None),
        "kafka_streams": rates.get("kafka_streams"),
    }
    ours, alike = medians.get("pipeline", {}), medians.get("pipeline_one_list", {})
    summary = {
        "events_per_second": ours.get("events_per_second"),
        "cpu_us_per_event": ours.get(TOTALS_US, {}).get("total"),
        "cpu_us_per_event_by_process": ours.get(TOTALS_US),
        "ratio": _ratios(ours, rivals),
        "ratio_one_list": _ratios(alike, rivals),
        "pairs_per_event": {name: m.get("pairs_per_event") for name, m in medians.items()},
        "broker": broker,
        "failed": failed,
    }
    rows = [{"contender": c.title} | flat(medians[c.name]) for c in contenders if c.name in medians]
    spread = {name: [run["events_per_second"] for run in runs] for name, runs in found.items()}
    notes = [f"broker: {broker}", *(f"{name} did not run: {why}" for name, why in failed.items())]
    notes += [f"runs of {name}: {values}" for name, values in spread.items()]
    return Result(summary, rows, ("contender", "events_per_second"), notes)
