"""Who computes: one batch at a time, and whatever waits for the network goes on in between."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Of the event loop, between two who compute: a reply's way from the socket to who waits for it, a
# few times over. Eight were too few for what hurries (docs/performance.md, withdraw).
STEPS = 24
HELD_BACK_MAX_S, HELD_BACK_SHARE = 1.0, 0.25  # at once, and of all time


class Turns:
    """``async with turns:`` around what computes for milliseconds without awaiting.

    The event loop serves whoever is ready in order. With many partitions that is always somebody
    who wants to compute, and each step of sending a message would wait for all of them.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._hurrying = 0
        self._left_s, self._since = HELD_BACK_MAX_S, time.monotonic()
        self._enough: asyncio.TimerHandle | None = None
        self._calm = asyncio.Event()  # nobody is held back
        self._calm.set()

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        try:
            await self._calm.wait()
        except BaseException:
            self._lock.release()
            raise

    async def __aexit__(self, *_error: object) -> None:
        self._release_after(STEPS)

    def _release_after(self, steps: int) -> None:
        """Keep others from computing for so many steps; who has computed goes on at once."""
        if steps:
            asyncio.get_running_loop().call_soon(self._release_after, steps - 1)
        else:
            self._lock.release()

    @asynccontextmanager
    async def held_back(self) -> AsyncIterator[None]:
        """Within, nobody begins to compute; who does at present goes on.

        That holds for a second and a quarter of the time at most: what hurries must not stop the
        rest.
        """
        self._hurrying += 1
        if self._enough is None:
            self._hold_back()
        try:
            yield
        finally:
            self._hurrying -= 1
            if not self._hurrying:
                self._go_on()

    def _hold_back(self) -> None:
        now = time.monotonic()
        earned_s = (now - self._since) * HELD_BACK_SHARE / (1.0 - HELD_BACK_SHARE)
        self._left_s, self._since = min(self._left_s + earned_s, HELD_BACK_MAX_S), now
        self._calm.clear()
        self._enough = asyncio.get_running_loop().call_later(self._left_s, self._go_on)

    def _go_on(self) -> None:
        if self._enough is None:
            return  # had its time
        self._enough.cancel()
        now = time.monotonic()
        self._left_s, self._since = max(self._left_s - (now - self._since), 0.0), now
        self._enough = None
        self._calm.set()
