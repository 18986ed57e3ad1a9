"""Liveness and readiness, as an orchestrator asks for them: ``/live`` and ``/ready``."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from stream_app.errors import StreamAppError
from stream_app.pipeline import ACCOUNTS_ID
from stream_app.ports import USERS, StateStore

STUCK_AFTER_S = 60.0
POLL_AGE_MAX_S = 60.0
ANSWER_WITHIN_S = 2.0


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

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._moved: dict[tuple[str, int], tuple[int, float]] = {}

    def live(self, statuses: Sequence[Standing], poll_age_s: float) -> list[str]:
        """What is wrong with this process; a restart may cure it. Nothing wrong: no entries."""
        now = time.monotonic()
        problems = []
        if poll_age_s > POLL_AGE_MAX_S:
            problems.append(f"the consumer has not polled for {poll_age_s:.0f} s")
        moved = {}
        for status in statuses:
            key = status.topic, status.partition
            position, since = self._moved.get(key, (status.acked, now))
            if status.acked != position or status.acked >= (status.high_water or 0):
                position, since = status.acked, now
            moved[key] = position, since
            if now - since > STUCK_AFTER_S:
                problems.append(
                    f"{status.topic}-{status.partition} stands at {position} of"
                    f" {status.high_water} for {now - since:.0f} s"
                )
        self._moved = moved
        return problems

    async def ready(self, statuses: Sequence[Standing]) -> list[str]:
        """Why this worker cannot serve yet; no entries when it can."""
        problems = [] if statuses else ["no partition is assigned yet"]
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._store.load(USERS, [0], [ACCOUNTS_ID])
        except (StreamAppError, TimeoutError) as exc:
            problems.append(f"the store does not answer: {type(exc).__name__}")
        return problems
