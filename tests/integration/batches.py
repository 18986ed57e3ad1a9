"""Batches of numbered records, as a fetch of one partition brings them."""

from stream_app.ports import RawBatch


def batch(start: int, stop: int, next_offset: int | None = None) -> RawBatch:
    """Return records start … stop − 1, each with its offset as value."""
    offsets = range(start, stop)
    return RawBatch(
        topic="clicks",
        partition=0,
        next_offset=stop if next_offset is None else next_offset,
        offsets=list(offsets),
        keys=[None] * len(offsets),
        values=[b"%d" % offset for offset in offsets],
        timestamps_ms=list(offsets),
        headers=[()] * len(offsets),
    )
