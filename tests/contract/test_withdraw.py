"""What cannot be sold leaves every published list, by the way all events go."""

import random
from collections.abc import AsyncIterator

import numpy as np
import orjson
import pytest

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.codec import decode_outbox
from stream_app.composition import Stages, compose
from stream_app.core.held import HeldLists
from stream_app.core.merchandising import Rule
from stream_app.errors import StreamAppError
from stream_app.hashing import stable_hash
from stream_app.ports import USERS, Claim, Commit, RawBatch
from stream_app.rehearsal import rehearse
from stream_app.settings import Settings, load_settings

NOW = 1_700_000_000.0
CUSTOMERS, ITEMS, EVENTS = 60, 30, 600


class Clock:
    """Three seconds later at every look: nothing waits for a refresh interval."""

    now = NOW

    def __call__(self) -> float:
        """Unix seconds."""
        self.now += 3.0
        return self.now


class Shop:
    """One worker in memory, and what its customers can see."""

    def __init__(self, **variables: str) -> None:
        more = {f"STREAM_APP_{name.upper()}": value for name, value in variables.items()}
        self.settings: Settings = load_settings(
            {
                "STREAM_APP_CLICKSTREAM_PARTITIONS": "1",
                "STREAM_APP_COOCCURRENCE_PARTITIONS": "1",
                **more,
            }
        )
        self.log, self.store, self.public = MemoryLog(), MemoryStore(), MemoryPublic()
        self.clock = Clock()
        self.published: list[RawBatch] = []
        self.said: dict[str, dict[str, object]] = {}
        self.offset = 0
        self.stages = self.start()

    def start(self) -> Stages:
        """A worker that knows nothing yet."""
        return compose(
            self.settings, store=self.store, public=self.public, log=self.log, clock=self.clock
        )

    async def open(self) -> None:
        """Take the partitions."""
        await self.stages.learn.assign(0)
        await self.stages.relate.assign(0)
        self.stages.withdraw.follow(self.stages.learn)

    async def send(self, values: list[bytes]) -> None:
        """Events, through both stages."""
        n = len(values)
        offsets = range(self.offset, self.offset + n)
        self.offset += n
        topic = self.settings.clickstream_topic
        none = [None] * n
        batch = RawBatch(topic, 0, self.offset, offsets, none, values, [-1] * n, [()] * n)
        await self.stages.learn.process(batch)
        await self.stages.relate.process(self.log.drain(self.settings.cooccurrence_topic, 0))
        await self.stages.relate.refresh()
        self.published.append(self.log.drain(self.settings.recommendations_topic, 0))

    async def refresh(self) -> int:
        """Let refresh records have their effect; returns how many there were."""
        await self.stages.withdraw.step()
        values = [v for v in self.log.drain(self.settings.clickstream_topic, 0).values if v]
        if values:
            await self.send(values)
        return len(values)

    async def take_over(self, *sold_out: str) -> None:
        """Another worker comes, hears what is ``sold_out`` and looks through what is published."""
        self.stages = self.start()
        for item in self.said:
            self.say(item, **self.said[item])
        for item in sold_out:
            self.say(item, stock=0)
        await self.open()
        await self.stages.withdraw.sweep(self.all_published)

    async def all_published(self, partition: int) -> AsyncIterator[RawBatch]:
        """The records of the recommendations topic."""
        assert partition == 0
        for batch in self.published:
            yield batch

    def say(self, item: str, **fields: object) -> None:
        """A record of the catalog; without fields one that deletes."""
        value = orjson.dumps({"item_id": item, **fields}) if fields else None
        self.said[item] = fields
        batch = RawBatch(
            self.settings.catalog_topic, 0, 1, [0], [item.encode()], [value], [0], [()]
        )
        apply = self.stages.followers[0]._apply
        assert apply(batch) == []

    def rule(self, rule_id: str, **fields: object) -> None:
        """A record of the rules."""
        topic, key, value = self.settings.rules_topic, rule_id.encode(), orjson.dumps(fields)
        apply = {follower.topic: follower._apply for follower in self.stages.followers}[topic]
        assert apply(RawBatch(topic, 0, 1, [0], [key], [value], [0], [()])) == []

    async def lists(self, customer: str) -> dict[str, list[str]]:
        """What is published to a customer: ids by list."""
        fields = await self.public.get(f"rec:{customer}")
        assert isinstance(fields, dict)
        return {
            name.decode(): [entry["item_id"] for entry in orjson.loads(text)]
            for name, text in fields.items()
            if text.startswith(b"[")
        }

    async def holders(self, item: str) -> list[str]:
        """Keys with the item in a list."""
        keys = [f"rec:{who(k)}" for k in range(CUSTOMERS)]
        keys += [f"similar:item-{k}" for k in range(ITEMS)] + ["trending:all"]
        found = []
        for key in keys:
            value = await self.public.get(key)
            texts = [value] if isinstance(value, bytes) else list((value or {}).values())
            lists = [orjson.loads(text) for text in texts if text.startswith(b"[")]
            if any(entry["item_id"] == item for entries in lists for entry in entries):
                found.append(key)
        return found


def who(k: int) -> str:
    """A customer's public name; some are sessions."""
    return f"~s{k}" if k % 5 == 0 else f"c{k}"


def views() -> list[bytes]:
    chosen = random.Random(5)
    events = []
    for k in range(EVENTS):
        name = who(chosen.randrange(CUSTOMERS))
        given = {"session_id": name[1:]} if name[0] == "~" else {"user_id": name}
        item = f"item-{int(ITEMS * chosen.random() ** 2)}"
        events.append(orjson.dumps({"event": "view", "item_id": item, "ts": NOW + k, **given}))
    return events


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    await shop.open()
    await shop.send(views())
    assert {key.partition(":")[0] for key in await shop.holders("item-0")} == {
        "rec",
        "similar",
        "trending",
    }
    yield shop


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


