"""Generations of state: a second one is rebuilt beside the first, then all go over at once.

    <prefix>generation     the number of the current one; without it, 1
    <prefix>{u0}…          keys of generation 1
    <prefix>g2:{u0}…       keys of generation 2, and so on

One key says which generation counts, so changing over is one atomic write. Who claims a partition
looks at it before and after: a worker that was late claims again, in the new generation, from whose
cursor it reads on. That is a roll-back to it, a small one, and needs no other care than that.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from stream_app.adapters.redis_check import parse_info
from stream_app.adapters.redis_store import RedisStore
from stream_app.ports import Claim

_SCAN_COUNT = 1_000


def generation_prefix(prefix: str, number: int) -> str:
    """What the keys of a generation start with.

    >>> generation_prefix("sa1:", 1), generation_prefix("sa1:", 3)
    ('sa1:', 'sa1:g3:')
    """
    return prefix if number == 1 else f"{prefix}g{number}:"


class GenerationStore(RedisStore):
    """A store that follows the current generation, or stays in the ``pinned`` one."""

    def __init__(self, url: str, *, prefix: str, pinned: int | None = None, **kwargs: Any) -> None:
        super().__init__(url, prefix=generation_prefix(prefix, pinned or 1), **kwargs)
        self._base = prefix
        self._pinned = pinned
        self._known: int | None = pinned

    async def claim(self, space: str, partition: int, *, epoch_min: int = 0) -> Claim:
        """See :meth:`stream_app.ports.StateStore.claim`; in the generation that is current then."""
        while True:
            before = await self.follow()
            claim = await super().claim(space, partition, epoch_min=epoch_min)
            if await self.follow() == before:
                return claim

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        """See :meth:`stream_app.ports.StateStore.load`; in the generation of the last claim."""
        if self._known is None:
            await self.follow()
        return await super().load(space, partitions, ids)

    async def moved(self) -> bool:
        """Whether another generation is current than the one of the last claim."""
        return self._known is not None and await self.generation() != self._known

    async def generation(self) -> int:
        """The number of the current generation."""
        if self._pinned is not None:
            return self._pinned
        key = self._pointer()
        (number,) = await self._run([(key, ("GET", key))])
        return int(number or 1)

    async def switch(self, number: int) -> None:
        """Make ``number`` the current generation."""
        key = self._pointer()
        await self._run([(key, ("SET", key, number))])

    async def epoch(self, space: str, partition: int) -> int:
        """Of the last claim of the partition; 0 when nobody has claimed it."""
        record = self._head(space, partition) + b"#cursor"
        (epoch,) = await self._run([(record, ("HGET", record, "epoch"))])
        return int(epoch or 0)

    async def memory(self) -> list[tuple[int, int]]:
        """(bytes used, bytes allowed or 0) of every primary."""
        found = []
        for info in await self._everywhere("INFO", "memory"):
            said = parse_info(info.decode())
            found.append((int(said.get("used_memory", "0")), int(said.get("maxmemory", "0"))))
        return found

    async def drop(self, space: str, partition: int) -> int:
        """Delete all keys of a partition; returns how many there were."""
        dropped = 0
        async for keys in self._keys(self._head(space, partition)):
            await self._run([(keys[0], ("UNLINK", *keys))])
            dropped += len(keys)
        return dropped

    async def _keys(self, head: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that start with ``head``, from the node that has its slot."""
        at: Any = 0
        while True:
            command = ("SCAN", at, "MATCH", head + b"*", "COUNT", _SCAN_COUNT)
            ((at, keys),) = await self._run([(head, command)])
            if keys:
                yield keys
            if int(at) == 0:
                return

    async def follow(self) -> int:
        """Read the current generation from now on; its number."""
        self._known = await self.generation()
        self._prefix = generation_prefix(self._base, self._known)
        return self._known

    def _pointer(self) -> bytes:
        return self._base.encode() + b"generation"
