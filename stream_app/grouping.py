"""What comes while other work is under way is done in one go with what came beside it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

One = TypeVar("One")
Done = TypeVar("Done")

TICKS = 3  # rounds of the event loop in which nobody came, until a group is taken as complete


class _Place(Generic[One, Done]):
    """One piece of work; ``called`` when it has to lead a group, or its result is there."""

    def __init__(self, one: One) -> None:
        self.one = one
        self.leads = False
        self.called = asyncio.Event()
        self.group: _Group[One, Done] | None = None
        self.results: list[Done] = []
        self.failure: Exception | None = None


class _Group(Generic[One, Done]):
    """Who is not through with it yet; ``counts``: others wait for it."""

    def __init__(self, leader: _Place[One, Done]) -> None:
        self.members = [leader]
        self.counts = True
        self.timer: asyncio.TimerHandle | None = None


class Grouping(Generic[One, Done]):
    """``async with group(one) as done``: ``done`` is the result of ``one`` in ``run([one, …])``.

    ``run`` gets what came while it could not begin, in the order in which it came: as many pieces
    as have no more than ``size_max`` together, but always one. A group is under way until all its
    members have left the ``async with``; the next one begins then, or as soon as ``ahead_size``
    waits, if no more than ``at_a_time`` are under way. A group is not waited for longer than
    ``patience_s``. What ``run`` raises, all members get; when the task of its leader is cancelled,
    the others go into another group.
    """

    def __init__(
        self,
        run: Callable[[Sequence[One]], Awaitable[Sequence[Done]]],
        *,
        size: Callable[[One], int],
        size_max: int,
        at_a_time: int = 1,
        ahead_size: int = 0,
        patience_s: float = 0.25,
    ) -> None:
        self._run = run
        self._size = size
        self._size_max = size_max
        self._at_a_time = at_a_time
        self._ahead_size = ahead_size
        self._patience_s = patience_s
        self._under_way = 0  # groups that count
        self._forming = False
        self._waiting: deque[_Place[One, Done]] = deque()
        self._waiting_size = 0

    async def do(self, one: One) -> Done:
        """Have ``one`` done, and nothing that the next group would wait for."""
        async with self.group(one) as done:
            return done

    @asynccontextmanager
    async def group(self, one: One) -> AsyncIterator[Done]:
        """See above."""
        place = _Place[One, Done](one)
        self._waiting.append(place)
        self._waiting_size += self._size(one)
        self._call_next()
        try:
            await place.called.wait()
            if place.leads:
                await self._lead(place)
            if place.failure is not None:
                raise place.failure
            yield place.results[0]
        finally:
            self._leave(place)

    async def _lead(self, place: _Place[One, Done]) -> None:
        group = place.group
        assert group is not None
        try:
            await self._others_came()
            group.members += self._taken(place)
            members = list(group.members)
            for member in members:
                member.group = group
            loop = asyncio.get_running_loop()
            group.timer = loop.call_later(self._patience_s, self._count_no_more, group)
            results = await self._run([member.one for member in members])
            for member, result in zip(members, results, strict=True):
                member.results.append(result)
        except Exception as exc:
            for member in group.members:
                member.failure = exc
        except BaseException:
            self._put_back(group, place)
            raise
        for member in group.members:
            member.called.set()

    async def _others_came(self) -> None:
        """Let those join whom the event loop has ready."""
        self._forming = True
        try:
            quiet, known = 0, len(self._waiting)
            while quiet < TICKS:
                await asyncio.sleep(0)
                quiet = quiet + 1 if len(self._waiting) == known else 0
                known = len(self._waiting)
        finally:
            self._forming = False

    def _taken(self, leader: _Place[One, Done]) -> list[_Place[One, Done]]:
        group, size = [], self._size(leader.one)
        while self._waiting:
            size += self._size(self._waiting[0].one)
            if size > self._size_max:
                break
            group.append(self._pop())
        self._call_next()
        return group

    def _pop(self) -> _Place[One, Done]:
        place = self._waiting.popleft()
        self._waiting_size -= self._size(place.one)
        return place

    def _put_back(self, group: _Group[One, Done], leader: _Place[One, Done]) -> None:
        others = [member for member in group.members if member is not leader]
        group.members = [leader]
        for member in reversed(others):
            member.group = None
            self._waiting.appendleft(member)
            self._waiting_size += self._size(member.one)

    def _call_next(self) -> None:
        """Let the first that waits lead a group, if one may begin."""
        if not self._waiting or self._forming or self._under_way >= self._at_a_time:
            return
        if self._under_way and self._waiting_size < self._ahead_size:
            return
        leader = self._pop()
        self._under_way += 1
        leader.leads, leader.group = True, _Group(leader)
        leader.called.set()

    def _leave(self, place: _Place[One, Done]) -> None:
        group = place.group
        if group is None:  # cancelled before anybody took it
            self._waiting.remove(place)
            self._waiting_size -= self._size(place.one)
            return
        group.members.remove(place)
        if not group.members:
            if group.timer is not None:
                group.timer.cancel()
            self._count_no_more(group)

    def _count_no_more(self, group: _Group[One, Done]) -> None:
        if group.counts:
            group.counts = False
            self._under_way -= 1
            self._call_next()
