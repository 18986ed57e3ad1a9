"""The ports with their calls measured: how long, how many failed. Errors pass through unchanged."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from stream_app.adapters.telemetry import Metrics
from stream_app.errors import StreamAppError
from stream_app.ports import (
    ITEMS,
    USERS,
    Claim,
    Commit,
    Headers,
    Log,
    PublicHash,
    PublicKeys,
    Record,
    StateStore,
)

T = TypeVar("T")
STAGES = {USERS: "learn", ITEMS: "relate", "s": "stock", "h": "support"}  # by state space
LETTER_HEADERS = ("topic", "partition", "offset", "reason", "detail")


class _Measured:
    def __init__(self, metrics: Metrics, dependency: str) -> None:
        self._metrics = metrics
        self._dependency = dependency

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        started_s = time.perf_counter()
        try:
            return await call
        except StreamAppError as exc:
            name = type(exc).__name__
            self._metrics.errors.add((self._dependency, operation, name))
            raise
        finally:
            took_s = time.perf_counter() - started_s
            self._metrics.calls.observe((self._dependency, operation), took_s)


class MeasuredStore(_Measured):
    """:class:`~stream_app.ports.StateStore` over another one."""

    def __init__(self, store: StateStore, metrics: Metrics) -> None:
        super().__init__(metrics, "redis")
        self._store = store

    async def claim(self, space: str, partition: int, *, epoch_min: int = 0) -> Claim:
        """See :meth:`stream_app.ports.StateStore.claim`."""
        call = self._store.claim(space, partition, epoch_min=epoch_min)
        claim = await self._timed("claim", call)
        # From here on it should move. Claims do not count again: who only claims is stuck.
        self._metrics.committed_at_s.setdefault(_place(claim), time.time())
        return claim

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        """See :meth:`stream_app.ports.StateStore.load`."""
        return await self._timed("load", self._store.load(space, partitions, ids))

    async def commit(self, claim: Claim, step: Commit) -> None:
        """See :meth:`stream_app.ports.StateStore.commit`."""
        await self._timed("commit", self._store.commit(claim, step))
        self._metrics.committed_at_s[_place(claim)] = time.time()


def _place(claim: Claim) -> tuple[str, int]:
    return STAGES.get(claim.space, claim.space.removesuffix(":")), claim.partition


class MeasuredPublic(_Measured):
    """:class:`~stream_app.ports.PublicStore` over another one."""

    def __init__(self, public: PublicKeys, metrics: Metrics) -> None:
        super().__init__(metrics, "redis")
        self._public = public

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublicStore.put_hashes`."""
        replaced = await self._timed("put_hashes", self._public.put_hashes(records))
        self._metrics.lists.add((), replaced)
        return replaced

    async def get_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        """See :meth:`stream_app.ports.PublishedHashes.get_hashes`."""
        return await self._timed("get_hashes", self._public.get_hashes(keys))

    async def amend_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublishedHashes.amend_hashes`."""
        return await self._timed("amend_hashes", self._public.amend_hashes(records))

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """See :meth:`stream_app.ports.PublicStore.put_values`."""
        await self._timed("put_values", self._public.put_values(pairs))

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        """See :meth:`stream_app.ports.PublicStore.get`."""
        return await self._timed("get", self._public.get(key))


class MeasuredLog(_Measured):
    """:class:`~stream_app.ports.Log` over another one; dead letters are counted by reason.

    ``headers`` gives what to add to each record sent now: the context of a trace, or nothing.
    """

    def __init__(
        self,
        log: Log,
        metrics: Metrics,
        *,
        dead_letter_topic: str,
        headers: Callable[[], Headers] = tuple,
    ) -> None:
        super().__init__(metrics, "kafka")
        self._log = log
        self._dead_letter_topic = dead_letter_topic
        self._headers = headers

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """See :meth:`stream_app.ports.Log.send`."""
        more = self._headers()
        if more:
            records = [record._replace(headers=(*record.headers, *more)) for record in records]
        await self._timed("send", self._log.send(topic, partition, records))
        self._metrics.published.add((topic,), len(records))
        if topic == self._dead_letter_topic:
            self._metrics.dead_lettered([_said(record.headers) for record in records])


def _said(headers: Headers) -> dict[str, str]:
    """Our own headers of a dead letter; the last of a name is ours, the others came with it."""
    found = {name: value.decode(errors="replace") for name, value in headers}
    return {name: found[name] for name in LETTER_HEADERS if name in found}
