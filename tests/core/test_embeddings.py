"""Embeddings learned from the neighbour tables equal the product of dense matrices."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.embeddings import (
    DIMENSIONS,
    NEIGHBOURS_MAX,
    ONES,
    EmbeddingIndex,
    add_index_vector,
    embed,
)
from stream_app.core.scoring import View
from stream_app.core.tables import ItemTables
from tests.core.scored import pair_weights, world

TS = 1_700_100_000.0


def index_vectors(tables: ItemTables) -> NDArray[np.float64]:
    out = np.zeros((tables.nodes_n, DIMENSIONS), np.float32)
    for node in range(tables.nodes_n):
        add_index_vector(tables.nodes["id"][node], 1.0, out[node])
    return out.astype(np.float64)


def expected(tables: ItemTables) -> NDArray[np.float64]:
    """All embeddings at once: the index vectors times the cosine-normalised counts."""
    forward, backward = pair_weights(tables)
    pairs = forward + backward
    np.fill_diagonal(pairs, 0.0)
    mass = tables.nodes["mass"][: tables.nodes_n]
    prior = tables.model.mass_prior * tables.growth(TS)
    weights = pairs / np.sqrt(np.outer(np.maximum(mass, 1e-300), mass + prior))
    vectors = (np.eye(tables.nodes_n) + weights) @ index_vectors(tables)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(mass[:, None] > 0, vectors / lengths, 0.0)


def test_embeddings_equal_the_product_of_matrices() -> None:
    tables = world(8).tables
    view = View(tables.nodes, tables.neighbour, tables.forward, tables.backward, tables.filled)
    out = np.zeros((tables.nodes_n, DIMENSIONS), np.float32)
    for node in range(tables.nodes_n):
        embed(view, node, tables.model.mass_prior * tables.growth(TS), out[node])
    np.testing.assert_allclose(out, expected(tables), atol=2e-5)


def test_the_nearest_of_the_pool_are_found_with_their_cosines() -> None:
    tables = world(9, items=30).tables  # so few that everything is in the pool
    vectors = expected(tables)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, 0.0)
    nodes = np.flatnonzero(tables.nodes["mass"][: tables.nodes_n] > 0)
    near, found = EmbeddingIndex(tables).nearest(nodes, ts=TS, compute_max=1_000)
    forward, backward = pair_weights(tables)
    linked = forward + backward > 0
    for node, row, values in zip(nodes.tolist(), near, found, strict=True):
        used = row >= 0
        np.testing.assert_allclose(values[used], cosines[node][row[used]], atol=2e-5)
        reach = linked[node] | (linked[linked[node]].sum(axis=0) > 0)
        reach[node] = False
        best = np.sort(cosines[node][reach])[::-1][:NEIGHBOURS_MAX]
        assert (values[used] <= best[: used.sum()] + 2e-5).all()


def test_only_so_many_are_made_at_a_time_and_cleared_tables_are_forgotten() -> None:
    tables = world(8).tables
    index = EmbeddingIndex(tables)
    nodes = np.flatnonzero(tables.nodes["mass"][: tables.nodes_n] > 0)[:20]
    for made in (5, 10, 15):
        near, _ = index.nearest(nodes, ts=TS, compute_max=5)
        assert (near[:, 0] >= 0).sum() == made
    tables.clear()
    assert (index.nearest(np.array([-1]), ts=TS, compute_max=5)[0] == -1).all()


def test_an_index_vector_is_sparse_and_determined_by_the_id() -> None:
    vectors = np.zeros((3, DIMENSIONS), np.float32)
    for row, item in enumerate((11, 11, 12)):
        add_index_vector(np.uint64(item), 1.0, vectors[row])  # type: ignore[arg-type]
    assert vectors[0].tobytes() == vectors[1].tobytes() != vectors[2].tobytes()
    assert 0 < np.count_nonzero(vectors[0]) <= ONES
