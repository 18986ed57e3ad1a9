"""The demand forecast: rings of days, experts, what is learned, and alerts."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.core.demand import (
    ALERTS,
    DAYS,
    EXPERTS,
    WEEK,
    add_sales,
    advance,
    cover_days,
    decode_demand,
    encode_demand,
    expert_forecasts,
    expert_weights,
    forecast,
    learn,
    learn_weekdays,
    new_demand,
    new_mixture,
    stock_alerts,
    weekday_profile,
    weekly_sales,
)
from stream_app.errors import EventFileError, SchemaUnknown
from stream_app.offline.demand import Sales, evaluate_demand, read_sales
from stream_app.offline.eventfile import read_events

START = 20_000  # a Friday; the next Monday is START + 3


def item(*units_by_day: float) -> np.ndarray:
    """One item's ring as of the day after the given ones."""
    rows = new_demand(np.array([7], np.uint64), START)
    for day, units in enumerate(units_by_day):
        advance(rows, START + day)
        add_sales(rows, np.array([0]), np.array([units]), np.array([START + day]))
    advance(rows, START + len(units_by_day))
    return rows


def test_weekly_sales_are_those_of_the_days_before_today() -> None:
    rows = item(*[1.0] * 14, 3.0)  # 15 complete days: two whole weeks are 14 of them
    sums, seen = weekly_sales(rows)
    assert sums[0, :3].tolist() == [9.0, 7.0, 0.0]
    assert seen[0].tolist() == [True, True] + [False] * 6


