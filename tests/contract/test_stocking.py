"""STOCK on both stores: sales are counted once, alerts follow stock and forecast."""

from collections.abc import AsyncIterator, Sequence

import numpy as np
import orjson
import pytest

from stream_app import sales
from stream_app.adapters.memory import MemoryLog
from stream_app.core.catalog import Catalog, CatalogItem
from stream_app.core.demand import DAY_S, decode_demand
from stream_app.embedded.valkey import ValkeyServer
from stream_app.errors import Fenced
from stream_app.hashing import stable_hash
from stream_app.ports import RawBatch
from stream_app.sales import route_sales
from stream_app.settings import Settings
from stream_app.stocking import STOCK, Stock
from tests.contract.stores import Stores, opened

SETTINGS = Settings.model_validate({"cooccurrence_partitions": 1})
DAY = 20_000


def routed(source: int, *sold: tuple[str, int, int, float]) -> list[tuple[int, bytes]]:
    """Records of (item, day, offset, units), with their item partition."""
    return route_sales(
        np.array([stable_hash(item) for item, *_ in sold], np.uint64),
        np.array([day * DAY_S + 5.0 for _, day, _, _ in sold]),
        np.array([offset for _, _, offset, _ in sold]),
        np.array([units for *_, units in sold]),
        [item for item, *_ in sold],
        source=source,
        partitions=1,
    )


def record(source: int, *sold: tuple[str, int, int, float]) -> bytes:
    """The one record of some sales."""
    ((_, value),) = routed(source, *sold)
    return value


def batch(first: int, values: Sequence[bytes | None]) -> RawBatch:
    n = len(values)
    offsets = range(first, first + n)
    return RawBatch("sales", 0, first + n, offsets, [None] * n, values, [0] * n, [()] * n)


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """Each adapter in turn, empty."""
    async with opened(request.param, valkey.url) as found:
        yield found


class Shop:
    """A stage with its adapters."""

    def __init__(self, stores: Stores) -> None:
        self.stores, self.log, self.catalog = stores, MemoryLog(), Catalog(items_max=100)
        self.stage = self.worker()

    def worker(self) -> Stock:
        return Stock(SETTINGS, self.stores.state, self.stores.public, self.log, self.catalog)

    def alerts(self) -> list[dict[str, object]]:
        sent = self.log.drain(SETTINGS.inventory_topic, 0)
        return [orjson.loads(value or b"") for value in sent.values]

    async def daily(self, item: str) -> list[float]:
        (blob,) = await self.stores.state.load(
            STOCK, [0], [stable_hash(item).to_bytes(8, "little")]
        )
        assert blob is not None
        rows, names = decode_demand([blob])
        assert names == [item]
        return [float(units) for units in rows["daily"][0]]


@pytest.fixture
async def shop(stores: Stores) -> Shop:
    shop = Shop(stores)
    await shop.stage.assign(0)
    return shop


async def test_sales_become_a_public_forecast(shop: Shop) -> None:
    days = [record(0, ("mug", DAY + day, day, 2.0)) for day in range(30)]
    for at, value in enumerate(days):
        await shop.stage.process(batch(at, [value]))
    stored = await shop.stores.public.get("demand:mug")
    assert isinstance(stored, bytes)
    told = orjson.loads(stored)
    assert told["forecast_7d"] == pytest.approx(14.0, abs=0.01)
    assert len(told["daily"]) == 7
    assert "stock" not in told
    assert shop.alerts() == []


async def test_a_republished_or_redelivered_record_counts_once(shop: Shop) -> None:
    value = record(0, ("mug", DAY, 7, 2.0), ("cup", DAY, 8, 1.0))
    await shop.stage.process(batch(0, [value, value]))
    await shop.stage.process(batch(0, [value, value]))
    await shop.stage.process(batch(2, [value]))
    assert (await shop.daily("mug"))[-1] == 2.0
    assert shop.stage.owned[0].meta.repeated == 2


