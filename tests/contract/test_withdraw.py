"""What cannot be sold leaves every published list, by the way all events go."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import orjson
import pytest

from stream_app.broadcasts import Broadcasts
from stream_app.codec import decode_outbox
from stream_app.core.held import HeldLists
from stream_app.core.merchandising import Rule
from stream_app.errors import StoreUnavailable, StreamAppError
from stream_app.hashing import stable_hash
from stream_app.ports import USERS, Claim, Commit
from stream_app.rehearsal import rehearse
from stream_app.worker import security
from tests.contract.published import CUSTOMERS, EVENTS, NOW, Shop, views, who


@pytest.fixture
async def shop() -> Shop:
    """Everybody has lists, and some hold the first item."""
    shop = Shop()
    await shop.open()
    await shop.send(views())
    assert {key.partition(":")[0] for key in await shop.holders("item-0")} == {
        "rec",
        "similar",
        "trending",
    }
    return shop


@pytest.mark.parametrize("fields", [{"stock": 0}, {"available": False}, {"hidden": True}, {}])
async def test_an_item_that_cannot_be_sold_leaves_all_lists(
    shop: Shop, fields: dict[str, object]
) -> None:
    holders = [key for key in await shop.holders("item-0") if key.startswith("rec:")]
    shop.say("item-0", **fields)
    assert await shop.refresh() == len(holders)
    assert await shop.holders("item-0") == []
    assert await shop.refresh() == 0


async def test_a_list_that_is_older_than_its_table_loses_it_too() -> None:
    shop = Shop(refresh_s="600")
    await shop.open()
    shop.clock.now += 600.0

    def together(*pairs: tuple[str, str]) -> list[bytes]:
        return [
            orjson.dumps({"event": "view", "item_id": item, "ts": NOW + k, "user_id": f"{k}{pair}"})
            for k, pair in enumerate(pairs)
            for item in pair
        ]

    await shop.send(together(("item-0", "item-1")))
    assert "similar:item-0" in await shop.holders("item-1")
    others = shop.stages.relate._items.tables.model.neighbours_max
    apart = [(f"item-{k % 2}", f"other-{k}") for k in range(2 * others)]
    await shop.send(together(*apart * 3))
    assert "similar:item-0" in await shop.holders("item-1"), "lists are to be old in this test"
    shop.say("item-1", stock=0)
    await shop.stages.withdraw.step()
    assert await shop.holders("item-1") == []


async def test_it_is_crossed_out_before_anything_is_ranked_anew(shop: Shop) -> None:
    holders = [key for key in await shop.holders("item-0") if key.startswith("rec:")]
    before = {key: await shop.public.get(key) for key in holders}
    shop.say("item-0", stock=0)
    await shop.stages.withdraw.step()
    assert await shop.holders("item-0") == []
    for key, fields in before.items():
        now = await shop.public.get(key)
        assert isinstance(fields, dict) and isinstance(now, dict)
        assert now.keys() == fields.keys()
        for name, text in fields.items():
            if text[:1] == b"[":
                kept = [e for e in orjson.loads(text) if e["item_id"] != "item-0"]
                assert orjson.loads(now[name]) == kept
            else:
                assert now[name] == text, "version, epoch and everything else"
    assert shop.stages.withdraw.crossed_out == len(holders)
    assert await shop.refresh() == len(holders), "then they are ranked anew"


@pytest.mark.parametrize("sold_out", [3, 20])
async def test_several_are_crossed_out_at_once(shop: Shop, sold_out: int) -> None:
    items = [f"item-{k}" for k in range(sold_out)]
    for item in items:
        shop.say(item, stock=0)
    await shop.stages.withdraw.step()
    assert [key for item in items for key in await shop.holders(item)] == []
    left = [await shop.public.get(f"rec:{who(k)}") for k in range(CUSTOMERS)]
    assert any(isinstance(fields, dict) and orjson.loads(fields[b"home"]) for fields in left)


async def test_lists_that_are_on_their_way_go_without_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = shop.store.commit
    key = next(key for key in await shop.holders("item-0") if key.startswith("rec:c"))
    ranked: list[bytes] = []

    async def sold_out_meanwhile(claim: Claim, step: Commit) -> None:
        await commit(claim, step)
        if claim.space == USERS:
            ranked.append(step.outbox)
            shop.say("item-0", stock=0)

    monkeypatch.setattr(shop.store, "commit", sold_out_meanwhile)
    event = {"event": "view", "item_id": "item-1", "ts": NOW + EVENTS, "user_id": key[4:]}
    await shop.send([orjson.dumps(event)])
    lists = decode_outbox(ranked[0]).lists
    assert lists is not None, "they were ranked with the item"
    assert stable_hash("item-0") in np.frombuffer(lists.items, np.uint64)
    (value,) = shop.published[-1].values
    said, stored = orjson.loads(value or b""), await shop.public.get(key)
    assert isinstance(stored, dict)
    for name, entries in said["lists"].items():
        assert entries == orjson.loads(stored[name.encode()])
        assert "item-0" not in {entry["item_id"] for entry in entries}
    names = np.array([stable_hash(e["item_id"]) for e in said["lists"]["home"]], np.uint64)
    listed = np.frombuffer(lists.items, np.uint64)
    assert names.tolist() == [i for i in listed[: len(names) + 1] if i != stable_hash("item-0")]


async def test_nobody_who_was_erased_comes_back_by_it(shop: Shop) -> None:
    key = next(key for key in await shop.holders("item-0") if key.startswith("rec:"))
    await shop.public.put_values([(key, b"")])
    shop.say("item-0", stock=0)
    await shop.stages.withdraw.step()
    assert await shop.public.get(key) is None


async def test_lists_stay_as_they_are_when_an_item_changes_that_may_be_listed(shop: Shop) -> None:
    shop.say("item-0", stock=5, price=3.0)
    assert await shop.refresh() == 0
    assert await shop.holders("item-0") != []


async def test_who_takes_over_finds_what_was_published_before_in_the_log(shop: Shop) -> None:
    await shop.take_over("item-0")
    await shop.refresh()
    assert [key for key in await shop.holders("item-0") if key.startswith("rec:")] == []
    assert shop.stages.withdraw.sizes()[0] > CUSTOMERS // 2
    # From now on they are remembered.
    shop.say("item-1", stock=0)
    await shop.refresh()
    assert [key for key in await shop.holders("item-1") if key.startswith("rec:")] == []


@pytest.mark.parametrize("while_nobody_was_there", [True, False])
async def test_lists_of_items_that_nobody_touched_since_the_start_lose_it_too(
    while_nobody_was_there: bool,
) -> None:
    shop = Shop()
    await shop.open()
    others = 2 * shop.stages.items.tables.model.neighbours_max  # more than its table holds
    views = [
        {"event": "view", "item_id": item, "ts": NOW + k, "user_id": f"c{k}"}
        for k in range(others)
        for item in ("item-0", f"item-{k + 1}")
    ]
    await shop.send([orjson.dumps(event) for event in views])
    await shop.send([orjson.dumps(views[-1] | {"item_id": "else", "user_id": "d"})] * 2)
    keys = [f"similar:item-{k + 1}" for k in range(others)]

    async def having() -> int:
        texts = [await shop.public.get(key) for key in keys]
        return sum(b'"item-0"' in text for text in texts if isinstance(text, bytes))

    assert await having() == others
    await shop.take_over(*["item-0"] * while_nobody_was_there)
    if while_nobody_was_there:
        await shop.stages.withdraw.step()
        assert 0 < await having() < others, "those that its own table names are found at once"
        await shop.recall()
    else:
        await shop.recall()
        assert await having() == others
        shop.say("item-0", stock=0)
        await shop.refresh()
    assert await having() == 0


async def test_a_store_that_is_away_while_items_are_recalled_stops_nobody(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.broadcasts.OWNERS_CHECK_S", 0.0)
    await shop.take_over()
    calls, done = 0, asyncio.Event()

    class Away:
        async def scan(self, space: str, partition: int) -> AsyncIterator[list[bytes]]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise StoreUnavailable("away")
            async for page in shop.store.scan(space, partition):
                yield page
            done.set()

    broadcasts = Broadcasts(shop.settings, shop.stages, security(shop.settings), ())
    task = asyncio.create_task(broadcasts._recall(Away()))
    try:
        async with asyncio.timeout(30):
            await done.wait()
    finally:
        task.cancel()
    assert calls == 2


async def test_items_without_room_are_not_recalled() -> None:
    shop = Shop(item_tables_max="1000", items_max="1000")
    await shop.open()
    first = [
        {"event": "view", "item_id": f"item-{k}", "user_id": f"c{k // 4}"} for k in range(3_000)
    ]
    for at in range(0, len(first), 500):
        part = first[at : at + 500]
        await shop.send([orjson.dumps({"ts": NOW + at + k, **e}) for k, e in enumerate(part)])
    await shop.take_over()
    assert await shop.recall() <= 1_000


async def test_customers_that_find_no_room_in_memory_are_found_in_the_log() -> None:
    shop = Shop(held_lists_max="10")
    await shop.open()
    await shop.send(views())

    shop.say("item-0", stock=0)
    await shop.refresh()
    await shop.stages.withdraw.sweep(shop.all_published)
    await shop.refresh()
    assert [key for key in await shop.holders("item-0") if key.startswith("rec:")] == []


async def test_a_list_ranked_before_and_published_after_an_item_is_gone_is_ranked_again(
    shop: Shop,
) -> None:
    shop.stages = shop.start()
    await shop.open()  # the last batch is published once more, as it was ranked then
    catalog = shop.stages.catalog
    shop.say("item-0", stock=0)
    await shop.refresh()
    assert not catalog.listed(np.array([stable_hash("item-0")], np.uint64))[0]
    await shop.stages.learn.assign(0)
    await shop.refresh()
    assert [key for key in await shop.holders("item-0") if key.startswith("rec:")] == []


async def test_a_rehearsal_tells_what_each_rule_would_do_and_changes_nothing(shop: Shop) -> None:
    customer = (await shop.holders("item-0"))[0].removeprefix("rec:")
    live = await shop.public.get(f"rec:{customer}")
    shop.stages = shop.start()
    await shop.stages.relate.assign(0)
    rules = (Rule("1", "exclude", items=("item-0",)), Rule("2", "pin", items=("item-29",)))
    shop.stages.merchandise.set_rules(rules)
    lists, changes = await rehearse(shop.stages, shop.store, [customer], 0, rules=rules, now=0.0)
    assert [(c.rule_id, c.action) for c in changes if c.list_name == "home"] == [
        ("1", "exclude"),
        ("2", "pin"),
    ]
    first = changes[0]
    assert "item-0" in first.before and "item-0" not in first.after
    assert lists["home"][0] == "item-29" and "item-0" not in lists["home"]
    assert shop.stages.merchandise.rules == rules
    assert await shop.public.get(f"rec:{customer}") == live
    with pytest.raises(StreamAppError, match="no event was applied"):
        await rehearse(shop.stages, shop.store, ["nobody"], 0, rules=rules, now=0.0)


def test_lists_published_longest_ago_are_forgotten_first() -> None:
    held = HeldLists(customers_max=8)
    for k in range(12):
        held.put([f"c{k}"], np.array([0]), np.array([1]), np.array([7], np.uint64))
    assert not held.complete
    assert held.holders(np.array([7], np.uint64)) == [f"c{k}" for k in range(11, 3, -1)]
    held.drop(["c11", "never heard of"])
    held.put(["c10"], np.array([0]), np.array([1]), np.array([8], np.uint64))
    assert held.holders(np.array([7], np.uint64))[0] == "c9"
    assert held.holders(np.array([8], np.uint64)) == ["c10"]
