"""Faults inside a worker: killed at a named gap, a zombie at its commit, clocks, settings."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from faults.cluster import Cluster
from faults.gaps import GAPS
from faults.kinds import QUIET_TIMEOUT_S, Strike
from faults.load import Pair
from faults.old_release import ITEM_BEFORE, USER_BEFORE
from faults.schedule import WORKERS, Fault
from faults.workers import STOP_TIMEOUT_S
from stream_app.ports import ITEMS, USERS

MET_TIMEOUT_S = 20.0
START_FAILS_WITHIN_S = 60.0
STEP_BACK_S = 3_600.0
AHEAD_MAX_S = 3_000.0  # Kafka refuses times that are an hour ahead of its own
ID_BYTES = 8  # of customers and items; what partitions keep of their own has other ids
PROBES = 24  # customers of a burst, so that every partition has some


async def met(file: Path, timeout_s: float = MET_TIMEOUT_S) -> bool:
    """Wait until a worker came to a gap."""

    def look() -> bool:
        deadline = time.monotonic() + timeout_s
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return file.exists()

    return await asyncio.to_thread(look)


async def kill_at(gap: str, cluster: Cluster, fault: Fault) -> None:
    """Kill -9, now and then SIGTERM, exactly there."""
    worker = cluster.workers[fault.worker]
    worker.expect_end()
    waiting = worker.wait_at(gap, "kill" if fault.strength < 0.8 else "term")
    if gap.endswith("_claimed"):  # claims come with a rebalance only
        other = cluster.workers[1 - fault.worker]
        other.signal(signal.SIGTERM, ends=True)
    await met(waiting, MET_TIMEOUT_S)
    worker.forget(gap)


def burst(tag: str, n: int = PROBES) -> list[Pair]:
    """Views of ``n`` customers with no event id: whoever applies one twice, counts it twice."""
    now = time.time()
    pairs = []
    for number in range(3 * n):
        user = b"probe-%d" % (number % n)
        item = b"item-%s-%d" % (tag.encode(), number % 7)
        event = b'{"event":"view","ts":%.3f,"user_id":"%s","item_id":"%s"}'
        pairs.append((user, event % (now, user, item)))
    return pairs


async def zombie_at_commit(cluster: Cluster, fault: Fault) -> None:
    """A worker is stopped right before a commit, and wakes when its heir has claimed, not read.

    Both hold the same cursor, and the batch ends at the same offset, so that comparing cursors
    finds nothing: only the fence keeps the zombie from writing under the heir's hands, which
    would then read what it is about to apply. The zombie dies at once if its commit succeeds.
    """
    zombie, heir = cluster.workers[fault.worker], cluster.workers[1 - fault.worker]
    cluster.load.flowing.clear()
    try:
        if await cluster.settled(timeout_s=QUIET_TIMEOUT_S):
            return  # what was struck before has not been recovered from: that is found elsewhere
        zombie.may_restart.clear()
        stopped = zombie.wait_at(f"{USERS}_before_commit", "stop")
        await cluster.load.send(burst("first"))
        if not await met(stopped):
            return  # it owned no customers
        zombie.wait_at(f"{USERS}_after_commit", "kill")
        claimed = heir.wait_at(f"{USERS}_claimed", "hold")
        if await met(claimed, cluster.options.session_timeout_s + MET_TIMEOUT_S):
            await asyncio.sleep(1.0)  # the claims of the other partitions
            zombie.expect_end()
            zombie.signal(signal.SIGCONT)
            await asyncio.sleep(1.0)
        zombie.forget(f"{USERS}_after_commit")
        heir.forget(f"{USERS}_claimed")
        await cluster.caught_up(await cluster.ends(), timeout_s=QUIET_TIMEOUT_S)
        await cluster.load.send(burst("second"))
        await cluster.caught_up(await cluster.ends(), timeout_s=QUIET_TIMEOUT_S)
    finally:
        for worker in (zombie, heir):
            for gap in ("before_commit", "after_commit", "claimed"):
                worker.forget(f"{USERS}_{gap}")
        zombie.signal(signal.SIGCONT)
        zombie.may_restart.set()
        cluster.load.flowing.set()


async def clock_step(cluster: Cluster, fault: Fault) -> None:
    """A worker's clock goes back an hour and, a restart later, forth; or forth for good."""
    worker = cluster.workers[fault.worker]
    if fault.strength < 0.5:
        worker.set_clock(cluster.clock_off_s - STEP_BACK_S)
        await asyncio.sleep(2)
        worker.signal(signal.SIGTERM, ends=True)
        await asyncio.sleep(6)
        worker.set_clock(cluster.clock_off_s)
    else:  # of all: a clock that goes back over a roll-back is not promised
        ahead_s = cluster.clock_off_s + fault.between(-500, 2_000)
        cluster.clock_off_s = min(ahead_s, AHEAD_MAX_S)
        for each in cluster.workers:
            each.set_clock(cluster.clock_off_s)


