"""State and public records on a Redis-protocol server.

:class:`RedisStore` is both ports, because both share the connections. Every write is one call of a
function of ``stream_app.lua`` or one transaction; it carries its fence, so repeating it is safe.

Keys, ``p`` the partition and ``u`` or ``i`` the space; the braces keep a partition in one slot:

    <prefix>{u<p>}:<8 bytes id>    a state blob
    <prefix>{u<p>}#cursor          hash: epoch, token, cursor, meta, outbox; never expires
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice
from typing import Any

from stream_app.adapters.redis_check import ServerReport, parse_info, server_report
from stream_app.adapters.redis_commit import (
    ATTEMPTS_MAX,
    Asked,
    Refusal,
    Writer,
    asked_of,
    given_up,
)
from stream_app.adapters.redis_errors import FunctionMissing
from stream_app.adapters.redis_functions import (
    CODE,
    INTEGER_END,
    Argument,
    function_call,
    hashes_call,
)
from stream_app.adapters.redis_link import (
    VENDOR_ERRORS,
    Call,
    Refused,
    SlotMoved,
    connect,
    translated,
)
from stream_app.adapters.redis_url import Mode, parse_redis_url
from stream_app.errors import ConfigurationError
from stream_app.grouping import Grouping
from stream_app.ports import Claim, Commit, PublicHash

_SCAN_COUNT = 1_000  # keys a server looks at per call, those of other partitions too
# What comes together goes together, up to what a server does in a millisecond or two.
_TOGETHER_BYTES, _TOGETHER_HASHES = 262_144, 100


class RedisStore:
    """Both :class:`~stream_app.ports.StateStore` and :class:`~stream_app.ports.PublicStore`.

    ``url`` is explained in :mod:`stream_app.adapters.redis_url`. ``prefix`` starts the keys of the
    state (public keys are used as they are given). ``state_ttl_ms`` is the lifetime of a blob after
    its last write, by space, and ``public_ttl_ms`` that of public keys; missing or ``None`` is for
    ever. A call takes at most ``timeout_ms``, ``connections_max`` of them run at a time (per node).

    Connects with the first call. A cancelled call leaves no connection behind that waits for its
    reply. Raises ``ConfigurationError`` for a wrong argument, and from every verb for a refusal
    that waiting does not cure (password, permission, a cluster's node); otherwise
    ``StoreUnavailable``.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "sa:",
        state_ttl_ms: Mapping[str, int | None] | None = None,
        public_ttl_ms: int | None = None,
        timeout_ms: int = 5_000,
        connect_timeout_ms: int = 2_000,
        connections_max: int = 8,
    ) -> None:
        lifetimes = [*(state_ttl_ms or {}).values(), public_ttl_ms]
        if any(ttl_ms is not None and ttl_ms <= 0 for ttl_ms in lifetimes):
            raise ConfigurationError(f"a lifetime must be above 0 ms or None, not {lifetimes}")
        if "{" in prefix or "}" in prefix:
            raise ConfigurationError(f"the key prefix {prefix!r} must not contain braces")
        self._address = parse_redis_url(url)
        self._prefix = prefix
        self._state_ttl_ms = dict(state_ttl_ms or {})
        self._public_ttl_ms = public_ttl_ms
        self._writer = Writer(shown=self._address.shown)
        try:
            self._link = connect(
                self._address,
                timeout_ms=timeout_ms,
                connect_timeout_ms=connect_timeout_ms,
                connections_max=connections_max,
            )
        except (TypeError, ValueError, *VENDOR_ERRORS) as exc:
            raise ConfigurationError(f"{self._address.shown}: {exc}; correct the URL") from exc
        self._commits = Grouping(
            self._commit_all,
            size=lambda one: one.size,
            size_max=0 if self._address.mode is Mode.CLUSTER else _TOGETHER_BYTES,
            at_a_time=connections_max,
        )
        self._hashes = Grouping(
            self._all_hashes,
            size=lambda one: len(one[1]),
            size_max=_TOGETHER_HASHES,
            at_a_time=connections_max,
        )

    async def claim(self, space: str, partition: int, *, epoch_min: int = 0) -> Claim:
        """See :meth:`stream_app.ports.StateStore.claim`."""
        assert 0 <= epoch_min < INTEGER_END
        token = secrets.token_bytes(16)
        record = self._head(space, partition) + b"#cursor"
        command = function_call("claim", [record], (token, epoch_min))
        ((epoch, cursor, meta, outbox),) = await self._fcall([(record, command)])
        at = None if cursor is None else int(cursor)
        return Claim(space, partition, int(epoch), token, at, meta, outbox)

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        """See :meth:`stream_app.ports.StateStore.load`. One MGET, in a cluster one a slot."""
        heads = {p: self._head(space, p) + b":" for p in set(partitions)}
        keys = [heads[p] + id_ for p, id_ in zip(partitions, ids, strict=True)]
        blobs: list[bytes | None] = [None] * len(keys)
        groups = self._link.groups(keys)
        calls: list[Call] = [
            (keys[group[0]], ("MGET", *(keys[position] for position in group))) for group in groups
        ]
        for group, found in zip(groups, await self._run(calls), strict=True):
            for position, blob in zip(group, found, strict=True):
                blobs[position] = blob
        return blobs

    async def scan(self, space: str, partition: int) -> AsyncIterator[list[bytes]]:
        """See :meth:`stream_app.timers.StateScan.scan`; looks at all keys of the node."""
        head, cursor = self._head(space, partition) + b":", b"0"
        while True:
            command = ("SCAN", cursor, "MATCH", head + b"*", "COUNT", _SCAN_COUNT)
            ((cursor, keys),) = await self._run([(head, command)])
            yield [key[len(head) :] for key in keys]
            if cursor == b"0":
                return

    async def commit(self, claim: Claim, step: Commit) -> None:
        """See :meth:`stream_app.ports.StateStore.commit`. The last write of an id counts.

        Steps of several partitions that come together are one transaction, but in a cluster.
        """
        head = self._head(claim.space, claim.partition)
        refusal = await self._commits.do(
            asked_of(head, claim, step, self._state_ttl_ms.get(claim.space))
        )
        if refusal is not None:
            raise refusal

    async def _commit_all(self, asked: Sequence[Asked]) -> list[Refusal]:
        attempts_left = ATTEMPTS_MAX
        try:
            while attempts_left:
                attempts_left -= 1
                try:
                    async with self._link.connection(asked[0].head) as connection:
                        found = await self._writer.attempt(connection, asked)
                        if found is not None:
                            return found
                except SlotMoved:  # where to is known by now
                    if not attempts_left:
                        raise
        except VENDOR_ERRORS as exc:
            raise translated(exc, shown=self._address.shown) from exc
        raise given_up(self._address.shown, asked)

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublicStore.put_hashes`."""
        return await self._with_hashes("put_hashes", records)

    async def amend_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublishedHashes.amend_hashes`."""
        return await self._with_hashes("amend_hashes", records)

    async def _with_hashes(self, name: str, records: Sequence[PublicHash]) -> int:
        return await self._hashes.do((name, records))

    async def _all_hashes(self, asked: Sequence[tuple[str, Sequence[PublicHash]]]) -> list[int]:
        """Calls that come together go to the server together."""
        calls = [self._hashes_calls(name, records) for name, records in asked]
        replies = iter(await self._fcall([call for some in calls for call in some]))
        return [sum(islice(replies, len(some))) for some in calls]

    def _hashes_calls(self, name: str, records: Sequence[PublicHash]) -> list[Call]:
        groups = self._link.groups([record.key.encode() for record in records])
        calls: list[Call] = []
        for group in groups:
            command = hashes_call(name, [records[k] for k in group], ttl_ms=self._public_ttl_ms)
            calls.append((records[group[0]].key.encode(), command))
        return calls

    async def get_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        """See :meth:`stream_app.ports.PublishedHashes.get_hashes`. One round trip."""
        names = [key.encode() for key in keys]
        read = await self._run([(name, ("HGETALL", name)) for name in names]) if names else []
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in read]

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """See :meth:`stream_app.ports.PublicStore.put_values`. An empty value deletes the key."""
        values = {key.encode(): value for key, value in pairs}
        keys = list(values)
        groups = [[keys[position] for position in group] for group in self._link.groups(keys)]
        try:
            await self._set_all(groups, values)
        except VENDOR_ERRORS as exc:
            if not self._writer.learned(exc):
                raise translated(exc, shown=self._address.shown) from exc
            await self.put_values(pairs)

    async def _set_all(
        self, groups: Sequence[Sequence[bytes]], values: Mapping[bytes, bytes]
    ) -> None:
        await self._link.run(
            [
                (group[0], command)
                for group in groups
                for command in self._writer.set_all(
                    {key: values[key] for key in group}, self._public_ttl_ms
                )
            ]
        )

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        """See :meth:`stream_app.ports.PublicStore.get`.

        One round trip for a hash, two for a value.
        """
        name = key.encode()
        try:
            flat: list[bytes] = (await self._link.run([(name, ("HGETALL", name))]))[0]
        except VENDOR_ERRORS as exc:
            if not str(exc).startswith("WRONGTYPE"):
                raise translated(exc, shown=self._address.shown) from exc
            value: bytes | None = (await self._run([(name, ("GET", name))]))[0]
            return value
        return dict(zip(flat[::2], flat[1::2], strict=True)) or None

    async def check(self) -> list[ServerReport]:
        """Report on each (primary) server; raises when one cannot be used, naming the cure.

        Loads the function library, which also shows whether that is permitted.
        """
        await self._load_functions()
        infos: list[bytes] = await self._everywhere("INFO")
        configs: list[dict[str, str] | None]
        try:
            replies = await self._link.run_everywhere("CONFIG", "GET", "appendfsync", "save")
        except Refused:  # forbidden here, as on most managed servers
            configs = [None] * len(infos)
        except VENDOR_ERRORS as exc:
            raise translated(exc, shown=self._address.shown) from exc
        else:
            configs = [_decoded_pairs(reply) for reply in replies]
        return [
            server_report(parse_info(info.decode()), config, shown=self._address.shown)
            for info, config in zip(infos, configs, strict=True)
        ]

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        await self._link.close()

    def _head(self, space: str, partition: int) -> bytes:
        return b"%b{%b%d}" % (self._prefix.encode(), space.encode(), partition)

    async def _fcall(self, calls: Sequence[Call]) -> list[Any]:
        try:
            return await self._run(calls)
        except FunctionMissing:
            await self._load_functions()
            return await self._run(calls)  # safe: every function may be repeated

    async def _load_functions(self) -> None:
        await self._everywhere("FUNCTION", "LOAD", "REPLACE", CODE)

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        try:
            return await self._link.run(calls)
        except VENDOR_ERRORS as exc:
            raise translated(exc, shown=self._address.shown) from exc

    async def _everywhere(self, *command: Argument) -> list[Any]:
        try:
            return await self._link.run_everywhere(*command)
        except VENDOR_ERRORS as exc:
            raise translated(exc, shown=self._address.shown) from exc


def _decoded_pairs(flat: Sequence[bytes]) -> dict[str, str]:
    words = [word.decode() for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))
