"""Reproduce the fits' figures by cross-validation of one table.

python -m stream_app.offline.crossval intent FILE LABEL
python -m stream_app.offline.crossval support FILE LABEL TEXT [--embedding NAME] [--few N]

With ``--few`` N messages of each label are learned from and all others tested on, five times.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.offline.fit import Result, fit_intent, fit_support
from stream_app.offline.tables import Table, read_table
from stream_app.support_embedding import load_embedding

Fit = Callable[[Table, Table], Result]


def fold_tables(
    table: Table, label: str, *, folds: int = 5, seed: int = 0
) -> Iterator[tuple[Table, Table]]:
    """``folds`` pairs of training and test table; each label value is spread evenly over them.

    >>> table = Table("t.csv", {"y": ["a", "b"] * 5}, list(range(10)))
    >>> [test.column("y") for _, test in fold_tables(table, "y")][0]
    ['a', 'b']
    """
    _, value = np.unique(np.asarray(table.column(label)), return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(table))
    # Dealing rows out value by value gives each fold its share of every value.
    dealt = shuffled[np.argsort(value[shuffled], kind="stable")]
    fold = np.empty(len(table), dtype=np.int64)
    fold[dealt] = np.arange(len(table)) % folds
    for number in range(folds):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        yield table.take(train.tolist()), table.take(test.tolist())


def few_tables(
    table: Table, label: str, per_label: int, *, draws: int = 5
) -> Iterator[tuple[Table, Table]]:
    """``draws`` pairs of tables: ``per_label`` rows of each label value, and all others.

    >>> table = Table("t.csv", {"y": ["a", "b"] * 5}, list(range(10)))
    >>> [(train.column("y"), len(test)) for train, test in few_tables(table, "y", 1, draws=1)]
    [(['a', 'b'], 8)]
    """
    _, value = np.unique(np.asarray(table.column(label)), return_inverse=True)
    for seed in range(draws):
        train = drawn(value, per_label, seed)
        rest = np.setdiff1d(np.arange(len(table)), train)
        yield table.take(train.tolist()), table.take(rest.tolist())


def drawn(labels: NDArray[np.int64], per_label: int, seed: int) -> NDArray[np.int64]:
    """Rows of ``per_label`` random ones of each label, in the order of labels.

    >>> drawn(np.array([1, 0, 1]), 1, seed=0).tolist()
    [1, 2]
    """
    shuffled = np.random.default_rng(seed).permutation(labels.size)
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]
    first = np.searchsorted(labels[dealt], labels[dealt])
    chosen: NDArray[np.int64] = dealt[np.arange(labels.size) - first < per_label]
    return chosen


def means(pairs: Iterable[tuple[Table, Table]], fit: Fit) -> Result:
    """Mean of every measure over pairs of tables; ``None`` where one does not define it."""
    results = [fit(train, test) for train, test in pairs]
    found: Result = {}
    for name in results[0]:
        values = [result[name] for result in results]
        defined = [value for value in values if value is not None]
        found[name] = float(np.mean(defined)) if len(defined) == len(values) else None
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object with the mean measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["intent", "support"])
    parser.add_argument("file")
    parser.add_argument("label")
    parser.add_argument("text", nargs="?", help="the messages' column (support only)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--few", type=int, help="messages of each label to learn from")
    parser.add_argument("--embedding", default="", help="as STREAM_APP_SUPPORT_EMBEDDING")
    options = parser.parse_args(arguments)
    embed = load_embedding(options.embedding)
    if (options.model == "support") != (options.text is not None):
        parser.error("give the TEXT column for support, and only for support")

    def fit(train: Table, test: Table) -> Result:
        if options.model == "support":
            return fit_support(train, test, options.text, options.label, embed)
        return fit_intent(train, test, options.label)

    table = read_table(options.file)
    if options.few is None:
        pairs = fold_tables(table, options.label, folds=options.folds)
    else:
        pairs = few_tables(table, options.label, options.few)
    print(orjson.dumps(means(pairs, fit)).decode())


if __name__ == "__main__":
    main()
