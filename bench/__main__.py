"""``python -m bench [SCENARIO ...]``: run scenarios; ``--list`` names them; ``report`` writes docs.

The last line of standard output is one JSON object: by scenario its summary, and for a single
scenario the summary's own keys as well.
"""

import importlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson
from rich.console import Console

from bench.options import from_environment
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

        write()
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
    summaries = {}
    for scenario in wanted:
        started = time.monotonic()
        module = importlib.import_module(f"bench.scenarios.{scenario}")
        result = module.run(options)
        show(console, scenario, meaning_of(scenario), result)
        path = save(scenario, meaning_of(scenario), options, result)
        console.print(f"  {path.name} and chart written, {time.monotonic() - started:.0f} s\n")
        summaries[scenario] = dict(result.summary)
    line: dict[str, Any] = dict(summaries)
    if len(wanted) == 1:
        line |= {"scenario": wanted[0]} | summaries[wanted[0]]
    sys.stdout.flush()
    print(orjson.dumps(line).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
