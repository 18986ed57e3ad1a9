"""Item-based filtering: rating by rating equals all at once, and both readings equal numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.core.similar import READINGS, similar_items
from stream_app.core.similarity import CoRatings, co_rating_matrix
from tests.core.scored import pair_weights, world

ITEMS = "abcde"
ratings = st.tuples(
    st.sampled_from(["ann", "bob", "cem"]), st.sampled_from(ITEMS), st.integers(1, 5).map(float)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ratings, max_size=25))
def test_incremental_co_ratings_equal_the_batch_on_every_prefix(
    log: list[tuple[str, str, float]],
) -> None:
    stream = CoRatings()
    for n, (user, item, rating) in enumerate(log, 1):
        stream.rate(user, item, rating)
        matrix = co_rating_matrix(log[:n], ITEMS)
        for p, row in zip(ITEMS, matrix, strict=True):
            for q, expected in zip(ITEMS, row, strict=True):
                if p != q:
                    assert stream.similarity(p, q) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(ratings, max_size=25), st.integers(1, 4))
def test_predictions_equal_the_products_of_matrices_on_every_prefix(
    log: list[tuple[str, str, float]], size: int
) -> None:
    stream, rated = CoRatings(), np.zeros((3, len(ITEMS)))
    for n, (user, item, rating) in enumerate(log, 1):
        stream.rate(user, item, rating)
        place = "abc".index(user[0]), ITEMS.index(item)
        rated[place] = max(rated[place], rating)
        similar = co_rating_matrix(log[:n], ITEMS)
        np.fill_diagonal(similar, 0.0)
        for u, who in enumerate(("ann", "bob", "cem")):
            for q, wanted in enumerate(ITEMS):
                mine = np.where(rated[u] > 0, similar[q], 0.0)
                best = np.lexsort((np.arange(len(ITEMS)), -mine.round(12)))[:size]
                expected = float(rated[u][best] @ mine[best])
                found = stream.predict(who, wanted, neighbours=size)
                if len(set(mine[mine > 0].round(9))) == (mine > 0).sum() or size >= 4:
                    assert found == pytest.approx(expected, rel=1e-9)
    assert stream.predict("nobody", "a") == 0.0


def test_neighbours_come_best_first_and_ties_by_id() -> None:
    stream = CoRatings()
    for item in ("d", "c", "b"):
        stream.rate("ann", item, 2.0)
    stream.rate("bob", "d", 5.0)
    assert [item for item, _ in stream.neighbours("c", 2)] == ["b", "d"]


@pytest.mark.parametrize("reading", READINGS)
def test_similar_items_by_either_reading_equal_dense_numpy(reading: str) -> None:
    tables = world(3).tables
    forward, backward = pair_weights(tables)
    pairs = forward + backward
    nodes = np.flatnonzero(tables.nodes["mass"][: tables.nodes_n] > 0)
    ts = 1_700_100_000.0
    mass = tables.nodes["mass"][: tables.nodes_n]
    other = mass + tables.model.mass_prior * tables.growth(ts)
    if reading == "cosine":
        matrix = pairs / np.sqrt(np.outer(np.maximum(mass, 1e-300), other))
    else:
        matrix = pairs / (mass[:, None] + other[None, :] - pairs)
    np.fill_diagonal(matrix, 0.0)
    found, scores, counts = similar_items(tables, nodes, size=8, ts=ts, reading=reading)
    for node, row, score, count in zip(nodes, found, scores, counts, strict=True):
        best = np.lexsort((tables.nodes["id"][: tables.nodes_n], -matrix[node]))[:count]
        assert count == min(8, int((matrix[node] > 0).sum()))
        np.testing.assert_allclose(score[:count], matrix[node][best], rtol=1e-6)
        assert row[:count].tolist() == best.tolist()
