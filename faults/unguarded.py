"""Guards that a worker can be run without, to show that the suite finds each one missing.

Nothing of this is in the product: :mod:`faults.instrumented` takes the guard out of the imported
modules before Faust starts.
"""

from collections.abc import Callable
from typing import Any

from stream_app import pipeline, relating
from stream_app.adapters import redis_commit
from stream_app.adapters.lanes import Lane, Ticket
from stream_app.codec import Outbox, Transitions
from stream_app.pipeline import Learn
from stream_app.ports import Claim, Commit, RawBatch
from stream_app.relating import Relate


def fence() -> None:
    """Whoever claimed first may go on writing: epoch and token are not looked at."""
    judge = redis_commit.already

    def judged(stored: list[bytes | None], claim: Claim, step: Commit, *, shown: str) -> bool:
        ours = [b"%d" % claim.epoch, claim.token, stored[2]]
        return judge(ours, claim, step, shown=shown)

    redis_commit.already = judged  # type: ignore[assignment]


def cursor() -> None:
    """The store takes a step from whatever offset, and batches are not cut at the cursor."""
    judge = redis_commit.already

    def judged(stored: list[bytes | None], claim: Claim, step: Commit, *, shown: str) -> bool:
        expected = None if step.expected is None else b"%d" % step.expected
        return judge([*stored[:2], expected], claim, step, shown=shown)

    redis_commit.already = judged  # type: ignore[assignment]
    RawBatch.since = _uncut  # type: ignore[method-assign,assignment]


def _uncut(batch: RawBatch, offset: int | None) -> RawBatch:
    return batch


def watermark() -> None:
    """RELATE takes every transition as new."""

    def all_of_it(messages: list[Transitions], meta: relating.Meta) -> object:
        for message in messages:
            last = int(message.rows["offset"].max(initial=-1))
            meta.watermarks[message.source_partition] = last
            meta.applied += 1
        return relating.fresh_of([m.rows for m in messages], [m.snapshots for m in messages])

    relating._unseen = all_of_it  # type: ignore[assignment]


def ack() -> None:
    """A batch counts as done when it was fetched, not when its handler has stored it."""
    admit = Lane.admit

    def admitted(lane: Lane, batch: RawBatch) -> Ticket:
        ticket = admit(lane, batch)
        lane.settle(ticket)
        return ticket

    Lane.admit = admitted  # type: ignore[method-assign,assignment]


def outbox() -> None:
    """What was committed and not published before a crash is not published after it."""
    pipeline.decode_outbox = _empty_outbox  # type: ignore[attr-defined]


def _empty_outbox(blob: bytes) -> Outbox:
    return Outbox()


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
    guard.__name__: guard for guard in (fence, cursor, watermark, outbox, rewind, ack)
}
