"""``python -m faults``, which is ``make faults``; exit code 0 when every guarantee held, else 1."""

import asyncio
import logging
import math
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from faults.catalogue import STRIKES
from faults.checks import Verdict, verdict
from faults.cluster import Cluster
from faults.options import Options, parsed
from faults.schedule import WORKERS, Fault, schedule

RECOVERY_TIMEOUT_S = 60.0
FINAL_TIMEOUT_S = 90.0
WARM_UP_TIMEOUT_S = 120.0

console = Console(width=110, highlight=False)


@dataclass(slots=True)
class Struck:
    """A fault that was made: how long it lasted, and how long until all before its end applied."""

    fault: Fault
    seconds: float
    recovery_s: float | None = None  # not waited for


async def run(options: Options, *, keep_logs: Path | None = None) -> tuple[list[Struck], Verdict]:
    """Make the faults of a schedule and check; stops everything it started, also when cancelled."""
    cluster = Cluster(options)
    try:
        await cluster.start()
        late = await first_events(cluster)
        struck: list[Struck] = []
        until = time.monotonic() + 60 * options.minutes
        for fault in [] if late else schedule(options):
            if time.monotonic() > until:
                break
            struck.append(await _strike(cluster, fault))
        if keep_logs is not None and any(s.recovery_s == math.inf for s in struck):
            _keep(cluster, keep_logs)
        return struck, await finished(cluster, late, keep_logs)
    except Exception:
        if keep_logs is not None:
            _keep(cluster, keep_logs)
        raise
    finally:
        await cluster.close()


async def finished(
    cluster: Cluster, late: Mapping[tuple[str, int], int], keep_logs: Path | None
) -> Verdict:
    """Let everything come to its end and check it; ``late`` is what never began to be applied."""
    await cluster.load.stop()
    rest = late or await cluster.settled(timeout_s=FINAL_TIMEOUT_S)
    exits = {w.name: w.exits for w in cluster.workers if w.exits}
    if exits:
        console.print(f"workers ended by themselves and were started again: {exits}")
    await cluster.stop_watching()
    codes = [await worker.stop() for worker in cluster.workers[:WORKERS]]
    result = await verdict(cluster)
    for place, n in rest.items():
        result.counts["lost"] += n
        result.note(f"{place[0]}-{place[1]}: {n} records were not applied in time")
    if any(codes):
        result.note(f"workers ended with {codes} when they were stopped in order")
    if (exits or not result.passed) and keep_logs is not None:
        _keep(cluster, keep_logs)
    return result


async def first_events(cluster: Cluster) -> dict[tuple[str, int], int]:
    """Wait until the group works."""
    await asyncio.sleep(2)
    return await cluster.caught_up(await cluster.ends(), timeout_s=WARM_UP_TIMEOUT_S)


async def _strike(cluster: Cluster, fault: Fault) -> Struck:
    await asyncio.sleep(fault.gap_s)
    began = time.monotonic()
    await STRIKES[fault.kind](cluster, fault)
    ended = time.monotonic()
    struck = Struck(fault, ended - began)
    if not fault.overlaps:
        rest = await cluster.caught_up(await cluster.ends(), timeout_s=RECOVERY_TIMEOUT_S)
        struck.recovery_s = math.inf if rest else time.monotonic() - ended
        for worker in cluster.workers if rest else ():
            worker.log_tasks()
    shown = "not waited for" if struck.recovery_s is None else f"{struck.recovery_s:.1f} s"
    console.print(
        f"{fault.number:3d} {fault.kind:<26} worker {fault.worker} strength {fault.strength:.2f}"
        f"  lasted {struck.seconds:4.1f} s  recovery {shown}  sent {cluster.load.sent:,}"
    )
    return struck


def _keep(cluster: Cluster, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for log in (*cluster.dir.glob("*.log"), *cluster.dir.glob("*/valkey.log")):
        name = log.name if log.parent == cluster.dir else f"{log.parent.name}.log"
        shutil.copy(log, folder / name)
    console.print(f"the logs are in {folder}")


def report(options: Options, struck: Sequence[Struck], result: Verdict) -> None:
    """Print the table, what is wrong, and one JSON object as the last line."""
    table = Table("kind", "faults", "lasted s", "recovery s: median", "worst", title="Faults")
    by_kind = Counter(s.fault.kind for s in struck)
    for kind, n in sorted(by_kind.items()):
        mine = [s for s in struck if s.fault.kind == kind]
        waits = sorted(s.recovery_s for s in mine if s.recovery_s is not None)
        middle, worst = (f"{waits[len(waits) // 2]:.1f}", f"{waits[-1]:.1f}") if waits else "--"
        lasted = sum(s.seconds for s in mine) / n
        table.add_row(kind, str(n), f"{lasted:.1f}", middle, worst)
    console.print(table)
    for example in result.examples:
        console.print(f"WRONG: {example}", markup=False)
    line = {
        "faults": len(struck),
        **result.counts,
        "passed": result.passed,
        "seed": options.seed,
        "guard_removed": options.guard or None,
        "by_kind": dict(sorted(by_kind.items())),
    }
    print(orjson.dumps(line).decode(), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run; Ctrl-C and SIGTERM stop all that was started."""
    options = parsed(arguments, tuple(STRIKES))
    # Its lines about a broker that we have just killed, many a second, are no news here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    console.print(f"faults: {options.shown()}", soft_wrap=True)

    async def until_stopped() -> tuple[list[Struck], Verdict]:
        me = asyncio.current_task()
        assert me is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
        return await run(options, keep_logs=Path(".cache/faults"))

    try:
        struck, result = asyncio.run(until_stopped())
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped before the end; nothing is left behind")
        return 130
    report(options, struck, result)
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
