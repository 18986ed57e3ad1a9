"""Ranked lists as JSON text, straight from the arrays: no Python object per item.

An entry is ``{"item_id":…,"score":0.123456,"reason":{"source":…,"because":…}}``.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel
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
_SOURCE_ENDS = np.cumsum([len(source) for source in SOURCES])
_SOURCE_TEXT = _text("".join(SOURCES))
# Fixed text, the longest source and 1 + 20 + 6 digits of a score.
_ENTRY_BYTES_MAX = 64 + max(map(len, SOURCES)) + 28


@kernel
def _put(out: Bytes, at: int, text: Bytes) -> int:
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


@kernel
def _render(
    names: Bytes,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int32],
    nodes: NDArray[np.int64],
    counts: NDArray[np.int64],
    scores: NDArray[np.float64],
    sources: NDArray[np.uint8],
    because: NDArray[np.int64],
    texts: tuple[Bytes, Bytes, Bytes, Bytes, Bytes, Bytes],
    source_text: Bytes,
    source_ends: NDArray[np.int64],
    out: Bytes,
    ends: NDArray[np.int64],
) -> None:
    item, score, reason, because_of, end, plain_end = texts
    at = 0
    for i in range(len(counts)):
        out[at] = 91  # [
        at += 1
        empty = True
        for k in range(counts[i]):
            node = nodes[i, k]
            if node < 0 or sizes[node] == 0:
                continue  # an item whose id is not known here as text
            empty = False
            at = _put(out, at, item)
            at = _put(out, at, names[starts[node] : starts[node] + sizes[node]])
            at = _put(out, at, score)
            at = _put_score(out, at, scores[i, k])
            at = _put(out, at, reason)
            source = sources[i, k]
            first = source_ends[source - 1] if source > 0 else 0
            at = _put(out, at, source_text[first : source_ends[source]])
            b = because[i, k]
            if b >= 0 and sizes[b] > 0:
                at = _put(out, at, because_of)
                at = _put(out, at, names[starts[b] : starts[b] + sizes[b]])
                at = _put(out, at, end)
            else:
                at = _put(out, at, plain_end)
        if not empty:
            at -= 1  # the last comma
        out[at] = 93  # ]
        at += 1
        ends[i] = at


def render_lists(
    names: Bytes,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int32],
    nodes: NDArray[np.int64],
    counts: NDArray[np.int64],
    scores: NDArray[np.float64],
    sources: NDArray[np.uint8],
    because: NDArray[np.int64],
) -> list[bytes]:
    """One JSON array per row of ``nodes (m, k)``; nodes without a name are left out.

    ``names`` holds the items' ids as JSON texts, node ``n`` at ``starts[n]`` with ``sizes[n]``
    bytes. ``scores``, ``sources`` and ``because`` are shaped like ``nodes``; ``counts (m,)``.

    >>> names = np.frombuffer(b'"a""b"', np.uint8)
    >>> one = np.array([[1]])
    >>> render_lists(names, np.array([0, 3]), np.array([3, 3], np.int32), one, np.array([1]),
    ...              np.array([[0.5]]), np.zeros((1, 1), np.uint8), np.array([[0]]))
    [b'[{"item_id":"b","score":0.500000,"reason":{"source":"co_occurrence","because":"a"}}]']
    """
    used = np.arange(nodes.shape[1]) < counts[:, None]
    named = np.where(used & (nodes >= 0), sizes[nodes], 0).sum()
    reasons = np.where(used & (because >= 0), sizes[because], 0).sum()
    out = np.empty(
        int(named) + int(reasons) + _ENTRY_BYTES_MAX * int(counts.sum()) + 2 * len(counts), np.uint8
    )
    ends = np.zeros(len(counts), np.int64)
    _render(
        names,
        starts,
        sizes,
        nodes,
        counts,
        scores,
        sources,
        because,
        (_ITEM, _SCORE, _REASON, _BECAUSE, _END, _PLAIN_END),
        _SOURCE_TEXT,
        _SOURCE_ENDS,
        out,
        ends,
    )
    text = out[: ends[-1] if len(ends) else 0].tobytes()
    bounds = [0, *ends.tolist()]
    return [text[a:b] for a, b in pairwise(bounds)]
