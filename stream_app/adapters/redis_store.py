"""State and public records on a Redis-protocol server. The only module that imports ``redis``.

:class:`RedisStore` is both ports, because both share the connections. Every write is one call of a
function of ``stream_app.lua``; it carries its fence, so repeating it is safe, and so redis-py's own
retries are off: when to retry is the pipeline's decision.

Keys, ``p`` the partition and ``u`` or ``i`` the space; the braces keep a partition in one slot:

    <prefix>{u<p>}:<8 bytes id>    a state blob
    <prefix>{u<p>}#cursor          hash: epoch, token, cursor, meta, outbox; never expires
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import hiredis
from redis.asyncio import ConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream_app.adapters.redis_check import ServerReport, parse_info, server_report
from stream_app.adapters.redis_errors import FunctionMissing, refusal
from stream_app.adapters.redis_functions import (
    CODE,
    INTEGER_END,
    Argument,
    Command,
    commit_call,
    function_call,
    hashes_call,
    judge_commit,
)
from stream_app.adapters.redis_url import Mode, RedisAddress, parse_redis_url
from stream_app.errors import ConfigurationError, StreamAppError
from stream_app.ports import Claim, Commit, PublicHash

Call = tuple[bytes, Command]  # the key that says which server, and the command

_READ_BYTES = 256 * 1024  # per read of the socket: fewer wake-ups for large replies
_VENDOR_ERRORS = (RedisError, RedisClusterException, OSError)  # OSError includes TimeoutError


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
        try:
            self._link = _connect(
                self._address,
                timeout_ms=timeout_ms,
                connect_timeout_ms=connect_timeout_ms,
                connections_max=connections_max,
            )
        except (TypeError, ValueError, RedisError, RedisClusterException) as exc:
            raise ConfigurationError(f"{self._address.shown}: {exc}; correct the URL") from exc

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

    async def commit(self, claim: Claim, step: Commit) -> None:
        """See :meth:`stream_app.ports.StateStore.commit`. The last write of an id counts."""
        head = self._head(claim.space, claim.partition)
        command = commit_call(head, claim, step, ttl_ms=self._state_ttl_ms.get(claim.space))
        (reply,) = await self._fcall([(head, command)])
        judge_commit(reply, claim, step, shown=self._address.shown)

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublicStore.put_hashes`."""
        groups = self._link.groups([record.key.encode() for record in records])
        calls: list[Call] = []
        for group in groups:
            command = hashes_call([records[k] for k in group], ttl_ms=self._public_ttl_ms)
            calls.append((records[group[0]].key.encode(), command))
        return sum(await self._fcall(calls))

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """See :meth:`stream_app.ports.PublicStore.put_values`. An empty value deletes the key."""
        values = dict(pairs)
        keys = [key.encode() for key in values]
        texts = list(values.values())
        calls: list[Call] = []
        for group in self._link.groups(keys):
            own_keys = [keys[position] for position in group]
            own_texts = (texts[position] for position in group)
            command = function_call(
                "put_values", own_keys, (self._public_ttl_ms or b"", *own_texts)
            )
            calls.append((own_keys[0], command))
        await self._fcall(calls)

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        """See :meth:`stream_app.ports.PublicStore.get`.

        One round trip for a hash, two for a value.
        """
        name = key.encode()
        try:
            flat: list[bytes] = (await self._link.run([(name, ("HGETALL", name))]))[0]
        except _VENDOR_ERRORS as exc:
            if not str(exc).startswith("WRONGTYPE"):
                raise self._translated(exc) from exc
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
        except ResponseError:  # forbidden here, as on most managed servers
            configs = [None] * len(infos)
        except _VENDOR_ERRORS as exc:
            raise self._translated(exc) from exc
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
        except _VENDOR_ERRORS as exc:
            raise self._translated(exc) from exc

    async def _everywhere(self, *command: Argument) -> list[Any]:
        try:
            return await self._link.run_everywhere(*command)
        except _VENDOR_ERRORS as exc:
            raise self._translated(exc) from exc

    def _translated(self, exc: Exception) -> StreamAppError:
        text = str(exc) or "no answer in time"
        code = getattr(exc, "status_code", None)  # redis-py cuts the codes that it knows
        if code is None and isinstance(exc, ResponseError):
            code, _, text = text.partition(" ")
        if isinstance(exc, AuthenticationError | AuthenticationWrongNumberOfArgsError):
            code = code if code in ("NOAUTH", "WRONGPASS") else "AUTH"
        return refusal(self._address.shown, code or "", text)


