"""The stores under contract and what only a test does to them: take a backup and put it back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from redis import Redis

from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.adapters.redis_store import RedisStore
from stream_app.ports import USERS, PublicKeys, StateStore

STATE_TTL_MS = 3_600_000
PUBLIC_TTL_MS = 1_800_000


class Backups(Protocol):
    """A server's data, taken and put back as a whole."""

    def take(self) -> object:
        """Return everything there is now."""
        ...

    def put_back(self, backup: object) -> None:
        """Return to ``backup``, as a server that lost its last writes."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """One adapter of each port, empty."""

    state: StateStore
    public: PublicKeys
    backups: Backups


class _MemoryBackups:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def take(self) -> object:
        return self._store.snapshot()

    def put_back(self, backup: object) -> None:
        self._store.restore(backup)  # type: ignore[arg-type]


class _ServerBackups:
    def __init__(self, client: Redis) -> None:
        self._client = client

    def take(self) -> object:
        return {key: self._client.dump(key) for key in self._client.scan_iter()}

    def put_back(self, backup: object) -> None:
        assert isinstance(backup, dict)
        self._client.flushdb()
        for key, dumped in backup.items():
            self._client.restore(key, 0, dumped)


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncIterator[Stores]:
    """Stores of ``kind`` ``memory``, or those of the empty server at ``url``."""
    if kind == "memory":
        memory = MemoryStore()
        yield Stores(memory, MemoryPublic(), _MemoryBackups(memory))
        return
    with Redis.from_url(url, protocol=2) as client:
        async with redis_store(url) as store:
            yield Stores(store, store, _ServerBackups(client))


@asynccontextmanager
async def redis_store(
    url: str, *, timeout_ms: int = 5_000, connections_max: int = 8
) -> AsyncIterator[RedisStore]:
    """Return a store with the lifetimes of the tests; user state and public keys expire."""
    store = RedisStore(
        url,
        state_ttl_ms={USERS: STATE_TTL_MS},
        public_ttl_ms=PUBLIC_TTL_MS,
        timeout_ms=timeout_ms,
        connections_max=connections_max,
    )
    try:
        yield store
    finally:
        await store.close()
