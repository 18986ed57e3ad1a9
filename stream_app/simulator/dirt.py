"""Dirty records for cleaning tests: inserted among the clean ones, their kinds counted."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.void]

# All but the last two can be no events. A duplicate repeats earlier bytes; a late one is valid.
DIRT = (
    "malformed_json",
    "missing_fields",
    "absurd_time",
    "unknown_type",
    "oversize",
    "not_utf8",
    "duplicate",
    "late",
)
DUPLICATE = 1 + DIRT.index("duplicate")
LATE = 1 + DIRT.index("late")
oversize_bytes = 300_000  # above any sane limit for an event, below the broker's for a record
duplicate_distance_max = 50  # records between the first copy and the second
late_s_min, late_s_max = 10, 600
_filler = b"x" * oversize_bytes


def sprinkle(rng: np.random.Generator, rows: Rows, share: float, first_seq: int) -> Rows:
    """Insert copies of ``rows`` marked as dirt so that ``share`` of the result is dirty.

    Also numbers all rows from ``first_seq``; a duplicate has its original's number.
    """
    clean = len(rows)
    count = int(rng.binomial(clean, share / (1.0 - share))) if share else 0
    source = rng.integers(0, clean, count)
    kind = rng.integers(1, len(DIRT) + 1, count)
    distance = np.where(kind == DUPLICATE, rng.integers(1, duplicate_distance_max, count), 0)
    place = np.concatenate([np.arange(clean), source + distance + 0.5])
    order = np.argsort(place, kind="stable")
    mixed = np.concatenate([rows, rows[source]])
    mixed["dirt"][clean:] = kind
    mixed = mixed[order]
    copies = mixed["dirt"] == DUPLICATE
    mixed["seq"] = first_seq + np.cumsum(~copies) - 1
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    duplicates = clean + np.flatnonzero(kind == DUPLICATE)
    originals = source[kind == DUPLICATE]
    mixed["seq"][position[duplicates]] = mixed["seq"][position[originals]]
    return mixed


def lateness_s(rows: Rows) -> NDArray[np.float64]:
    """How long before its place in the stream each row says it happened, ``(n,) float64``."""
    spread = late_s_min + rows["seq"] * 7919 % (late_s_max - late_s_min)
    return np.where(rows["dirt"] == LATE, spread.astype(np.float64), 0.0)


def soil(kind: str, value: bytes, seq: int) -> bytes:
    """The bytes of a clean event, spoilt; variants of a kind take turns by ``seq``."""
    turn = seq % 3
    name_begin = value.index(b'"event":"') + 9
    name_end = value.index(b'"', name_begin)
    if kind == "malformed_json":
        return (value[: len(value) // 2], value[:-1], b"not json at all %d" % seq)[turn]
    if kind == "missing_fields":
        if turn == 0:  # nobody
            return value.replace(b'"user_id"', b'"nobody"').replace(b'"session_id"', b'"nowhere"')
        if turn == 1:  # nothing to act on
            value = value[:name_begin] + b"view" + value[name_end:]
            return value.replace(b'"item_id"', b'"no_item"')
        return value[: value.rindex(b',"ts":')] + b"}"
    if kind == "absurd_time":
        return (
            value[: value.rindex(b',"ts":') + 6]
            + (b"-86400.0}", b"99999999999.5}", b'"yesterday"}')[turn]
        )
    if kind == "unknown_type":
        return value[:name_begin] + b"teleport" + value[name_end:]
    if kind == "oversize":
        return value[:-1] + b',"title":"' + _filler + b'"}'
    if kind == "not_utf8":
        return value.replace(b'"channel":"', b'"channel":"\xff\xfe\xc3\x28')
    return value
