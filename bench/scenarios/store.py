"""Microseconds of client and server CPU for one key: our calls for a batch, and plain pipelines."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from bench.options import Options
from bench.processes import cpu_us
from bench.results import Result
from bench.servers import Servers, one_redis
from stream_app.adapters.redis_store import RedisStore
from stream_app.ports import USERS, Commit, PublicHash

KEYS = 1_000
REPEATS = 60
BLOB_BYTES = 350
LIST_BYTES = 900


def run(options: Options) -> Result:
    """Each case on the same server, one after the other."""
    with one_redis() as servers:
        rows = asyncio.run(_cases(servers, max(int(REPEATS * options.scale), 3)))
    summary = {row["case"]: {k: v for k, v in row.items() if k != "case"} for row in rows}
    notes = [
        f"{KEYS} keys a call; a blob is {BLOB_BYTES} bytes, a list {LIST_BYTES}; the server runs on"
        " the same machine, the client is the harness's own process"
    ]
    return Result(summary, rows, ("case", "wall_us"), notes)


async def _cases(servers: Servers, repeats: int) -> list[dict[str, Any]]:
    store = RedisStore(servers.url, prefix="bench:")
    plain = redis.asyncio.Redis.from_url(servers.url, protocol=2)
    ids = [b"%08d" % n for n in range(KEYS)]
    claim = await store.claim(USERS, 0)
    cursor = [0]
    text = b"[" + b"x" * (LIST_BYTES - 2) + b"]"

    async def commit() -> None:
        expected = cursor[0] or None
        cursor[0] += KEYS
        writes = [(id_, bytes(BLOB_BYTES)) for id_ in ids]
        await store.commit(claim, Commit(expected, cursor[0], writes, b"", b""))

    async def put_hashes() -> None:
        cursor[0] += 1
        hashes = [
            PublicHash(f"rec:{n}", cursor[0], 1, (b"step", b"home"), [b"browse", text])
            for n in range(KEYS)
        ]
        await store.put_hashes(hashes)

    async def piped(queue: Callable[[Any, bytes], Any]) -> None:
        pipe = plain.pipeline(transaction=False)
        for id_ in ids:
            queue(pipe, id_)
        await pipe.execute()

    cases: dict[str, Callable[[], Awaitable[Any]]] = {
        "commit (fenced: WATCH, then MULTI; two round trips)": commit,
        "load (one MGET)": lambda: store.load(USERS, [0] * KEYS, ids),
        "put_hashes (versioned, one FCALL)": put_hashes,
        "plain pipeline of SET": lambda: piped(lambda p, k: p.set(k, bytes(BLOB_BYTES))),
        "plain pipeline of GET": lambda: piped(lambda p, k: p.get(k)),
        "plain pipeline of HSET": lambda: piped(
            lambda p, k: p.hset(b"h" + k, mapping={"step": b"browse", "home": text})
        ),
    }
    try:
        return [await _measured(n, c, servers, repeats) for n, c in cases.items()]
    finally:
        await store.close()
        await plain.aclose()


async def _measured(
    name: str, call: Callable[[], Awaitable[Any]], servers: Servers, repeats: int
) -> dict[str, Any]:
    await call()
    server, client, began = cpu_us(servers.pids), time.process_time(), time.perf_counter()
    for _ in range(repeats):
        await call()
    n = repeats * KEYS
    return {
        "case": name,
        "wall_us": round((time.perf_counter() - began) / n * 1e6, 3),
        "client_cpu_us": round((time.process_time() - client) / n * 1e6, 3),
        "server_cpu_us": round((cpu_us(servers.pids) - server) / n, 3),
    }
