"""How long customers usually wait before they buy the same item again, learned from the stream.

A clickstream partition keeps, for items and for the categories their purchases named, a running
mean of the logarithm of the time between two purchases of one item by one customer: the typical
time, not stretched by the few who come back after a year. The table is bounded: of the four entries
that share a set, the one that was seen least, counted with a half-life, gives way.

What a table can learn is bounded too: a second purchase is seen only while the first is among the
``BOUGHT_MAX`` items remembered of the customer, and who has not come back yet is not counted.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, signed
from stream_app.errors import SchemaUnknown

CYCLES_SCHEMA = 1
LEAST = 5.0  # repeat purchases below which nothing is known of an item or category
_SETS, _WAYS = 128, 4
_MEMORY = 50.0  # repeat purchases that the mean looks back on
_HALF_LIFE_S = 90 * 86_400.0  # of how often an entry was seen, when one has to give way
_CATEGORY = 0x9E3779B97F4A7C15  # keeps categories' hashes apart from items'

CYCLES = np.dtype(
    [
        ("schema", "u1"),
        ("reserved", "u1", (7,)),
        ("observed", "i8"),  # repeat purchases so far: the version
        ("key", "u8", (_SETS * _WAYS,)),  # 0 = free
        ("count", "f4", (_SETS * _WAYS,)),
        ("log_s", "f4", (_SETS * _WAYS,)),  # mean logarithm of the seconds in between
        ("last", "u4", (_SETS * _WAYS,)),  # event time of the last one
    ]
)
Row = Any


def new_cycles() -> NDArray[np.void]:
    """A ``(1,) CYCLES`` record that knows nothing."""
    cycles = np.zeros(1, CYCLES)
    cycles["schema"] = CYCLES_SCHEMA
    return cycles


def decode_cycles(blob: bytes | None) -> NDArray[np.void]:
    """The inverse of ``tobytes``; nothing is a new record.

    Raises :class:`~stream_app.errors.SchemaUnknown` for a record of another release.
    """
    if not blob:
        return new_cycles()
    if blob[0] != CYCLES_SCHEMA or len(blob) != CYCLES.itemsize:
        raise SchemaUnknown(
            f"repurchase cycles have schema {blob[0]} and {len(blob)} bytes, this release reads"
            f" {CYCLES_SCHEMA} with {CYCLES.itemsize}: run the release that wrote them"
        )
    return np.frombuffer(blob, CYCLES).copy()


@kernel
def category_key(category: Any) -> Any:
    """Where a category stands, in the space of items' hashes; 0 for none."""
    return np.uint64(category) * np.uint64(_CATEGORY)


@kernel
def _first_of(key: Any) -> Any:
    """The first entry of the set that ``key`` belongs to."""
    folded = np.uint64(key) ^ (np.uint64(key) >> np.uint64(32))
    return signed(folded % np.uint64(_SETS)) * _WAYS


@kernel
def _entry_of(cycles: Row, key: Any, ts: float) -> Any:
    """The entry of ``key``; a new one where it has none, in place of the least seen of its set."""
    first = _first_of(key)
    least, at = np.inf, first
    for k in range(first, first + _WAYS):
        if cycles.key[k] == key:
            return k
        seen = -np.inf
        if cycles.key[k] != 0:
            idle_s = max(ts - float(cycles.last[k]), 0.0)
            seen = math.log2(float(cycles.count[k])) - idle_s / _HALF_LIFE_S
        if seen < least:
            least, at = seen, k
    cycles.key[at], cycles.count[at] = key, 0.0
    cycles.log_s[at], cycles.last[at] = 0.0, 0
    return at


@kernel
def _note(cycles: Row, key: Any, log_s: float, ts: float) -> None:
    at = _entry_of(cycles, key, ts)
    count = float(cycles.count[at]) + 1.0
    mean = float(cycles.log_s[at])
    cycles.count[at] = count
    cycles.log_s[at] = mean + (log_s - mean) / min(count, _MEMORY)
    cycles.last[at] = np.uint32(max(ts, float(cycles.last[at])))


@kernel
def note_cycle(cycles: Row, item: int, category: int, elapsed_s: float, ts: float) -> None:
    """A customer bought ``item`` (a hash) of ``category`` again, ``elapsed_s`` later, at ``ts``."""
    log_s = math.log(max(elapsed_s, 1.0))
    _note(cycles, item, log_s, ts)
    if category != 0:
        _note(cycles, category_key(category), log_s, ts)
    cycles.observed += 1


@kernel
def cycle_of(cycles: Row, key: Any) -> tuple[float, float]:
    """How many repeat purchases of ``key`` were seen, and the usual seconds between: (0, 0) = none.

    >>> cycles, day = new_cycles(), 86_400.0
    >>> for days in (20.0, 40.0): note_cycle(cycles.view(np.recarray)[0], 7, 3, days * day, 1e9)
    >>> n, usual = cycle_of(cycles.view(np.recarray)[0], 7)
    >>> n, round(usual / day, 1)  # the geometric mean
    (2.0, 28.3)
    """
    first = _first_of(key)
    for k in range(first, first + _WAYS):
        if key != 0 and cycles.key[k] == key:
            return float(cycles.count[k]), math.exp(float(cycles.log_s[k]))
    return 0.0, 0.0


@kernel
def usual_s(cycles: Row, item: Any, category: Any, category_top: Any) -> float:
    """Usual seconds between purchases of an item: its own, else its category's; 0 where unknown."""
    n, found = cycle_of(cycles, item)
    if n < LEAST:
        n, found = cycle_of(cycles, category_key(category))
    if n < LEAST:
        n, found = cycle_of(cycles, category_key(category_top))
    return found if n >= LEAST else 0.0
