"""Schema 1 applied the first half of the log; this release goes on, on the same store."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.core.schema_1 import PARTITION_1, USER_1
from stream_app.core.state import _trim, decode_partition, decode_users, layout
from stream_app.embedded import ValkeyServer
from stream_app.ports import USERS, Commit
from tests.contract.shop_run import (
    SOURCES,
    Run,
    faults,
    take_over,
    truth,
    work,
)
from tests.contract.stores import opened

EVENTS, ROUNDS = 1_200, 2  # of each partition's events before the upgrade


@pytest.fixture(params=["memory", "valkey"])
async def run(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Run]:
    """A log that nobody has read yet, on each adapter."""
    async with opened(request.param, valkey.url) as stores:
        run = Run(stores.state, stores.public, EVENTS)
        await run.fill()
        yield run


def ids_of(p: int) -> np.ndarray:
    """All customers that partition ``p`` will ever have, ``(n,) uint64``."""
    return np.array(list(truth(EVENTS).customers[p].customers), np.uint64)


async def blobs_of(run: Run, p: int) -> list[bytes | None]:
    """Their state."""
    ids = ids_of(p)
    return await run.state.load(USERS, [p] * len(ids), [key.tobytes() for key in ids])


def as_schema_1(blob: bytes) -> bytes:
    """What a release with schema 1 would have written of this customer."""
    (user,) = decode_users(np.zeros(1, np.uint64), [blob])
    old = np.zeros(1, USER_1)
    for name in USER_1.names or ():
        old[name] = user[name]
    old["schema"] = 1
    out = np.empty(USER_1.itemsize, np.uint8)
    (end,) = _trim(old.view(np.uint8).reshape(1, -1), *layout(USER_1), out)
    return out[:end].tobytes()


def partition_as_schema_1(meta: bytes) -> bytes:
    """The same of a partition."""
    new, old = decode_partition(meta), np.zeros(1, PARTITION_1)
    for name in PARTITION_1.names or ():
        old[name] = new[name][..., :7, :7] if name == "step_counts" else new[name]
    old["schema"] = 1
    return old.tobytes()


async def downgrade(run: Run) -> None:
    """Rewrite all customers and partitions in the store as schema 1 had them."""
    for p in range(SOURCES):
        claim = await run.state.claim(USERS, p)
        held = zip(ids_of(p), await blobs_of(run, p), strict=True)
        writes = [(key.tobytes(), as_schema_1(blob)) for key, blob in held if blob]
        meta = partition_as_schema_1(claim.meta)
        step = Commit(claim.cursor, claim.cursor or 0, writes, meta, claim.outbox)
        await run.state.commit(claim, step)


async def test_an_upgrade_in_the_middle_of_the_log_loses_and_doubles_nothing(run: Run) -> None:
    await work(run, await take_over(run.worker()), last=ROUNDS)
    await downgrade(run)
    assert {blob[0] for blob in await blobs_of(run, 0) if blob} == {1}
    await work(run, await take_over(run.worker()), first=ROUNDS)
    told = [fault for fault in await faults(run) if "customers differ" not in fault]
    assert told == [], "accounts, transitions, items, lists and dead letters are what the log says"

    undisturbed = Run(MemoryStore(), MemoryPublic(), EVENTS)
    await undisturbed.fill()
    await work(undisturbed, await take_over(undisturbed.worker()))
    for p in range(SOURCES):
        upgraded = decode_users(ids_of(p), await blobs_of(run, p))
        expected = decode_users(ids_of(p), await blobs_of(undisturbed, p))
        for name in USER_1.names or ():
            assert (upgraded[name] == expected[name]).all(), name
