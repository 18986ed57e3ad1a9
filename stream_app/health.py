"""Liveness and readiness, as an orchestrator asks for them: ``/live`` and ``/ready``.

A partition that stands still is this process's fault, unless an operation is being tried again:
then Kafka or the store is away, a restart cures nothing, and the worker is not ready, but alive.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from stream_app.errors import StreamAppError
from stream_app.ports import ACCOUNTS_ID, USERS, StateStore
from stream_app.retrying import waiting

GIVE_UP_TIMES = 2  # a worker with problems for so many times the limit ends itself
POLL_AGE_MAX_S = 60.0
ANSWER_WITHIN_S = 2.0
_UNPLACED = -1  # instead of a position


class Standing(Protocol):
    """Where a worker stands in one partition; ``high_water`` is None before the first fetch."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def acked(self) -> int: ...
    @property
    def high_water(self) -> int | None: ...


class Health:
    """Remembers when each partition last moved."""

    def __init__(
        self,
        store: StateStore,
        *,
        stuck_after_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._stuck_after_s = stuck_after_s
        self._clock = clock
        self._ill_since: float | None = None
        self._moved: dict[tuple[str, int], tuple[int, float]] = {}

    def live(
        self,
        statuses: Sequence[Standing],
        poll_age_s: float,
        unplaced: Iterable[tuple[str, int]] = (),
    ) -> list[str]:
        """What is wrong with this process; a restart may cure it. Nothing wrong: no entries.

        ``unplaced`` are partitions that are assigned and not read yet.
        """
        now = self._clock()
        problems = []
        if statuses and poll_age_s > POLL_AGE_MAX_S:  # a spare worker has nothing to poll
            problems.append(f"the consumer has not polled for {poll_age_s:.0f} s")
        moved = {}
        for status in statuses:
            key = status.topic, status.partition
            position, since = self._moved.get(key, (status.acked, now))
            caught_up = status.acked >= (status.high_water or 0)
            if status.acked != position or caught_up or waiting():
                position, since = status.acked, now
            moved[key] = position, since
            if now - since > self._stuck_after_s:
                problems.append(
                    f"{status.topic}-{status.partition} stands at {position} of"
                    f" {status.high_water} for {now - since:.0f} s"
                )
        for key in unplaced:
            position, since = self._moved.get(key, (_UNPLACED, now))
            if position != _UNPLACED or waiting():
                since = now
            moved[key] = _UNPLACED, since
            if now - since > self._stuck_after_s:
                problems.append(
                    f"{key[0]}-{key[1]} is assigned to this worker for {now - since:.0f} s and has"
                    " not been taken over"
                )
        self._moved = moved
        if not problems:
            self._ill_since = None
        elif self._ill_since is None:
            self._ill_since = now
        return problems

    def hopeless(
        self,
        statuses: Sequence[Standing],
        poll_age_s: float,
        unplaced: Iterable[tuple[str, int]] = (),
    ) -> str:
        """Why the process should end itself, where nobody asks ``/live``; else empty."""
        problems = self.live(statuses, poll_age_s, unplaced)
        limit_s = (GIVE_UP_TIMES - 1) * self._stuck_after_s
        if self._ill_since is None or self._clock() - self._ill_since < limit_s:
            return ""
        return "; ".join(problems)

    async def ready(self, statuses: Sequence[Standing]) -> list[str]:
        """Why this worker cannot serve yet; no entries when it can."""
        problems = [] if statuses else ["no partition is assigned yet"]
        problems += [f"waiting: {what} is being tried again" for what in waiting()]
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._store.load(USERS, [0], [ACCOUNTS_ID])
        except (StreamAppError, TimeoutError) as exc:
            problems.append(f"the store does not answer: {type(exc).__name__}")
        return problems
