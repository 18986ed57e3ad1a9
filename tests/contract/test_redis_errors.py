"""Every way a real server fails is told as the error that says what to do, and is got over."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis

from stream_app.adapters.redis_store import RedisStore
from stream_app.embedded import ValkeyServer, valkey_server
from stream_app.errors import ConfigurationError, StoreUnavailable
from stream_app.ports import USERS, Commit, PublicHash
from tests.contract.stores import redis_store

BLOB = b"x" * 10_000


@pytest.fixture
async def store(valkey: ValkeyServer) -> AsyncIterator[RedisStore]:
    """A store of the empty server of the session, impatient."""
    async with redis_store(valkey.url, timeout_ms=300, connections_max=1) as store:
        yield store


@pytest.fixture
def admin(valkey: ValkeyServer) -> Iterator[Redis]:
    """An operator's connection; settings and users that a test changed are put back."""
    with Redis.from_url(valkey.url, protocol=2) as client:
        yield client
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("min-replicas-to-write", 0)
        client.acl_setuser("default", enabled=True, nopass=True, keys="*", commands=["+@all"])
        client.acl_deluser("worker")
        client.replicaof("no", "one")


async def test_a_stopped_server_is_retryable_and_served_after_its_return() -> None:
    with valkey_server() as server:
        async with redis_store(server.url) as store:
            claim = await store.claim(USERS, 0)
            server.kill()
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match=f"redis://{server.address}.*start it"):
                    await store.commit(claim, Commit(None, 1, [], b"", b""))
            server.start()  # empty, and without the function library
            assert (await store.claim(USERS, 0)).epoch == 1


async def test_a_paused_server_is_given_up_in_time(valkey: ValkeyServer, store: RedisStore) -> None:
    await store.claim(USERS, 0)
    valkey.pause()
    for _ in range(2):  # the second one has to open a connection
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await store.claim(USERS, 0)
    valkey.resume()
    assert (await store.claim(USERS, 0)).epoch > 1


async def test_a_cancelled_call_never_answers_the_next_one(
    valkey: ValkeyServer, store: RedisStore
) -> None:
    await store.put_values([("similar:1", b"one"), ("similar:2", b"two")])
    valkey.pause()
    lost = asyncio.create_task(store.get("similar:1"))
    await asyncio.sleep(0.05)  # it has been sent, and the reply is still to come
    lost.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lost
    valkey.resume()
    assert await store.get("similar:2") == b"two"


async def test_more_callers_than_connections_wait_for_their_turn(valkey: ValkeyServer) -> None:
    keys = [f"similar:{number}" for number in range(50)]
    async with redis_store(valkey.url, connections_max=1) as store:
        await asyncio.gather(*(store.put_values([(key, key.encode())]) for key in keys))
        assert await asyncio.gather(*map(store.get, keys)) == [key.encode() for key in keys]


async def test_a_full_server_is_retryable_and_nothing_was_written(
    store: RedisStore, admin: Redis
) -> None:
    claim = await store.claim(USERS, 0)
    admin.config_set("maxmemory", "1mb")
    with pytest.raises(StoreUnavailable, match=r"OOM .*raise maxmemory"):
        await store.commit(claim, Commit(None, 1, [(b"anna", BLOB)], b"", b""))
    admin.config_set("maxmemory", 0)
    assert await store.load(USERS, [0], [b"anna"]) == [None]
    await store.commit(claim, Commit(None, 1, [(b"anna", BLOB)], b"", b""))