async def refused_items(shop: Shop) -> list[str]:
    await shop.stages.withdraw.step()
    crossed_out = await shop.holders("item-0")
    await shop.refresh()
    return [*crossed_out, *await shop.holders("item-0")]


async def test_a_price_beyond_the_bounds_of_the_shop_takes_it_off_all_lists() -> None:
    shop = Shop(price_min="1.1", price_max="9.9")
    await shop.open()
    for k in range(ITEMS):
        shop.say(f"item-{k}", price=9.9 if k % 2 else 1.1)  # the bounds are within
    await shop.send(views())
    assert {key[:3] for key in await shop.holders("item-0")} == {"rec", "sim", "tre"}
    shop.say("item-0", price=9.95)
    assert await refused_items(shop) == []
    assert await shop.refresh() == 0, "and nobody is ranked for ever"


async def test_what_is_excluded_by_a_setting_is_on_no_list_of_items_either() -> None:
    shop = Shop(excluded_items="item-0")
    await shop.open()
    await shop.send(views())
    assert await shop.holders("item-0") == []
    assert await shop.holders("item-1") != []


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "exclude", "match": "tag=tobacco"},
        {"action": "exclude", "price_min": 18.0},
        {"action": "include", "match": "tag=mild"},
    ],
)
async def test_a_rule_for_all_lists_holds_as_soon_as_the_catalog_says_so(
    shop: Shop, rule: dict[str, object]
) -> None:
    for k in range(ITEMS):
        shop.say(f"item-{k}", price=3.0, tags=["mild"])
    shop.rule("r", **rule)
    await shop.refresh()
    assert {key[:3] for key in await shop.holders("item-0")} == {"rec", "sim", "tre"}
    shop.say("item-0", price=18.0, tags=["tobacco"])
    assert await refused_items(shop) == []
    assert await shop.refresh() == 0
    shop.say("item-0", price=3.0, tags=["mild"])
    await shop.send(views())
    assert await shop.holders("item-0") != [], "it may be listed again"


async def test_a_live_rule_for_all_lists_holds_at_once(shop: Shop) -> None:
    shop.rule("r", action="exclude", items=["item-0"])
    assert await refused_items(shop) == []


async def test_a_rule_for_some_lists_has_those_ranked_anew_and_leaves_the_others(
    shop: Shop,
) -> None:
    shop.say("item-0", price=3.0)
    shop.rule("r", action="exclude", price_min=10.0, lists=["home"])
    await shop.refresh()
    before = await shop.holders("item-0")
    assert any(key.startswith("rec:") for key in before)
    shop.say("item-0", price=12.0)
    await shop.stages.withdraw.step()
    assert await shop.holders("item-0") == before, "nothing to cross out everywhere"
    await shop.refresh()
    lists = [await shop.lists(key[4:]) for key in before if key.startswith("rec:")]
    assert not any("item-0" in some["home"] for some in lists)
    assert [key for key in before if key.startswith("similar:")], "these are no home lists"
    assert not {k for k in before if k[:3] != "rec"} - set(await shop.holders("item-0"))


async def test_a_campaign_that_begins_takes_effect_before_the_customers_next_event(
    shop: Shop,
) -> None:
    shop.rule("r", action="exclude", items=["item-0"], starts=shop.clock.now + 10_000.0)
    await shop.refresh()
    assert await shop.holders("item-0") != []
    shop.clock.now += 10_000.0
    assert await refused_items(shop) == []


@pytest.mark.parametrize("who_published_it_is_gone", [False, True])
@pytest.mark.parametrize(("item", "price"), [("item-5", 60.0), ("item-1", 10.0)])
async def test_another_price_has_checkout_lists_ranked_anew(
    item: str, price: float, who_published_it_is_gone: bool
) -> None:
    shop = Shop()
    await shop.open()
    shop.say("item-1", price=100.0)
    shop.say("item-5", price=20.0)
    events = [
        {"event": "view", "item_id": f"item-{1 if k % 2 else 5}", "user_id": f"v{k // 6}"}
        for k in range(60)
    ]
    buyer = {"user_id": "anna", "item_id": "item-1"}
    events += [{"event": "add_to_cart", **buyer}, {"event": "begin_checkout", **buyer}]
    values = [orjson.dumps({"ts": NOW + k, **event}) for k, event in enumerate(events)]
    await shop.send(values[:60])
    await shop.send(values[60:])
    assert "item-5" in (await shop.lists("anna"))["checkout"]
    if who_published_it_is_gone:
        await shop.take_over()
        assert await shop.refresh() == 0
    shop.say(item, price=price)  # it is dear now, or what is in the cart is cheap
    assert await shop.refresh() == 1, "only who has it at the checkout"
    after = await shop.lists("anna")
    assert "item-5" not in after["checkout"]
    assert "item-5" in after["cart"]


async def test_who_takes_over_finds_what_was_published_before_in_the_log(shop: Shop) -> None:
    await shop.take_over("item-0")
    await shop.refresh()
    assert [key for key in await shop.holders("item-0") if key.startswith("rec:")] == []
    assert shop.stages.withdraw.sizes()[0] > CUSTOMERS // 2
    # From now on they are remembered.
    shop.say("item-1", stock=0)
    await shop.refresh()
    assert [key for key in await shop.holders("item-1") if key.startswith("rec:")] == []


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
    lists, changes = await rehearse(shop.stages, shop.store, [customer], 0)
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
        await rehearse(shop.stages, shop.store, ["nobody"], 0)


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
