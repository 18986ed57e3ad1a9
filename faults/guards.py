"""``python -m faults.guards``: every guard taken out in turn must make the suite fail.

Each run strikes only with what the guard stands against, and the same strikes pass with all guards
in place. Exit code 0 when every missing guard was found, and nothing else.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Sequence

import orjson
from rich.table import Table

from faults.__main__ import console, run
from faults.options import Options

SEED, RATE = 11, 250.0
# What only this guard withstands, for certain or in nearly every run.
STANDS_AGAINST: dict[str, tuple[str, ...]] = {
    "fence": ("zombie_at_commit",),
    "cursor": ("valkey_rollback", "valkey_drop_reply"),
    "watermark": ("kill_at_lists_sent", "kill_at_pairs_sent"),
    "outbox": ("kill_at_u_after_commit",) * 3,  # a fifth of them are SIGTERM
    "rewind": ("valkey_rollback",),
    "ack": ("valkey_pause", "valkey_half_open"),
}


async def found_missing(guard: str) -> tuple[bool, str, float]:
    """Whether the suite fails without ``guard`` ('' = with all), its first words, seconds."""
    began = time.monotonic()
    named = STANDS_AGAINST.get(guard) or tuple(
        sorted(kind for kinds in STANDS_AGAINST.values() for kind in set(kinds))
    )
    struck, result = await run(Options(SEED, 1, RATE, named, 99, overlap=0.0, guard=guard))
    assert len(struck) == len(named) or guard
    said = result.examples[0] if result.examples else "everything holds"
    details = [f"{result.counts[name]} {name}" for name in COUNTS if result.counts.get(name)]
    return not result.passed, "; ".join([said, *details]), time.monotonic() - began


COUNTS = (
    *("lost", "doubled", "divergent_customers", "divergent_items", "divergent_lists"),
    *("early_commits", "fallen_cursors", "fallen_versions"),
)


def main(arguments: Sequence[str]) -> int:
    """Run for the named guards, or all of them and once with none missing."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    guards = list(arguments) or ["", *STANDS_AGAINST]
    table = Table("without", "strikes", "the suite", "what it says", "s", title="Guards")
    wrong = []
    for guard in guards:
        fails, said, seconds = asyncio.run(found_missing(guard))
        if fails != bool(guard):
            wrong.append(guard or "(none)")
        strikes = ", ".join(STANDS_AGAINST.get(guard, ("all of these",)))
        verdict = "fails" if fails else "passes"
        table.add_row(guard or "(nothing)", strikes, verdict, said, f"{seconds:.0f}")
    console.print(table)
    found = [guard for guard in guards if guard and guard not in wrong]
    print(orjson.dumps({"guards_found": found, "wrong": wrong, "seed": SEED}).decode(), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
