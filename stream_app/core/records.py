"""A batch's public records as JSON text: scalar fields and lists of each customer, in one pass.

``{"user_id":…,"version":…,…,"lists":{"home":[…],"cart":[…]}}``
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import allocating, kernel
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
    quotes; ``lists (m, 2)`` those of the lists, of which customer i's end before ``last[i]``.
    """

    text: bytes
    ends: NDArray[np.int64]
    fields: NDArray[np.int64]
    lists: NDArray[np.int64]
    last: NDArray[np.int64]


def texts(values: Sequence[bytes]) -> Texts:
    """Texts that are at hand one by one."""
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    ends = sizes.cumsum()
    return Texts(np.frombuffer(b"".join(values), np.uint8), ends - sizes, ends)


def one_after_another(parts: Sequence[Texts]) -> Texts:
    """The texts of all ``parts``, at least one.

    >>> both = one_after_another([texts([b"a", b"bc"]), texts([b"d"])])
    >>> both.starts.tolist(), both.ends.tolist()
    ([0, 1, 3], [1, 3, 4])
    """
    if len(parts) == 1:
        return parts[0]
    begins = np.cumsum([0, *(len(part.bytes) for part in parts[:-1])]).tolist()
    return Texts(
        np.concatenate([part.bytes for part in parts]),
        np.concatenate([part.starts + at for part, at in zip(parts, begins, strict=True)]),
        np.concatenate([part.ends + at for part, at in zip(parts, begins, strict=True)]),
    )


def chosen(table: Sequence[bytes], rows: NDArray[np.int64]) -> Texts:
    """For each of ``rows``, one dimension or more, its entry of ``table``.

    >>> chosen([b"no", b"yes"], np.array([1, 0, 1])).starts.tolist()
    [2, 0, 2]
    """
    every = texts(table)
    flat = rows.ravel()
    return Texts(every.bytes, every.starts[flat], every.ends[flat])


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


@allocating
def _put_records(
    columns: Texts,
    labels: Texts,
    lists: Listed,
    owners: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    list_labels: Texts,
    lists_label: Bytes,
    ends: NDArray[np.int64],
    fields: NDArray[np.int64],
    places: NDArray[np.int64],
    last: NDArray[np.int64],
) -> Bytes:
    n, columns_n = len(ends), len(labels.ends)
    most = bytes_max(lists) + len(owners) + n * (len(labels.bytes) + len(lists_label) + 2)
    for k in range(len(columns.ends)):
        most += columns.ends[k] - columns.starts[k]
    for k in range(len(kinds)):
        most += list_labels.ends[kinds[k]] - list_labels.starts[kinds[k]]
    out = np.empty(most, np.uint8)
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
        while row < len(owners) and owners[row] == i:
            kind = kinds[row]
            at = put(out, at, list_labels.bytes[list_labels.starts[kind] : list_labels.ends[kind]])
            places[row, 0] = at
            at = put_list(out, at, lists, row)
            places[row, 1] = at
            out[at] = _COMMA
            at += 1
            row += 1
        last[i] = row
        if out[at - 1] == _COMMA:
            at -= 1
        out[at] = _CLOSE
        out[at + 1] = _CLOSE
        at += 2
        ends[i] = at
    return out[:at]


@lru_cache(maxsize=32)
def _labels(names: tuple[str, ...]) -> Texts:
    parts = [b'%b"%b":' % (b"," if c else b"{", name.encode()) for c, name in enumerate(names)]
    return texts(parts)


@lru_cache(maxsize=32)
def _list_labels(names: tuple[str, ...]) -> Texts:
    return texts([b'"%b":' % name.encode() for name in names])


def render_records(
    columns: Sequence[tuple[tuple[str, ...], Texts]],
    lists: Listed,
    owners: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    list_names: tuple[str, ...],
    n: int,
) -> Rendered:
    """Records of n customers from ``columns`` and their m lists.

    Of ``columns`` that are side by side: (names, n texts of the first one, n of the second, …),
    none empty. ``owners (m,)`` are the rows of the customers, ascending, ``kinds (m,)`` index
    ``list_names``.
    """
    names = tuple(name for some, _ in columns for name in some)
    starts, ends = (np.empty(len(names) * n, np.int64) for _ in range(2))
    at, shift = 0, 0
    for _, column in columns:
        to = at + len(column.starts)
        np.add(column.starts, shift, out=starts[at:to])
        np.add(column.ends, shift, out=ends[at:to])
        at, shift = to, shift + len(column.bytes)
    assert at == len(starts)
    every = Texts(np.concatenate([column.bytes for _, column in columns]), starts, ends)
    found = Rendered(
        b"",
        np.zeros(n, np.int64),
        np.zeros((n, len(names), 2), np.int64),
        np.zeros((len(owners), 2), np.int64),
        np.zeros(n, np.int64),
    )
    text = _put_records(
        every, _labels(names), lists, owners, kinds, _list_labels(list_names), _LISTS, *found[1:]
    )
    return found._replace(text=text.tobytes())
