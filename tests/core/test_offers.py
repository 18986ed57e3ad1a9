"""Rules come from settings; new items of the catalog are tried by a hash, the same in a replay."""

import numpy as np
import pytest

from stream_app.adapters.memory import MemoryStore
from stream_app.core.catalog import Catalog, CatalogItem
from stream_app.core.model import Model
from stream_app.core.scoring import EXPLORATION, POPULAR
from stream_app.core.shaping import EMPTY_CATALOG
from stream_app.core.state import new_users
from stream_app.core.tables import ItemTables
from stream_app.errors import ConfigurationError
from stream_app.hashing import short_hash, stable_hash
from stream_app.items import ItemReader, Top
from stream_app.offers import NEWEST_MAX, TRIED_MAX, Offers, rules_of
from stream_app.settings import load_settings


def offers(catalog: Catalog, **values: str) -> tuple[Offers, ItemReader]:
    settings = load_settings({f"STREAM_APP_{name.upper()}": v for name, v in values.items()})
    tables = ItemTables(Model(), rows_max=1_000, nodes_max=10_000)
    items = ItemReader(
        MemoryStore(), tables, partitions=1, cache_age_s=1.0, refresh_s=1.0, clock=lambda: 0.0
    )
    return Offers(catalog, items, settings, lambda: 0.0), items


def test_an_empty_catalog_without_rules_costs_nothing() -> None:
    found, _ = offers(Catalog(items_max=10))
    assert found.view() is EMPTY_CATALOG and not found.rules.any and not found.rules.shaped
    assert not len(found.fallback().nodes)
    assert (
        found.exploration(new_users(np.ones(1, "u8")), np.zeros(1, "i8"), np.zeros(1, "u1")) is None
    )


def test_settings_become_rules() -> None:
    rules = rules_of(
        load_settings(
            {
                "STREAM_APP_REPURCHASE_DAYS": "Coffee=21,Pets/Food=30",
                "STREAM_APP_EXCLUDED_ITEMS": "a, b",
                "STREAM_APP_PRICE_MAX": "99",
            }
        )
    )
    assert rules.any and not rules.shaped and rules.price_max == 99.0
    days = dict(zip(rules.cycle_category.tolist(), (rules.cycle_s / 86_400).tolist(), strict=True))
    assert days == {short_hash("Coffee"): 21.0, short_hash("Pets/Food"): 30.0}
    assert set(rules.excluded_keys[rules.excluded_slots >= 0].tolist()) == {
        stable_hash("a"),
        stable_hash("b"),
    }
    for wrong in ("Coffee", "=3", "Coffee=-1", "Coffee=x"):
        with pytest.raises(ConfigurationError, match="Category=days"):
            load_settings({"STREAM_APP_REPURCHASE_DAYS": wrong})


def test_new_items_are_drawn_by_who_and_when() -> None:
    catalog = Catalog(items_max=2_000)
    catalog.upsert(
        [CatalogItem(f"i{k}", available=k % 2 == 0, added_ts=1e9 + k) for k in range(1_500)]
    )
    found, items = offers(catalog, exploration_share="0.1")
    items.tops[0] = Top(0, np.array([stable_hash("p")], np.uint64), np.ones(1))
    users = new_users(np.arange(1, 401, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    owners, kinds = np.arange(400), np.zeros(400, np.uint8)
    drawn = found.exploration(users, owners, kinds)
    again = found.exploration(users, owners, kinds)
    users["offset"] += 1
    later = found.exploration(users, owners, kinds)
    assert drawn is not None and again is not None and later is not None
    np.testing.assert_array_equal(drawn.nodes, again.nodes)
    assert not np.array_equal(drawn.nodes[:50], later.nodes[:50])
    sizes = np.diff(drawn.starts)
    assert sizes.max() <= TRIED_MAX and sizes.mean() > TRIED_MAX - 0.5
    newest = {stable_hash(f"i{k}") for k in range(1_498, 1_498 - 2 * NEWEST_MAX, -2)}
    ids = items.tables.nodes["id"][drawn.nodes].tolist()
    assert set(ids) <= newest and len(set(ids)) > 0.9 * NEWEST_MAX, "all get their turn"
    assert items.tables.names[int(drawn.nodes[0])], "their ids are known as text"
    chain = found.fallback()
    assert items.tables.nodes["id"][chain.nodes[0]] == stable_hash("p")
    assert chain.sources[0] == POPULAR and (chain.sources[1:] == EXPLORATION).all()
    assert items.tables.nodes["id"][chain.nodes[1]] == stable_hash("i1498"), "the newest listed"
