"""Four counters in a small shared file: what a contender of any language has done so far.

The harness reads them while the contender works, which costs the contender a few stores a batch.
"""

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

_LAYOUT = struct.Struct("<4q")


class Counts(NamedTuple):
    """Events applied, second-stage records still on their way, pairs counted, lists written."""

    applied: int = 0
    pending: int = 0
    pairs: int = 0
    lists: int = 0


class Progress:
    """The counters of one run.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "progress"
    >>> Progress.create(path)
    >>> Progress(path).add(applied=2, pairs=18)
    >>> Progress(path).counts().pairs
    18
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _LAYOUT.size)

    @staticmethod
    def create(path: Path) -> None:
        """Write counters of nothing."""
        path.write_bytes(bytes(_LAYOUT.size))

    def counts(self) -> Counts:
        """What is in the file now."""
        return Counts(*_LAYOUT.unpack_from(self._map))

    def add(self, *, applied: int = 0, pairs: int = 0, lists: int = 0) -> None:
        """Count up; only one process may."""
        now = self.counts()
        _LAYOUT.pack_into(
            self._map, 0, now.applied + applied, now.pending, now.pairs + pairs, now.lists + lists
        )
