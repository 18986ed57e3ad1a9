"""Grow boosted trees for the intent model and look up their leaves.

Growing is scikit-learn's (only when a table is fitted); the finished trees become plain arrays, so
that a prediction needs neither scikit-learn nor Python loops.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.intent_columns import ColumnEncoder
from stream_app.core.jit import kernel

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int32]

depths = (2, 4)  # tried by cross-validation
trees_max = 200
trees_without_validation = 50  # when a class has too few rows to be split
learning_rate = 0.05  # shrinkage (Friedman 2001): half of it and twice the trees gain nothing
row_share = 0.8  # stochastic boosting (Friedman 2002)
folds = 3
grow_rows_max = 200_000  # rows to grow from; 0.4 µs per row, tree and level: a minute at most


@dataclass(frozen=True, slots=True)
class TreeShape:
    """What cross-validation chooses."""

    depth: int
    trees: int


@dataclass(frozen=True, slots=True)
class Validated:
    """The chosen shape and, for ``rows`` ``(r,)``, the held-out ``log_odds`` ``(r,)`` it gave."""

    shape: TreeShape
    rows: NDArray[np.int64]
    log_odds: FloatArray


@dataclass(frozen=True, slots=True)
class Forest:
    """Binary trees as parallel node arrays; ``slot`` numbers the leaves, the bias comes last."""

    root: IntArray  # (trees,) node numbers
    feature: IntArray  # (nodes,) -1 in leaves
    split_at: FloatArray  # (nodes,) go left when code <= split_at
    left: IntArray
    right: IntArray
    slot: IntArray  # (nodes,) leaf's slot, -1 in inner nodes
    bias_slot: int


@kernel
def _walk(
    codes: NDArray[np.float32],
    root: IntArray,
    feature: IntArray,
    split_at: FloatArray,
    left: IntArray,
    right: IntArray,
    slot: IntArray,
    out: IntArray,
) -> None:
    for row in range(codes.shape[0]):
        for tree in range(root.shape[0]):
            node = root[tree]
            while feature[node] >= 0:
                goes_left = codes[row, feature[node]] <= split_at[node]
                node = left[node] if goes_left else right[node]
            out[row, tree] = slot[node]


def leaf_slots(forest: Forest, codes: NDArray[np.float32]) -> IntArray:
    """The slot of each row in each tree, and the bias slot. ``(n, trees + 1)`` int32."""
    out = np.full((codes.shape[0], forest.root.size + 1), forest.bias_slot, dtype=np.int32)
    _walk(
        codes,
        forest.root,
        forest.feature,
        forest.split_at,
        forest.left,
        forest.right,
        forest.slot,
        out,
    )
    return out


def grow_forest(
    codes: NDArray[np.float32], positive: BoolArray, shape: TreeShape, *, seed: int
) -> tuple[Forest, FloatArray]:
    """Boost trees and return them with the slots' weights ``(slot_count,)``.

    Above ``grow_rows_max`` rows an even random share is used; both classes stay in it.
    """
    chosen = _sample(positive, seed)
    fitted = _boost(codes[chosen], positive[chosen], shape, seed)
    trees = [estimator.tree_ for estimator in fitted.estimators_[:, 0]]
    sizes = np.array([tree.node_count for tree in trees])
    root = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shift = np.repeat(root, sizes)
    feature = np.concatenate([tree.feature for tree in trees])
    is_leaf = feature < 0
    slot = np.where(is_leaf, np.cumsum(is_leaf) - 1, -1)
    leaf_values = np.concatenate([tree.value[:, 0, 0] for tree in trees])[is_leaf]
    share = float(positive[chosen].mean())
    forest = Forest(
        root=root.astype(np.int32),
        feature=np.where(is_leaf, -1, feature).astype(np.int32),
        split_at=np.concatenate([tree.threshold for tree in trees]),
        left=(np.concatenate([tree.children_left for tree in trees]) + shift).astype(np.int32),
        right=(np.concatenate([tree.children_right for tree in trees]) + shift).astype(np.int32),
        slot=slot.astype(np.int32),
        bias_slot=int(is_leaf.sum()),
    )
    return forest, np.append(learning_rate * leaf_values, np.log(share / (1.0 - share)))


def cross_validate(
    columns: Mapping[str, Sequence[str]], positive: BoolArray, *, seed: int
) -> Validated:
    """Choose the shape by held-out log loss, if both classes have two rows to hold one out.

    Encoding is part of what is validated: categories are ordered without the held-out labels.
    """
    rarer = int(min(positive.sum(), positive.size - positive.sum()))
    if rarer < 2:
        shape = TreeShape(depths[0], trees_without_validation)
        return Validated(shape, np.empty(0, dtype=np.int64), np.empty(0))
    chosen = _sample(positive, seed)
    truth = positive[chosen]
    held_out = np.zeros((len(depths), trees_max, chosen.size))
    texts = {name: np.array(column, dtype=object)[chosen] for name, column in columns.items()}
    for train, test in _stratified_folds(truth, min(folds, rarer), seed):
        known = {name: list(column[train]) for name, column in texts.items()}
        encoder = ColumnEncoder.fit(known, truth[train])
        codes = encoder.encode(known)
        unseen = encoder.encode({name: list(column[test]) for name, column in texts.items()})
        for place, depth in enumerate(depths):
            fitted = _boost(codes, truth[train], TreeShape(depth, trees_max), seed)
            for stage, log_odds in enumerate(fitted.staged_decision_function(unseen)):
                held_out[place, stage, test] = log_odds[:, 0]
    loss = np.logaddexp(0.0, np.where(truth, -held_out, held_out)).mean(axis=2)
    best_depth, best_stage = divmod(int(np.argmin(loss)), trees_max)
    shape = TreeShape(depths[best_depth], best_stage + 1)
    return Validated(shape, chosen, held_out[best_depth, best_stage])


def _boost(codes: NDArray[np.float32], positive: BoolArray, shape: TreeShape, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier  # slow to import, needed to fit only

    fitted = GradientBoostingClassifier(
        n_estimators=shape.trees,
        max_depth=shape.depth,
        learning_rate=learning_rate,
        subsample=row_share,
        max_features=max(1, (codes.shape[1] + 1) // 2),
        min_samples_leaf=int(np.clip(positive.size // 200, 2, 30)),
        random_state=seed,
    )
    return fitted.fit(codes, positive)


def _sample(positive: BoolArray, seed: int) -> NDArray[np.int64]:
    """At most ``grow_rows_max`` row numbers, rising, each class in its share."""
    if positive.size <= grow_rows_max:
        return np.arange(positive.size)
    random = np.random.default_rng(seed)
    parts = []
    for rows in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        size = max(1, rows.size * grow_rows_max // positive.size)
        parts.append(random.choice(rows, size=size, replace=False))
    return np.sort(np.concatenate(parts))


def _stratified_folds(
    positive: BoolArray, count: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    yield from splitter.split(np.zeros(positive.size), positive)
