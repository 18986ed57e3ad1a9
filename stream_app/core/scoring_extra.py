"""Candidates from sources outside the kernel: content, embeddings, neighbours of the customer.

Each source hands over its candidates for each list with values of its own; they are normalised like
those of the tables, raised to 3/4 and added to the blend. Nothing is done where there are none.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel
from stream_app.core.scoring import EXPLORATION, SOURCES_N, Floats, Work, flat, place_of


class Extra(NamedTuple):
    """Candidates of m lists; those of list ``i`` stand at ``starts[i]`` to ``starts[i + 1]``.

    ``starts (m + 1,) int64``; ``nodes (n,) int64``, each once per list and source; ``values (n,)
    float32``, not negative; ``sources (n,) uint8`` of :data:`~stream_app.core.scoring.SOURCES`;
    ``because (n,) int64``: the node a candidate was drawn from, -1 or no array where there is none.
    """

    starts: NDArray[np.int64]
    nodes: NDArray[np.int64]
    values: Floats
    sources: NDArray[np.uint8]
    because: NDArray[np.int64] | None = None


class Added(NamedTuple):
    """:class:`Extra` as the kernels see it: ``because`` is always there."""

    starts: NDArray[np.int64]
    nodes: NDArray[np.int64]
    values: Floats
    sources: NDArray[np.uint8]
    because: NDArray[np.int64]


def added(extra: Extra | None, lists: int) -> Added:
    """``extra`` for the kernels; nothing for ``lists`` lists when there is none.

    >>> added(None, 2).starts.tolist()
    [0, 0, 0]
    """
    if extra is None:
        none = np.zeros(0, np.int64)
        return Added(
            np.zeros(lists + 1, np.int64), none, none.astype("f4"), none.astype("u1"), none
        )
    assert len(extra.starts) == lists + 1 and extra.starts[-1] == len(extra.nodes)
    because = np.full(len(extra.nodes), -1, np.int64) if extra.because is None else extra.because
    return Added(extra.starts, extra.nodes, extra.values, extra.sources, because)


def spread(part: Extra, at: NDArray[np.int64], lists: int) -> Extra:
    """Candidates of the lists ``at``, ascending, as those of all ``lists``.

    >>> nodes = np.arange(2)
    >>> part = Extra(np.array([0, 2]), nodes, np.ones(2, "f4"), np.full(2, 6, np.uint8))
    >>> spread(part, np.array([1]), 3).starts.tolist()
    [0, 0, 2, 2]
    """
    if len(at) == lists:
        return part
    sizes = np.zeros(lists, np.int64)
    sizes[at] = np.diff(part.starts)
    starts = np.zeros(lists + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    return part._replace(starts=starts)


def joined(parts: list[Extra], lists: int) -> Extra | None:
    """The candidates of several sources for the same ``lists``; ``None`` when there are none.

    >>> one = np.zeros(1, np.int64)
    >>> part = Extra(np.array([0, 1]), one, np.ones(1, np.float32), np.full(1, 6, np.uint8))
    >>> both = joined([part, part._replace(sources=np.full(1, 7, np.uint8))], 1)
    >>> both.starts.tolist(), both.sources.tolist()
    ([0, 2], [6, 7])
    """
    if not parts:
        return None
    whole = [added(part, lists) for part in parts]
    if len(whole) == 1:
        return Extra(*whole[0])
    owner = np.concatenate([np.repeat(np.arange(lists), np.diff(part.starts)) for part in whole])
    order = np.argsort(owner, kind="stable")
    starts = np.zeros(lists + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=lists), out=starts[1:])
    return Extra(
        starts,
        np.concatenate([part.nodes for part in whole])[order],
        np.concatenate([part.values for part in whole])[order],
        np.concatenate([part.sources for part in whole])[order],
        np.concatenate([part.because for part in whole])[order],
    )


@kernel
def place_added(extra: Added, which: int, n: int, work: Work) -> int:
    """Make the candidates of list ``which`` candidates; the tables' sources give them nothing.

    Those of exploration are not blended: they get places of their own.
    """
    node, place = work.node, work.place
    for e in range(extra.starts[which], extra.starts[which + 1]):
        c = extra.nodes[e]
        blended = c >= 0 and extra.sources[e] != EXPLORATION
        if blended and place_of(place, node, c, n) == n:
            place[c], node[n] = n, c
            work.direct[n] = work.two_hop[n] = work.forward[n] = np.float32(0.0)
            n += 1
    return n


@kernel
def added_scales(
    extra: Added, which: int, weights: NDArray[np.float64], share: float, out: NDArray[np.float64]
) -> None:
    """Multiplier of each source's values to the power of 3/4, as for the tables' sources."""
    out[:] = 0.0
    for e in range(extra.starts[which], extra.starts[which + 1]):
        out[extra.sources[e]] += extra.values[e]
    for s in range(SOURCES_N):
        if s == EXPLORATION:  # has places of its own
            out[s] = 0.0
        elif out[s] > 0.0:
            out[s] = share * weights[s] / out[s] ** 0.75


@kernel
def blend_added(extra: Added, which: int, factors: NDArray[np.float64], n: int, work: Work) -> None:
    """Add what the sources outside give to the scores."""
    for e in range(extra.starts[which], extra.starts[which + 1]):
        c = extra.nodes[e]
        if c >= 0:
            t = place_of(work.place, work.node, c, n)
            if t < n:
                work.score[t] += np.float32(factors[extra.sources[e]]) * flat(extra.values[e])


@kernel
def explain_added(
    extra: Added,
    which: int,
    factors: NDArray[np.float64],
    place: NDArray[np.int32],
    chosen: NDArray[np.int64],
    most: NDArray[np.float64],
    sources: NDArray[np.uint8],
    because: NDArray[np.int64],
) -> None:
    """Where a source outside gave more than any other, ``most``, it is the leading one.

    ``place`` finds the chosen ones. The reason an own source gives goes before that of the tables.
    """
    for e in range(extra.starts[which], extra.starts[which + 1]):
        c = extra.nodes[e]
        i = np.int64(place[c]) if c >= 0 else len(chosen)
        if i < len(chosen) and chosen[i] == c:
            part = factors[extra.sources[e]] * float(flat(extra.values[e]))
            if part > most[i]:
                most[i] = part
                sources[i] = extra.sources[e]
                because[i] = extra.because[e]
