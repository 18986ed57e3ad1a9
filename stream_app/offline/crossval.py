"""Reproduce the fits' figures by cross-validation of one table.

python -m stream_app.offline.crossval intent FILE LABEL
python -m stream_app.offline.crossval support FILE LABEL TEXT
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import orjson

from stream_app.offline.fit import Result, fit_intent, fit_support
from stream_app.offline.tables import Table, read_table

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


def cross_validated(table: Table, label: str, fit: Fit, *, folds: int = 5) -> Result:
    """Mean of every measure over the folds; ``None`` where a fold does not define it."""
    results = [fit(train, test) for train, test in fold_tables(table, label, folds=folds)]
    means: Result = {}
    for name in results[0]:
        values = [result[name] for result in results]
        defined = [value for value in values if value is not None]
        means[name] = float(np.mean(defined)) if len(defined) == len(values) else None
    return means


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object with the mean measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["intent", "support"])
    parser.add_argument("file")
    parser.add_argument("label")
    parser.add_argument("text", nargs="?", help="the messages' column (support only)")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args(arguments)
    if (options.model == "support") != (options.text is not None):
        parser.error("give the TEXT column for support, and only for support")

    def fit(train: Table, test: Table) -> Result:
        if options.model == "support":
            return fit_support(train, test, options.text, options.label)
        return fit_intent(train, test, options.label)

    means = cross_validated(read_table(options.file), options.label, fit, folds=options.folds)
    print(orjson.dumps(means).decode())


if __name__ == "__main__":
    main()
