"""What LEARN is given and what it leaves: events, transitions, and all that came of a batch."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import PREVIOUS_MAX, QUERY_MAX, SEGMENTS_OF_EVENT

# One event as the kernels see it; hashes are 0 where the event has no such field.
EVENT = np.dtype(
    [
        ("customer", "u8"),
        ("item", "u8"),
        ("ts", "f8"),
        ("offset", "i8"),
        ("value", "f8"),  # price times quantity
        ("units", "f4"),
        ("session", "u4"),
        ("event_id", "u4"),
        ("category", "u4"),
        ("segment", "u4", (SEGMENTS_OF_EVENT,)),  # hashes of channel and region
        ("query", "u4", (QUERY_MAX,)),  # hashes of the words of a search, 0 after the last
        ("kind", "u1"),
        ("anonymous", "u1"),
        ("device", "u1"),  # 1: the session id is a device's, see starts_session
        ("list", "u1"),  # number + 1 of the list of ours that the event is about, 0 = none
        ("source", "u1"),  # number + 1 of the source that had put the item there, 0 = not told
        ("refused", "u1"),  # by policy: counted, nothing else
    ],
    align=True,
)

# What one item event says about item pairs; sent to the owners of all its items.
TRANSITION = np.dtype(
    [
        ("item", "u8"),
        ("previous", "u8", (PREVIOUS_MAX,)),  # nearest first, 0 = none
        ("ts", "f8"),
        ("offset", "i8"),  # of the event in its clickstream partition
        ("weight", "f8"),
        ("segment", "u4", (SEGMENTS_OF_EVENT,)),  # those of the event, 0 = none
        ("gap_s", "u2", (PREVIOUS_MAX,)),  # whole seconds since each of them, at most GAP_MAX_S
        ("reserved", "u1", (2,)),  # copies leave padding undefined, and logs must be reproducible
    ],
    align=True,
)


class Learned(NamedTuple):
    """``status`` and ``timers`` (events,) uint8, ``transitions`` (n,) TRANSITION in event order.

    ``snapshots (m,) SNAPSHOT`` are what items are told about their customers, in event order too.
    ``timers`` is the row of the time-out that an internal event made known, NO_TIMER elsewhere.
    ``handed (h,) USER`` are the states that went to known customers, by HANDED events.
    ``probes (p,) USER`` are customers as they were before the events ``probed (p,)``.
    ``ends (events + 1, 3)`` are how many transitions, snapshots and states handed over there are
    before each event, and in the end.
    """

    status: NDArray[np.uint8]
    transitions: NDArray[np.void]
    snapshots: NDArray[np.void]
    timers: NDArray[np.uint8]
    handed: NDArray[np.void]
    probes: NDArray[np.void]
    probed: NDArray[np.int64]
    ends: NDArray[np.int64]

    def between(self, first: int, end: int) -> "Learned":
        """What was learned from the events ``first`` … ``end - 1`` alone."""
        if first == 0 and end == len(self.status):
            return self
        (n, told, handed), (n_end, told_end, handed_end) = self.ends[[first, end]].tolist()
        asked, asked_end = self.probed.searchsorted((first, end)).tolist()
        return Learned(
            self.status[first:end],
            self.transitions[n:n_end],
            self.snapshots[told:told_end],
            self.timers[first:end],
            self.handed[handed:handed_end],
            self.probes[asked:asked_end],
            self.probed[asked:asked_end] - first,
            self.ends[first : end + 1] - self.ends[first],
        )
