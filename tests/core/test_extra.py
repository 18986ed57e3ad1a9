"""Candidates from sources outside the kernel are blended like those of the tables."""

import numpy as np

from stream_app.core.feedback import SOURCES_MAX
from stream_app.core.scoring import CONTENT, EXPLORATION, OWN_N, SOURCES, SOURCES_N
from stream_app.core.scoring_extra import Extra, joined
from tests.core.scored import from_outside, world
from tests.core.test_scoring import add_revisits, expected_scores, single_precision


def test_lists_with_outside_candidates_equal_the_formula() -> None:
    w = world(11)
    extra = from_outside(w, 3)
    lists = w.rank(size=40, extra=extra)
    for i, user in enumerate(w.users):
        outside = {}
        for source in set(range(OWN_N, SOURCES_N)) - {EXPLORATION}:
            at = np.arange(extra.starts[i], extra.starts[i + 1])
            at = at[extra.sources[at] == source]
            outside[source] = np.zeros(w.tables.nodes_n)
            outside[source][extra.nodes[at]] = extra.values[at]
        score = expected_scores(w, user, frozenset(SOURCES), outside)
        add_revisits(w, user, score)
        order = np.lexsort((w.tables.nodes["id"][: len(score)], -score))[:40]
        np.testing.assert_allclose(lists.scores[i], score[order], rtol=single_precision)
        np.testing.assert_allclose(score[lists.nodes[i]], score[order], rtol=single_precision)


def test_no_candidates_from_outside_change_nothing() -> None:
    w = world(12)
    n = len(w.users)
    none = Extra(
        np.zeros(n + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, "f4"), np.zeros(0, "u1")
    )
    for plain, with_none in zip(w.rank(), w.rank(extra=none), strict=True):
        np.testing.assert_array_equal(plain, with_none)


def test_an_item_no_table_knows_is_reached_from_outside_and_says_why() -> None:
    w = world(13)
    n = len(w.users)
    new = w.tables.ensure(np.array([12345], np.uint64))
    near = w.tables.lookup(w.users["ring_item"][:, 0].copy())
    extra = Extra(
        np.arange(n + 1),
        np.repeat(new, n),
        np.ones(n, np.float32),
        np.full(n, CONTENT, np.uint8),
        near,
    )
    lists = w.rank(extra=extra)
    for i in range(n):
        (at,) = np.flatnonzero(lists.nodes[i] == new[0])
        assert SOURCES[lists.sources[i, at]] == "content"
        assert lists.because[i, at] == near[i]


def test_more_candidates_than_ever_before_find_room() -> None:
    w = world(14)
    lists = w.rank(extra=from_outside(w, 5, per_source=60))
    assert (lists.counts == 20).all()


def test_joined_sources_rank_like_one_hand_over() -> None:
    w = world(15)
    whole = from_outside(w, 6)
    parts = []
    owner = np.repeat(np.arange(len(w.users)), np.diff(whole.starts))
    for source in range(OWN_N, SOURCES_N):
        mine = whole.sources == source
        starts = np.concatenate(([0], np.cumsum(np.bincount(owner[mine], minlength=len(w.users)))))
        parts.append(Extra(starts, whole.nodes[mine], whole.values[mine], whole.sources[mine]))
    for one, other in zip(
        w.rank(extra=whole), w.rank(extra=joined(parts, len(w.users))), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_each_source_has_a_feedback_counter_of_its_own() -> None:
    assert SOURCES_N <= SOURCES_MAX
    assert len(set(SOURCES)) == SOURCES_N
