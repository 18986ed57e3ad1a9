"""Who computes: one batch at a time, and whatever waits for the network goes on in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Of the event loop, between two who compute: a reply's way from the socket to who waits for it, a
# few times over. Eight were too few for what hurries (docs/performance.md, withdraw).
STEPS = 24
HELD_BACK_MAX_S = 1.0


class Turns:
    """``async with turns:`` around what computes for milliseconds without awaiting.

    The event loop serves whoever is ready in order. With many partitions that is always somebody
    who wants to compute, and each step of sending a message would wait for all of them.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._hurrying = 0
        self._calm = asyncio.Event()  # nobody is in a hurry
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
        """For the first second within nobody begins to compute; who does at present goes on."""
        self._hurrying += 1
        self._calm.clear()
        enough = asyncio.get_running_loop().call_later(HELD_BACK_MAX_S, self._calm.set)
        try:
            yield
        finally:
            enough.cancel()
            self._hurrying -= 1
            if not self._hurrying:
                self._calm.set()
