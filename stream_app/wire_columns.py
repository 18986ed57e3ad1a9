"""The fields of many events side by side. Called by the decoder."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import KIND
from stream_app.wire import Event

Column = tuple[Any, ...]


class _Kinds(dict[str | None, int]):
    """Numbers of the kinds; of what is none, -1."""

    def __missing__(self, _name: str | None) -> int:
        return -1


_KIND_OR_NONE = _Kinds(KIND)


def columns_of(parsed: Sequence[Event]) -> Any:
    """The fields of all events together: an :class:`Event` with a tuple in each field.

    But ``event`` is an array of the numbers of the kinds, -1 for none, and ``ts`` one of floats,
    NaN for none.
    """
    if not parsed:
        return Event()
    fields: Any = zip(*map(msgspec.structs.astuple, parsed), strict=True)
    columns: Any = Event(*fields)
    columns.event = np.array(list(map(_KIND_OR_NONE.__getitem__, columns.event)))
    columns.ts = np.array(columns.ts, np.float64)
    return columns


def texts_of(values: Column) -> list[str]:
    """The ids as text, "" for none; those that came as numbers in decimal digits."""
    if set(map(type, values)) == {str}:
        return list(values)
    return ["" if value is None else text_of(value) for value in values]


def absent(values: Column) -> bool:
    return values.count(None) == len(values)


def missing(values: Column) -> NDArray[np.bool_]:
    """Which of the values are none."""
    if not values.count(None):
        return np.zeros(len(values), np.bool_)
    return np.array([value is None for value in values])


def numbers_of(values: Column, otherwise: float) -> NDArray[np.float64]:
    if absent(values):
        return np.full(len(values), otherwise)
    return np.array([otherwise if value is None else value for value in values], np.float64)


def text_of(value: str | int | None) -> str:
    return value if isinstance(value, str) else str(value)
