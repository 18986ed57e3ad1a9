"""Item ids as text, by node: as strings, and as JSON in one byte array for rendering."""

import json
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)


class ItemNames:
    r"""Texts of items; grows by doubling, shrinks when the item tables are cleared.

    >>> names = ItemNames()
    >>> names.reserve(2)
    >>> names.set(1, 'a"b')
    >>> names[0], names[1], names.json(1)
    ('', 'a"b', b'"a\\"b"')
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._used = 0
        self.bytes = np.empty(4096, np.uint8)
        self.starts = np.zeros(1024, np.int64)
        self.sizes = np.zeros(1024, np.int32)

    def __getitem__(self, node: int) -> str:
        return self._texts[node]

    def reserve(self, nodes: int) -> None:
        """Make room for nodes below ``nodes``; new ones have no text."""
        self._texts.extend([""] * (nodes - len(self._texts)))
        if nodes > len(self.starts):
            size = max(nodes, 2 * len(self.starts))
            self.starts = _grown(self.starts, size)
            self.sizes = _grown(self.sizes, size)

    def set(self, node: int, text: str) -> None:
        """Remember the text of a node that has none yet."""
        if self._texts[node] or not text:
            return
        quoted = json.dumps(text, ensure_ascii=False).encode()
        end = self._used + len(quoted)
        if end > len(self.bytes):
            self.bytes = _grown(self.bytes, max(end, 2 * len(self.bytes)))
        self.bytes[self._used : end] = np.frombuffer(quoted, np.uint8)
        self._texts[node] = text
        self.starts[node] = self._used
        self.sizes[node] = len(quoted)
        self._used = end

    def json(self, node: int) -> bytes:
        """The text as JSON; empty when there is none."""
        start = int(self.starts[node])
        return self.bytes[start : start + int(self.sizes[node])].tobytes()


def _grown(array: NDArray[Value], size: int) -> NDArray[Value]:
    grown = np.zeros(size, array.dtype)
    grown[: len(array)] = array
    return grown
