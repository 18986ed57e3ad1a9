"""Anonymous → known: what a session did before the login becomes part of the customer's history.

The session's state lies in the partition of its id, the customer's in that of theirs, and two
workers may own them. So it travels through the log: the customer's owner sees a session that has a
state of its own and sends a ``link`` record to the session's partition; that one's owner gives the
state up, retires its public keys and sends it in a ``merge`` record to the customer's partition,
where it is applied once by (source partition, offset), as a watermark of the partition says.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.adapters.partitioning import partition_of
from stream_app.codec import Merge, decode_merge, encode_merge
from stream_app.core.internal import HANDED
from stream_app.core.model import INTERNAL, KIND
from stream_app.core.state import decode_users, encode_users
from stream_app.events import EventBatch
from stream_app.hashing import given_name, stable_hash

LOOKED_AGAIN = 2  # item events of a session; its own partition may have been behind at its login
_MIX = np.uint64(0x9E3779B97F4A7C15)
Click = tuple[int, bytes, bytes]  # clickstream partition, key, value


class Session(NamedTuple):
    """A session of a known customer that may have a state of its own."""

    row: int  # of the event that names both
    name: str
    partition: int
    key: bytes


def sessions_to_ask_for(
    events: EventBatch,
    rows: NDArray[np.int64],
    users: NDArray[np.void],
    homes: NDArray[np.int64],
    *,
    partitions: int,
    gap_s: float,
) -> list[Session]:
    """Sessions that are new to known customers, ``users[rows]`` before the batch.

    ``homes (n,)`` tells events of several partitions apart, each of which asks for itself. A
    device's id is that of a new session after a pause of more than ``gap_s``.
    """
    ev = events.events
    known = (ev["anonymous"] == 0) & (ev["session"] != 0) & (ev["kind"] < KIND[INTERNAL[0]])
    fresh = users["session"][rows] != ev["session"]
    fresh |= (ev["device"] != 0) & (ev["ts"] - users["last_ts"][rows] > gap_s)
    at = np.flatnonzero(known & (fresh | (users["session_events"][rows] == LOOKED_AGAIN)))
    if not len(at):
        return []
    asker = ev["customer"][at] + homes[at].astype(np.uint64)
    _, first = np.unique(asker * _MIX ^ ev["session"][at], return_index=True)
    found = []
    for row in at[np.sort(first)].tolist():
        text = events.session_id(row)
        key = np.uint64(stable_hash(text, 1)).tobytes()
        partition = partition_of(events.session_key(row), partitions)
        found.append(Session(row, text, partition, key))
    return found


def links(
    events: EventBatch, asked: Sequence[Session], blobs: Sequence[bytes | None], *, source: int
) -> list[Click]:
    """Records that ask for the states of sessions; those without one are only the customer's.

    They say from which partition, ``source``, they come: pseudonyms do not tell.
    """
    found = []
    for session, blob in zip(asked, blobs, strict=True):
        if blob:
            value = {
                "event": "link",
                "session_id": session.name,
                "ts": float(events.events["ts"][session.row]),
                "sa_data": events.customers[session.row],
                "position": source,
            }
            key = session.name.encode("utf-8", "surrogatepass")
            found.append((session.partition, key, orjson.dumps(value)))
    return found


def merges(
    events: EventBatch,
    status: NDArray[np.uint8],
    handed: NDArray[np.void],
    *,
    source: int,
    partitions: int,
) -> list[Click]:
    """Records that carry the states that were given up to the customers who were linked."""
    if not len(handed):
        return []
    found = []
    gone = np.flatnonzero(status == HANDED).tolist()
    for row, blob in zip(gone, encode_users(handed), strict=True):
        user, _ = given_name(events.data[row])
        event = events.events[row]
        value = {
            "event": "merge",
            "user_id": user,
            "session_id": given_name(events.customers[row])[0],
            "ts": float(event["ts"]),
            "sa_data": encode_merge(Merge(source, int(event["offset"]), blob)),
        }
        key = user.encode("utf-8", "surrogatepass")
        asker = events.given[row].position
        if asker is None or not 0 <= asker < partitions:
            asker = partition_of(key, partitions)
        found.append((asker, key, orjson.dumps(value)))
    return found


def adopted(
    kinds: NDArray[np.uint8], data: Mapping[int, str], watermarks: NDArray[np.int64]
) -> NDArray[np.void] | None:
    """``(m,) USER`` of the merge events of a batch; raises ``watermarks (partitions,)`` in place.

    A state that was seen before, or names a partition there is not, is without events.
    """
    at = np.flatnonzero(kinds == KIND["merge"]).tolist()
    if not at:
        return None
    brought = [decode_merge(data[row]) for row in at]
    users = decode_users(np.zeros(len(at), np.uint64), [merge.blob for merge in brought])
    for k, merge in enumerate(brought):
        known = merge.source_partition < len(watermarks)
        if known and merge.offset > watermarks[merge.source_partition]:
            watermarks[merge.source_partition] = merge.offset
        else:
            users[k]["events"] = 0
    return users


def decode_watermarks(blob: bytes, partitions: int) -> NDArray[np.int64]:
    """``(partitions,) int64``: the offset of the last state that came from each; −1 before it."""
    watermarks = np.full(partitions, -1, np.int64)
    stored = np.frombuffer(blob[: len(blob) // 8 * 8], np.int64)[:partitions]
    watermarks[: len(stored)] = stored
    return watermarks
