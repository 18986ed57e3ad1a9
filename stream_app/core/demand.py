"""Forecast what an item will sell, one sale at a time. Called by the STOCK stage and offline.

A small ring of daily quantities per item; level from the eight weeks before today, read by four
experts that differ in how far they trust a single busy week:

* geometric: weighted mean of log(1 + weekly sales), which one large order cannot carry away,
* median: weighted, for demand that is zero in most weeks (intermittent demand),
* mean: exponential smoothing of the weekly sums (Brown 1959), and
* last: the week before, which follows a trend at once.

The experts are mixed by the exponentially weighted forecaster on absolute loss (Vovk 1990;
Littlestone & Warmuth 1994), so that a shop's own demand decides; days of a week share the
partition's weekday profile (seasonality). Everything is a function of the sales and their time.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import SchemaUnknown

Floats = NDArray[np.float64]

WEEKS = 8
WEEK = 7
DAYS = WEEKS * WEEK + 1  # complete days, and today
DAY_S = 86_400
DEMAND_SCHEMA = 1
UNSOLD = 2**31 - 1  # the first day of an item that has not sold yet: its first sale sets it
EXPERTS = ("geometric", "median", "mean", "last")
ALERTS = ("none", "low_stock", "out_of_stock", "overstock")

GEOMETRIC_DECAY = 0.8  # per week; weight of the newest is 1
MEDIAN_DECAY = 0.85
MEAN_DECAY = 0.8
LOSS_DECAY = 0.999  # per scored week of an item: about a thousand of them are remembered
LEARNING_RATE = 25.0  # of the mixture: a tenth of a unit less loss per unit sold counts 12 times
PRIOR_SALES = 100.0  # units an expert's record starts with, all at the same loss
WEEKDAY_DECAY = 0.9  # per week
PROFILE_PRIOR = 1.0  # units per weekday before anything was sold

# One item's sales, newest day last; "day" is days since 1970-01-01, UTC.
DEMAND = np.dtype(
    [
        ("schema", "u1"),
        ("alert", "u1"),  # index into ALERTS, as announced last
        ("reserved", "u1", (6,)),
        ("id", "u8"),
        ("first_day", "i4"),  # of its sales, or UNSOLD
        ("day", "i4"),  # of the last entry of ``daily``
        ("expected_day", "i4"),  # when ``expected`` was noted; -1 = nothing to score
        ("stock", "f4"),  # as last seen in the catalog, NaN unknown
        ("expected", "f4", (len(EXPERTS),)),  # next week's sales as each expert saw them
        ("daily", "f4", (DAYS,)),
        ("reserved_end", "u1", (4,)),  # copies leave padding as memory was, and blobs are compared
    ],
    align=True,
)


class Mixture(NamedTuple):
    """What one partition has learned: experts' decayed losses, and sales per weekday.

    ``loss (4,)`` is Σ|forecast − sales| in units, ``sold ()`` Σ sales of the same weeks,
    ``weekday (7,)`` decayed units by day since Monday, ``day ()`` the last day counted in there.
    """

    loss: Floats
    sold: Floats
    weekday: Floats
    day: NDArray[np.int64]


class Forecast(NamedTuple):
    """Per item: expected units of the next ``horizon`` days ``daily (n, horizon)``.

    ``total (n,)`` is their sum, ``upper (n,)`` what is not exceeded with the service level asked.
    """

    daily: Floats
    total: Floats
    upper: Floats


def new_mixture() -> Mixture:
    """Nothing learned yet: all experts alike, all weekdays alike."""
    return Mixture(
        np.full(len(EXPERTS), PRIOR_SALES),
        np.array(PRIOR_SALES),
        np.full(WEEK, PROFILE_PRIOR),
        np.array(-1),
    )


def new_demand(ids: NDArray[np.uint64], day: int) -> NDArray[np.void]:
    """``(n,) DEMAND`` of items without a sale, as of ``day``."""
    rows = np.zeros(len(ids), DEMAND)
    rows["schema"], rows["id"] = DEMAND_SCHEMA, ids
    rows["first_day"], rows["day"], rows["expected_day"] = day, day, -1
    rows["stock"] = np.nan
    return rows


def advance(rows: NDArray[np.void], day: int) -> None:
    """Move the rings on to ``day``, in place; rings that are already there stay."""
    for shift in np.unique(day - rows["day"]).tolist():
        if shift <= 0:
            continue
        mine = np.flatnonzero(day - rows["day"] == shift)
        daily = np.zeros((len(mine), DAYS), np.float32)
        if shift < DAYS:
            daily[:, : DAYS - shift] = rows["daily"][mine, shift:]
        rows["daily"][mine] = daily
        rows["day"][mine] = day


def add_sales(
    rows: NDArray[np.void], at: NDArray[np.int64], units: Floats, days: NDArray[np.int64]
) -> int:
    """Count ``units (m,)`` sold on ``days (m,)`` for ``rows[at]``; returns how many were too old.

    The rings must have been moved on to the latest of the days. A late sale counts on its own day
    as long as the ring goes back that far.
    """
    age = rows["day"][at] - days
    assert not len(age) or age.min() >= 0
    fits = age < DAYS
    np.add.at(rows["daily"], (at[fits], DAYS - 1 - age[fits]), units[fits].astype(np.float32))
    np.minimum.at(rows["first_day"], at[fits], days[fits].astype(np.int32))
    return int(np.count_nonzero(~fits))


def weekly_sales(rows: NDArray[np.void]) -> tuple[Floats, NDArray[np.bool_]]:
    """Units per week before today, newest first ``(n, 8)``, and which of them the item has seen.

    The only week of a younger item is scaled up to seven days.
    """
    weeks = rows["daily"][:, : DAYS - 1].astype(np.float64).reshape(-1, WEEKS, WEEK)
    sums: Floats = weeks.sum(axis=2)[:, ::-1].copy()
    age = (rows["day"] - rows["first_day"]).astype(np.int64)  # complete days on sale
    young = (age > 0) & (age < WEEK)
    sums[young, 0] *= WEEK / age[young]
    seen = np.arange(WEEKS) < np.maximum(age // WEEK, 1)[:, None]
    seen &= age[:, None] > 0
    return sums * seen, seen


def _weighted_quantile(
    sums: Floats, seen: NDArray[np.bool_], decay: float, quantile: float
) -> Floats:
    order = np.argsort(np.where(seen, sums, np.inf), axis=1, kind="stable")
    weight = np.take_along_axis(np.where(seen, decay ** np.arange(WEEKS), 0.0), order, axis=1)
    reached = weight.cumsum(axis=1) >= quantile * weight.sum(axis=1, keepdims=True) - 1e-12
    place = np.take_along_axis(order, reached.argmax(axis=1)[:, None], axis=1)
    result: Floats = np.take_along_axis(sums, place, axis=1)[:, 0]
    return result


def _weighted_mean(values: Floats, seen: NDArray[np.bool_], decay: float) -> Floats:
    weight = np.where(seen, decay ** np.arange(WEEKS), 0.0)
    result: Floats = (values * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)
    return result


def expert_forecasts(sums: Floats, seen: NDArray[np.bool_]) -> Floats:
    """What each of :data:`EXPERTS` expects for the next seven days ``(n, 4)``.

    >>> sums = np.array([[0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    >>> expert_forecasts(sums, sums >= 0).round(2).tolist()
    [[0.53, 0.0, 1.54, 0.0]]
    """
    return np.stack(
        (
            np.expm1(_weighted_mean(np.log1p(sums), seen, GEOMETRIC_DECAY)),
            _weighted_quantile(sums, seen, MEDIAN_DECAY, 0.5),
            _weighted_mean(sums, seen, MEAN_DECAY),
            sums[:, 0],
        ),
        axis=1,
    )


def expert_weights(mixture: Mixture) -> Floats:
    """Shares of the experts ``(4,)``, from their loss per unit sold so far.

    >>> expert_weights(new_mixture()).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    rate = mixture.loss / mixture.sold
    weight = np.exp(-LEARNING_RATE * (rate - rate.min()))
    result: Floats = weight / weight.sum()
    return result


def weekday_profile(mixture: Mixture) -> Floats:
    """How a week's sales spread over its days, Monday first ``(7,)``; adds up to 1."""
    result: Floats = mixture.weekday / mixture.weekday.sum()
    return result


def learn(rows: NDArray[np.void], mixture: Mixture) -> Mixture:
    """Score what was expected a week ago and note what is expected now, in place in ``rows``.

    Call it after :func:`advance` and before :func:`add_sales` of the new day. A week is scored when
    its item is touched again, up to seven weeks later.
    """
    ahead = rows["day"] - rows["expected_day"]
    due = np.flatnonzero((rows["expected_day"] >= 0) & (ahead >= WEEK) & (ahead < DAYS))
    loss, sold = mixture.loss, mixture.sold
    if len(due):
        # The week from the day of the forecast on; ``ahead`` days ago was its first.
        first = DAYS - 1 - ahead[due]
        days = first[:, None] + np.arange(WEEK)
        actual = np.take_along_axis(rows["daily"][due], days, axis=1).sum(axis=1, dtype=np.float64)
        kept = LOSS_DECAY ** len(due)
        missed = np.abs(rows["expected"][due] - actual[:, None]).sum(axis=0, dtype=np.float64)
        loss, sold = loss * kept + missed, sold * kept + actual.sum()
    noted = np.flatnonzero((rows["expected_day"] < 0) | (ahead >= WEEK))
    rows["expected"][noted] = expert_forecasts(*weekly_sales(rows[noted]))
    rows["expected_day"][noted] = rows["day"][noted]
    return Mixture(loss, sold, mixture.weekday, mixture.day)


def learn_weekdays(mixture: Mixture, units: Floats, days: NDArray[np.int64]) -> Mixture:
    """Count a batch's sales by weekday; a week's silence leaves nine tenths of what was."""
    if not len(days):
        return mixture
    last = int(mixture.day)
    newest = max(last, int(days.max()))
    kept = 1.0 if last < 0 else WEEKDAY_DECAY ** ((newest - last) / WEEK)
    weekday = mixture.weekday * kept
    np.add.at(weekday, (days + 3) % WEEK, units)  # 1970-01-01 was a Thursday
    return Mixture(mixture.loss, mixture.sold, weekday, np.array(newest))


def forecast(
    rows: NDArray[np.void], mixture: Mixture, *, horizon_days: int, service_level: float
) -> Forecast:
    """Units of the ``horizon_days`` days from each row's own day on.

    ``upper`` adds the spread of the past weeks' sums, which grows with the root of the horizon.
    """
    sums, seen = weekly_sales(rows)
    week = expert_forecasts(sums, seen) @ expert_weights(mixture)
    weekday = (rows["day"][:, None].astype(np.int64) + np.arange(horizon_days) + 3) % WEEK
    daily: Floats = week[:, None] * weekday_profile(mixture)[weekday]
    total: Floats = daily.sum(axis=1)
    busy = _weighted_quantile(sums, seen, 1.0, service_level)
    spread = np.maximum(busy - week, 0.0) * np.sqrt(horizon_days / WEEK)
    return Forecast(daily, total, total + spread)


def cover_days(stock: Floats, week: Floats) -> Floats:
    """Days until ``stock (n,)`` is sold at ``week (n,)`` units in seven days; inf without sales.

    >>> cover_days(np.array([10.0]), np.array([14.0])).tolist()
    [5.0]
    """
    rate = week / WEEK
    result: Floats = np.where(rate > 0.0, stock / np.maximum(rate, 1e-12), np.inf)
    return result


def stock_alerts(
    stock: Floats, week: Floats, upper_lead: Floats, *, overstock_days: float
) -> NDArray[np.uint8]:
    """Index into :data:`ALERTS` for each item; 0 where the stock is not known.

    Low: what is there may not last until a delivery (``upper_lead``, units of the lead time at the
    service level). Nothing that does not sell is low.
    """
    alert = np.zeros(len(stock), np.uint8)
    known = np.isfinite(stock)
    wanted = week > 0.0
    alert[known & wanted & (cover_days(stock, week) > overstock_days)] = ALERTS.index("overstock")
    alert[known & wanted & (stock <= upper_lead)] = ALERTS.index("low_stock")
    alert[known & (stock <= 0.0)] = ALERTS.index("out_of_stock")
    return alert


def decode_demand(blobs: list[bytes]) -> tuple[NDArray[np.void], list[str]]:
    """Rows and item ids from blobs of :func:`encode_demand`.

    Raises :class:`~stream_app.errors.SchemaUnknown` for a blob of another release.
    """
    for blob in blobs:
        if len(blob) < DEMAND.itemsize or blob[0] != DEMAND_SCHEMA:
            raise SchemaUnknown(
                f"demand of an item has schema {blob[:1].hex() or 'none'}, this release reads"
                f" {DEMAND_SCHEMA}: run the release that wrote it, or newer"
            )
    rows = np.frombuffer(b"".join([blob[: DEMAND.itemsize] for blob in blobs]), DEMAND).copy()
    return rows, [blob[DEMAND.itemsize :].decode() for blob in blobs]


def encode_demand(rows: NDArray[np.void], names: list[str]) -> list[bytes]:
    """One blob per item: its row, then its id as text."""
    return [row.tobytes() + name.encode() for row, name in zip(rows, names, strict=True)]
