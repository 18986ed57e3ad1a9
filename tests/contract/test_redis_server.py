"""What only servers have: lifetimes, older releases, and the check at the start."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis

from stream_app.adapters.redis_functions import LIBRARY
from stream_app.adapters.redis_store import RedisStore
from stream_app.embedded import ValkeyServer, valkey_server
from stream_app.errors import ConfigurationError
from stream_app.ports import ITEMS, USERS, Commit, PublicHash
from tests.contract.stores import PUBLIC_TTL_MS, STATE_TTL_MS, redis_store

IDS = [number.to_bytes(8, "big") for number in range(4_500)]  # more than one chunk of the function


@pytest.fixture
async def store(valkey: ValkeyServer) -> AsyncIterator[RedisStore]:
    """A store of the empty server of the session."""
    async with redis_store(valkey.url) as store:
        yield store


@pytest.fixture
def admin(valkey: ValkeyServer) -> Iterator[Redis]:
    """An operator's connection."""
    with Redis.from_url(valkey.url, protocol=2) as client:
        yield client
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_deluser("worker")


def key(id_: bytes, space: str = USERS) -> bytes:
    """Return where the state of an id of partition 3 is kept."""
    return b"sa:{%b3}:%b" % (space.encode(), id_)


async def test_state_expires_where_it_should_and_the_cursor_never(
    store: RedisStore, admin: Redis
) -> None:
    for space in (USERS, ITEMS):
        claim = await store.claim(space, 3)
        await store.commit(claim, Commit(None, 1, [(id_, b"x") for id_ in IDS], b"m", b"o"))
        assert admin.pttl(f"sa:{{{space}3}}#cursor") == -1
        assert admin.pttl(key(IDS[0], ITEMS)) in (-1, -2)
    for id_ in (IDS[0], IDS[2_500], IDS[-1]):
        assert STATE_TTL_MS - 60_000 < admin.pttl(key(id_)) <= STATE_TTL_MS
        assert admin.pttl(key(id_, ITEMS)) == -1
    assert len(IDS) == sum(1 for _ in admin.scan_iter("sa:{u3}:*", count=1_000))


async def test_public_keys_expire(store: RedisStore, admin: Redis) -> None:
    for version in (1, 2):
        await store.put_hashes([PublicHash("rec:anna", version, 1, (b"home",), [b"[]"])])
        await store.put_values([("similar:1", b"[]")])
        for name in ("rec:anna", "similar:1"):
            assert PUBLIC_TTL_MS - 60_000 < admin.pttl(name) <= PUBLIC_TTL_MS


async def test_what_comes_together_is_one_transaction_and_one_round_trip(
    store: RedisStore, admin: Redis
) -> None:
    def calls(command: str) -> int:
        return int(admin.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

    claims = [await store.claim(USERS, p) for p in range(5)]
    admin.config_resetstat()
    await asyncio.gather(
        *(store.commit(one, Commit(None, 7, [(IDS[0], b"x")], b"m", b"o")) for one in claims)
    )
    assert (calls("exec"), calls("msetex"), calls("hset")) == (1, 5, 5)
    large = [(id_, b"x" * 100) for id_ in IDS]  # together more than a server should do at once
    await asyncio.gather(*(store.commit(one, Commit(7, 8, large, b"m", b"o")) for one in claims))
    assert calls("exec") == 6
    hashes = [PublicHash(f"rec:{k}", k, 1, (b"home",), [b"[]"]) for k in range(5)]
    found = await asyncio.gather(*(store.put_hashes(hashes[: k + 1]) for k in range(5)))
    assert sum(found) >= 5 and found[0] == 1


class OlderValkey(ValkeyServer):
    """A server as it was before MSETEX: Redis up to 8.2, Valkey up to 9.0."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "--rename-command", "MSETEX", ""]


async def test_state_expires_on_a_server_without_the_newest_command() -> None:
    with OlderValkey() as server, Redis.from_url(server.url, protocol=2) as admin:
        async with redis_store(server.url) as store:
            claim = await store.claim(USERS, 3)
            for cursor in (1, 2):
                writes = [(id_, b"%d" % cursor) for id_ in IDS]
                step = Commit(claim.cursor if cursor == 1 else 1, cursor, writes, b"", b"")
                await store.commit(claim, step)
            assert set(await store.load(USERS, [3] * len(IDS), IDS)) == {b"2"}
        assert STATE_TTL_MS - 60_000 < admin.pttl(key(IDS[-1])) <= STATE_TTL_MS
        assert "cmdstat_msetex" not in admin.info("commandstats")


async def test_a_server_is_reached_by_its_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "valkey.sock"
    with valkey_server(options={"unixsocket": str(path)}):
        async with redis_store(f"unix://{path}?db=2") as store:
            assert (await store.claim(USERS, 3)).epoch == 1


async def test_workers_of_two_releases_share_a_server(store: RedisStore, admin: Redis) -> None:
    code = "redis.register_function('stream_app_old_claim', function() return 1 end)"
    admin.function_load(f"#!lua name=stream_app_old\n{code}")
    await store.claim(USERS, 3)
    assert admin.fcall("stream_app_old_claim", 0) == 1
    assert admin.fcall(f"{LIBRARY}_claim", 1, "sa:{u3}#cursor", "t" * 16, 0)[0] == b"2"


async def test_the_check_reports_the_server(store: RedisStore, admin: Redis) -> None:
    (report,) = await store.check()
    assert report["server"].startswith("valkey ")
    assert (report["mode"], report["role"], report["replicas"]) == ("standalone", "master", 0)
    assert report["maxmemory_policy"] == "noeviction"
    assert report["persistence"] == "none"
    assert any("no persistence" in warning for warning in report["warnings"])
    assert admin.function_list(library=LIBRARY)


async def test_the_check_refuses_a_server_that_evicts(store: RedisStore, admin: Redis) -> None:
    admin.config_set("maxmemory-policy", "volatile-lru")
    with pytest.raises(ConfigurationError, match=r"volatile-lru.*CONFIG SET maxmemory-policy"):
        await store.check()


async def test_the_check_needs_no_config_command(valkey: ValkeyServer, admin: Redis) -> None:
    rights = ["+@all", "-config"]
    admin.acl_setuser("worker", enabled=True, passwords=["+pw"], keys="*", commands=rights)
    async with redis_store(valkey.url.replace("://", "://worker:pw@")) as store:
        (report,) = await store.check()
    assert report["persistence"] == "unknown (CONFIG is forbidden)"
