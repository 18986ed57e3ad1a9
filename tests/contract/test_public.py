"""What every public store promises, in memory and on a real server: only newer records win."""

from collections.abc import AsyncIterator

import pytest

from stream_app.embedded import ValkeyServer
from stream_app.ports import PublicHash
from tests.contract.stores import Stores, opened

KEY = "rec:ünï\ncode 1"


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """Each adapter in turn, empty."""
    async with opened(request.param, valkey.url) as stores:
        yield stores


def record(version: int, epoch: int, *, key: str = KEY, **fields: bytes) -> PublicHash:
    """Return a hash whose fields are the keyword arguments."""
    names = tuple(name.encode() for name in fields)
    return PublicHash(key, version, epoch, names, list(fields.values()))


async def test_a_key_never_written_is_none(stores: Stores) -> None:
    assert await stores.public.get(KEY) is None
    assert await stores.public.put_hashes([]) == 0
    await stores.public.put_values([])


async def test_a_hash_is_read_with_its_version_and_epoch(stores: Stores) -> None:
    assert await stores.public.put_hashes([record(7, 2, home=b"[1]", cart=b"")]) == 1
    stored = await stores.public.get(KEY)
    assert stored == {b"home": b"[1]", b"cart": b"", b"version": b"7", b"epoch": b"2"}


async def test_an_older_version_is_dropped_whatever_its_epoch(stores: Stores) -> None:
    await stores.public.put_hashes([record(10, 1, home=b"new")])
    assert await stores.public.put_hashes([record(9, 5, home=b"old")]) == 0
    stored = await stores.public.get(KEY)
    assert stored == {b"home": b"new", b"version": b"10", b"epoch": b"1"}


async def test_of_equal_versions_the_higher_epoch_wins(stores: Stores) -> None:
    await stores.public.put_hashes([record(10, 9, home=b"nine")])
    assert await stores.public.put_hashes([record(10, 8, home=b"eight")]) == 0
    assert await stores.public.put_hashes([record(10, 10, home=b"ten")]) == 1
    stored = await stores.public.get(KEY)
    assert isinstance(stored, dict)
    assert stored[b"home"] == b"ten"


async def test_an_equal_record_is_written_again(stores: Stores) -> None:
    await stores.public.put_hashes([record(10, 1, home=b"a")])
    assert await stores.public.put_hashes([record(10, 1, home=b"a")]) == 1


async def test_versions_compare_as_numbers(stores: Stores) -> None:
    await stores.public.put_hashes([record(9, 1)])
    assert await stores.public.put_hashes([record(10, 1)]) == 1
    assert await stores.public.put_hashes([record(2**53 - 1, 1)]) == 1
    assert await stores.public.put_hashes([record(2**53 - 2, 1)]) == 0


async def test_fields_of_the_old_record_do_not_stay(stores: Stores) -> None:
    await stores.public.put_hashes([record(1, 1, home=b"h", cart=b"c")])
    await stores.public.put_hashes([record(2, 1, home=b"h2", product=b"p")])
    stored = await stores.public.get(KEY)
    assert stored == {b"home": b"h2", b"product": b"p", b"version": b"2", b"epoch": b"1"}
    await stores.public.put_hashes([record(3, 1)])
    assert await stores.public.get(KEY) == {b"version": b"3", b"epoch": b"1"}


async def test_many_hashes_are_judged_one_by_one(stores: Stores) -> None:
    keys = [f"rec:{number}" for number in range(500)]
    await stores.public.put_hashes([record(n, 1, key=key, a=b"old") for n, key in enumerate(keys)])
    replaced = await stores.public.put_hashes([record(250, 1, key=key, b=b"new") for key in keys])
    assert replaced == 251  # versions 0 to 250 are not newer
    assert await stores.public.get("rec:250") == {b"b": b"new", b"version": b"250", b"epoch": b"1"}
    assert await stores.public.get("rec:251") == {b"a": b"old", b"version": b"251", b"epoch": b"1"}


async def test_hashes_are_read_together_and_missing_ones_are_empty(stores: Stores) -> None:
    await stores.public.put_hashes([record(1, 1, key=f"rec:{k}", home=b"%d" % k) for k in range(9)])
    read = await stores.public.get_hashes(["rec:3", "rec:none", "rec:8", "rec:3"])
    assert [fields.get(b"home") for fields in read] == [b"3", None, b"8", b"3"]
    assert read[0] == await stores.public.get("rec:3")
    assert await stores.public.get_hashes([]) == []


async def test_fields_are_amended_only_of_the_very_version_and_epoch(stores: Stores) -> None:
    await stores.public.put_hashes([record(7, 2, home=b"h", cart=b"c")])
    for version, epoch in ((6, 2), (8, 2), (7, 1), (7, 3)):
        assert await stores.public.amend_hashes([record(version, epoch, home=b"x")]) == 0
    amendments = [record(7, 2, home=b"less"), record(7, 2, key="rec:none", home=b"less")]
    assert await stores.public.amend_hashes(amendments) == 1
    stored = await stores.public.get(KEY)
    assert stored == {b"home": b"less", b"cart": b"c", b"version": b"7", b"epoch": b"2"}
    assert await stores.public.get("rec:none") is None, "what was erased stays erased"
    assert await stores.public.amend_hashes([]) == 0


async def test_values_are_set_replaced_and_deleted_when_empty(stores: Stores) -> None:
    values = [(f"similar:{number}", b"[%d]\r\n\0" % number) for number in range(3_000)]
    await stores.public.put_values(values)
    assert await stores.public.get("similar:2999") == b"[2999]\r\n\0"
    await stores.public.put_values(
        [("similar:1", b"first"), ("similar:1", b"x"), ("similar:2", b"")]
    )
    assert await stores.public.get("similar:1") == b"x"
    assert await stores.public.get("similar:2") is None
