"""A cancellation that a library swallows is not lost."""

import asyncio
import contextlib

import pytest

from stream_app.adapters.cancelling import uncancelled


async def stop_like_aiokafka(cleaned: list[str]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    cleaned.append("all")


async def test_a_cancellation_swallowed_by_stop_ends_the_loop_around_it() -> None:
    cleaned: list[str] = []

    async def endless() -> None:
        while True:
            await uncancelled(stop_like_aiokafka(cleaned))

    task = asyncio.create_task(endless())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert cleaned == ["all"]


async def test_stopping_because_of_a_cancellation_comes_to_its_end() -> None:
    cleaned: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await uncancelled(asyncio.sleep(0))
            cleaned.append("all")

    task = asyncio.create_task(tidy())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["all"]
