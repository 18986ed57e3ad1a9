"""What sources say of the item tables equals the batch computation, after every part of a log.

The batch side knows only the transitions: all of them summed at once, as dense matrices.
"""

from typing import NamedTuple

import numpy as np
import pytest

from stream_app.core.embeddings import DIMENSIONS, embed
from stream_app.core.landmarks import growth_of
from stream_app.core.model import CONTEXT_MAX
from stream_app.core.scoring import JACCARD, SOURCES, View
from stream_app.core.similar import READINGS, similar_items
from stream_app.offline.recompute_items import Masses
from tests.core.scored import Matrix, World, drawn_by_jaccard, pair_weights, worlds
from tests.core.test_embeddings import index_vectors
from tests.core.test_scoring import expected_scores, fading, ring_of

ITEMS = 40  # fewer than a table has room for: nothing is given up, so the sums are exact
FLOAT32 = 2e-6


class Batch(NamedTuple):
    """By node: pairs ``(n, n)`` without those of an item with itself, masses, popularity."""

    ts: float
    forward: Matrix
    pairs: Matrix
    mass: Matrix
    popularity: Matrix


def batch(w: World) -> Batch:
    """All transitions of a world at once, as of the latest."""
    masses = Masses(w.tables.model)
    masses.add(w.transitions)
    sums = masses.sums()
    at = np.searchsorted(sums.ids, w.tables.nodes["id"][: w.tables.nodes_n])
    forward = sums.forward.toarray()[np.ix_(at, at)]
    pairs = forward + forward.T
    np.fill_diagonal(pairs, 0.0)
    return Batch(sums.ts, forward, pairs, sums.net["mass"][at], sums.net["popularity"][at])


def test_neighbour_tables_and_popularity() -> None:
    sizes = []
    for w in worlds(31, items=ITEMS):
        b, t = batch(w), w.tables
        forward, backward = (matrix / t.growth(b.ts) for matrix in pair_weights(t))
        np.testing.assert_allclose(forward, b.forward, rtol=FLOAT32)
        np.fill_diagonal(forward, 0.0)
        np.testing.assert_allclose(forward + backward, b.pairs, rtol=FLOAT32)
        half_life_s = t.model.popularity_half_life_s
        growth = growth_of(b.ts, t.popularity_landmark, half_life_s)
        found = w.popular.weights / growth
        np.testing.assert_allclose(found, b.popularity[w.popular.nodes], rtol=1e-9)
        best = np.sort(b.popularity)[::-1][: t.model.popular_max]
        np.testing.assert_allclose(found, best, rtol=1e-9)
        sizes.append(len(w.transitions))
    assert len(set(sizes)) == 7, "every part of the log adds something"


@pytest.mark.parametrize("reading", READINGS)
def test_similar_items(reading: str) -> None:
    for w in worlds(32, items=ITEMS):
        b = batch(w)
        other = b.mass + w.tables.model.mass_prior
        if reading == "cosine":
            matrix = b.pairs / np.sqrt(np.outer(np.maximum(b.mass, 1e-300), other))
        else:
            matrix = b.pairs / (b.mass[:, None] + other[None, :] - b.pairs)
        nodes = np.arange(w.tables.nodes_n)
        found, scores, counts = similar_items(w.tables, nodes, size=8, ts=b.ts, reading=reading)
        for node, row, score, count in zip(nodes, found, scores, counts, strict=True):
            assert count == min(8, int((matrix[node] > 0).sum()))
            best = np.sort(matrix[node])[::-1][:count]
            np.testing.assert_allclose(score[:count], best, rtol=1e-5)
            np.testing.assert_allclose(matrix[node][row[:count]], best, rtol=1e-5)


def test_embeddings() -> None:
    for w in worlds(33, items=ITEMS):
        b, t = batch(w), w.tables
        other = b.mass + t.model.mass_prior
        weights = b.pairs / np.sqrt(np.outer(np.maximum(b.mass, 1e-300), other))
        vectors = (np.eye(t.nodes_n) + weights) @ index_vectors(t)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[b.mass == 0.0] = 0.0  # an item that was never beside another has no table
        view = View(t.nodes, t.neighbour, t.forward, t.backward, t.filled)
        out = np.zeros((t.nodes_n, DIMENSIONS), np.float32)
        for node in range(t.nodes_n):
            embed(view, node, t.model.mass_prior * t.growth(b.ts), out[node])
        np.testing.assert_allclose(out, vectors, atol=2e-5)


@pytest.mark.parametrize("names", [*SOURCES[:3], " ".join(SOURCES[:4])])
def test_the_lists_of_the_sources_of_the_tables(names: str) -> None:
    listed, sources = 0, frozenset(names.split())
    for w in worlds(34, items=ITEMS):
        lists = w.rank(size=12, sources=sources)
        for i, user in enumerate(w.users):
            score = expected_scores(w, user, sources)
            order = np.lexsort((w.tables.nodes["id"][: len(score)], -score))[:12]
            count = int(np.count_nonzero(score[order] > 0))
            assert lists.counts[i] == count
            found = lists.scores[i, :count]
            np.testing.assert_allclose(found, score[order][:count], rtol=2e-5)
            listed += count
    assert listed > 7 * 12


def test_jaccard_over_the_recent_items() -> None:
    found, alone = 0, frozenset({"jaccard"})
    for w in worlds(35, items=ITEMS):
        b, t = batch(w), w.tables
        pairs = b.forward + b.forward.T - np.diag(np.diag(b.forward))  # of one item each once
        extra, values = drawn_by_jaccard(w), np.zeros((len(w.users), t.nodes_n))
        lists = w.rank(size=12, sources=alone, extra=extra)
        for i, user in enumerate(w.users):
            near = t.lookup(np.array(ring_of(user)[:CONTEXT_MAX], np.uint64))
            grown = t.growth(b.ts) / t.growth(float(user["last_ts"]))  # the prior is as of then
            either = b.mass[near][:, None] + b.mass + t.model.mass_prior / grown - pairs[near]
            parts = fading(user, t.model)[:, None] * pairs[near] / either
            values[i] = parts.sum(axis=0)
            at = slice(extra.starts[i], extra.starts[i + 1])
            nodes = extra.nodes[at]
            assert sorted(nodes.tolist()) == np.flatnonzero(values[i] > 0).tolist()
            np.testing.assert_allclose(extra.values[at], values[i][nodes], rtol=1e-5)
            assert extra.because is not None
            led = np.searchsorted(near, extra.because[at], sorter=np.argsort(near))
            strongest = parts[np.argsort(near)[led], nodes]
            np.testing.assert_allclose(strongest, parts.max(axis=0)[nodes], rtol=1e-5)
            score = expected_scores(w, user, alone, {JACCARD: values[i]})
            count = int(lists.counts[i])
            assert count == min(12, len(nodes))
            best = np.sort(score)[::-1][:count]
            np.testing.assert_allclose(lists.scores[i, :count], best, rtol=2e-5)
            found += count
    assert found > 7 * 12
