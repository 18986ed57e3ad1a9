"""Ranked lists as JSON text, straight from the arrays: no Python object per item.

An entry is ``{"item_id":…,"score":0.123456,"reason":{"source":…,"because":…}}``.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import allocating, kernel, one_layout, signed
from stream_app.core.scoring import SOURCES

Bytes = NDArray[np.uint8]


def _text(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


_ITEM = _text('{"item_id":')
_SCORE = _text(',"score":')
_REASON = _text(',"reason":{"source":"')
_BECAUSE = _text('","because":')
_END = _text("}},")
_PLAIN_END = _text('"}},')
_SHOWN = (*SOURCES, "pinned")  # by a rule
_SOURCE_ENDS = np.cumsum([len(source) for source in _SHOWN])
_SOURCE_TEXT = _text("".join(_SHOWN))
# Fixed text, the longest source and 1 + 20 + 6 digits of a score.
_ENTRY_BYTES_MAX = 64 + max(map(len, _SHOWN)) + 28


@kernel
def put(out: Bytes, at: int, text: Bytes) -> int:
    """Copy ``text`` into ``out``; returns where it ends."""
    for k in range(len(text)):
        out[at + k] = text[k]
    return at + len(text)


@kernel
def _put_score(out: Bytes, at: int, score: float) -> int:
    """Six decimals, rounded half up."""
    micro = np.int64(score * 1e6 + 0.5)
    whole = micro // 1_000_000
    micro -= whole * 1_000_000
    digits = 1
    top = 10
    while whole >= top:
        digits += 1
        top *= 10
    for k in range(digits - 1, -1, -1):
        out[at + k] = 48 + whole % 10
        whole //= 10
    at += digits
    out[at] = 46
    for k in range(6, 0, -1):
        out[at + k] = 48 + micro % 10
        micro //= 10
    return at + 7


class Listed(NamedTuple):
    """Ranked lists and the names of what they hold, as the kernels take them.

    ``names`` holds the items' ids as JSON texts, node ``n`` at ``starts[n]`` with ``sizes[n]``
    bytes. ``nodes``, ``scores``, ``sources`` and ``because`` are ``(m, k)``, ``counts (m,)``.
    ``phrases`` and what follows is the fixed text: see :func:`listed`.
    """

    names: Bytes
    starts: NDArray[np.int64]
    sizes: NDArray[np.int32]
    nodes: NDArray[np.int64]
    counts: NDArray[np.int64]
    scores: NDArray[np.float64]
    sources: NDArray[np.uint8]
    because: NDArray[np.int64]
    phrases: tuple[Bytes, Bytes, Bytes, Bytes, Bytes, Bytes]
    source_text: Bytes
    source_ends: NDArray[np.int64]


def listed(
    names: Bytes,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int32],
    nodes: NDArray[np.int64],
    counts: NDArray[np.int64],
    scores: NDArray[np.float64],
    sources: NDArray[np.uint8],
    because: NDArray[np.int64],
) -> Listed:
    """What the kernels need, from what callers have."""
    phrases = (_ITEM, _SCORE, _REASON, _BECAUSE, _END, _PLAIN_END)
    return Listed(
        one_layout(names),
        one_layout(starts),
        one_layout(sizes),
        one_layout(nodes),
        one_layout(counts),
        one_layout(scores),
        one_layout(sources),
        one_layout(because),
        phrases,
        _SOURCE_TEXT,
        _SOURCE_ENDS,
    )


@kernel
def put_list(out: Bytes, at: int, lists: Listed, i: int) -> int:
    """Write list ``i`` as a JSON array; returns where it ends."""
    item, score, reason, because_of, end, plain_end = lists.phrases
    names, starts, sizes = lists.names, lists.starts, lists.sizes
    out[at] = 91  # [
    at += 1
    empty = True
    for k in range(lists.counts[i]):
        node = lists.nodes[i, k]
        if node < 0 or sizes[node] == 0:
            continue  # an item whose id is not known here as text
        empty = False
        at = put(out, at, item)
        at = put(out, at, names[starts[node] : starts[node] + sizes[node]])
        at = put(out, at, score)
        at = _put_score(out, at, lists.scores[i, k])
        at = put(out, at, reason)
        source = lists.sources[i, k]
        first = lists.source_ends[source - 1] if source > 0 else 0
        at = put(out, at, lists.source_text[first : lists.source_ends[source]])
        b = lists.because[i, k]
        if b >= 0 and sizes[b] > 0:
            at = put(out, at, because_of)
            at = put(out, at, names[starts[b] : starts[b] + sizes[b]])
            at = put(out, at, end)
        else:
            at = put(out, at, plain_end)
    if not empty:
        at -= 1  # the last comma
    out[at] = 93  # ]
    return at + 1


@kernel
def bytes_max(lists: Listed) -> int:
    """Bytes that all of ``lists`` may take together."""
    most = 2 * len(lists.counts)
    for i in range(len(lists.counts)):
        most += _ENTRY_BYTES_MAX * lists.counts[i]
        for k in range(lists.counts[i]):
            node, because = lists.nodes[i, k], lists.because[i, k]
            if node >= 0:
                most += signed(lists.sizes[node])
            if because >= 0:
                most += signed(lists.sizes[because])
    return most


@allocating
def _render(lists: Listed, ends: NDArray[np.int64]) -> Bytes:
    out = np.empty(bytes_max(lists), np.uint8)
    at = 0
    for i in range(len(lists.counts)):
        at = put_list(out, at, lists, i)
        ends[i] = at
    return out[:at]


def render_lists(lists: Listed) -> list[bytes]:
    """One JSON array per list; nodes without a name are left out.

    >>> names = np.frombuffer(b'"a""b"', np.uint8)
    >>> one = np.array([[1]])
    >>> render_lists(listed(names, np.array([0, 3]), np.array([3, 3], np.int32), one, np.array([1]),
    ...              np.array([[0.5]]), np.zeros((1, 1), np.uint8), np.array([[0]])))
    [b'[{"item_id":"b","score":0.500000,"reason":{"source":"co_occurrence","because":"a"}}]']
    """
    ends = np.zeros(len(lists.counts), np.int64)
    text = _render(lists, ends).tobytes()
    return [text[a:b] for a, b in pairwise([0, *ends.tolist()])]
