"""aiokafka's ``stop`` swallows a cancellation that arrives while it runs; here none is lost."""

import asyncio
from collections.abc import Awaitable


async def uncancelled(stop: Awaitable[object]) -> None:
    """Await ``stop`` to its end, then raise ``CancelledError`` if the task was cancelled meanwhile.

    aiokafka cancels its own tasks and suppresses ``CancelledError`` around awaiting them, whoever
    it is for. A loop around such a call would go on for ever, and with it a worker that stops.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    await stop
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
