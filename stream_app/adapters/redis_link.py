"""Connections to one server, a Sentinel's master or a cluster. The only module importing ``redis``.

Called by :mod:`.redis_store`. redis-py's own retries are off: when to retry is the pipeline's
decision.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
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
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    MovedError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream_app.adapters.redis_errors import refusal
from stream_app.adapters.redis_functions import Argument, Command
from stream_app.adapters.redis_url import Mode, RedisAddress
from stream_app.errors import StreamAppError

Call = tuple[bytes, Command]  # the key that says which server, and the command
Refused = ResponseError  # what the server answered instead of doing it
VENDOR_ERRORS = (RedisError, RedisClusterException, OSError)  # OSError includes TimeoutError

_READ_BYTES = 256 * 1024  # per read of the socket: fewer wake-ups for large replies


class SlotMoved(RedisConnectionError):
    """Another node of the cluster has the keys; the next connection goes to it."""


def packed(commands: Sequence[Command]) -> bytes:
    """The commands as they are sent, packed in C."""
    return b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]  # its stub is wrong


def translated(exc: Exception, *, shown: str) -> StreamAppError:
    """Our error for one of redis-py's; ``shown`` names the server."""
    text = str(exc) or "no answer in time"
    code = getattr(exc, "status_code", None)  # redis-py cuts the codes that it knows
    if code is None and isinstance(exc, ResponseError):
        code, _, text = text.partition(" ")
    if isinstance(exc, AuthenticationError | AuthenticationWrongNumberOfArgsError):
        code = code if code in ("NOAUTH", "WRONGPASS") else "AUTH"
    return refusal(shown, code or "", text)


class Link(Protocol):
    def groups(self, keys: Sequence[bytes]) -> list[Sequence[int]]:
        """Positions in ``keys`` that one command may name together."""
        ...

    async def run(self, calls: Sequence[Call]) -> list[Any]: ...
    async def run_everywhere(self, *command: Argument) -> list[Any]: ...
    def connection(self, key: bytes) -> AbstractAsyncContextManager[Any]:
        """A connection for a transaction on the keys of one slot; closed when that fails."""
        ...

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
        if len(calls) == 1:
            return [await self._execute(calls[0][1])]
        async with self.connection(b"") as connection:
            words = packed([command for _, command in calls])
            await connection.send_packed_command(words, check_health=False)
            return [await connection.read_response() for _ in calls]

    async def run_everywhere(self, *command: Argument) -> list[Any]:
        return [await self._execute(command)]

    async def _execute(self, command: Command) -> Any:
        words = packed([command])
        # One time limit around all is half the cost of redis-py's own, which starts a task a send.
        # Whatever stops us inside, also a cancellation, redis-py closes the connection: a reply
        # that comes late is never taken for the answer to the next command.
        async with self._free, asyncio.timeout(self._timeout_s):
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                with _closed_meanwhile():
                    await connection.send_packed_command(words, check_health=False)
                    return await connection.read_response()
            finally:
                await self._pool.release(connection)

    @asynccontextmanager
    async def connection(self, _key: bytes) -> AsyncIterator[Connection]:
        async with self._free, asyncio.timeout(self._timeout_s):
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                with _closed_meanwhile():
                    yield connection
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
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
        self._learned = 0  # how often the topology was learned anew
        self._free = asyncio.Semaphore(connections_max)
        for command in ("HGETALL", "INFO", "SCAN"):  # replies as the server sent them
            client.set_response_callback(command, _as_it_is)
        client.result_callbacks.pop("SCAN", None)  # it makes a dict of the node's cursor

    def groups(self, keys: Sequence[bytes]) -> list[Sequence[int]]:
        slots: dict[int, list[int]] = {}
        for position, key in enumerate(keys):
            slots.setdefault(key_slot(key), []).append(position)
        return list(slots.values())

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        async with self._free:
            known = self._learned
            try:
                with _closed_meanwhile():
                    return await self._sent(calls)
            except (RedisConnectionError, RedisTimeoutError):
                await self._learn_anew(known)
                raise

    async def _sent(self, calls: Sequence[Call]) -> list[Any]:
        await self._client.initialize()
        if len(calls) != 1:
            return await self._pipelined(calls)
        key, command = calls[0]
        # Naming the node spares redis-py from asking it where the keys of an FCALL are.
        return [await self._client.execute_command(*command, target_nodes=self._node(key))]

    async def _learn_anew(self, known: int) -> None:
        """Learn the topology with the next command; once for all that failed with the ``known``.

        This closes the connections of everybody: who fails because of that must not do it again.
        """
        if known == self._learned:
            self._learned += 1
            await self._client.aclose()

    async def _pipelined(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._client.pipeline()
        for key, command in calls:
            pipeline.execute_command(*command, target_nodes=self._node(key))
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    @asynccontextmanager
    async def connection(self, key: bytes) -> AsyncIterator[Connection]:
        async with self._free:
            known = self._learned
            try:
                with _closed_meanwhile():
                    await self._client.initialize()
                node = self._node(key)
                connection = node.acquire_connection()
                try:
                    with _closed_meanwhile():
                        await node.disconnect_if_needed(connection)
                        yield connection
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
                finally:
                    node.release(connection)
            except (AskError, MovedError) as exc:  # a kind of ResponseError
                await self._learn_anew(known)
                raise SlotMoved(f"the slot moves to another node: {exc}") from exc
            except (RedisConnectionError, RedisTimeoutError):
                await self._learn_anew(known)
                raise

    async def run_everywhere(self, *command: Argument) -> list[Any]:
        known = self._learned
        try:
            with _closed_meanwhile():  # by another task that learns the topology anew
                await self._client.initialize()
                return [
                    await self._client.execute_command(*command, target_nodes=node)
                    for node in self._client.get_primaries()
                ]
        except (RedisConnectionError, RedisTimeoutError):
            await self._learn_anew(known)
            raise

    def _node(self, key: bytes) -> ClusterNode:
        node = self._client.get_node_from_key(key)  # type: ignore[arg-type]  # takes bytes as well
        assert node is not None, "only a replica can be None"
        return node

    async def close(self) -> None:
        await self._client.aclose()


@contextmanager
def _closed_meanwhile() -> Iterator[None]:
    """A connection that was closed under our hands is one that was lost.

    redis-py takes its writer away (``AttributeError``), uvloop refuses it (``RuntimeError``).
    """
    try:
        yield
    except AttributeError as exc:
        if exc.obj is not None or exc.name is None:
            raise
        raise RedisConnectionError("the connection was closed meanwhile") from exc
    except RuntimeError as exc:
        if "handler is closed" not in str(exc):
            raise
        raise RedisConnectionError("the connection was closed meanwhile") from exc


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


def connect(
    address: RedisAddress, *, timeout_ms: int, connect_timeout_ms: int, connections_max: int
) -> Link:
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