async def changed_settings(cluster: Cluster, fault: Fault) -> None:
    """A worker is restarted with other settings, as far as they may change."""
    worker = cluster.workers[fault.worker]
    worker.changed = {
        "STREAM_APP_LIST_SIZE": str(3 + int(20 * fault.strength)),
        "STREAM_APP_BATCH_EVENTS_MAX": str(50 + int(2_000 * fault.strength)),
        "STREAM_APP_USER_CACHE_MAX": "0" if fault.strength < 0.5 else "500",
        "STREAM_APP_ITEM_TABLES_MAX": "1000",
        "STREAM_APP_ITEMS_MAX": "2000",
        "STREAM_APP_RELATE_LINGER_S": f"{fault.between(0, 1):.2f}",
    }
    worker.signal(signal.SIGTERM, ends=True)


async def wrong_partitions(cluster: Cluster, fault: Fault) -> None:
    """A worker configured for other partition counts than the topics have: it must not start."""
    worker = await cluster.worker(f"wrong-{fault.number}")
    variable = "STREAM_APP_CLICKSTREAM_PARTITIONS"
    worker.changed = {variable: str(cluster.options.partitions + 3)}
    code = await worker.first_end(START_FAILS_WITHIN_S)
    said = worker.log_path.read_text(errors="replace")
    worker.kill()
    if code in (None, 0) or variable not in said:
        cluster.problems.append(f"a worker with wrong partitions ended with {code}, see its log")


async def recompute(cluster: Cluster, fault: Fault) -> None:
    """State is rebuilt beside itself, and the workers change over, while events arrive."""
    cluster.store_lives += 1  # the new generation starts a little behind the old one
    code, said = await cluster.command("recompute")
    cluster.store_lives += 1
    if code:
        cluster.problems.append(f"recompute ended with {code}: {said[-500:]}")


async def upgrade(cluster: Cluster, fault: Fault) -> None:
    """All workers are of the release before for a while, and end; this release goes on.

    As the runbook has it for a change of the schema: stop all, start all. One dies between a commit
    and what it tells others of it, the other in order or in the middle of anything.
    """
    first = cluster.workers[fault.worker]
    cluster.upgraded = True
    try:
        await _replace_all(cluster, "before", signal.SIGTERM)
        await cluster.caught_up(await cluster.ends(), timeout_s=QUIET_TIMEOUT_S)
        await asyncio.sleep(fault.between(2, 8))
        first.expect_end()
        await met(first.wait_at(f"{USERS}_after_commit", "kill"))
        number = signal.SIGTERM if fault.strength < 0.5 else signal.SIGKILL
        await _replace_all(cluster, "this", number, look=_stored_before)
    finally:
        first.forget(f"{USERS}_after_commit")
        for worker in cluster.workers[:WORKERS]:
            worker.release = "this"
            worker.may_restart.set()


async def _replace_all(
    cluster: Cluster,
    release: str,
    number: signal.Signals,
    look: Callable[[Cluster], Awaitable[None]] | None = None,
) -> None:
    """End both workers, ``look`` at what they left, and start them as those of ``release``."""
    workers = cluster.workers[:WORKERS]
    for worker in workers:
        worker.may_restart.clear()
        worker.release = release
        worker.signal(number, ends=True)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(worker.running for worker in workers):
        if time.monotonic() > deadline:
            for worker in workers:
                worker.signal(signal.SIGKILL, ends=True)
        await asyncio.sleep(0.05)
    if look is not None:
        await look(cluster)
    for worker in workers:
        worker.may_restart.set()


async def _stored_before(cluster: Cluster) -> None:
    """The fault is one only if there are customers and items in the schema of before."""
    for space, schema in ((USERS, USER_BEFORE), (ITEMS, ITEM_BEFORE)):
        found = 0
        for p in range(cluster.options.partitions):
            async for keys in cluster.store.scan(space, p):
                ids = [key for key in keys if len(key) == ID_BYTES]
                blobs = await cluster.store.load(space, [p] * len(ids), ids)
                found += sum(blob is not None and blob[0] == schema for blob in blobs)
        if not found:
            cluster.problems.append(f"the release before left nothing of schema {schema}: {space}")


STRIKES: dict[str, Strike] = {
    **{
        strike.__name__: strike
        for strike in (
            *(zombie_at_commit, clock_step, changed_settings, wrong_partitions, recompute, upgrade),
        )
    },
    **{f"kill_at_{gap}": partial(kill_at, gap) for gap in GAPS},
}