def test_the_first_days_of_an_item_stand_for_a_week() -> None:
    sums, seen = weekly_sales(item(2.0, 4.0))
    assert sums[0, 0] == 6.0 * WEEK / 2
    assert seen[0, 0]
    assert not seen[0, 1:].any()


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(1, 9)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_the_ring_equals_a_table_of_all_days(sales: list[tuple[int, int]], random: object) -> None:
    """Also for sales that come late: whatever the order, each counts on its own day."""
    order = sorted(sales, key=lambda sale: sale[0] // 20)  # late by up to twenty days
    rows = new_demand(np.array([7], np.uint64), START)
    table = np.zeros(200)
    for day, units in order:
        advance(rows, START + day)
        add_sales(rows, np.array([0]), np.array([float(units)]), np.array([START + day]))
        table[day] += units
    today = int(rows["day"][0]) - START
    kept = np.concatenate((np.zeros(DAYS), table))[today + 1 : today + 1 + DAYS]
    assert rows["daily"][0].tolist() == kept.tolist()


def test_a_sale_older_than_the_ring_is_not_counted_and_said_so() -> None:
    rows = item(1.0)
    assert add_sales(rows, np.array([0]), np.array([5.0]), np.array([START + 1 - DAYS])) == 1
    assert rows["daily"].sum() == 1.0


def test_steady_demand_is_forecast_as_it_is_by_every_expert() -> None:
    rows, mixture = item(*[3.0] * 60), new_mixture()
    told = forecast(rows, mixture, horizon_days=14, service_level=0.95)
    assert told.total[0] == pytest.approx(42.0)
    assert told.upper[0] == pytest.approx(42.0)
    assert told.daily.shape == (1, 14)


def test_one_huge_order_moves_the_forecast_less_than_a_mean_would() -> None:
    calm, shaken = item(*[2.0] * 56), item(*[2.0] * 50, 500.0, *[2.0] * 5)
    told = [
        forecast(rows, new_mixture(), horizon_days=7, service_level=0.5).total[0]
        for rows in (calm, shaken)
    ]
    mean = weekly_sales(shaken)[0].mean()
    assert told[0] < told[1]
    weights = np.array([1.0, 1.0, 0.0, 0.0])
    robust = expert_forecasts(*weekly_sales(shaken)) @ weights / 2
    assert robust[0] < mean / 2


def test_the_expert_that_is_right_gains_weight() -> None:
    """Demand that doubles every week: only the last week comes near."""
    rows, mixture = new_demand(np.array([7], np.uint64), START), new_mixture()
    for day in range(7 * 8):
        advance(rows, START + day)
        mixture = learn(rows, mixture)
        units = np.array([2.0 ** (day // 7)])
        add_sales(rows, np.array([0]), units, np.array([START + day]))
    weights = expert_weights(mixture)
    assert EXPERTS[int(weights.argmax())] == "last"
    assert weights.sum() == pytest.approx(1.0)


def test_weekdays_share_a_week_as_the_shop_sells() -> None:
    monday = START + 3
    days = np.array([monday + week * 7 + day for week in range(20) for day in (0, 5)])
    units = np.array([3.0, 1.0] * 20)
    mixture = new_mixture()
    for day, sold in zip(days, units, strict=True):
        mixture = learn_weekdays(mixture, np.array([sold]), np.array([day]))
    profile = weekday_profile(mixture)
    assert profile.sum() == pytest.approx(1.0)
    assert profile[0] / profile[5] == pytest.approx(3.0, rel=0.15)
    assert profile[[1, 2, 3, 4, 6]].max() < 0.03


def test_alerts_follow_stock_and_what_may_be_sold_until_a_delivery() -> None:
    stock = np.array([np.nan, 0.0, 5.0, 50.0, 5_000.0, 0.0])
    week = np.array([10.0, 10.0, 10.0, 10.0, 10.0, 0.0])
    alerts = stock_alerts(stock, week, np.full(6, 12.0), overstock_days=180.0)
    names = [ALERTS[alert] for alert in alerts.tolist()]
    assert names == ["none", "out_of_stock", "low_stock", "none", "overstock", "out_of_stock"]
    assert math.isinf(cover_days(np.array([5.0]), np.array([0.0]))[0])


def test_a_blob_gives_back_its_row_and_name() -> None:
    rows = item(1.0, 2.0)
    back, names = decode_demand(encode_demand(rows, ["späti-7"]))
    assert back.tobytes() == rows.tobytes()
    assert names == ["späti-7"]


def test_a_blob_of_another_release_is_refused() -> None:
    with pytest.raises(SchemaUnknown, match="run the release that wrote it"):
        decode_demand([b"\x09" * 400])


def test_the_forecast_beats_both_naive_ones_on_noisy_seasonal_sales() -> None:
    random = np.random.default_rng(5)
    level = random.gamma(1.0, 3.0, size=(80, 1))
    weekly = np.array([1.0, 1.2, 0.8, 1.0, 1.5, 0.2, 0.1])[np.arange(140) % 7]
    units = random.poisson(level * weekly).astype(np.float32)
    units[:, ::29] += 60 * (random.random((80, 5)) < 0.2)  # large orders now and then
    result = evaluate_demand(
        Sales(units, START), horizon_days=7, warm_days=56, step_days=7, service_level=0.95
    )
    for measure in ("wape", "wape_daily", "mase"):
        model = result[measure]
        assert isinstance(model, float)
        for baseline in ("naive", "seasonal_naive"):
            other = result[f"{baseline}_{measure}"]
            assert isinstance(other, float)
            assert model < 0.9 * other
    assert isinstance(result["covered"], float)
    assert result["covered"] > 0.8


def test_a_file_without_purchases_says_so(tmp_path: Path) -> None:
    path = tmp_path / "views.csv"
    path.write_text("user_id,item_id,event,ts\na,x,view,1700000000\n")
    with pytest.raises(EventFileError, match="no purchases"):
        read_sales(read_events(path))


def test_purchases_of_a_file_are_counted_by_item_and_day(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("user_id,item_id,event,ts,quantity\n")
        for row in ("a,x,purchase,86400,3", "b,x,purchase,86401,", "b,y,purchase,172800,2"):
            file.write(row + "\n")
        file.write("b,y,view,172801,\n")
    sales = read_sales(read_events(path))
    assert sales.first == 1
    assert sales.units.tolist() == [[4.0, 0.0], [0.0, 2.0]]
