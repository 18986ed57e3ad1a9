"""What comes together is done together, each piece once, whoever is cancelled meanwhile."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.grouping import Grouping


class Work:
    """Runs that end when they are told to; notes what was in them."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def run(self, some: Sequence[int]) -> list[int]:
        self.runs.append(list(some))
        await self.go_on.wait()
        return [2 * one for one in some]


def grouping(
    work: Work, *, size_max: int = 100, at_a_time: int = 1, ahead_size: int = 0
) -> Grouping[int, int]:
    return Grouping(
        work.run, size=int, size_max=size_max, at_a_time=at_a_time, ahead_size=ahead_size
    )


async def test_what_comes_together_is_one_run_and_each_gets_its_own_result() -> None:
    work = Work()
    together = grouping(work)
    assert await asyncio.gather(*map(together.do, (3, 1, 2))) == [6, 2, 4]
    assert work.runs == [[3, 1, 2]]
    assert await together.do(5) == 10
    assert work.runs == [[3, 1, 2], [5]]


async def test_a_group_has_no_more_than_fits_but_always_one() -> None:
    work = Work()
    together = grouping(work, size_max=4)
    assert await asyncio.gather(*map(together.do, (3, 1, 9, 2, 2))) == [6, 2, 18, 4, 4]
    assert work.runs == [[3, 1], [9], [2, 2]]


async def test_the_next_group_begins_when_the_last_member_of_this_one_has_left() -> None:
    work, left = Work(), asyncio.Event()
    together = grouping(work)

    async def member(one: int) -> None:
        async with together.group(one):
            if one == 1:
                await left.wait()

    first = [asyncio.create_task(member(one)) for one in (1, 2)]
    await asyncio.sleep(0.01)
    second = [asyncio.create_task(member(one)) for one in (3, 4)]
    await asyncio.sleep(0.01)
    assert work.runs == [[1, 2]]
    left.set()
    await asyncio.gather(*first, *second)
    assert work.runs == [[1, 2], [3, 4]]


async def test_who_hangs_holds_nobody_up_for_long() -> None:
    work, entered, left = Work(), asyncio.Event(), asyncio.Event()
    together = Grouping(work.run, size=int, size_max=9, patience_s=0.02)

    async def member(one: int) -> None:
        async with together.group(one):
            entered.set()
            await left.wait()

    hanging = asyncio.create_task(member(1))
    async with asyncio.timeout(5):
        await entered.wait()
        assert await together.do(2) == 4
        assert await together.do(3) == 6
    left.set()
    await hanging
    assert work.runs == [[1], [2], [3]]
    assert await asyncio.gather(*map(together.do, (4, 5))) == [8, 10]
    assert work.runs[-1] == [4, 5], "one at a time, as before"


async def test_a_run_that_hangs_holds_nobody_up_for_long() -> None:
    work = Work()
    work.go_on.clear()
    together = Grouping(work.run, size=int, size_max=9, patience_s=0.02)
    first = asyncio.create_task(together.do(1))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(together.do(2))
    async with asyncio.timeout(5):
        await asyncio.sleep(0.05)
        assert work.runs == [[1], [2]]
        work.go_on.set()
        assert list(await asyncio.gather(first, second)) == [2, 4]
        assert await asyncio.gather(*map(together.do, (4, 5))) == [8, 10]


async def test_with_much_to_do_others_begin_beside_it() -> None:
    work = Work()
    work.go_on.clear()
    together = grouping(work, at_a_time=2, ahead_size=10, size_max=10)
    doing = [asyncio.create_task(together.do(1))]
    for more, runs in ((4, 1), (5, 1), (1, 2), (10, 2)):
        await asyncio.sleep(0.01)
        doing.append(asyncio.create_task(together.do(more)))
        await asyncio.sleep(0.01)
        assert len(work.runs) == runs, more
    work.go_on.set()
    assert await asyncio.gather(*doing) == [2, 8, 10, 2, 20]
    assert work.runs == [[1], [4, 5, 1], [10]]


async def test_what_a_run_raises_its_members_get_and_others_go_on() -> None:
    async def run(some: Sequence[int]) -> list[int]:
        if 0 in some:
            raise ValueError("nothing to do")
        return list(some)

    together = Grouping(run, size=int, size_max=3)
    found = await asyncio.gather(*map(together.do, (0, 3, 1)), return_exceptions=True)
    assert [isinstance(one, ValueError) for one in found] == [True, True, False]


@pytest.mark.parametrize("who", range(4))
async def test_who_is_cancelled_takes_nobody_along(who: int) -> None:
    work = Work()
    work.go_on.clear()
    together = grouping(work, size_max=3)
    doing = [asyncio.create_task(together.do(1)) for _ in range(5)]
    await asyncio.sleep(0.01)
    doing[who].cancel()
    await asyncio.sleep(0.01)
    work.go_on.set()
    async with asyncio.timeout(5):
        found = await asyncio.gather(*doing, return_exceptions=True)
        assert await together.do(7) == 14
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [
        k == who for k in range(5)
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5), st.booleans()), max_size=30),
    st.integers(1, 3),
    st.integers(0, 8),
)
def test_everything_is_done_once_in_any_order_of_events(
    pieces: list[tuple[int, int, bool]], at_a_time: int, ahead_size: int
) -> None:
    """``pieces`` are (size, rounds of the loop before it comes, cancelled a little later)."""

    async def scene() -> None:
        active, done = 0, []

        async def run(some: Sequence[int]) -> list[int]:
            nonlocal active
            active += 1
            assert active <= at_a_time
            assert len(some) == 1 or sum(some) <= 8
            try:
                await asyncio.sleep(0)
            finally:
                active -= 1
            return list(some)

        together = Grouping(run, size=int, size_max=8, at_a_time=at_a_time, ahead_size=ahead_size)

        async def piece(size: int, rounds: int) -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)
            async with together.group(size) as result:
                assert result == size
                await asyncio.sleep(0)
                done.append(size)

        doing = [asyncio.create_task(piece(size, rounds)) for size, rounds, _ in pieces]
        for _ in range(4):
            await asyncio.sleep(0)
        for task, (_, _, cancelled) in zip(doing, pieces, strict=True):
            if cancelled:
                task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*doing, return_exceptions=True)
            assert await together.do(1) == 1
        kept = sorted(
            size for task, (size, _, _) in zip(doing, pieces, strict=True) if not task.cancelled()
        )
        assert sorted(done) == kept

    asyncio.run(scene())
