"""The measures equal scikit-learn's, and hold at the edges where scikit-learn gives up."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from stream_app.core import classification_metrics as cm
from stream_app.core import metrics

outcomes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 8).map(lambda tenths: tenths / 8)),
    min_size=2,
    max_size=60,
).filter(lambda rows: len({truth for truth, _ in rows}) == 2)


@given(outcomes)
def test_classification_measures_equal_scikit_learn_also_with_ties(
    rows: list[tuple[bool, float]],
) -> None:
    truth, score = (np.array(column) for column in zip(*rows, strict=True))
    assert cm.auc(truth, score) == pytest.approx(sk.roc_auc_score(truth, score))
    inside = np.clip(score, 0.01, 0.99)
    assert cm.log_loss(truth, inside) == pytest.approx(sk.log_loss(truth, inside))
    assert cm.brier(truth, score) == pytest.approx(sk.brier_score_loss(truth, score))
    got = cm.decision_measures(truth, score, threshold=0.5)
    chosen = score >= 0.5
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(truth, chosen))
    assert got["precision"] == pytest.approx(sk.precision_score(truth, chosen, zero_division=0))
    assert got["recall"] == pytest.approx(sk.recall_score(truth, chosen))
    assert got["f1"] == pytest.approx(sk.f1_score(truth, chosen))


@given(outcomes)
def test_no_threshold_beats_the_best_f1_threshold(rows: list[tuple[bool, float]]) -> None:
    truth, score = (np.array(column) for column in zip(*rows, strict=True))
    threshold, best = cm.best_f1_threshold(truth, score)
    assert cm.decision_measures(truth, score, threshold=threshold)["f1"] == pytest.approx(best)
    for other in np.unique(score):
        assert cm.decision_measures(truth, score, threshold=other)["f1"] <= best + 1e-12


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1))
def test_macro_f1_and_accuracy_equal_scikit_learn(rows: list[tuple[str, str]]) -> None:
    truth, guess = (list(column) for column in zip(*rows, strict=True))
    assert cm.macro_f1(truth, guess) == pytest.approx(sk.f1_score(truth, guess, average="macro"))
    assert cm.accuracy(truth, guess) == pytest.approx(sk.accuracy_score(truth, guess))


def test_ndcg_of_baskets_equals_scikit_learn() -> None:
    random = np.random.default_rng(0)
    lists = np.array([random.permutation(30) for _ in range(40)])
    targets = [set(random.choice(30, size=1 + i % 6, replace=False).tolist()) for i in range(40)]
    relevance = np.array([[float(item in wanted) for item in range(30)] for wanted in targets])
    scores = np.argsort(np.argsort(-np.arange(30)))[np.argsort(lists, axis=1)].astype(float)
    got = metrics.basket_measures(lists, targets, 10)
    assert got["ndcg"] == pytest.approx(sk.ndcg_score(relevance, scores, k=10))
    assert got["recall"] == pytest.approx(
        np.mean(
            [
                len(set(row[:10]) & wanted) / len(wanted)
                for row, wanted in zip(lists, targets, strict=True)
            ]
        )
    )


def test_baskets_of_one_give_the_single_target_measures() -> None:
    random = np.random.default_rng(1)
    lists = np.array([random.permutation(12)[:8] for _ in range(50)])
    target = random.integers(0, 12, 50)
    place = lists == target[:, None]
    ranks = np.where(place.any(axis=1), place.argmax(axis=1) + 1, 0)
    single = metrics.summary(ranks, 5)
    several = metrics.basket_measures(lists, [{int(t)} for t in target], 5)
    for name in ("hit_rate", "precision", "recall", "ndcg", "f1"):
        assert several[name] == pytest.approx(single[name]), name
    assert several["average_precision"] == pytest.approx(single["mrr"])


def test_diversity_equals_the_loop_over_pairs() -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(20, 4))
    vectors[3] = 0
    lists = random.integers(-1, 20, size=(15, 6))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    expected = []
    for row in lists:
        items = row[row >= 0]
        pairs = [1 - unit[a] @ unit[b] for i, a in enumerate(items) for b in items[i + 1 :]]
        expected += [np.mean(pairs)] if pairs else []
    assert metrics.intra_list_diversity(lists, vectors) == pytest.approx(np.mean(expected))


def test_gini_equals_the_mean_difference_definition() -> None:
    counts = np.random.default_rng(3).integers(0, 50, 40)
    difference = np.abs(counts[:, None] - counts[None, :]).mean()
    assert metrics.gini(counts) == pytest.approx(difference / (2 * counts.mean()))


def test_popular_items_are_less_novel_and_higher_in_percentile() -> None:
    popularity = np.arange(1, 101)
    popular, rare = [[99, 98]], [[0, 1]]
    assert metrics.novelty(popular, popularity) < metrics.novelty(rare, popularity)
    assert metrics.popularity_percentile(popular, popularity) > 0.98
    assert metrics.popularity_percentile([list(range(100))], popularity) == pytest.approx(0.5)
    assert metrics.mean_popularity(popular, popularity) == 99.5


def test_the_bootstrap_is_seeded_and_widens_when_predictions_hang_together() -> None:
    values = np.repeat(np.random.default_rng(4).integers(0, 2, 100), 10).astype(float)
    together = metrics.bootstrap_interval(values, np.repeat(np.arange(100), 10), seed=7)
    apart = metrics.bootstrap_interval(values, np.arange(1000), seed=7)
    assert together == metrics.bootstrap_interval(values, np.repeat(np.arange(100), 10), seed=7)
    assert together[0] < apart[0] < values.mean() < apart[1] < together[1]


def test_a_measure_over_nothing_is_nan() -> None:
    assert all(math.isnan(value) for value in metrics.summary([], 5).values())
    assert all(math.isnan(value) for value in metrics.basket_measures([[1]], [set()], 3).values())
    assert math.isnan(metrics.coverage(np.empty((0, 3)), 0))
    assert math.isnan(metrics.bootstrap_interval([], [], seed=0)[0])
    assert math.isnan(cm.auc([1, 1], [0.1, 0.2]))
    assert math.isnan(cm.log_loss([], []))
    assert cm.best_f1_threshold([0, 0], [0.3, 0.4]) == (float("inf"), 0.0)
