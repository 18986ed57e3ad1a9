"""Evaluation on small event files whose answers are known."""

import json
from pathlib import Path

import pytest

from stream_app.core.scoring import SOURCES
from stream_app.errors import ConfigurationError, EventFileError
from stream_app.offline.evaluate import (
    Question,
    evaluate,
    group_of,
    sources_of,
    split_by_time,
    targets_of,
)
from stream_app.offline.eventfile import EventTable, read_events
from stream_app.offline.steplists import evaluate_lists
from stream_app.settings import load_settings

SETTINGS = load_settings({})


def table(path: Path, rows: list[tuple[str, str, str, int]]) -> EventTable:
    lines = ["session_id,item_id,event,ts", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return read_events(path)


def pairs(first: int, count: int, start: int) -> list[tuple[str, str, str, int]]:
    """Sessions that always look at x and then at y, with other items between them."""
    rows = []
    for k in range(first, first + count):
        ts = start + 10_000 * k
        rows += [(f"s{k}", "x", "view", ts), (f"s{k}", "y", "view", ts + 5)]
        rows += [(f"t{k}", f"z{k % 7}", "view", ts + 6), (f"t{k}", f"z{k % 5}", "view", ts + 9)]
    return rows


def question(protocol: str, **changes: object) -> Question:
    values = {
        "protocol": protocol,
        "group": "session_id",
        "k": 1,
        "targets": targets_of(None),
        "exclude_seen": True,
    }
    return Question(**(values | changes))  # type: ignore[arg-type]


async def test_frozen_knows_what_train_taught_and_live_learns_during_the_test(
    tmp_path: Path,
) -> None:
    train = table(tmp_path / "train.csv", [("a", "q", "view", 1_600_000_000)])
    test = table(tmp_path / "test.csv", pairs(0, 30, 1_600_000_100))
    frozen = await evaluate(train, test, question("frozen"), SETTINGS)
    live = await evaluate(train, test, question("live"), SETTINGS)
    assert frozen["n"] == live["n"] == 60
    assert frozen["hit_rate"] == 0.0, "nothing about x and y was in the training file"
    assert live["hit_rate"] > 0.4, "y follows x in every session but the first"


async def test_a_prediction_never_sees_its_own_event(tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", [("a", "q", "view", 1_600_000_000)])
    rows = [("s", "x", "view", 1_600_000_100), ("s", "y", "view", 1_600_000_105)]
    result = await evaluate(train, table(tmp_path / "test.csv", rows), question("live"), SETTINGS)
    assert (result["n"], result["hit_rate"]) == (1, 0.0)


async def test_targets_sources_and_steps_are_counted_apart(tmp_path: Path) -> None:
    rows = pairs(0, 40, 1_600_000_000)
    rows += [(f"s{k}", "x", "cart", 1_600_000_008 + 10_000 * k) for k in range(40)]
    events = table(tmp_path / "all.csv", sorted(rows, key=lambda row: row[3]))
    train, test = split_by_time(events, 0.5)
    asked = question("live", k=5, targets=targets_of("cart"), exclude_seen=False, compare=True)
    result = await evaluate(train, test, asked, SETTINGS)
    assert result["targets"] == ["add_to_cart"]
    assert set(result["by_event"]) == {"add_to_cart"}
    assert set(result["by_source"]) == set(SOURCES) - {"exploration"}
    assert result["hit_rate"] >= max(row["hit_rate"] for row in result["by_source"].values())
    json.dumps(result)


def test_what_is_blended_is_what_the_worker_blends_unless_sources_are_named() -> None:
    settings = SETTINGS.model_copy(update={"extra_sources": "content"})
    usual = question("live", compare=True, ablate=True)
    own = {"co_occurrence", "two_hop", "next_item", "popularity", "repeat", "return"}
    assert set(usual.blended(settings)) == own | {"content"}
    assert set(usual.alone()) == set(SOURCES) - {"exploration"}
    assert usual.variants(settings)["without content"] == own
    everything = question("live", sources=sources_of("all"))
    assert set(everything.blended(settings)) == set(SOURCES) - {"exploration"}
    assert question("live", sources=sources_of("two_hop,repeat")).blended(settings) == [
        *("two_hop", "repeat"),
    ]


async def test_the_same_files_give_the_same_result(tmp_path: Path) -> None:
    events = table(tmp_path / "all.csv", pairs(0, 20, 1_600_000_000))
    results = []
    for _ in range(2):
        result = await evaluate(*split_by_time(events, 0.5), question("live", k=3), SETTINGS)
        del result["predictions_per_second"]
        results.append(result)
    assert results[0] == results[1]


async def test_wrong_questions_name_the_cure(tmp_path: Path) -> None:
    events = table(tmp_path / "a.csv", [("a", "q", "view", 1_600_000_000)])
    with pytest.raises(ConfigurationError, match="--targets: 'zap'"):
        targets_of("zap")
    with pytest.raises(ConfigurationError, match="--sources magic: choose of"):
        sources_of("magic")
    with pytest.raises(EventFileError, match="user_id"):
        group_of(events, events, "user_id")
    with pytest.raises(EventFileError, match="nothing to evaluate"):
        await evaluate(events, events.part(0, 0), question("live"), SETTINGS)


async def test_the_lists_of_each_step_stand_beside_home_in_as_many_places(tmp_path: Path) -> None:
    rows = []
    for k in range(30):
        ts = 1_600_000_000 + 10_000 * k
        rows += [(f"s{k}", "x", "view", ts), (f"s{k}", "y", "view", ts + 5)]
        rows += [(f"s{k}", "x", "cart", ts + 9), (f"s{k}", "x", "purchase", ts + 12)]
    train, test = split_by_time(table(tmp_path / "all.csv", rows), 0.5)
    found = await evaluate_lists(
        train, test, SETTINGS, group="session_id", targets=targets_of(None)
    )
    steps = found["by_step"]
    assert set(steps) == {
        *("browse: all", "browse: home"),
        *("cart: all", "cart: cart", "cart: cart_items", "cart: home"),
        "every step: all",
    }
    assert steps["every step: all"]["n"] == steps["browse: all"]["n"] + steps["cart: all"]["n"]
    reminder = steps["cart: cart_items"]
    assert (reminder["n"], reminder["places"], reminder["hit_rate"]) == (15, 1.0, 1.0)
    assert steps["cart: cart"]["hit_rate"] == 0.0, "what is bought was in the cart"
    assert steps["browse: home"]["gain_interval"] == [0.0, 0.0]
    fresh = await evaluate_lists(
        train, test, SETTINGS, group="session_id", targets=targets_of(None), fresh=True
    )
    assert set(fresh["by_step"]) == {"browse: all", "browse: home", "every step: all"}
