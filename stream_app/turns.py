"""Who computes: one batch at a time, and whatever waits for the network goes on in between."""

import asyncio

STEPS = 8  # of the event loop: a reply's way from the socket to who waits for it, and an answer's


class Turns:
    """``async with turns:`` around what computes for milliseconds without awaiting.

    The event loop serves whoever is ready in order. With many partitions that is always somebody
    who wants to compute, and each step of sending a message would wait for all of them.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_error: object) -> None:
        try:
            for _step in range(STEPS):
                await asyncio.sleep(0)
        finally:
            self._lock.release()
