"""Faults of processes: each a coroutine that strikes, lasts as long as it has to, and ends."""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from redis import Redis

from faults.cluster import Cluster
from faults.schedule import Fault
from stream_app.embedded import EmbeddedServerError

QUIET_TIMEOUT_S = 40.0

Strike = Callable[[Cluster, Fault], Awaitable[None]]


async def worker_kill(cluster: Cluster, fault: Fault) -> None:
    """Kill -9; the supervisor starts it again."""
    cluster.workers[fault.worker].signal(signal.SIGKILL, ends=True)


async def worker_term(cluster: Cluster, fault: Fault) -> None:
    """SIGTERM in the middle of work, as a deployment does."""
    cluster.workers[fault.worker].signal(signal.SIGTERM, ends=True)


async def worker_zombie(cluster: Cluster, fault: Fault) -> None:
    """SIGSTOP until its partitions are others', then SIGCONT."""
    worker = cluster.workers[fault.worker]
    worker.signal(signal.SIGSTOP)
    await asyncio.sleep(cluster.options.session_timeout_s + fault.between(1.5, 5))
    worker.signal(signal.SIGCONT)


async def rebalance_storm(cluster: Cluster, fault: Fault) -> None:
    """A third worker joins and leaves, in order or not, one to three times."""
    for turn in range(1 + int(3 * fault.strength)):
        worker = await cluster.extra_worker()
        await asyncio.sleep(fault.between(4, 9))
        if turn % 2:
            worker.kill()
        else:
            await worker.stop()


async def valkey_kill(cluster: Cluster, fault: Fault) -> None:
    """Kill -9, away for a while, back with its append-only file."""
    cluster.store_lives += 1
    await asyncio.to_thread(cluster.valkey.kill)
    await asyncio.sleep(fault.between(0.2, 4))
    await asyncio.to_thread(cluster.valkey.start)
    cluster.store_lives += 1


async def valkey_rollback(cluster: Cluster, fault: Fault) -> None:
    """Back to a snapshot of some seconds ago."""
    snapshot = await _snapshot(cluster, fault)
    await asyncio.sleep(fault.between(1, 6))
    await _restore(cluster, snapshot)


async def valkey_rollback_quiet(cluster: Cluster, fault: Fault) -> None:
    """The same while no events arrive: nobody commits, and the worker has to find out itself."""
    snapshot = await _snapshot(cluster, fault)
    await asyncio.sleep(fault.between(1, 4))
    cluster.load.flowing.clear()
    try:
        rest = await cluster.settled(timeout_s=QUIET_TIMEOUT_S)
        await _restore(cluster, snapshot)
        rest = rest or await cluster.settled(timeout_s=QUIET_TIMEOUT_S)
        if rest:
            cluster.problems.append(f"a roll-back without traffic stays: {rest} behind")
    finally:
        cluster.load.flowing.set()


async def _snapshot(cluster: Cluster, fault: Fault) -> Path:
    snapshot = cluster.dir / f"snapshot-{fault.number}"
    unfinished = shutil.ignore_patterns("temp-*")  # of its child that rewrites the log, and goes on
    cluster.valkey.pause()
    try:
        await asyncio.to_thread(shutil.copytree, cluster.valkey.dir, snapshot, ignore=unfinished)
    finally:
        cluster.valkey.resume()
    return snapshot


async def _restore(cluster: Cluster, snapshot: Path) -> None:
    cluster.store_lives += 1
    await asyncio.to_thread(cluster.valkey.kill)
    await asyncio.to_thread(shutil.rmtree, cluster.valkey.dir)
    await asyncio.to_thread(snapshot.rename, cluster.valkey.dir)
    await asyncio.to_thread(cluster.valkey.start)
    cluster.store_lives += 1


async def valkey_pause(cluster: Cluster, fault: Fault) -> None:
    """SIGSTOP: connections stay, nothing answers; longer than the reply time-out."""
    cluster.valkey.pause()
    try:
        await asyncio.sleep(fault.between(1, 5))
    finally:
        cluster.valkey.resume()


async def valkey_out_of_memory(cluster: Cluster, fault: Fault) -> None:
    """At its limit under ``noeviction`` every write is refused, until somebody raises it."""
    with Redis.from_url(cluster.valkey.url, protocol=2) as admin:
        admin.config_set("maxmemory", int(admin.info("memory")["used_memory"] * 0.9))
        try:
            await asyncio.sleep(fault.between(1, 6))
        finally:
            admin.config_set("maxmemory", 0)


async def valkey_client_pause(cluster: Cluster, fault: Fault) -> None:
    """CLIENT PAUSE: connected, slow to answer; writes only, or everything."""
    with Redis.from_url(cluster.valkey.url, protocol=2) as admin:
        for _ in range(1 + int(3 * fault.strength)):
            admin.client_pause(int(fault.between(500, 4_000)), all=fault.strength < 0.5)
            await asyncio.sleep(fault.between(0.6, 4.2))


async def kafka_restart(cluster: Cluster, fault: Fault) -> None:
    """The broker is killed or stopped in order, and comes back with its data."""
    await asyncio.to_thread(cluster.kafka.kill if fault.strength < 0.5 else cluster.kafka.stop)
    await asyncio.sleep(fault.between(0, 2))
    with suppress(EmbeddedServerError):  # once more: its old session may not have run out
        await asyncio.to_thread(cluster.kafka.start)
        return
    await asyncio.to_thread(cluster.kafka.start)


async def kafka_pause(cluster: Cluster, fault: Fault) -> None:
    """SIGSTOP of the broker, now and then past the group's session time-out."""
    cluster.kafka.pause()
    try:
        await asyncio.sleep(fault.between(1, 9))
    finally:
        cluster.kafka.resume()


STRIKES: dict[str, Strike] = {
    strike.__name__: strike
    for strike in (
        *(worker_kill, worker_term, worker_zombie, rebalance_storm),
        *(valkey_kill, valkey_rollback, valkey_rollback_quiet, valkey_pause),
        *(valkey_out_of_memory, valkey_client_pause, kafka_restart, kafka_pause),
    )
}
