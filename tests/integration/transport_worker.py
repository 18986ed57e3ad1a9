"""The worker that the transport's tests start as a process with ``faust -A``.

Its store is a file per partition, one JSON line per handled batch; the last line's ``next`` is the
cursor. A line is written with one call; one that a kill has cut off does not count.
"""

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from stream_app.adapters.transport import Limits, add_stage, make_app
from stream_app.errors import Fenced, RolledBack
from stream_app.ports import RawBatch

log = logging.getLogger(__name__)

#: What a test plans; it gives bootstrap, directory, topic and group itself. −1 is never.
PLAN: dict[str, Any] = {
    "bootstrap": "127.0.0.1:9092",
    "directory": ".",
    "topic": "clicks",
    "group": "transport-worker",
    "batch_records_max": 100,
    "session_timeout_s": 6.0,
    "delay_s": 0.0,
    "delay_once": False,
    "start": None,
    "fail_at": -1,
    "roll_back_at": -1,
    "rewind_at": -1,
    "fence_once": False,
    "compiles": False,
}
plan = PLAN | json.loads(os.environ.get("TRANSPORT_PLAN", "{}"))
directory = Path(plan["directory"])
topic: str = plan["topic"]


def state_file(partition: int) -> Path:
    """Return the store of a partition."""
    return directory / f"{partition}.jsonl"


def first_time(name: str) -> bool:
    """Return whether no process of this test has asked for ``name`` before."""
    try:
        (directory / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


async def start_offsets(partitions: set[tuple[str, int]]) -> dict[tuple[str, int], int | None]:
    """Return the cursors; a line that was cut off by a kill is removed."""
    found: dict[tuple[str, int], int | None] = {}
    for name, partition in partitions:
        path = state_file(partition)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            path.write_bytes(b"".join(lines[:-1]))
            lines.pop()
        found[name, partition] = json.loads(lines[-1])["next"] if lines else plan["start"]
    note("assigned", partitions)
    return found


async def on_revoked(partitions: set[tuple[str, int]]) -> None:
    """Note that partitions were taken."""
    note("revoked", partitions)


def note(what: str, partitions: set[tuple[str, int]]) -> None:
    """Append a line to the process's diary."""
    with (directory / f"diary-{os.getpid()}").open("a") as diary:
        diary.write(f"{what} {sorted(number for _, number in partitions)}\n")


async def learn(batch: RawBatch) -> None:
    """Write the batch down, after what the test has planned for it."""
    if batch.next_offset > plan["fail_at"] >= 0:
        raise ValueError(f"planned failure at {plan['fail_at']}")
    if plan["fence_once"] and first_time("fenced"):
        raise Fenced("planned fence")
    if batch.next_offset > plan["roll_back_at"] >= 0 and first_time("rolled-back"):
        lines = state_file(batch.partition).read_bytes().splitlines(keepends=True)
        state_file(batch.partition).write_bytes(b"".join(lines[:1]))
        raise RolledBack("planned roll-back", cursor=json.loads(lines[0])["next"])
    if batch.next_offset > plan["rewind_at"] >= 0 and first_time("rewound"):
        # The whole state is lost while this very call is under way; what it writes is lost too.
        await app.rewind(topic, batch.partition, 0)
        state_file(batch.partition).unlink()
        return
    if not plan["delay_once"] or first_time("delayed"):
        await asyncio.sleep(plan["delay_s"])
    line = {
        "next": batch.next_offset,
        "offsets": list(batch.offsets),
        "values": [int(value) for value in batch.values if value is not None],
        "keys": [None if key is None else key.decode() for key in batch.keys],
        "pid": os.getpid(),
    }
    with state_file(batch.partition).open("ab", buffering=0) as store:
        store.write(json.dumps(line).encode() + b"\n")


async def compile_for_ever() -> None:
    """Like kernels on a slow machine: a thread that nobody can cancel."""
    (directory / "compiling").touch()
    await asyncio.to_thread(time.sleep, 3_600)


app = make_app(
    plan["group"],
    brokers=[plan["bootstrap"]],
    start_offsets=start_offsets,
    on_revoked=on_revoked,
    limits=Limits(
        batch_records_max=plan["batch_records_max"],
        session_timeout_s=plan["session_timeout_s"],
        heartbeat_interval_s=plan["session_timeout_s"] / 6,
        commit_interval_s=0.3,
    ),
)
add_stage(app, "learn", topic, learn)
if plan["compiles"]:
    app.before_start = compile_for_ever
