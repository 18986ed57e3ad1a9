"""A clickstream partition as its owner holds it, and what one batch makes of it."""

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.codec import Outbox
from stream_app.core.agenda import Agenda
from stream_app.handing import Waiting
from stream_app.ports import Claim, Commit
from stream_app.publishing import Messages
from stream_app.telemetry import Quality
from stream_app.user_cache import UserCache

BLEND_ID = b"blend"  # beside the states of a partition: what is learned of the sources' weights
CYCLES_ID = b"cycles"  # and of how soon customers buy an item again


class Applied(NamedTuple):
    """A batch that has been computed: what to commit, what to publish, what holds from then on."""

    step: Commit
    outbox: Outbox
    fresh: Outbox  # the part of it that the batch adds to what waits
    messages: Messages
    partition: NDArray[np.void]
    merged: NDArray[np.int64]
    blend: NDArray[np.void]
    cycles: NDArray[np.void]
    users_n: int  # of the commit's writes, the first: states of customers, also those that are gone
    ids: NDArray[np.uint64]  # of the customers, and when time will move each of them
    deadlines: NDArray[np.float64]
    quality: Quality


@dataclass(slots=True)
class Owned:
    """A clickstream partition this worker owns: its claim, its next offset, its own state."""

    claim: Claim
    cursor: int | None
    partition: NDArray[np.void]
    merged: NDArray[np.int64]  # by clickstream partition: the last state adopted from there
    blend: NDArray[np.void]
    cycles: NDArray[np.void]
    users: UserCache
    agenda: Agenda
    touched_at: float  # when a batch was last applied, by the clock
    waiting: Waiting
    calls: int = 0  # batches under way: one may be computed while the one before is published
    publishing: asyncio.Task[None] | None = None  # of what was committed last
    surveyed_at: float = -np.inf

    def take(self, done: Applied) -> None:
        """Go on from a batch that has been committed."""
        self.cursor, self.partition, self.merged = done.step.cursor, done.partition, done.merged
        self.blend, self.cycles = done.blend, done.cycles
        self.users.put(done.step.writes[: done.users_n])
        self.agenda.add(done.ids, done.deadlines)
        self.waiting.committed(done.fresh)
