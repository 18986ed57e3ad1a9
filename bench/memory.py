"""Bytes that state and lists take on a real server, by kind of key."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import redis

SAMPLE = 3_000  # keys of each kind that MEMORY USAGE is asked about
SCAN = 2_000
# What a kind of key is, by how its name begins.
KINDS = (
    ("customer state", b"sa1:{u"),
    ("item state", b"sa1:{i"),
    ("public lists", b"rec:"),
    ("public similar", b"similar:"),
    ("public profile", b"profile:"),
)
_TOOLS = (b"accounts", b"top", b"trends")  # ids of our own beside customers and items
_ID_BYTES = 8


def by_kind(url: str) -> dict[str, dict[str, float]]:
    """Keys, mean bytes with all the server's overhead, mean bytes of the value itself."""
    sampled: dict[str, list[bytes]] = defaultdict(list)
    counted: dict[str, int] = defaultdict(int)
    with redis.Redis.from_url(url, protocol=2) as client:
        for key in client.scan_iter(count=SCAN):
            kind = _kind(key)
            if kind is not None:
                counted[kind] += 1
                if len(sampled[kind]) < SAMPLE:
                    sampled[kind].append(key)
        found = {}
        for kind, keys in sampled.items():
            found[kind] = {
                "keys": counted[kind],
                "bytes": round(sum(_usage(client, keys)) / len(keys), 1),
                "value_bytes": round(sum(_sizes(client, keys)) / len(keys), 1),
            }
    return found


def used(url: str) -> dict[str, int]:
    """Memory of the server as it reports it."""
    with redis.Redis.from_url(url, protocol=2) as client:
        info: dict[str, Any] = client.info("memory")
    return {name: int(info[name]) for name in ("used_memory", "used_memory_rss")}


def keys(url: str) -> int:
    """How many keys the server has."""
    with redis.Redis.from_url(url, protocol=2) as client:
        return int(client.dbsize())


def _kind(key: bytes) -> str | None:
    for kind, prefix in KINDS:
        if key.startswith(prefix):
            id_ = key.partition(b"}:")[2]
            is_state = prefix.startswith(b"sa1:")
            return kind if not is_state or (len(id_) == _ID_BYTES and id_ not in _TOOLS) else None
    return None


def _usage(client: redis.Redis, keys: list[bytes]) -> Iterator[int]:
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.memory_usage(key, samples=0)
    yield from (int(size) for size in pipe.execute())


def _sizes(client: redis.Redis, keys: list[bytes]) -> Iterator[int]:
    """Bytes of a string, or of a hash's names and values."""
    hashes = client.type(keys[0]) == b"hash"
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hgetall(key) if hashes else pipe.strlen(key)
    for value in pipe.execute():
        yield sum(map(len, [*value, *value.values()])) if hashes else int(value)
