"""A worker without one of its guards: ``python -m faults.unguarded GUARD -A … worker``.

The suite must fail with it. Nothing of this is in the product: the guard is taken out of the
imported modules before Faust starts.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import faust.cli.faust
import numpy as np

from stream_app import relating
from stream_app.adapters import redis_store
from stream_app.codec import Transitions
from stream_app.core.learn import TRANSITION
from stream_app.pipeline import Learn
from stream_app.ports import RawBatch
from stream_app.publishing import Publisher
from stream_app.relating import Relate


def _patch_function(guard: str) -> None:
    """Let a condition of the server's function never hold."""
    code: str = vars(redis_store)["CODE"]
    assert code.count(guard) == 1, f"the guard is not there any more: {guard}"
    vars(redis_store)["CODE"] = code.replace(guard, "if false then")


def fence() -> None:
    """Whoever claimed first may go on writing: epoch and token are not looked at."""
    guard = "if not epoch or tonumber(epoch) ~= tonumber(args[2]) or token ~= args[1] then"
    _patch_function(guard)


def cursor() -> None:
    """The store takes a step from whatever offset, and batches are not cut at the cursor."""
    _patch_function("if at ~= expected then")
    RawBatch.since = _uncut  # type: ignore[method-assign,assignment]


def fence_and_cursor() -> None:
    """Neither: the store takes what a zombie has computed from old state."""
    fence()
    cursor()


def _uncut(batch: RawBatch, offset: int | None) -> RawBatch:
    return batch


def watermark() -> None:
    """RELATE takes every transition as new."""

    def all_of_it(messages: list[Transitions], meta: relating.Meta) -> object:
        for message in messages:
            last = int(message.rows["offset"].max(initial=-1))
            meta.watermarks[message.source_partition] = last
            meta.applied += 1
        rows = [message.rows for message in messages]
        return np.concatenate(rows) if rows else np.zeros(0, TRANSITION)

    relating._unseen = all_of_it  # type: ignore[assignment]


def outbox() -> None:
    """What was committed and not published before a crash is not published after it."""

    async def nothing(*_: object) -> None:
        await asyncio.sleep(0)

    Publisher.republish = nothing  # type: ignore[assignment]


def rewind() -> None:
    """After a roll-back a worker reads on where it was, not where the store is."""
    for stage in (Learn, Relate):
        _going_on(stage)


def _going_on(stage: type[Learn] | type[Relate]) -> None:
    assign = stage.assign

    async def assigned(self: Any, partition: int) -> int | None:
        held = self.owned.get(partition)
        before = held.cursor if held else None
        stored = await assign(self, partition)
        return max((c for c in (before, stored) if c is not None), default=None)

    stage.assign = assigned  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    guard.__name__: guard for guard in (fence, cursor, fence_and_cursor, watermark, outbox, rewind)
}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    GUARDS[name]()
    print(f"this worker runs without its guard: {name}", flush=True)
    faust.cli.faust.cli()