async def test_sales_that_do_not_fit_into_one_record_go_into_several(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold = [(f"mug-{n % 5}", DAY, n, 1.0) for n in range(50)]
    whole = record(0, *sold)
    monkeypatch.setattr(sales, "VALUE_BYTES_MAX", len(whole) // 3)
    records = [value for _, value in routed(0, *sold)]
    assert max(map(len, records)) <= len(whole) // 3
    await shop.stage.process(batch(0, [*records, *records]))
    assert [(await shop.daily(f"mug-{n}"))[-1] for n in range(5)] == [10.0] * 5
    assert shop.stage.owned[0].meta.repeated == len(records)


async def test_malformed_records_are_dead_lettered_and_accounted(shop: Shop) -> None:
    await shop.stage.process(batch(0, [b"junk", None, record(0, ("mug", DAY, 1, 1.0))]))
    letters = shop.log.drain(SETTINGS.dead_letter_topic, 0)
    assert [dict(headers)["reason"] for headers in letters.headers] == [b"malformed"] * 2
    meta = shop.stage.owned[0].meta
    assert (meta.applied, meta.dead_lettered) == (1, 2)


async def test_stock_below_what_may_sell_until_a_delivery_raises_one_alert(shop: Shop) -> None:
    for day in range(21):
        await shop.stage.process(batch(day, [record(0, ("mug", DAY + day, day, 3.0))]))
    shop.catalog.upsert([CatalogItem("mug", stock=500.0)])
    await shop.stage.refresh()
    shop.catalog.upsert([CatalogItem("mug", stock=4.0)])
    await shop.stage.refresh()
    await shop.stage.refresh()
    (alert,) = [a for a in shop.alerts() if a["alert"] != "overstock"]
    assert alert["alert"] == "low_stock"
    assert alert["item_id"] == "mug"
    assert alert["suggested_quantity"] == 38  # 42 in lead time and review, 4 are there
    shop.catalog.upsert([CatalogItem("mug", stock=0.0)])
    await shop.stage.refresh()
    shop.catalog.upsert([CatalogItem("mug", stock=100.0)])
    await shop.stage.refresh()
    assert [alert["alert"] for alert in shop.alerts()] == ["out_of_stock", "none"]


async def test_an_item_that_never_sold_and_is_out_of_stock_raises_one_alert(shop: Shop) -> None:
    shop.catalog.upsert([CatalogItem("cup", stock=0.0), CatalogItem("jug", stock=3.0)])
    shop.catalog.upsert([CatalogItem("pot"), CatalogItem("pan", available=False)])
    await shop.stage.refresh()
    assert shop.alerts() == [], "nothing has sold yet: there is no day to forecast from"
    await shop.stage.process(batch(0, [record(0, ("mug", DAY, 1, 2.0))]))
    await shop.stage.refresh()
    (alert,) = shop.alerts()
    assert (alert["item_id"], alert["alert"], alert["stock"]) == ("cup", "out_of_stock", 0.0)
    assert (alert["forecast_7d"], alert["suggested_quantity"]) == (0.0, 0)
    assert alert["days_of_cover"] is None
    assert alert["from"] == "2024-10-04"
    shop.stage = shop.worker()  # another one finds what was said
    assert await shop.stage.assign(0) == 1
    assert len(shop.alerts()) == 1, "the last commit's, published again"
    await shop.stage.refresh()
    assert shop.alerts() == []
    shop.catalog.upsert([CatalogItem("cup", stock=9.0), CatalogItem("jug", stock=0.0)])
    await shop.stage.refresh()
    assert [(a["item_id"], a["alert"]) for a in shop.alerts()] == [
        ("cup", "none"),
        ("jug", "out_of_stock"),
    ]


async def test_the_forecast_of_an_item_begins_with_its_first_sale_however_long_it_was_out(
    shop: Shop,
) -> None:
    shop.catalog.upsert([CatalogItem("cup", stock=0.0)])
    await shop.stage.process(batch(0, [record(0, ("mug", DAY, 1, 2.0))]))
    await shop.stage.refresh()
    assert len(shop.alerts()) == 1
    for day in range(10):  # months later: the tin has not been heard of before
        sales = [(item, DAY + 90 + day, 2 + day, 2.0) for item in ("cup", "tin")]
        await shop.stage.process(batch(1 + day, [record(0, *sales)]))
    assert await shop.daily("cup") == await shop.daily("tin")
    told = [await shop.stores.public.get(f"demand:{item}") for item in ("cup", "tin")]
    cup, tin = (orjson.loads(value) for value in told if isinstance(value, bytes))
    assert cup["forecast_7d"] == tin["forecast_7d"] > 0.0
    assert (cup["upper_7d"], cup["daily"]) == (tin["upper_7d"], tin["daily"])


async def test_a_successor_publishes_what_was_committed_and_fences_the_old_worker(
    shop: Shop,
) -> None:
    await shop.stage.process(batch(0, [record(0, ("mug", DAY, 1, 1.0))]))
    await shop.stores.public.put_values([("demand:mug", b"")])
    successor = shop.worker()
    assert await successor.assign(0) == 1
    assert await shop.stores.public.get("demand:mug") is not None
    with pytest.raises(Fenced):
        await shop.stage.process(batch(1, [record(0, ("mug", DAY, 2, 1.0))]))
    await successor.process(batch(1, [record(0, ("mug", DAY, 2, 1.0))]))
    assert (await shop.daily("mug"))[-1] == 2.0
