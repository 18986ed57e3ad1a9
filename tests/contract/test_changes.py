"""Prices, labels, rules and campaigns take effect on lists that are published already."""

import orjson
import pytest

from tests.contract.published import ITEMS, NOW, Shop, views


@pytest.fixture
async def shop() -> Shop:
    """Everybody has lists, and some hold the first item."""
    shop = Shop()
    await shop.open()
    await shop.send(views())
    return shop


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
