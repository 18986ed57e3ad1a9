"""A batch's public records as JSON text: scalar fields and lists of each customer, in one pass.

``{"user_id":…,"version":…,…,"lists":{"home":[…],"cart":[…]}}``
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel
from stream_app.core.render import Bytes, Listed, bytes_max, put, put_list

_DIGITS_MAX = 20
_LISTS = np.frombuffer(b',"lists":{', np.uint8)
_QUOTE, _COMMA, _CLOSE = b'",}'


class Texts(NamedTuple):
    """n JSON texts in one array of bytes: text i is ``bytes[starts[i] : ends[i]]``."""

    bytes: Bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class Rendered(NamedTuple):
    """``text`` has the record of customer i between ``ends[i - 1]`` and ``ends[i]``.

    ``fields (n, c, 2)`` are the places in it of the scalar fields' values, strings without their
    quotes; ``lists (m, 2)`` those of the lists.
    """

    text: bytes
    ends: NDArray[np.int64]
    fields: NDArray[np.int64]
    lists: NDArray[np.int64]


def texts(values: Sequence[bytes]) -> Texts:
    """Texts that are at hand one by one."""
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), dtype=np.int64)
    starts = np.concatenate((np.zeros(1, np.int64), ends))[:-1]
    return Texts(np.frombuffer(b"".join(values), np.uint8), starts, ends)


def chosen(table: Sequence[bytes], rows: NDArray[np.int64]) -> Texts:
    """For each of ``rows`` its entry of ``table``.

    >>> chosen([b"no", b"yes"], np.array([1, 0, 1])).starts.tolist()
    [2, 0, 2]
    """
    every = texts(table)
    return Texts(every.bytes, every.starts[rows], every.ends[rows])


@kernel
def _put_digits(out: Bytes, at: int, value: int, least: int) -> int:
    """A whole number ≥ 0 with at least ``least`` digits."""
    digits = 1
    rest = value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    digits = max(digits, least)
    for k in range(digits - 1, -1, -1):
        out[at + k] = 48 + value % 10
        value //= 10
    return at + digits


@kernel
def _put_numbers(
    values: NDArray[np.int64],
    decimals: int,
    before: Bytes,
    after: Bytes,
    out: Bytes,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> None:
    unit = 10**decimals
    at = 0
    for i in range(len(values)):
        starts[i] = at
        at = put(out, at, before)
        value = values[i]
        if value < 0:
            out[at] = 45  # -
            at += 1
            value = -value
        at = _put_digits(out, at, value // unit, 1)
        if decimals > 0:
            out[at] = 46  # .
            at = _put_digits(out, at + 1, value % unit, decimals)
        at = put(out, at, after)
        ends[i] = at


def numbers(
    values: NDArray[np.int64], *, decimals: int = 0, before: bytes = b"", after: bytes = b""
) -> Texts:
    """``values (n,)`` in units of ``10 ** -decimals``, each between two fixed texts.

    >>> found = numbers(np.array([1500, -7]), decimals=3, before=b"<", after=b">")
    >>> bytes(found.bytes[: found.ends[-1]])
    b'<1.500><-0.007>'
    """
    n = len(values)
    out = np.empty(n * (len(before) + len(after) + _DIGITS_MAX + 2 + decimals), np.uint8)
    starts, ends = np.zeros(n, np.int64), np.zeros(n, np.int64)
    left, right = (np.frombuffer(text, np.uint8) for text in (before, after))
    _put_numbers(np.asarray(values, np.int64), decimals, left, right, out, starts, ends)
    return Texts(out, starts, ends)


@kernel
def _put_records(
    columns: Texts,
    labels: Texts,
    lists: Listed,
    ends_of_lists: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    list_labels: Texts,
    lists_label: Bytes,
    out: Bytes,
    ends: NDArray[np.int64],
    fields: NDArray[np.int64],
    places: NDArray[np.int64],
) -> None:
    n, columns_n = len(ends), len(labels.ends)
    at = 0
    row = 0
    for i in range(n):
        for c in range(columns_n):
            at = put(out, at, labels.bytes[labels.starts[c] : labels.ends[c]])
            k = c * n + i
            begin = at
            at = put(out, at, columns.bytes[columns.starts[k] : columns.ends[k]])
            quoted = 1 if out[begin] == _QUOTE else 0
            fields[i, c, 0] = begin + quoted
            fields[i, c, 1] = at - quoted
        at = put(out, at, lists_label)
        while row < ends_of_lists[i]:
            kind = kinds[row]
            at = put(out, at, list_labels.bytes[list_labels.starts[kind] : list_labels.ends[kind]])
            places[row, 0] = at
            at = put_list(out, at, lists, row)
            places[row, 1] = at
            out[at] = _COMMA
            at += 1
            row += 1
        if out[at - 1] == _COMMA:
            at -= 1
        out[at] = _CLOSE
        out[at + 1] = _CLOSE
        at += 2
        ends[i] = at


@lru_cache(maxsize=32)
def _labels(names: tuple[str, ...]) -> Texts:
    parts = [b'%b"%b":' % (b"," if c else b"{", name.encode()) for c, name in enumerate(names)]
    return texts(parts)


@lru_cache(maxsize=32)
def _list_labels(names: tuple[str, ...]) -> Texts:
    return texts([b'"%b":' % name.encode() for name in names])


def render_records(
    columns: Sequence[tuple[str, Texts]],
    lists: Listed,
    owners: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    list_names: Sequence[str],
) -> Rendered:
    """Records of n customers from ``columns`` (name, n texts each, none empty) and their m lists.

    ``owners (m,)`` are the rows of the customers, ascending, ``kinds (m,)`` index ``list_names``.
    """
    n = len(columns[0][1].starts)
    labels = _labels(tuple(name for name, _ in columns))
    list_labels = _list_labels(tuple(list_names))
    shifts = np.cumsum([0, *(len(column.bytes) for _, column in columns)])
    every = Texts(
        np.concatenate([column.bytes for _, column in columns]),
        np.concatenate([c.starts + s for (_, c), s in zip(columns, shifts, strict=False)]),
        np.concatenate([c.ends + s for (_, c), s in zip(columns, shifts, strict=False)]),
    )
    fixed = n * (len(labels.bytes) + len(_LISTS) + 2) + len(owners)
    named = int((list_labels.ends - list_labels.starts)[kinds].sum())
    size = fixed + named + int((every.ends - every.starts).sum()) + bytes_max(lists)
    out, ends = np.empty(size, np.uint8), np.zeros(n, np.int64)
    fields, places = np.zeros((n, len(columns), 2), np.int64), np.zeros((len(owners), 2), np.int64)
    last = np.searchsorted(owners, np.arange(n), side="right")
    _put_records(every, labels, lists, last, kinds, list_labels, _LISTS, out, ends, fields, places)
    return Rendered(out[: ends[-1] if n else 0].tobytes(), ends, fields, places)
