"""``python -m bench [SCENARIO ...]``: run scenarios; ``--list`` names them; ``report`` writes docs.

The last line of standard output is one JSON object: by scenario its summary, and for a single
scenario the summary's own keys as well. A scenario that fails is ``{"failed": "why"}`` there; the
others still run, and the exit code is 1. ``report`` leaves sections without a result of full scale
and a committed tree as they are, unless ``REPORT_TRIALS=1``.
"""

import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import orjson
from rich.console import Console

from bench.machine import describe
from bench.options import Options, from_environment
from bench.results import save, show
from bench.scenarios import DEFAULT, ON_DEMAND

console = Console(width=160)


def meaning_of(scenario: str) -> str:
    """The first line of its module."""
    module = importlib.import_module(f"bench.scenarios.{scenario}")
    return (module.__doc__ or "").partition("\n")[0]


def main(arguments: Sequence[str]) -> None:
    """Run what was asked for."""
    if list(arguments) == ["report"]:
        from bench.report import write

        write(trials=from_environment().trials)
        return
    if "--list" in arguments:
        for scenario in (*DEFAULT, *ON_DEMAND):
            console.print(f"{scenario:12} {meaning_of(scenario)}")
        return
    unknown = set(arguments) - {*DEFAULT, *ON_DEMAND}
    if unknown:
        raise SystemExit(f"no scenario {sorted(unknown)}; there are {[*DEFAULT, *ON_DEMAND]}")
    options = from_environment()
    wanted = list(arguments) or list(DEFAULT)
    summaries: dict[str, dict[str, Any]] = {}
    failed = False
    for scenario in wanted:
        try:
            summaries[scenario] = _run(scenario, options)
        except Exception as exc:  # the next scenario has nothing to do with it
            traceback.print_exc()
            summaries[scenario] = {"failed": f"{type(exc).__name__}: {exc}"}
            failed = True
    line: dict[str, Any] = dict(summaries)
    if len(wanted) == 1:
        line |= {"scenario": wanted[0]} | summaries[wanted[0]]
    sys.stdout.flush()
    print(orjson.dumps(line).decode(), flush=True)
    if failed:
        raise SystemExit(1)


def _run(scenario: str, options: Options) -> dict[str, Any]:
    """Measure, show and save; the summary."""
    started, machine = time.monotonic(), describe()
    module = importlib.import_module(f"bench.scenarios.{scenario}")
    result = module.run(options)
    show(console, scenario, meaning_of(scenario), result)
    path = save(scenario, meaning_of(scenario), options, result, machine)
    console.print(f"  {path.name} and chart written, {time.monotonic() - started:.0f} s\n")
    return dict(result.summary)


if __name__ == "__main__":
    main(sys.argv[1:])
