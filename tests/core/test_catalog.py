"""The catalog in memory: what it knows of items, and that it stays small and bounded."""

import numpy as np
import pytest

from stream_app.core.arena import Arena
from stream_app.core.catalog import (
    AVAILABLE,
    DELETED,
    EMBEDDED,
    HIDDEN,
    LISTED,
    Catalog,
    CatalogItem,
    Texts,
    labels_of,
)
from stream_app.core.item_index import find
from stream_app.errors import EventRejected
from stream_app.hashing import short_hash, stable_hash


def ids(*items: str) -> np.ndarray:
    return np.array([stable_hash(item) for item in items], np.uint64)


SHOE = CatalogItem(
    "s1",
    title="Red running shoe",
    category=("Men", "Shoes"),
    brand="Acme",
    price=59.9,
    currency="EUR",
    tags=("new", "red"),
    attributes={"sole": "rubber"},
    stock=3.0,
    margin=0.4,
    ts=100.0,
)


def test_an_item_is_found_by_the_hash_of_its_id_with_all_that_was_said_of_it() -> None:
    catalog = Catalog(items_max=100)
    (row,) = catalog.upsert([SHOE]).tolist()
    assert catalog.rows(ids("s1", "other")).tolist() == [row, -1]
    assert catalog.flags[row] == AVAILABLE
    assert catalog.price[row] == np.float32(59.9)
    assert (catalog.stock[row], catalog.margin[row]) == (3.0, np.float32(0.4))
    assert catalog.added_ts[row] == 100.0
    assert catalog.category[row] == short_hash("Men/Shoes")
    assert catalog.category_top[row] == short_hash("Men")
    assert catalog.brand[row] == short_hash("Acme")
    assert catalog.texts(row) == Texts(
        "Red running shoe", ("Men", "Shoes"), "Acme", "EUR", ("new", "red"), SHOE.item_id
    )
    words = ["red", "running", "shoe", "men", "shoes", "acme", "new"]
    assert catalog.tokens(row).tolist() == [short_hash(word) for word in words]
    assert catalog.labels.get(row).tolist() == [short_hash(label) for label in labels_of(SHOE)]


def test_unknown_numbers_are_nan_and_unknown_texts_are_empty() -> None:
    catalog = Catalog(items_max=100)
    (row,) = catalog.upsert([CatalogItem("x")]).tolist()
    assert np.isnan([catalog.price[row], catalog.stock[row], catalog.margin[row]]).all()
    assert (catalog.category[row], catalog.brand[row]) == (0, 0)
    assert catalog.texts(row) == Texts(item_id="x")
    assert len(catalog.tokens(row)) == 0


@pytest.mark.parametrize(
    ("item", "listed"),
    [
        (CatalogItem("x"), True),
        (CatalogItem("x", stock=1.0), True),
        (CatalogItem("x", stock=0.0), False),
        (CatalogItem("x", available=False, stock=5.0), False),
        (CatalogItem("x", hidden=True), False),
    ],
)
def test_what_is_not_for_sale_is_not_listed(item: CatalogItem, listed: bool) -> None:
    catalog = Catalog(items_max=100)
    (row,) = catalog.upsert([item]).tolist()
    assert catalog.listed(ids("x", "never heard of")).tolist() == [listed, True]
    assert bool(catalog.flags[row] & HIDDEN) == item.hidden


def test_a_deleted_item_is_not_listed_and_may_come_back() -> None:
    catalog = Catalog(items_max=100)
    catalog.upsert([SHOE])
    (row,) = catalog.delete(ids("s1")).tolist()
    assert catalog.flags[row] == DELETED
    assert len(catalog) == 0
    assert not catalog.listed(ids("s1"))[0]
    assert catalog.texts(row) == Texts()
    assert len(catalog.delete(ids("s1"))) == 0  # nothing changed
    assert catalog.upsert([SHOE]).tolist() == [row]
    assert catalog.listed(ids("s1"))[0]
    assert len(catalog) == 1


def test_a_tombstone_read_before_its_item_is_remembered() -> None:
    catalog = Catalog(items_max=100)
    catalog.delete(ids("gone"))
    assert not catalog.listed(ids("gone"))[0]
    assert len(catalog) == 0


