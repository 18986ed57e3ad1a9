"""Train and test the intent and support models on tables: ``fit-intent`` and ``fit-support``.

The ``run_…`` functions are what the commands call: a table for people, then one JSON object as the
last line, or only that.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Report

from stream_app.core.classification_metrics import (
    accuracy,
    auc,
    best_f1_threshold,
    brier,
    calibration_error,
    decision_measures,
    log_loss,
    macro_f1,
)
from stream_app.core.intent import IntentModel
from stream_app.core.intent_columns import FALSE, TRUE
from stream_app.core.support import Embed, SupportModel, intents_max, normalised
from stream_app.errors import EventFileError
from stream_app.offline.tables import Table, read_table
from stream_app.support_embedding import load_embedding

Result = dict[str, float | int | None]

seed = 0  # of every random choice in fitting: the same files give the same figures


@dataclass(frozen=True, slots=True)
class LabelReader:
    """Reads a two-valued label; ``positive`` and ``negative`` are its spellings, case folded."""

    column: str
    positive: str
    negative: str

    @classmethod
    def detect(cls, table: Table, column: str) -> "LabelReader":
        """Find the two values in the training table; raises ``EventFileError``."""
        values = {text.strip().casefold() for text in table.column(column)} - {""}
        yes, no = TRUE | {"1", "1.0"}, FALSE | {"0", "0.0"}
        positive, negative = values & yes, values & no
        if len(values) != 2 or len(positive) != 1 or len(negative) != 1:
            raise EventFileError(
                f"{table.name}: column {column!r} has {len(values)} values"
                f" ({', '.join(sorted(values)[:5])}); the label must hold both true and false"
                " (or 1 and 0, yes and no)"
            )
        return cls(column, positive.pop(), negative.pop())

    def read(self, table: Table) -> NDArray[np.bool_]:
        """True for positive rows ``(n,)``; raises ``EventFileError`` at the first other value."""
        texts = [text.strip().casefold() for text in table.column(self.column)]
        for row, text in enumerate(texts):
            if text not in (self.positive, self.negative):
                raise EventFileError(
                    f"{table.name}, line {table.lines[row]}: {self.column} is {text!r}, not"
                    f" {self.positive!r} or {self.negative!r}; label the row or remove it"
                )
        return np.array([text == self.positive for text in texts], dtype=bool)


def fit_intent(train: Table, test: Table, label: str) -> Result:
    """Train on one table of sessions, test on another; measures by name, ``None`` if undefined.

    The threshold behind accuracy, precision, recall and f1 is chosen on the training table;
    ``best_f1`` is what the best threshold for the test table would give.
    """
    reader = LabelReader.detect(train, label)
    positive, truth = reader.read(train), reader.read(test)
    features = {name: texts for name, texts in train.columns.items() if name != label}
    if not features:
        raise EventFileError(f"{train.name} has no column but {label!r}; add features of sessions")
    unseen = {name: test.column(name) for name in features}
    started = time.perf_counter()
    model = IntentModel.fit(features, positive, seed=seed)
    seconds = time.perf_counter() - started
    probability = model.probabilities(unseen)
    return _defined(
        {
            "n_train": len(train),
            "n_test": len(test),
            "auc": auc(truth, probability),
            "log_loss": log_loss(truth, probability),
            **decision_measures(truth, probability, threshold=model.threshold),
            "threshold": model.threshold,
            "best_f1": best_f1_threshold(truth, probability)[1],
            "brier": brier(truth, probability),
            "calibration_error": calibration_error(truth, probability),
            "fit_seconds": seconds,
        }
    )


def fit_support(
    train: Table, test: Table, text: str, label: str, embed: Embed | None = None
) -> Result:
    """Train on labelled messages, test on others. ``n`` counts test messages."""
    messages, unseen = train.column(text), test.column(text)
    intents, truth = _intents(train, label), _intents(test, label)
    if not 2 <= len(set(intents)) <= intents_max:
        raise EventFileError(
            f"{train.name}: column {label!r} has {len(set(intents))} values; a classifier needs"
            f" 2 to {intents_max}: check that it is the right column"
        )
    if not any(normalised(message) for message in messages):
        raise EventFileError(f"{train.name}: column {text!r} has no text; name the right column")
    started = time.perf_counter()
    model = SupportModel.fit(messages, intents, seed=seed, embed=embed)
    seconds = time.perf_counter() - started
    guess, probability = model.predict(unseen)
    right = np.array(guess) == np.array(truth)
    return _defined(
        {
            "n": len(test),
            "classes": len(model.intents),
            "accuracy": accuracy(truth, guess),
            "macro_f1": macro_f1(truth, guess),
            "out_of_scope": float((probability < model.scope_min).mean()),
            "calibration_error": calibration_error(right, probability),
            "n_train": len(train),
            "fit_seconds": seconds,
        }
    )


def run_fit_intent(train: str, test: str, label: str, json_only: bool) -> None:
    """The command ``fit-intent``. Raises ``EventFileError``."""
    result = fit_intent(read_table(train), read_table(test), label)
    _print(f"Purchase intent: {label}, trained on {Path(train).name}", result, json_only)


def run_fit_support(
    train: str, test: str, text: str, label: str, json_only: bool, embedding: str = ""
) -> None:
    """The command ``fit-support``. Raises ``EventFileError``, ``ConfigurationError``."""
    embed = load_embedding(embedding)
    result = fit_support(read_table(train), read_table(test), text, label, embed)
    _print(f"Support: {text} → {label}, trained on {Path(train).name}", result, json_only)


def _intents(table: Table, label: str) -> list[str]:
    intents = [intent.strip() for intent in table.column(label)]
    for row, intent in enumerate(intents):
        if not intent:
            raise EventFileError(
                f"{table.name}, line {table.lines[row]}: no {label}; label the row or remove it"
            )
    return intents


def _defined(measures: dict[str, float | int]) -> Result:
    """JSON knows neither NaN nor infinity."""
    return {name: value if np.isfinite(value) else None for name, value in measures.items()}


def _print(title: str, result: Result, json_only: bool) -> None:
    console = Console()
    if not json_only:
        report = Report(title=title)
        report.add_column("measure")
        report.add_column("value", justify="right")
        for row in _shown(result):
            report.add_row(*row)
        console.print(report)
    # Not through the console, which would wrap the line at the terminal's width.
    console.file.write(orjson.dumps(result).decode() + "\n")


def _shown(result: Result) -> Sequence[tuple[str, str]]:
    return [
        (name, "undefined" if v is None else f"{v:.4f}" if isinstance(v, float) else f"{v:,}")
        for name, v in result.items()
    ]