def _decoded_pairs(flat: Sequence[bytes]) -> dict[str, str]:
    words = [word.decode() for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


class _Link(Protocol):
    def groups(self, keys: Sequence[bytes]) -> list[Sequence[int]]:
        """Positions in ``keys`` that one command may name together."""
        ...

    async def run(self, calls: Sequence[Call]) -> list[Any]: ...
    async def run_everywhere(self, *command: Argument) -> list[Any]: ...
    async def close(self) -> None: ...


class _ServerLink:
    """One server, or the master that Sentinel names: pooled connections, commands packed in C."""

    def __init__(
        self,
        pool: ConnectionPool,
        sentinels: Sequence[Redis] = (),
        /,
        *,
        timeout_ms: int,
        connections_max: int,
    ) -> None:
        self._pool = pool
        self._sentinels = sentinels
        self._timeout_s = timeout_ms / 1000
        self._free = asyncio.Semaphore(connections_max)

    def groups(self, keys: Sequence[bytes]) -> list[Sequence[int]]:
        return [range(len(keys))] if keys else []

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        return [await self._execute(command) for _, command in calls]

    async def run_everywhere(self, *command: Argument) -> list[Any]:
        return [await self._execute(command)]

    async def _execute(self, command: Command) -> Any:
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub is wrong
        # One time limit around all is half the cost of redis-py's own, which starts a task a send.
        # Whatever stops us inside, also a cancellation, redis-py closes the connection: a reply
        # that comes late is never taken for the answer to the next command.
        async with self._free, asyncio.timeout(self._timeout_s):
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.send_packed_command(packed, check_health=False)
                return await connection.read_response()
            finally:
                await self._pool.release(connection)

    async def close(self) -> None:
        await self._pool.disconnect()
        for sentinel in self._sentinels:
            await sentinel.aclose()


class _ClusterLink:
    """A cluster: each command goes to the primary of its key's slot, many of them pipelined."""

    def __init__(self, client: RedisCluster, *, connections_max: int) -> None:
        self._client = client
        self._free = asyncio.Semaphore(connections_max)
        for command in ("HGETALL", "INFO"):  # replies as the server sent them
            client.set_response_callback(command, _as_it_is)

    def groups(self, keys: Sequence[bytes]) -> list[Sequence[int]]:
        slots: dict[int, list[int]] = {}
        for position, key in enumerate(keys):
            slots.setdefault(key_slot(key), []).append(position)
        return list(slots.values())

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        async with self._free:
            try:
                await self._client.initialize()
                if len(calls) == 1:
                    key, command = calls[0]
                    # Naming the node spares redis-py from asking it where the keys of an FCALL are.
                    node = self._node(key)
                    return [await self._client.execute_command(*command, target_nodes=node)]
                return await self._pipelined(calls)
            except (RedisConnectionError, RedisTimeoutError):
                await self._client.aclose()  # learn the topology anew with the next command
                raise

    async def _pipelined(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._client.pipeline()
        for key, command in calls:
            pipeline.execute_command(*command, target_nodes=self._node(key))
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def run_everywhere(self, *command: Argument) -> list[Any]:
        await self._client.initialize()
        return [
            await self._client.execute_command(*command, target_nodes=node)
            for node in self._client.get_primaries()
        ]

    def _node(self, key: bytes) -> ClusterNode:
        node = self._client.get_node_from_key(key)  # type: ignore[arg-type]  # takes bytes as well
        assert node is not None, "only a replica can be None"
        return node

    async def close(self) -> None:
        await self._client.aclose()


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


def _connect(
    address: RedisAddress, *, timeout_ms: int, connect_timeout_ms: int, connections_max: int
) -> _Link:
    options: dict[str, Any] = {
        "protocol": 2,  # redis-py 8.1.0 breaks on RESP3 connections that the server closed
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_timeout_ms / 1000,
        "socket_read_size": _READ_BYTES,
        "max_connections": connections_max,
    }
    limits = {"timeout_ms": timeout_ms, "connections_max": connections_max}
    if address.mode is Mode.STANDALONE:
        pool = ConnectionPool.from_url(address.url, **options, socket_timeout=None)
        pool.connection_class(**pool.connection_kwargs)  # unknown options of the URL raise now
        return _ServerLink(pool, **limits)

    parsed: dict[str, Any] = dict(parse_url(address.url))
    parsed.pop("host", None), parsed.pop("port", None)
    tls = parsed.pop("connection_class", Connection) is SSLConnection
    if address.mode is Mode.CLUSTER:
        options["socket_timeout"] = timeout_ms / 1000
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        client = RedisCluster(startup_nodes=nodes, ssl=tls, **(parsed | options))
        return _ClusterLink(client, connections_max=connections_max)

    sentinel_options: dict[str, Any] = {
        "ssl": tls,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": connect_timeout_ms / 1000,
    } | dict(address.sentinel_options)
    tls_options = {name: value for name, value in parsed.items() if name.startswith("ssl_")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        address.hosts, sentinel_kwargs=sentinel_options | tls_options
    )
    master = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        address.master, sentinel, ssl=tls, socket_timeout=None, **(parsed | options)
    )
    return _ServerLink(master, sentinel.sentinels, **limits)
