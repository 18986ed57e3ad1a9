"""Published counts: noise of the stated scale, one release a period, nothing by asking again."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_app.adapters.generations import GenerationStore
from stream_app.adapters.memory import MemoryLog
from stream_app.commands.aggregates import KEY, _secret, released
from stream_app.composition import compose
from stream_app.core.catalog import Catalog, CatalogItem
from stream_app.embedded import ValkeyServer
from stream_app.errors import ConfigurationError, StreamAppError
from stream_app.ports import RawBatch
from stream_app.reader import decode_aggregates
from stream_app.settings import Settings
from tests.operations.schemas import faults

SETTINGS = Settings.model_validate({"clickstream_partitions": 1, "cooccurrence_partitions": 1})
NOW, DAY = 1_700_000_000.0, 86_400.0
SECRET = b"nobody-else-knows-these-32-bytes"
FAITHFUL = 1e6  # so large an epsilon that no noise is left


def catalog(*ids: str) -> Catalog:
    found = Catalog(items_max=100)
    found.upsert([CatalogItem(item_id=id_) for id_ in ids])
    return found


class Shop:
    """A worker on a real server."""

    def __init__(self, store: GenerationStore) -> None:
        self.store = store
        self.offset = 0
        stages = compose(SETTINGS, store=store, public=store, log=MemoryLog(), clock=lambda: NOW)
        self.learn = stages.learn

    async def views(self, at: float, customers: int, item: str = "mug") -> None:
        values = [
            orjson.dumps({"event": "view", "user_id": f"c{k}", "item_id": item, "ts": NOW + at})
            for k in range(customers)
        ]
        first, n = self.offset, len(values)
        self.offset += n
        await self.learn.process(
            RawBatch("clickstream", 0, first + n, range(first, first + n), [None] * n, values,
                     [-1] * n, [()] * n)
        )  # fmt: skip


@pytest.fixture
async def shop(valkey: ValkeyServer) -> AsyncIterator[Shop]:
    store = GenerationStore(
        valkey.url,
        prefix="sa1:",
        pinned=None,
        state_ttl_ms={},
        public_ttl_ms=10**8,
        timeout_ms=5_000,
    )
    shop = Shop(store)
    try:
        yield shop
    finally:
        await store.close()


async def test_with_next_to_no_noise_the_counts_are_those_of_the_customers(shop: Shop) -> None:
    with pytest.raises(StreamAppError, match="no event was applied"):
        await released(shop.store, SETTINGS, SECRET, epsilon=FAITHFUL, catalog=catalog("mug"))
    await shop.learn.assign(0)
    await shop.views(1, 30)
    await shop.views(2, 10, "cup")
    items = catalog("mug", "cup", "never")
    text = await released(shop.store, SETTINGS, SECRET, epsilon=FAITHFUL, catalog=items)
    found = orjson.loads(text)
    assert found["top_items"] == [
        {"item_id": "mug", "customers": 30},
        {"item_id": "cup", "customers": 10},
        {"item_id": "never", "customers": 0},
    ]
    assert sum(found["customers_by_step"].values()) == 30
    assert (found["epsilon"], found["per_customer_max"], found["records"]) == (FAITHFUL, 7, 40)
    assert faults("aggregates", found) == []
    assert decode_aggregates(text).customers_by_step == found["customers_by_step"]
    assert not re.search(rb'"c\d', text)  # nobody is named
    assert await shop.store.get(KEY) == text


async def test_asking_again_shows_the_same_release_until_the_period_is_over(shop: Shop) -> None:
    items = catalog("mug")
    await shop.learn.assign(0)
    await shop.views(1, 30)
    first = await released(shop.store, SETTINGS, SECRET, epsilon=0.5, catalog=items)
    await shop.views(2, 20)  # others come, but differences must not tell who
    assert await released(shop.store, SETTINGS, SECRET, epsilon=0.5, catalog=items) == first
    await shop.views(2 + DAY, 5)
    second = orjson.loads(await released(shop.store, SETTINGS, SECRET, epsilon=0.5, catalog=items))
    assert (second["release"], second["epsilon_spent"]) == (2, 1.0)


async def test_a_release_is_the_same_again_and_another_secret_draws_other_noise(shop: Shop) -> None:
    items = catalog(*(f"i{k}" for k in range(60)))
    await shop.learn.assign(0)
    await shop.views(1, 3)
    found = []
    for secret in (SECRET, SECRET, SECRET[::-1]):
        text = await released(shop.store, SETTINGS, secret, epsilon=0.1, catalog=items)
        found.append(orjson.loads(text))
        await shop.store.put_values([(KEY, b"")])
    top = [release["top_items"] for release in found]
    assert top[0] == top[1] != top[2]
    # Items that nobody looked at are not told from those that somebody did.
    noise = np.array([entry["customers"] for entry in top[0]])
    assert found[0]["noise_scale"] == pytest.approx(70.0)
    assert noise.max() > 20


def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("secret")
    with pytest.raises(ConfigurationError, match="at least 32"):
        _secret(tmp_path / "short")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _secret(tmp_path / "missing")