async def test_too_few_replicas_are_retryable(store: RedisStore, admin: Redis) -> None:
    claim = await store.claim(USERS, 0)
    admin.config_set("min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailable, match=r"NOREPLICAS .*min-replicas-to-write"):
        await store.commit(claim, Commit(None, 1, [], b"", b""))
    admin.config_set("min-replicas-to-write", 0)
    await store.commit(claim, Commit(None, 1, [], b"", b""))


async def test_a_demoted_server_is_retryable(store: RedisStore, admin: Redis) -> None:
    claim = await store.claim(USERS, 0)
    admin.replicaof("127.0.0.1", 1)  # a master that does not exist: the data stays
    with pytest.raises(StoreUnavailable, match=r"READONLY .*replica"):
        await store.commit(claim, Commit(None, 1, [], b"", b""))
    admin.replicaof("no", "one")
    await store.commit(claim, Commit(None, 1, [], b"", b""))


async def test_a_lost_function_library_is_loaded_again(store: RedisStore, admin: Redis) -> None:
    claim = await store.claim(USERS, 0)
    admin.function_flush()
    await store.commit(claim, Commit(None, 1, [(b"anna", b"a")], b"", b""))
    admin.function_flush()
    assert await store.put_hashes([PublicHash("rec:anna", 1, 1, (), [])]) == 1
    assert await store.load(USERS, [0], [b"anna"]) == [b"a"]


async def test_a_killed_connection_is_replaced(store: RedisStore, admin: Redis) -> None:
    claim = await store.claim(USERS, 0)
    admin.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.05)
    await store.commit(claim, Commit(None, 1, [], b"", b""))


async def test_a_connection_killed_while_it_waits_is_retryable(
    store: RedisStore, admin: Redis
) -> None:
    claim = await store.claim(USERS, 0)
    admin.client_pause(250, all=True)
    waiting = asyncio.create_task(store.commit(claim, Commit(None, 1, [], b"", b"")))
    await asyncio.sleep(0.05)
    admin.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(StoreUnavailable):
        await waiting
    admin.client_unpause()
    await store.commit(claim, Commit(None, 1, [], b"", b""))


@pytest.mark.parametrize(
    ("userinfo", "message"),
    [("", "NOAUTH .*URL"), (":wrong-secret@", "WRONGPASS .*URL"), ("who:x@", "WRONGPASS .*URL")],
)
async def test_a_wrong_password_stops_the_worker_and_is_not_shown(
    valkey: ValkeyServer, admin: Redis, userinfo: str, message: str
) -> None:
    admin.acl_setuser("default", enabled=True, reset_passwords=True, passwords=["+right"])
    async with redis_store(valkey.url.replace("://", f"://{userinfo}")) as store:
        with pytest.raises(ConfigurationError, match=message) as caught:
            await store.claim(USERS, 0)
    assert "secret" not in str(caught.value)


async def test_a_password_that_the_server_does_not_ask_for_is_told(valkey: ValkeyServer) -> None:
    async with redis_store(valkey.url.replace("://", "://:wrong-secret@")) as store:
        with pytest.raises(ConfigurationError, match="correct the URL"):
            await store.claim(USERS, 0)


@pytest.mark.parametrize(
    "denied", [["-fcall"], ["-function|load"], ["-mget"], ["-set", "-mset", "-msetex"]]
)
async def test_a_missing_permission_stops_the_worker(
    valkey: ValkeyServer, admin: Redis, denied: list[str]
) -> None:
    rights = ["+@all", *denied]
    admin.acl_setuser("worker", enabled=True, passwords=["+pw"], keys="*", commands=rights)
    async with redis_store(valkey.url.replace("://", "://worker:pw@")) as store:
        with pytest.raises(ConfigurationError, match="grant the user"):
            claim = await store.claim(USERS, 0)
            await store.commit(claim, Commit(None, 1, [(b"anna", b"a")], b"", b""))
            await store.load(USERS, [0], [b"anna"])


async def test_keys_of_another_application_stop_the_worker(store: RedisStore, admin: Redis) -> None:
    admin.set("sa:{u0}#cursor", "not ours")
    with pytest.raises(ConfigurationError, match=r"WRONGTYPE .*another prefix"):
        await store.claim(USERS, 0)


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@a:1",
        "redis+sentinel://:secret@a:1",
        "redis+cluster://:secret@a:x",
        "redis+cluster://:secret@a:1/3",
        "redis://:secret@a:1/0?no_such_option=1",
        "redis+cluster://",
    ],
)
def test_a_wrong_url_fails_at_start_without_showing_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url)
    assert "secret" not in str(caught.value)


def test_wrong_arguments_fail_at_start(valkey: ValkeyServer) -> None:
    with pytest.raises(ConfigurationError, match="braces"):
        RedisStore(valkey.url, prefix="{sa}:")
    with pytest.raises(ConfigurationError, match="above 0 ms"):
        RedisStore(valkey.url, public_ttl_ms=0)
