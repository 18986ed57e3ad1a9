"""Who computes, who waits, and for how long."""

import asyncio

import pytest

from stream_app import turns as module
from stream_app.turns import Turns


async def test_one_computes_at_a_time_and_what_waits_for_the_network_goes_between() -> None:
    turns, said = Turns(), []

    async def compute(name: str) -> None:
        async with turns:
            said.append(name)

    async def reply() -> None:
        for step in range(3):
            await asyncio.sleep(0)
            said.append(f"step {step}")

    await asyncio.gather(compute("first"), compute("second"), reply())
    assert said == ["first", "step 0", "step 1", "step 2", "second"]


async def test_nobody_begins_while_they_are_held_back() -> None:
    turns, said = Turns(), []

    async def compute() -> None:
        async with turns:
            said.append("computes")

    async with turns.held_back(), turns.held_back():
        waiting = [asyncio.create_task(compute()) for _ in range(2)]
        await asyncio.sleep(0.02)
        assert said == []
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
    await waiting[1]
    assert said == ["computes"], "who was cancelled meanwhile keeps nobody from it"


async def test_nobody_is_held_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BACK_MAX_S", 0.02)
    turns = Turns()
    async with turns.held_back(), asyncio.timeout(5), turns:
        pass
    async with turns:
        pass


def test_who_hurries_all_the_time_gets_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    # Whose clock is that one; another loop's, such as uvloop's, may be its own.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:

        async def held_in_each_second() -> list[float]:
            nonlocal now
            turns, held_s = Turns(), []

            async def compute() -> None:
                async with turns:
                    pass

            for began in range(8):
                now = float(began)
                async with turns.held_back():
                    waiting = asyncio.create_task(compute())
                    while not waiting.done() and now < began + 0.9:
                        await asyncio.sleep(0)
                        now += 0.001
                    held_s.append(now - began)
                await waiting
                for _ in range(module.STEPS + 1):
                    await asyncio.sleep(0)
            return held_s

        held_s = runner.run(held_in_each_second())
    assert held_s[0] == pytest.approx(0.9, abs=0.01), "the first time all there is"
    assert held_s[-1] == pytest.approx(module.HELD_BACK_SHARE, abs=0.01)
