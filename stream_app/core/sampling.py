"""Keep a sample of customers as they were before an event, to ask what the lists would have said.

One item event in 8 while a partition has learned little, one in 32 for good. The draw comes from
the offset: replay draws the same, and it does not matter how the log is cut into batches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel
from stream_app.core.raw import zeroed
from stream_app.core.revisits import Row
from stream_app.core.state import USER

EAGER, LATER = 8, 32  # one in so many
_EAGER_UNTIL = 50_000.0  # transitions


class Sample(NamedTuple):
    """``users (p,) USER`` before ``events (p,)``; ``draw`` is one per event, ``n (1,)`` is p."""

    draw: NDArray[np.int64]
    users: NDArray[np.void]
    events: NDArray[np.int64]
    n: NDArray[np.int64]

    def kept(self) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """The customers and the rows of their events."""
        return self.users[: self.n[0]], self.events[: self.n[0]]


def new_sample(offsets: NDArray[np.int64], *, wanted: bool = True) -> Sample:
    """Room for what will be drawn of events with these offsets.

    >>> sample = new_sample(np.arange(65536))
    >>> len(sample.users), len(new_sample(np.arange(100), wanted=False).users)
    (8192, 0)
    """
    # Knuth's multiplicative hashing, which permutes the lower 16 bits.
    draw = offsets % 65536 * 40503 % 65536 // 64
    size = int(np.count_nonzero(draw % EAGER == 0)) if wanted else 0
    return Sample(draw, zeroed(size, USER), np.zeros(size, np.int64), np.zeros(1, np.int64))


@kernel
def keep(sample: Sample, event: int, users: NDArray[np.void], row: int, partition: Row) -> None:
    """Keep ``users[row]`` as they are before ``event``, if it is drawn and they have a past."""
    every = LATER if partition.transitions >= _EAGER_UNTIL else EAGER
    if users[row].ring_n > 0 and sample.draw[event] % every == 0:
        n = sample.n[0]
        sample.users[n] = users[row]
        sample.events[n] = event
        sample.n[0] = n + 1
