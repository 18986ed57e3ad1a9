"""What a batch leaves in the store of its customers, and the time their partition has reached."""

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core.internal import APPLIED, DUPLICATE, QUARANTINED, REFUSED, STALE
from stream_app.core.model import INTERNAL, KIND
from stream_app.core.state import encode_users
from stream_app.events import EventBatch
from stream_app.ports import RawBatch
from stream_app.telemetry import Quality

LATE_S = 60.0  # from what happened to its record: more than networks and full queues explain
_CAUSES = {"duplicate": DUPLICATE, "bot": QUARANTINED, "refused": REFUSED, "overtaken": STALE}
CAUSES = (*_CAUSES, "ignored")  # of rejected records


def state_blobs(
    users: NDArray[np.void], first: NDArray[np.int64], events: EventBatch
) -> list[bytes]:
    """What to store; nothing for customers who were erased or are not known.

    ``first`` is an event of each.
    """
    names = [events.customers[k].encode("utf-8", "surrogatepass") for k in first.tolist()]
    return [
        blob if known else b""
        for blob, known in zip(encode_users(users, names), users["events"].tolist(), strict=True)
    ]


def follow_time(partition: NDArray[np.void], events: EventBatch) -> None:
    """Raise the partition's watermark; where events lie in the future, only to their records' time.

    Of several that are equally late the first counts, however the log is cut into batches.
    """
    own = events.events["kind"] < KIND[INTERNAL[0]]
    made, ts = events.record_ts[own], events.events["ts"][own]
    seen = np.where(made > 0.0, np.minimum(ts, made), ts)
    if len(seen):
        last = int(seen.argmax())
        if seen[last] > partition["watermark"][0]:
            partition["watermark"] = seen[last]
            partition["behind_s"] = made[last] - seen[last] if made[last] > 0.0 else 0.0


def account(
    partition: NDArray[np.void], batch: RawBatch, cursor: int | None, events: EventBatch
) -> None:
    """applied + rejected + dead-lettered + skipped = cursor, for every offset since the first."""
    start = cursor if cursor is not None else 0
    partition["dead_lettered"] += len(events.rejects)
    partition["rejected"] += events.ignored
    partition["skipped"] += batch.next_offset - start - len(batch)


def quality(status: NDArray[np.uint8], events: EventBatch) -> Quality:
    """Rejected records by cause, whose sum is what was rejected, and late events.

    ``status (n,)`` is what became of each event. Late are those taken in that happened more than
    ``LATE_S`` before their record was made; records without a time say nothing.
    """
    own = (events.events["kind"] < KIND[INTERNAL[0]]) & (status == APPLIED)
    late = own & (events.record_ts - events.events["ts"] > LATE_S)
    return Quality(_causes(status, events), int(np.count_nonzero(late)))


def _causes(status: NDArray[np.uint8], events: EventBatch) -> dict[str, int]:
    found = {"ignored": events.ignored} if events.ignored else {}
    if not status.any():
        return found
    offsets = events.events["offset"]
    # Events of one record go the same way, and count as one.
    begins = np.append(True, offsets[1:] != offsets[:-1])
    counts = np.bincount(status[begins], minlength=max(_CAUSES.values()) + 1)
    return found | {cause: int(counts[k]) for cause, k in _CAUSES.items() if counts[k]}


def account_text(partition: NDArray[np.void], cursor: int) -> bytes:
    """The accounts of a partition as JSON, for tools."""
    names = ("applied", "rejected", "dead_lettered", "skipped")
    return orjson.dumps({"cursor": cursor} | {name: int(partition[name][0]) for name in names})


def changed(
    *records: tuple[bytes, NDArray[np.void], NDArray[np.void]],
) -> list[tuple[bytes, bytes]]:
    """What to store of (key, before, after): the blobs of those that are not as they were."""
    blobs = [(key, before.tobytes(), after.tobytes()) for key, before, after in records]
    return [(key, after) for key, before, after in blobs if after != before]
