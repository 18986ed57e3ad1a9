"""What every state store promises, in memory and on a real server: fenced, atomic, repeatable."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from stream_app.embedded import ValkeyServer
from stream_app.errors import Fenced, RolledBack
from stream_app.ports import ITEMS, USERS, Claim, Commit
from tests.contract.stores import Stores, opened

ANNA, BOB = b"anna\0\0\0\0", b"bob\r\n\0\xff\x01"


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """Each adapter in turn, empty."""
    async with opened(request.param, valkey.url) as stores:
        yield stores


def step(
    expected: int | None,
    cursor: int,
    *writes: tuple[bytes, bytes],
    meta: bytes = b"meta",
    outbox: bytes = b"",
) -> Commit:
    """Return a step with defaults."""
    return Commit(expected, cursor, writes, meta, outbox)


async def position(stores: Stores, space: str = USERS, partition: int = 3) -> Claim:
    """Return what a new owner is told."""
    return await stores.state.claim(space, partition)


async def test_a_partition_never_committed_has_no_cursor(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    assert (claim.epoch, claim.cursor, claim.meta, claim.outbox) == (1, None, b"", b"")
    assert len(claim.token) == 16


async def test_a_commit_advances_cursor_state_meta_and_outbox(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 10, (ANNA, b"a1"), (BOB, b"b1"), outbox=b"one"))
    await stores.state.commit(claim, step(10, 25, (ANNA, b"a2"), meta=b"m2", outbox=b"two"))

    assert await stores.state.load(USERS, [3, 3], [ANNA, BOB]) == [b"a2", b"b1"]
    after = await position(stores)
    assert (after.epoch, after.cursor, after.meta, after.outbox) == (2, 25, b"m2", b"two")


async def test_a_step_may_write_nothing_and_stay_where_it_is(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 0))
    await stores.state.commit(claim, step(0, 0, meta=b"a timer fired"))
    after = await position(stores)
    assert (after.cursor, after.meta) == (0, b"a timer fired")


async def test_commits_that_come_together_stand_and_fall_alone(stores: Stores) -> None:
    claims = [await stores.state.claim(USERS, p) for p in range(4)]
    await stores.state.claim(USERS, 1)
    await stores.state.commit(claims[2], step(None, 30, (ANNA, b"a0")))
    steps = [step(None, 10 * (p + 1), (ANNA, b"a%d" % p), outbox=b"%d" % p) for p in range(4)]
    for _ in range(2):  # and once more, as if the replies had been lost
        found = await asyncio.gather(
            *map(stores.state.commit, claims, steps), return_exceptions=True
        )
        assert [type(one) for one in found] == [type(None), Fenced, type(None), type(None)]
    states = await stores.state.load(USERS, range(4), [ANNA] * 4)
    assert states == [b"a0", None, b"a0", b"a3"], "that of 2 was there: not written again"
    after = [await position(stores, partition=p) for p in range(4)]
    assert [one.cursor for one in after] == [10, None, 30, 40]
    assert [one.outbox for one in after] == [b"0", b"", b"", b"3"]


async def test_a_retry_after_a_lost_reply_is_applied_once(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 10, (ANNA, b"a1")))
    await stores.state.commit(claim, step(10, 20, (ANNA, b"a2"), outbox=b"two"))
    backup = stores.backups.take()

    await stores.state.commit(claim, step(10, 20, (ANNA, b"a2"), outbox=b"two"))
    assert stores.backups.take() == backup


async def test_a_step_from_a_cursor_long_passed_is_refused(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 10))
    await stores.state.commit(claim, step(10, 30, (ANNA, b"a30")))
    for stale in (step(10, 20, (ANNA, b"a20")), step(None, 5, (ANNA, b"a5"))):
        with pytest.raises(Fenced, match="30"):
            await stores.state.commit(claim, stale)
    assert await stores.state.load(USERS, [3], [ANNA]) == [b"a30"]


async def test_the_second_claim_fences_the_first(stores: Stores) -> None:
    first = await stores.state.claim(USERS, 3)
    await stores.state.commit(first, step(None, 10, (ANNA, b"first")))
    second = await stores.state.claim(USERS, 3)
    assert (second.cursor, second.epoch) == (10, first.epoch + 1)

    with pytest.raises(Fenced, match="epoch 2"):  # before the new owner has done anything
        await stores.state.commit(first, step(10, 20, (ANNA, b"zombie")))
    await stores.state.commit(second, step(10, 20, (ANNA, b"second")))
    with pytest.raises(Fenced):  # nor after, when a paused worker wakes up with the same step
        await stores.state.commit(first, step(10, 20, (ANNA, b"zombie")))
    assert await stores.state.load(USERS, [3], [ANNA]) == [b"second"]


async def test_partitions_and_spaces_are_owned_apart(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    for space, partition in ((USERS, 4), (ITEMS, 3)):
        other = await stores.state.claim(space, partition)
        await stores.state.commit(other, step(None, 5, (ANNA, b"%d" % partition)))
    await stores.state.commit(claim, step(None, 10, (ANNA, b"mine")))
    assert await stores.state.load(USERS, [3, 4], [ANNA, ANNA]) == [b"mine", b"4"]
    assert await stores.state.load(ITEMS, [3, 4], [ANNA, ANNA]) == [b"3", None]


async def test_a_rolled_back_cursor_is_told_with_where_it_is(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 10, (ANNA, b"a10")))
    backup = stores.backups.take()
    await stores.state.commit(claim, step(10, 20, (ANNA, b"a20")))
    stores.backups.put_back(backup)

    with pytest.raises(RolledBack) as caught:
        await stores.state.commit(claim, step(20, 30, (ANNA, b"a30")))
    assert caught.value.cursor == 10
    assert await stores.state.load(USERS, [3], [ANNA]) == [b"a10"]
    await stores.state.commit(claim, step(10, 30, (ANNA, b"a30")))  # from there it goes on


async def test_a_store_older_than_the_claim_is_told_with_its_cursor(stores: Stores) -> None:
    old = await stores.state.claim(USERS, 3)
    await stores.state.commit(old, step(None, 10))
    backup = stores.backups.take()
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(10, 20))
    stores.backups.put_back(backup)

    with pytest.raises(RolledBack) as caught:
        await stores.state.commit(claim, step(20, 30, (ANNA, b"lost")))
    assert caught.value.cursor == 10
    assert await stores.state.load(USERS, [3], [ANNA]) == [None]


async def test_an_emptied_store_is_a_roll_back_to_nothing(stores: Stores) -> None:
    empty = stores.backups.take()
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 10))
    stores.backups.put_back(empty)
    with pytest.raises(RolledBack) as caught:
        await stores.state.commit(claim, step(10, 20))
    assert caught.value.cursor is None


async def test_a_claim_of_the_same_epoch_is_told_apart_after_a_roll_back(stores: Stores) -> None:
    backup = stores.backups.take()
    lost = await stores.state.claim(USERS, 3)
    stores.backups.put_back(backup)
    owner = await stores.state.claim(USERS, 3)
    assert owner.epoch == lost.epoch
    with pytest.raises(RolledBack):
        await stores.state.commit(lost, step(None, 10, (ANNA, b"zombie")))
    await stores.state.commit(owner, step(None, 10, (ANNA, b"owner")))
    assert await stores.state.load(USERS, [3], [ANNA]) == [b"owner"]


async def test_an_epoch_is_never_reused_when_the_claimant_knows_the_last(stores: Stores) -> None:
    backup = stores.backups.take()
    for _ in range(3):
        lost = await stores.state.claim(USERS, 3)
    stores.backups.put_back(backup)
    claim = await stores.state.claim(USERS, 3, epoch_min=lost.epoch)
    assert claim.epoch == 4
    assert (await stores.state.claim(USERS, 3, epoch_min=2)).epoch == 5
    with pytest.raises(Fenced):
        await stores.state.commit(lost, step(None, 10))


async def test_an_empty_blob_deletes_the_state(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 10, (ANNA, b"a"), (BOB, b"b")))
    await stores.state.commit(claim, step(10, 20, (ANNA, b""), (b"not there", b"")))
    assert await stores.state.load(USERS, [3, 3], [ANNA, BOB]) == [None, b"b"]


async def test_of_two_writes_to_one_id_the_last_counts(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3)
    writes = (ANNA, b"first"), (BOB, b"b"), (ANNA, b"last"), (BOB, b"")
    await stores.state.commit(claim, step(None, 10, *writes))
    assert await stores.state.load(USERS, [3, 3], [ANNA, BOB]) == [b"last", None]


async def test_five_thousand_states_go_in_one_step(stores: Stores) -> None:
    seeded = random.Random(1)
    writes = [(number.to_bytes(8, "big"), seeded.randbytes(500)) for number in range(5_000)]
    claim = await stores.state.claim(USERS, 3)
    await stores.state.commit(claim, step(None, 10, *writes))
    ids, blobs = zip(*writes, strict=True)
    assert await stores.state.load(USERS, [3] * len(ids), ids) == list(blobs)


async def test_ids_and_blobs_are_any_bytes(stores: Stores) -> None:
    every_byte = bytes(range(256))
    ids = [every_byte[start : start + 8] for start in range(0, 256, 8)]
    claim = await stores.state.claim(USERS, 3)
    written = step(None, 10, *((i, i + every_byte) for i in ids), meta=every_byte, outbox=b"\r\n\0")
    await stores.state.commit(claim, written)
    assert await stores.state.load(USERS, [3] * len(ids), ids) == [i + every_byte for i in ids]
    after = await position(stores)
    assert (after.meta, after.outbox) == (every_byte, b"\r\n\0")


async def test_load_keeps_the_order_and_shows_what_is_missing(stores: Stores) -> None:
    for partition in (0, 7):
        claim = await stores.state.claim(USERS, partition)
        await stores.state.commit(claim, step(None, 1, (ANNA, b"a%d" % partition)))
    found = await stores.state.load(USERS, [7, 0, 5, 0, 7], [ANNA, BOB, ANNA, ANNA, ANNA])
    assert found == [b"a7", None, None, b"a0", b"a7"]
    assert await stores.state.load(USERS, [], []) == []


async def test_offsets_are_exact_up_to_two_to_the_53(stores: Stores) -> None:
    claim = await stores.state.claim(USERS, 3, epoch_min=2**52)
    large = 2**53 - 3
    await stores.state.commit(claim, step(None, large))
    await stores.state.commit(claim, step(large, large + 1))
    with pytest.raises(Fenced):
        await stores.state.commit(claim, step(large, large + 2))
    after = await position(stores)
    assert (after.cursor, after.epoch) == (large + 1, 2**52 + 2)
