"""Baskets, gains with their intervals, and the command that prints and draws them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_app.core import metrics
from stream_app.errors import ConfigurationError
from stream_app.hashing import stable_hash
from stream_app.offline.evaluate import evaluate, split_by_time, targets_of
from stream_app.offline.evaluate_baskets import baskets_of, evaluate_baskets
from stream_app.offline.evaluate_report import by_label, gains, measured
from stream_app.offline.eventfile import EventTable, read_events
from tests.core.test_evaluate import SETTINGS, pairs, question, table

START = 1_600_000_000
ORDERS = {0: ("a", "b"), 1: ("a", "b"), 2: ("a", "c"), 3: ("d", "d", "e")}


def orders(path: Path, customers: int = 12) -> EventTable:
    """Every customer orders the same in four orders of their own, a day apart."""
    lines = ["user_id,session_id,item_id,event,ts"]
    for order, items in ORDERS.items():
        for c in range(customers):
            ts = START + order * 86_400 + 60 * c
            lines += [f"u{c},{order}-{c},{i},purchase,{ts + n}" for n, i in enumerate(items)]
            lines.append(f"u{c},{order}-{c},{items[0]},refund,{ts + 9}")
    path.write_text("\n".join(lines) + "\n")
    return read_events(path)


async def test_one_list_before_each_basket_is_measured_against_all_its_items(
    tmp_path: Path,
) -> None:
    events = orders(tmp_path / "orders.csv")
    train, test = split_by_time(events, 0.5)  # 36 + 36 of 108 rows are the first two orders
    asked = question("live", group="user_id", k=2, exclude_seen=False, compare=True)
    found = await evaluate_baskets(train, test, asked, SETTINGS)
    whole = [s for s in set(test.session_id) if s not in set(train.session_id)]
    assert found["n"] == len(whole), "a basket that had begun before is not predicted"
    targets = baskets_of(test, list(range(len(test))), targets_of(None))
    assert targets["3-0"] == {stable_hash("d"), stable_hash("e")}, "d twice is one target"
    assert found["basket_items"] == 2.0
    assert found["precision"] == pytest.approx(found["recall"]), "two places for two items"
    assert 0.0 < found["recall"] < 1.0, "a was bought before, d and e never"
    by_line = await evaluate(train, test, asked, SETTINGS)
    assert by_line["n"] > found["n"], "the other protocol asks before every event"
    assert found["gain"]["all"]["recall"]["interval"][0] <= found["gain"]["all"]["recall"]["gain"]


async def test_baskets_know_nothing_of_their_own_lines(tmp_path: Path) -> None:
    """u0's last order is of items nobody had: no list can name one, whatever was learned in it."""
    lines = ["user_id,session_id,item_id,event,ts"]
    lines += [f"u0,1,old{k % 3},purchase,{START + k}" for k in range(10)]
    lines += [f"u0,2,new{k % 3},purchase,{START + 100 + k}" for k in range(10)]
    path = tmp_path / "two.csv"
    path.write_text("\n".join(lines) + "\n")
    asked = question("live", group="user_id", k=20, exclude_seen=False)
    found = await evaluate_baskets(*split_by_time(read_events(path), 0.5), asked, SETTINGS)
    assert (found["n"], found["hit_rate"]) == (1, 0.0)


async def test_baskets_need_customers_and_sessions(tmp_path: Path) -> None:
    events = table(tmp_path / "a.csv", pairs(0, 5, START))
    with pytest.raises(ConfigurationError, match="--basket: needs --group user_id"):
        await evaluate_baskets(*split_by_time(events, 0.5), question("live"), SETTINGS)


def test_the_gain_is_paired_and_told_by_event_and_measure() -> None:
    rng = np.random.default_rng(3)
    n = 400
    groups, events = (
        [f"g{k // 4}" for k in range(n)],
        ["view" if k % 2 else "cart" for k in range(n)],
    )
    base = rng.random((n, 2))
    blend = base + 0.01  # always a little ahead, however wide either spreads
    sources = {"one": base, "other": base * 0.5}
    found = gains(blend, sources, groups, events, ["hit_rate", "mrr"])
    assert set(found) == {"all", "view", "cart"}
    for part in found.values():
        for row in part.values():
            assert row["source"] == "one"
            assert row["interval"] == pytest.approx([0.01, 0.01])
    low, high = measured(blend, groups, ["a", "b"])["a_interval"]
    assert high - low > 0.03, "of the blend alone the interval is wide"
    shifted = {"late": np.where(np.array(events)[:, None] == "cart", base + 1.0, 0.0), "one": base}
    apart = gains(blend, shifted, groups, events, ["hit_rate", "mrr"])
    assert apart["cart"]["mrr"]["source"] == "late" and apart["view"]["mrr"]["source"] == "one"
    assert apart["cart"]["mrr"]["interval"][1] < 0 < apart["view"]["mrr"]["interval"][0]
    assert gains(blend, {}, groups, events, ["hit_rate", "mrr"]) == {}


def test_parts_have_intervals_of_their_own_customers() -> None:
    values = np.array([[1.0], [1.0], [0.0], [1.0]])
    parts = by_label(values, ["a", "b", "c", "d"], ["x", "x", "y", "y"], ["ndcg"])
    assert parts["x"] == {"n": 2, "ndcg": 1.0, "ndcg_interval": [1.0, 1.0]}
    assert parts["y"]["ndcg_interval"] == [0.0, 1.0]


def test_intervals_of_many_columns_are_those_of_each() -> None:
    rng = np.random.default_rng(5)
    values, groups = rng.random((300, 3)), rng.integers(0, 40, 300)
    together = metrics.bootstrap_intervals(values, groups, seed=4, resamples=200)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    draws = np.random.default_rng(4).integers(0, len(members), size=(200, len(members)))
    for column in range(3):
        means = [
            values[np.concatenate([members[g] for g in draw]), column].mean() for draw in draws
        ]
        assert together[column] == pytest.approx(np.quantile(means, [0.025, 0.975]))
        alone = metrics.bootstrap_interval(values[:, column], groups, seed=4, resamples=200)
        assert alone == pytest.approx(tuple(together[column]))


@pytest.mark.parametrize("basket", [False, True])
def test_the_command_prints_tables_and_json_and_draws(tmp_path: Path, basket: bool) -> None:
    orders(tmp_path / "orders.csv")
    words = ["evaluate", "--train", "orders.csv", "--split", "0.5", "--group", "user_id"]
    words += ["--k", "5", "--compare", "--ablate", "--plots", "drawn"]
    words += ["--basket"] if basket else ["--targets", "purchase"]
    faust = [sys.executable, "-m", "faust", "-A", "stream_app.app"]
    done = subprocess.run(
        [*faust, *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *shown, last = done.stdout.strip().splitlines()
    result = orjson.loads(last)
    text = "\n".join(shown)
    for word in ("hit_rate", "repeat", "without repeat", "beside the best source", "wrote"):
        assert word in text
    assert ("average_precision" in result) == basket == ("rank_shares" not in result)
    assert result["n"] > 0 and result["by_source"]["repeat"]["hit_rate_interval"]
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert {"by_source.png", "by_ablation.png", "index.html"} <= drawn
    only = subprocess.run(
        [*faust, *words, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (line,) = only.stdout.strip().splitlines()
    again = orjson.loads(line)
    for found in (result, again):
        del found["predictions_per_second"]
    assert again == result
