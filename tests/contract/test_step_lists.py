"""Each step of the journey publishes its lists and no others, on memory and on a real server."""

from collections.abc import AsyncIterator

import orjson
import pytest

from stream_app.core.catalog import CatalogItem
from stream_app.core.list_kinds import LISTS
from stream_app.embedded import ValkeyServer
from tests.contract.stores import opened
from tests.contract.test_timers import DAY_S, Shop


@pytest.fixture(params=["memory", "valkey"])
async def shop(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Shop]:
    """Each adapter in turn, with a worker that knows four items."""
    async with opened(request.param, valkey.url) as stores:
        shop = Shop(stores)
        await shop.start()
        titles = {"shoe": "red shoe", "boot": "black boot", "hat": "red hat", "sock": "wool sock"}
        shop.worker.catalog.upsert([CatalogItem(k, title=title) for k, title in titles.items()])
        yield shop


async def lists(shop: Shop) -> dict[str, list[str]]:
    """Anna's public lists: the ids of their items."""
    public = await shop.stores.public.get("rec:anna")
    assert isinstance(public, dict)
    return {
        name: [entry["item_id"] for entry in orjson.loads(public[name.encode()])]
        for name in LISTS
        if name.encode() in public
    }


async def test_each_step_publishes_its_lists(shop: Shop) -> None:
    async def after(kind: str, item: str | None = None, query: str | None = None) -> str:
        shop.now += 1.0
        await shop.send("anna", kind, item, query=query)
        await shop.learn()
        return " ".join(await lists(shop))

    assert await after("search", query="Red") == "home search"
    assert sorted((await lists(shop))["search"]) == ["hat", "shoe"]
    assert await after("search", query="boot") == "home search"
    assert (await lists(shop))["search"] == ["boot"]
    assert await after("view", "boot") == "home"
    assert await after("view", "shoe") == "home"
    product_page = "home product_similar product_complementary"
    assert await after("view", "boot") == product_page
    assert await after("add_to_cart", "boot") == "home cart cart_items"
    assert (await lists(shop))["cart_items"] == ["boot"]
    assert await after("add_to_cart", "sock") == "home cart cart_items"
    assert sorted((await lists(shop))["cart_items"]) == ["boot", "sock"]
    assert not set((await lists(shop))["cart"]) & {"boot", "sock"}
    assert await after("begin_checkout") == "cart checkout"
    assert await after("purchase", "boot") == "home post_purchase cart_items"
    assert (await lists(shop))["cart_items"] == ["sock"], "what is left in the cart"
    assert "boot" not in (await lists(shop))["post_purchase"]
    assert await after("search", query="hat") == "home search"
    for _ in range(32):
        await shop.later(DAY_S)
    assert await shop.step("anna") == "dormant"
    assert " ".join(await lists(shop)) == "home email"
    assert "boot" not in (await lists(shop))["email"]
    assert await after("search") == "home", "a new session, and nothing was searched for"
    assert await shop.is_what_the_log_says()
