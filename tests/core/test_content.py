"""Content neighbours equal scikit-learn's TF-IDF on every prefix of the catalog's changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

from stream_app.core.catalog import EMBEDDED, Catalog, CatalogItem
from stream_app.core.content import NEIGHBOURS_MAX, PRICE_SHARE, ContentIndex
from stream_app.hashing import stable_hash

WORDS = "red blue green wool silk shoe boot hat scarf men women kids small large".split()


def expected(catalog: Catalog) -> NDArray[np.float64]:
    """Similarities ``(rows, rows)`` of everything in the catalog, at once."""
    n = catalog.rows_n
    rows = [k for k in range(n) for _ in catalog.tokens(k)]
    words = [int(word) for k in range(n) for word in catalog.tokens(k)]
    _, columns = np.unique(words, return_inverse=True)
    described = np.zeros((n, 1))
    if words:
        counts = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (n, columns.max() + 1))
        described = np.diff(counts.indptr)[:, None] > 0
        # Rows without words are no documents: they are left out of N.
        kept = np.flatnonzero(described)
        weighted = TfidfTransformer().fit(counts[kept]).transform(counts)
        text = (weighted @ weighted.T).toarray()
    else:
        text = np.zeros((n, n))
    embedded = catalog.flags[:n] & EMBEDDED != 0
    vectors = np.zeros((n, max(catalog.embeddings.shape[1], 1)))
    if embedded.any():
        vectors[embedded] = catalog.embeddings[:n][embedded]
    lengths = np.linalg.norm(vectors, axis=1)
    both = np.outer(lengths > 0, lengths > 0)
    cosines = np.maximum(vectors @ vectors.T, 0) / np.where(both, np.outer(lengths, lengths), 1)
    texts = described @ described.T
    parts = texts.astype(float) + both
    total = (text * texts + cosines * both) / np.maximum(parts, 1)
    price = catalog.price[:n].astype(np.float64)
    ratio = np.minimum.outer(price, price) / np.maximum.outer(price, price)
    near = np.where(np.isnan(ratio), 1.0, 1.0 - PRICE_SHARE * (1.0 - ratio))
    np.fill_diagonal(total, 0.0)
    return np.asarray(total * near)


def check(index: ContentIndex) -> None:
    index.sync()
    catalog = index.catalog
    similar = expected(catalog)
    near = index.nearest(np.arange(catalog.rows_n))
    for row in range(catalog.rows_n):
        best = np.sort(similar[row])[::-1][:NEIGHBOURS_MAX]
        count = int((near.rows[row] >= 0).sum())
        np.testing.assert_allclose(near.similarities[row][:count], best[:count], rtol=1e-5)
        assert not (best[count:] > 0).any()
        found = near.rows[row][:count]
        np.testing.assert_allclose(similar[row][found], near.similarities[row][:count], rtol=1e-5)


items = st.builds(
    CatalogItem,
    item_id=st.sampled_from([f"sku-{k}" for k in range(25)]),
    title=st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join),
    category=st.sampled_from([(), ("Shoes",), ("Shoes", "Boots"), ("Hats",)]),
    brand=st.sampled_from(["", "Acme", "Zenith"]),
    price=st.sampled_from([None, 5.0, 9.5, 80.0]),
)
changes = st.lists(st.tuples(st.booleans(), items), max_size=30)


@settings(max_examples=40, deadline=None)
@given(changes)
def test_neighbours_equal_the_batch_after_every_change(log: list[tuple[bool, CatalogItem]]) -> None:
    catalog = Catalog(items_max=100)
    index = ContentIndex(catalog)
    for n, (gone, item) in enumerate(log):
        if gone and n % 3 == 0:
            catalog.delete(np.array([stable_hash(item.item_id)], np.uint64))
        else:
            catalog.upsert([item])
        check(index)


def test_supplied_embeddings_find_items_without_a_word_in_common() -> None:
    rng = np.random.default_rng(4)
    middle = rng.normal(size=(5, 32))
    catalog = Catalog(items_max=1_000)
    catalog.upsert(
        [
            CatalogItem(f"{k}", embedding=tuple(middle[k % 5] + 0.1 * rng.normal(size=32)))
            for k in range(60)
        ]
    )
    index = ContentIndex(catalog)
    index.sync()
    near = index.nearest(np.arange(60))
    similar = expected(catalog)
    for row in range(60):
        found = near.rows[row][near.rows[row] >= 0]
        assert len(found) >= 11  # the others of its group, of which none is missed
        assert {int(k) % 5 for k in found[:11]} == {row % 5}
        np.testing.assert_allclose(
            near.similarities[row][: len(found)], similar[row][found], rtol=1e-5
        )


def test_stock_and_availability_make_nothing_be_computed_again() -> None:
    catalog = Catalog(items_max=10)
    index = ContentIndex(catalog)
    catalog.upsert([CatalogItem("a", title="red shoe"), CatalogItem("b", title="red boot")])
    index.sync()
    before = index.version
    catalog.upsert([CatalogItem("a", title="red shoe", stock=3.0, available=False, ts=9.0)])
    index.sync()
    assert index.version == before
    catalog.upsert([CatalogItem("a", title="red shoe", price=3.0)])
    index.sync()
    assert index.version == before + 1


def test_words_that_no_item_has_any_more_are_forgotten() -> None:
    catalog = Catalog(items_max=50)
    index = ContentIndex(catalog)
    for round_ in range(200):
        catalog.upsert(
            [CatalogItem(f"{k}", title=f"w{round_}a{k} w{round_}b common") for k in range(10)]
        )
        index.sync()
    assert index.nbytes < 200_000
    check(index)


def test_only_so_many_are_computed_at_a_time_and_the_rest_when_asked_again() -> None:
    catalog = Catalog(items_max=50)
    catalog.upsert([CatalogItem(f"{k}", title="red shoe") for k in range(9)])
    index = ContentIndex(catalog)
    index.sync()
    rows = np.arange(9)
    for asked in range(1, 4):
        near = index.nearest(rows, compute_max=3)
        assert (near.rows[:, 0] >= 0).sum() == 3 * asked
    assert index.nearest(np.array([-1, 400])).rows.tolist() == [[-1] * NEIGHBOURS_MAX] * 2


@pytest.mark.parametrize("prices", [(10.0, 20.0), (20.0, 10.0)])
def test_prices_far_apart_make_items_less_similar(prices: tuple[float, float]) -> None:
    catalog = Catalog(items_max=10)
    catalog.upsert([CatalogItem(str(p), title="red shoe", price=p) for p in prices])
    index = ContentIndex(catalog)
    index.sync()
    near = index.nearest(np.array([0]))
    assert near.similarities[0, 0] == pytest.approx(1.0 - PRICE_SHARE / 2)
