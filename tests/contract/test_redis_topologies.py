"""The same store on a cluster of three primaries, and behind Sentinel through a fail-over."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from stream_app.adapters.redis_store import RedisStore
from stream_app.embedded import valkey_server
from stream_app.errors import ConfigurationError, Fenced, StoreUnavailable
from stream_app.ports import USERS, Claim, Commit, PublicHash
from tests.contract.stores import redis_store
from tests.contract.test_copying import Source, batch, viewed
from tests.servers import Sentinel

PARTITIONS = range(12)
NODES = 3
SLOTS = 16_384
WAIT_S = 30.0


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Return when ``true()`` holds; a server in between may refuse to answer."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except RedisError:
            pass  # it is restarting or taking over: ask again
        time.sleep(0.05)
    pytest.fail(f"waited {WAIT_S:g} s for {what}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Redis]]:
    """An operator's connections to a cluster of three primaries that serves every slot."""
    with ExitStack() as stack:
        options = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
        servers = [stack.enter_context(valkey_server(options=options)) for _ in range(NODES)]
        admins = [stack.enter_context(Redis.from_url(s.url, protocol=2)) for s in servers]
        for number, (admin, server) in enumerate(zip(admins, servers, strict=True)):
            first, end = SLOTS * number // NODES, SLOTS * (number + 1) // NODES
            ask(admin, "CLUSTER ADDSLOTSRANGE", first, end - 1)
            ask(admin, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            ask(admins[0], "CLUSTER MEET", "127.0.0.1", server.port)
        wait_until(lambda: all(map(serves_every_slot, admins)), "the cluster to form")
        yield admins


def serves_every_slot(admin: Redis) -> bool:
    """Return whether the node sees the whole cluster."""
    info = ask(admin, "CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == NODES


def ask(admin: Redis, *command: str | int | bytes) -> Any:
    """Return a node's answer to a command that redis-py has no typed method for."""
    return admin.execute_command(*command)  # type: ignore[no-untyped-call]


def port_of(admin: Redis) -> int:
    """Return the port of a node."""
    return int(admin.connection_pool.connection_kwargs["port"])


@pytest.fixture
async def store(cluster: list[Redis]) -> AsyncIterator[RedisStore]:
    """A store of the empty cluster, told two of its nodes."""
    for admin in cluster:
        admin.flushall()
        admin.function_flush()
    hosts = ",".join(f"127.0.0.1:{port_of(admin)}" for admin in cluster[:2])
    async with redis_store(f"redis+cluster://{hosts}") as store:
        yield store


async def test_partitions_spread_over_a_cluster_and_stay_fenced(
    store: RedisStore, cluster: list[Redis]
) -> None:
    claims = [await store.claim(USERS, partition) for partition in PARTITIONS]
    ids = [b"%08d" % number for number in range(100)]
    for claim in claims:
        writes = [(id_, b"%d:" % claim.partition + id_) for id_ in ids]
        await store.commit(claim, Commit(None, 10, writes, b"m", b"o"))
    assert all(admin.dbsize() > 0 for admin in cluster)

    partitions = [number % len(PARTITIONS) for number in range(len(ids))]
    found = await store.load(USERS, partitions, ids)
    assert found == [b"%d:" % p + id_ for p, id_ in zip(partitions, ids, strict=True)]
    assert await store.load(USERS, [0, 99], [b"missing_", ids[0]]) == [None, None]

    of_five = {id_ for p, id_ in zip(partitions, ids, strict=True) if p == 5}
    listed = [key async for page in store.scan(USERS, 5) for key in page]
    assert of_five <= set(listed) <= set(ids)

    second = await store.claim(USERS, 5)
    with pytest.raises(Fenced):
        await store.commit(claims[5], Commit(10, 20, [], b"", b""))
    await store.commit(second, Commit(10, 20, [], b"", b""))


async def test_cursors_of_copied_topics_spread_over_a_cluster_and_stay_fenced(
    store: RedisStore, cluster: list[Redis]
) -> None:
    source = Source(store, "app")
    for partition in PARTITIONS:
        await source.stage.assign(partition)
        await source.stage.process(batch(viewed("anna", "1"), partition=partition))
    assert all(admin.dbsize() > 0 for admin in cluster)
    after = source.worker(store)
    assert [await after.assign(partition) for partition in PARTITIONS] == [1] * len(PARTITIONS)
    with pytest.raises(Fenced):
        await source.stage.process(batch(viewed("anna", "2"), first=1))


async def test_public_keys_spread_over_a_cluster(store: RedisStore, cluster: list[Redis]) -> None:
    records = [PublicHash(f"rec:{n}", 5, 1, (b"home",), [b"%d" % n]) for n in range(300)]
    assert await store.put_hashes(records) == 300
    older = [PublicHash(f"rec:{n}", 4 + n % 2, 1, (), []) for n in range(300)]
    assert await store.put_hashes(older) == 150
    assert await store.get("rec:298") == {b"home": b"298", b"version": b"5", b"epoch": b"1"}
    await store.put_values([(f"similar:{n}", b"%d" % n) for n in range(300)])
    assert await store.get("similar:299") == b"299"
    assert await store.get("similar:none") is None
    assert all(admin.dbsize() > 100 for admin in cluster)


async def test_a_partition_is_followed_to_another_node(
    store: RedisStore, cluster: list[Redis]
) -> None:
    claim = await store.claim(USERS, 3)
    await store.commit(claim, Commit(None, 10, [(b"anna", b"a10")], b"", b""))
    await store.put_values([("similar:{u3}", b"x")])
    slot = key_slot(b"{u3}")
    owner = next(a for a in cluster if ask(a, "CLUSTER COUNTKEYSINSLOT", slot))
    target = next(admin for admin in cluster if admin is not owner)
    owner_id, target_id = (ask(a, "CLUSTER MYID").decode() for a in (owner, target))
    ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", owner_id)
    ask(owner, "CLUSTER SETSLOT", slot, "MIGRATING", target_id)
    keys = ask(owner, "CLUSTER GETKEYSINSLOT", slot, 10)
    assert len(keys) == 3
    ask(owner, "MIGRATE", "127.0.0.1", port_of(target), "", 0, 5_000, "KEYS", *keys)
    for admin in (target, owner):
        ask(admin, "CLUSTER SETSLOT", slot, "NODE", target_id)

    target.function_flush()  # a new primary does not have the library
    await store.commit(claim, Commit(10, 20, [(b"anna", b"a20")], b"", b""))
    assert await store.load(USERS, [3, 4], [b"anna", b"anna"]) == [b"a20", None]
    assert await store.get("similar:{u3}") == b"x"
    assert await store.put_hashes([PublicHash(f"rec:{n}", 1, 1, (), []) for n in range(50)]) == 50


async def test_the_check_reports_every_primary(store: RedisStore, cluster: list[Redis]) -> None:
    reports = await store.check()
    assert [report["mode"] for report in reports] == ["cluster"] * NODES
    assert all(admin.function_list() for admin in cluster)


async def test_one_node_of_a_cluster_is_not_taken_for_a_server(cluster: list[Redis]) -> None:
    async with redis_store(f"redis://127.0.0.1:{port_of(cluster[0])}") as store:
        with pytest.raises(ConfigurationError, match=r"MOVED .*redis\+cluster://"):
            for partition in PARTITIONS:
                await store.claim(USERS, partition)


async def test_a_cluster_that_is_not_there_is_retryable() -> None:
    async with redis_store("redis+cluster://127.0.0.1:1", timeout_ms=300) as store:
        with pytest.raises(StoreUnavailable, match=r"redis\+cluster://127.0.0.1:1: .*start it"):
            await store.claim(USERS, 0)


async def commit_until_served(store: RedisStore, claim: Claim, step: Commit) -> int:
    """Retry as the pipeline does; return how many times the store was unavailable."""
    failures = 0
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await store.commit(claim, step)
                return failures
            except StoreUnavailable:
                failures += 1
                await asyncio.sleep(0.1)


async def test_a_connection_that_another_task_closed_is_no_end(store: RedisStore) -> None:
    claims = [await store.claim(USERS, partition) for partition in PARTITIONS]
    client = store._link._client  # type: ignore[attr-defined]

    async def works(claim: Claim) -> None:
        for end in range(1, 30):
            step = Commit(end - 1 or None, end, [(b"anna", b"a%d" % end)], b"", b"")
            await commit_until_served(store, claim, step)

    async def learns_anew() -> None:
        for _ in range(60):
            await client.aclose()  # as every task does that finds a primary gone
            await asyncio.sleep(0.003)

    await asyncio.gather(learns_anew(), *map(works, claims))
    found = await store.load(USERS, list(PARTITIONS), [b"anna"] * len(claims))
    assert found == [b"a29"] * len(claims)


async def test_a_check_outlives_connections_that_another_task_closed(store: RedisStore) -> None:
    client = store._link._client  # type: ignore[attr-defined]
    answered = 0

    async def checks() -> None:
        nonlocal answered
        for _ in range(200):
            with suppress(StoreUnavailable):  # the worker tries again
                await store.check()
                answered += 1

    async def learns_anew() -> None:
        for _ in range(60):
            await client.aclose()
            await asyncio.sleep(0.003)

    await asyncio.gather(learns_anew(), *(checks() for _ in range(3)))
    assert answered and len(await store.check()) == 3, "and nothing is left of it"


@pytest.mark.slow
async def test_a_fail_over_by_sentinel_is_followed() -> None:
    with ExitStack() as stack:
        master = stack.enter_context(valkey_server(options={"repl-diskless-sync-delay": "0"}))
        replica = stack.enter_context(valkey_server())
        admin = stack.enter_context(Redis.from_url(replica.url, protocol=2))
        admin.replicaof("127.0.0.1", master.port)
        wait_until(lambda: admin.info("replication")["master_link_status"] == "up", "the replica")
        sentinel = stack.enter_context(Sentinel(master))
        watcher = stack.enter_context(Redis.from_url(sentinel.url, protocol=2))
        wait_until(lambda: watcher.sentinel_master("shop")["num-slaves"] == 1, "the sentinel")

        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/shop/0"
        async with redis_store(url) as store:
            (report,) = await store.check()
            assert report["replicas"] == 1
            claim = await store.claim(USERS, 0)
            await store.commit(claim, Commit(None, 10, [(b"anna", b"a10")], b"", b""))
            wait_until(lambda: admin.dbsize() == 2, "the replica to have the state")
            master.kill()

            failures = await commit_until_served(store, claim, Commit(10, 20, [], b"", b""))
            assert failures > 0
            assert await store.load(USERS, [0], [b"anna"]) == [b"a10"]
            assert admin.info("replication")["role"] == "master"

    async with redis_store("redis+sentinel://127.0.0.1:1/shop", timeout_ms=300) as store:
        with pytest.raises(StoreUnavailable, match="shop"):
            await store.claim(USERS, 0)
