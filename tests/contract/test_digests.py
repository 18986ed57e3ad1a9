"""Lists that are made on demand are those that LEARN publishes, on memory and on a real server."""

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from stream_app.composition import Stages, compose
from stream_app.core.catalog import CatalogItem
from stream_app.core.ranking import LISTS
from stream_app.digests import Digest, Digests
from stream_app.embedded import ValkeyServer
from stream_app.hashing import customer_id
from stream_app.ports import USERS
from tests.contract.stores import opened
from tests.contract.test_timers import DAY_S, SETTINGS, Shop

KINDS = {"Feet": ("shoe", "boot", "sock"), "Head": ("hat", "cap")}
ITEMS = [
    CatalogItem(f"{colour}-{name}", title=f"{colour} {name}", category=(kind,))
    for colour in ("red", "black")
    for kind, names in KINDS.items()
    for name in names
]


@pytest.fixture(params=["memory", "valkey"])
async def shop(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Shop]:
    """A shop in which a few customers have looked around."""
    async with opened(request.param, valkey.url) as stores:
        shop = Shop(stores)
        await shop.start()
        shop.worker.catalog.upsert(ITEMS)
        shop.worker.learn.listing.candidates.exhaustive = True
        for k in range(60):
            shop.now += 30.0
            await shop.send(f"u{k % 7}", "view", ITEMS[k * k % len(ITEMS)].item_id)
        await shop.learn()
        await relate(shop)
        yield shop


async def relate(shop: Shop) -> None:
    topic = SETTINGS.cooccurrence_topic
    for q in range(SETTINGS.cooccurrence_partitions):
        batch = shop.tape.log.drain(topic, q)
        if len(batch):
            await shop.worker.relate.process(batch)


def onlooker(shop: Shop) -> Stages:
    """A worker that owns nothing."""
    stages = compose(
        SETTINGS,
        store=shop.stores.state,
        public=shop.stores.public,
        log=shop.tape.log,
        clock=lambda: shop.now,
    )
    stages.catalog.upsert(ITEMS)
    return stages


async def digests(shop: Shop, name: str, users: Sequence[str]) -> list[Digest]:
    keys = [customer_id(user).to_bytes(8, "little") for user in users]
    meta = shop.worker.learn.owned[0].partition.tobytes()
    return await Digests(onlooker(shop), shop.stores.state, name).of(0, meta, keys)


async def test_a_list_made_on_demand_is_the_one_that_was_published(shop: Shop) -> None:
    for kind, item in (("view", "red-cap"), ("add_to_cart", "red-cap"), ("view", "black-cap")):
        shop.now += 5.0
        await shop.send("u3", kind, item)
    await shop.learn()
    public = await shop.stores.public.get("rec:u3")
    assert isinstance(public, dict)
    names = [name for name in LISTS if name.encode() in public]
    assert names == ["home", "cart", "cart_items"]
    for name in names:
        (found,) = await digests(shop, name, ["u3"])
        assert found.items == public[name.encode()], name
        assert (found.customer, found.step, found.last_seen) == ("u3", "cart", shop.now)


async def test_a_digest_is_there_in_any_step_without_the_cart_and_what_was_bought(
    shop: Shop,
) -> None:
    await shop.send("u1", "add_to_cart", "red-sock")
    await shop.send("u2", "purchase", "black-boot")
    await shop.learn()
    shop.now += DAY_S
    await shop.send("u4", "view", "red-cap")  # time goes on for all
    await shop.learn()
    found = await digests(shop, "email", ["u1", "u2", "nobody", "u4"])
    assert [(one.customer, one.step) for one in found] == [
        ("u1", "cart"),
        ("u2", "post_purchase"),
        ("u4", "consider"),
    ]
    items = [[entry["item_id"] for entry in orjson.loads(one.items)] for one in found]
    assert all(items)
    assert "red-sock" not in items[0] and "black-boot" not in items[1]
    assert found[0].last_seen == shop.now - DAY_S
    assert await digests(shop, "cart_items", ["u4"]) == [], "there is nothing in the cart"


async def test_nothing_is_written_by_looking(shop: Shop) -> None:
    async def stored() -> list[bytes | None]:
        keys = [customer_id(f"u{k}").to_bytes(8, "little") for k in range(7)]
        return await shop.stores.state.load(USERS, [0] * 7, keys)

    before = await stored()
    assert len(await digests(shop, "email", [f"u{k}" for k in range(7)])) == 7
    assert await stored() == before
    assert not len(shop.tape.log.drain(SETTINGS.cooccurrence_topic, 0))
