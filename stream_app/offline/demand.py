"""``evaluate-demand``: how good the demand forecast is on recorded sales, against naive ones.

Prequential: the sales are fed day by day, and every ``step_days`` each item sold so far is forecast
for the days to come, before these are learned. Baselines: *naive* (tomorrow as yesterday) and
*seasonal naive* (the same weekday of last week). WAPE is Σ|error| / Σ sales; MASE divides each
item's mean error by the mean error that seasonal naive made on its past (Hyndman & Koehler 2006).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Report

from stream_app.core.demand import (
    DAY_S,
    EXPERTS,
    WEEK,
    Mixture,
    add_sales,
    advance,
    expert_weights,
    forecast,
    learn,
    learn_weekdays,
    new_demand,
    new_mixture,
)
from stream_app.errors import EventFileError
from stream_app.offline.eventfile import EventTable, read_events

Floats = NDArray[np.float64]
Result = dict[str, float | int | str | dict[str, float] | None]

METHODS = ("model", "seasonal_naive", "naive")
CELLS_MAX = 200_000_000  # items × days of the daily table, 4 bytes each


@dataclass(frozen=True, slots=True)
class Sales:
    """``units (items, days) float32`` from day ``first`` (days since 1970) on."""

    units: NDArray[np.float32]
    first: int


@dataclass(slots=True)
class Errors:
    """Sums over forecasts of one method: of the whole horizon, by day, and scaled by item."""

    total: float = 0.0
    daily: float = 0.0
    scaled: list[Floats] = field(default_factory=list)


def read_sales(table: EventTable) -> Sales:
    """Purchases of an event file by item and day; raises ``EventFileError`` when there are none."""
    numbers = table.numbers.get("quantity")
    rows = [
        row
        for row, (event, item) in enumerate(zip(table.event, table.item_id, strict=True))
        if event == "purchase" and item is not None
    ]
    if not rows:
        raise EventFileError(f"{table.name} has no purchases: name a file with event = purchase")
    at = np.array(rows)
    quantity = np.ones(len(at)) if numbers is None else np.nan_to_num(numbers[at], nan=1.0)
    days = np.floor(table.ts[at] / DAY_S).astype(np.int64)
    _, item = np.unique([table.item_id[row] or "" for row in rows], return_inverse=True)
    first, items = int(days.min()), int(item.max()) + 1
    length = int(days.max()) - first + 1
    if items * length > CELLS_MAX:
        raise EventFileError(
            f"{table.name}: {items:,} items × {length:,} days; evaluate a shorter period"
        )
    units = np.zeros((items, length), np.float32)
    np.add.at(units, (item, days - first), np.maximum(quantity, 0.0).astype(np.float32))
    return Sales(units, first)


def evaluate_demand(
    sales: Sales, *, horizon_days: int, warm_days: int, step_days: int, service_level: float
) -> Result:
    """Measures by name; ``None`` where the file is too short to say."""
    units = sales.units.astype(np.float64)
    items, length = units.shape
    begun = np.where(units.any(axis=1), (units > 0).argmax(axis=1), length)
    rows, mixture = new_demand(np.arange(items, dtype=np.uint64), sales.first), new_mixture()
    errors = {name: Errors() for name in METHODS}
    sold, forecasts, covered = 0.0, 0, 0
    for day in range(length):
        advance(rows, sales.first + day)
        if day >= warm_days and (day - warm_days) % step_days == 0 and day + horizon_days <= length:
            known = np.flatnonzero(begun < day)
            actual = units[known, day : day + horizon_days]
            expected = forecast(
                rows[known], mixture, horizon_days=horizon_days, service_level=service_level
            )
            _score(errors, units[known, :day], begun[known], expected.daily, actual)
            sold += float(actual.sum())
            forecasts += len(known)
            covered += int(np.count_nonzero(actual.sum(axis=1) <= expected.upper))
        mixture = _learn_day(rows, mixture, units[:, day], begun == day)
    return {
        "items": items,
        "days": length,
        "forecasts": forecasts,
        "horizon_days": horizon_days,
        **_measures(errors, sold),
        "service_level": service_level,
        "covered": covered / forecasts if forecasts else None,
        "experts": dict(zip(EXPERTS, expert_weights(mixture).round(4).tolist(), strict=True)),
    }


def _learn_day(
    rows: NDArray[np.void], mixture: Mixture, units: Floats, new: NDArray[np.bool_]
) -> Mixture:
    at = np.flatnonzero(units > 0)
    rows["first_day"][new] = rows["day"][new]
    touched = rows[at]
    mixture = learn(touched, mixture)
    rows[at] = touched
    days = rows["day"][at].astype(np.int64)
    add_sales(rows, at, units[at], days)
    return learn_weekdays(mixture, units[at], days)


def _score(
    errors: dict[str, Errors], past: Floats, begun: NDArray[np.int64], model: Floats, actual: Floats
) -> None:
    horizon = actual.shape[1]
    week = past[:, -WEEK:]
    guesses = {
        "model": model,
        "seasonal_naive": week[:, np.arange(horizon) % week.shape[1]],
        "naive": np.repeat(past[:, -1:], horizon, axis=1),
    }
    # What seasonal naive missed per day since the item's first sale.
    changes = np.abs(past[:, WEEK:] - past[:, :-WEEK])
    on_sale = np.arange(WEEK, past.shape[1]) >= begun[:, None] + WEEK
    count = on_sale.sum(axis=1)
    scale = (changes * on_sale).sum(axis=1) / np.maximum(count, 1)
    usable = (count >= WEEK) & (scale > 0)
    for name, guess in guesses.items():
        missed = np.abs(guess - actual)
        errors[name].total += float(np.abs(guess.sum(axis=1) - actual.sum(axis=1)).sum())
        errors[name].daily += float(missed.sum())
        errors[name].scaled.append(missed.mean(axis=1)[usable] / scale[usable])


def _measures(errors: dict[str, Errors], sold: float) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for name, sums in errors.items():
        prefix = "" if name == "model" else f"{name}_"
        scaled = np.concatenate(sums.scaled) if sums.scaled else np.zeros(0)
        result[f"{prefix}wape"] = sums.total / sold if sold else None
        result[f"{prefix}wape_daily"] = sums.daily / sold if sold else None
        result[f"{prefix}mase"] = float(scaled.mean()) if len(scaled) else None
    return result


def run_evaluate_demand(
    path: str,
    *,
    horizon_days: int,
    warm_days: int,
    step_days: int,
    service_level: float,
    json_only: bool,
) -> None:
    """The command ``evaluate-demand``. Raises ``EventFileError``."""
    result = evaluate_demand(
        read_sales(read_events(Path(path))),
        horizon_days=horizon_days,
        warm_days=warm_days,
        step_days=step_days,
        service_level=service_level,
    )
    console = Console()
    if not json_only:
        report = Report(title=f"Demand of the next {horizon_days} days, {Path(path).name}")
        for title in ("method", "WAPE", "WAPE by day", "MASE"):
            report.add_column(title, justify="left" if title == "method" else "right")
        for name in METHODS:
            prefix = "" if name == "model" else f"{name}_"
            cells = [result[f"{prefix}{measure}"] for measure in ("wape", "wape_daily", "mase")]
            report.add_row(name, *(f"{c:.4f}" if isinstance(c, float) else "–" for c in cells))
        console.print(report)
    console.file.write(orjson.dumps(result).decode() + "\n")
