"""Every source alone puts items into lists, through the whole pipeline on the memory store."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from stream_app.adapters.memory import MemoryPublic
from stream_app.candidates import GIVEN
from stream_app.codec import decode_outbox
from stream_app.core.catalog import CatalogItem
from stream_app.hashing import stable_hash
from stream_app.offline.engine import Engine
from stream_app.ports import USERS
from stream_app.settings import load_settings
from tests.contract.published import EVENTS, Shop, views

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


@pytest.mark.parametrize("source", ["user_knn", "embedding", "trending", "jaccard"])
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


async def test_reasons_are_the_same_when_the_next_worker_publishes_what_was_committed(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model.json"
    model.write_bytes(orjson.dumps({"weight_jaccard": 1_000.0}))
    shop = Shop(extra_sources="jaccard", model_file=str(model))
    await shop.open()
    shop.rule("first", action="pin", items=["item-9"], place=1)
    for k in range(0, EVENTS, 100):
        await shop.send(views()[k : k + 100])
    outbox = decode_outbox((await shop.store.claim(USERS, 0)).outbox)
    assert outbox.lists is not None
    before = {name: await shop.public.get(f"rec:{name}") for name in outbox.lists.customers}
    shown = [entry for said in before.values() for entry in home_of(said)]
    reasons = {entry["reason"]["source"] for entry in shown}
    assert {"pinned", "jaccard"} <= reasons
    assert {e["item_id"] for e in shown if e["reason"]["source"] == "pinned"} == {"item-9"}
    assert all("because" in e["reason"] for e in shown if e["reason"]["source"] == "jaccard")
    stored = np.frombuffer(outbox.lists.sources, np.uint8)
    assert {12, 13} <= set(stored.tolist()) and stored.max() == 13
    shop.public = MemoryPublic()
    shop.stages = shop.start()
    shop.rule("first", action="pin", items=["item-9"], place=1)
    await shop.open()
    for name, said in before.items():
        again = await shop.public.get(f"rec:{name}")
        assert home_of(again) == home_of(said)


def home_of(fields: object) -> list[dict[str, Any]]:
    """Entries of the home list of a ``rec:`` key."""
    assert isinstance(fields, dict)
    entries: list[dict[str, Any]] = orjson.loads(fields[b"home"])
    return entries
