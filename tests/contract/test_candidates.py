"""Every source alone puts items into lists, through the whole pipeline on the memory store."""

import numpy as np
import orjson
import pytest

from stream_app.candidates import GIVEN
from stream_app.core.catalog import CatalogItem
from stream_app.hashing import stable_hash
from stream_app.offline.engine import Engine
from stream_app.settings import load_settings
from tests.contract.published import Shop

START_S = 1_700_000_000.0


def event(k: int, user: str, item: str, **more: object) -> bytes:
    return orjson.dumps(
        {"event": "view", "ts": START_S + 60.0 * k, "user_id": user, "item_id": item, **more}
    )


def visits() -> list[bytes]:
    """Ten customers who look at tea things on the web; then two in the shop who look at shoes."""
    items = ["tea", "pot", "cup", "milk", "honey"]
    events = [
        event(5 * u + k, f"u{u}", items[(u + k) % 5], channel="web")
        for u in range(10)
        for k in range(4)
    ]
    events += [event(60 + k, "s1", f"shoe{k % 3}", channel="store") for k in range(5)]
    return events


async def engine_with(source: str) -> Engine:
    engine = Engine(
        load_settings({}), list_size=10, exclude_seen=False, sources=[frozenset({source})]
    )
    await engine.start()
    for value in visits():
        await engine.apply([value])
    return engine


async def listed(engine: Engine, user: str, *, segments: tuple[str, ...] = ()) -> list[int]:
    (found,) = await engine.predict(user, anonymous=False, ts=START_S + 6_000.0, segments=segments)
    return [int(item) for item in found]


@pytest.mark.parametrize("source", ["user_knn", "embedding", "trending"])
async def test_a_source_alone_lists_what_others_liked(source: str) -> None:
    engine = await engine_with(source)
    found = await listed(engine, "u1")
    assert {stable_hash(item) for item in ("tea", "pot", "cup")} & set(found)


async def test_content_lists_an_item_that_no_event_has_named() -> None:
    engine = await engine_with("content")
    assert await listed(engine, "u2") == []
    engine.describe(
        [
            CatalogItem("tea", title="Green tea", category=("Kitchen",)),
            CatalogItem("oolong", title="Oolong tea", category=("Kitchen",)),
            CatalogItem("boot", title="Winter boot", category=("Shoes",)),
        ]
    )
    found = await listed(engine, "u2")
    assert found == [stable_hash("oolong")]
    tables = engine.stages.items.tables
    (node,) = tables.lookup(np.array(found, np.uint64)).tolist()
    assert tables.names[node] == "oolong"


async def test_popularity_by_segment_follows_where_the_customer_is() -> None:
    engine = await engine_with("segment")
    web = await listed(engine, "u1", segments=("web",))
    store = await listed(engine, "u1", segments=("store",))
    assert stable_hash("tea") in web and stable_hash("shoe0") not in web
    assert stable_hash("shoe0") in store and stable_hash("tea") not in store
    assert await listed(engine, "u1") == []


async def test_the_first_event_of_a_new_customer_gives_a_list_by_channel() -> None:
    shop = Shop()
    await shop.open()
    for u in range(10):  # as many look at either
        for k in range(3):
            await shop.send([event(5 * u + k, f"w{u}", f"tea{k}", channel="web")])
            await shop.send([event(5 * u + k, f"s{u}", f"shoe{k}", channel="store")])
    first = {"event": "search", "query": "gift", "ts": START_S + 7_000.0}
    found = {}
    for channel in ("web", "store", ""):
        said = {"user_id": f"new-{channel}"} | ({"channel": channel} if channel else {})
        await shop.send([orjson.dumps(first | said)])
        found[channel] = (await shop.lists(f"new-{channel}"))["home"]
    assert all(len(items) == 6 for items in found.values())
    assert {item[:-1] for item in found["web"][:3]} == {"tea"}
    assert {item[:-1] for item in found["store"][:3]} == {"shoe"}


def test_the_sources_have_one_name_each() -> None:
    every = load_settings({"STREAM_APP_EXTRA_SOURCES": ",".join(GIVEN)})
    assert every.sources_given() == GIVEN
    assert load_settings({}).sources_given() < GIVEN