def test_the_version_rises_with_every_change_and_names_the_rows() -> None:
    catalog = Catalog(items_max=100)
    catalog.upsert([CatalogItem("a"), CatalogItem("b")])
    seen = catalog.version
    (row,) = catalog.upsert([CatalogItem("b", stock=0.0)]).tolist()
    assert catalog.version > seen
    assert catalog.changed_since(seen).tolist() == [row]
    assert catalog.changed_since(catalog.version).tolist() == []


def test_of_equal_ids_in_one_batch_the_last_one_counts() -> None:
    catalog = Catalog(items_max=100)
    rows = catalog.upsert([CatalogItem("a", price=1.0), CatalogItem("a", price=2.0)])
    assert catalog.price[rows].tolist() == [2.0]


def test_when_an_item_was_first_sold_outlives_its_updates() -> None:
    catalog = Catalog(items_max=100)
    catalog.upsert([CatalogItem("a", ts=5.0)])
    rows = catalog.upsert([CatalogItem("a", ts=9.0)])
    assert catalog.added_ts[rows].tolist() == [5.0]
    catalog.upsert([CatalogItem("a", ts=9.0, added_ts=2.0)])
    assert catalog.added_ts[rows].tolist() == [2.0]


def test_the_first_embedding_fixes_the_dimension_and_another_one_names_the_item() -> None:
    catalog = Catalog(items_max=100)
    catalog.upsert([CatalogItem("plain")])
    (row,) = catalog.upsert([CatalogItem("a", embedding=(1.0, 2.0))]).tolist()
    assert catalog.embeddings[row].tolist() == [1.0, 2.0]
    assert catalog.flags[row] & EMBEDDED
    version = catalog.version
    with pytest.raises(EventRejected, match="'b': its embedding has 3 numbers, others 2"):
        catalog.upsert([CatalogItem("c"), CatalogItem("b", embedding=(1.0, 2.0, 3.0))])
    with pytest.raises(EventRejected, match="not finite"):
        catalog.upsert([CatalogItem("b", embedding=(1.0, float("inf")))])
    assert catalog.version == version
    assert catalog.rows(ids("c")).tolist() == [-1]


def test_the_catalog_is_bounded_and_deleted_items_give_way_first() -> None:
    catalog = Catalog(items_max=3)
    rows = catalog.upsert([CatalogItem(name) for name in "abcd"])
    assert rows.tolist() == [0, 1, 2, -1]
    assert catalog.refused == 1
    catalog.delete(ids("b"))
    assert catalog.upsert([CatalogItem("d")]).tolist() == [1]
    assert catalog.rows(ids("a", "b", "c", "d")).tolist() == [0, -1, 2, 1]


def test_kernels_find_rows_in_the_arrays_of_the_view() -> None:
    catalog = Catalog(items_max=5_000)
    names = [f"item-{n}" for n in range(3_000)]
    for at in range(0, len(names), 700):
        catalog.upsert([CatalogItem(name, price=float(len(name))) for name in names[at : at + 700]])
    view = catalog.view()
    rows = [find(view.keys, view.slots, key) for key in ids(*names)]
    assert rows == list(range(3_000))
    assert view.price[rows].tolist() == [float(len(name)) for name in names]


def test_values_that_were_replaced_leave_no_memory_behind() -> None:
    catalog = Catalog(items_max=5_000)
    for turn in range(30):
        catalog.upsert(
            [CatalogItem(f"item-{n}", title=f"Some title of turn {turn}") for n in range(2_000)]
        )
    assert catalog.nbytes < 2_000 * 1_000
    assert catalog.texts(1_999).title == "Some title of turn 29"


def test_an_arena_gives_back_what_was_put_last_whatever_was_tidied() -> None:
    rng = np.random.default_rng(7)
    arena, expected = Arena(np.uint32), {}
    for _ in range(300):
        rows = rng.permutation(500)[:100]
        counts = rng.integers(0, 20, 100)
        data = rng.integers(0, 2**32, counts.sum(), np.uint32)
        arena.put(rows, data, counts)
        ends = np.cumsum(counts)
        for row, end, count in zip(rows.tolist(), ends.tolist(), counts.tolist(), strict=True):
            expected[row] = data[end - count : end].tolist()
    assert {row: arena.get(row).tolist() for row in expected} == expected
    assert len(arena.data) < 300_000


def test_flags_say_for_every_combination_whether_an_item_may_be_listed() -> None:
    assert np.flatnonzero(LISTED[:16]).tolist() == [AVAILABLE, AVAILABLE | EMBEDDED]
