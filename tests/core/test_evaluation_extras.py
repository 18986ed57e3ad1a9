"""Ablations, diversity, ratings, pictures and tuning of an evaluation."""

import json
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_app.core.model import Model
from stream_app.errors import ConfigurationError
from stream_app.model_file import load_model, model_from
from stream_app.offline.diversity import diversity_cost, last_words
from stream_app.offline.evaluate import evaluate, split_by_time, weights_of
from stream_app.offline.eventfile import read_events
from stream_app.offline.plots import write_plots
from stream_app.offline.ratings import rating_errors
from stream_app.offline.tune import SPACE, tune_on, write_model
from stream_app.settings import load_settings
from tests.core.test_evaluate import SETTINGS, pairs, question, table


async def test_ablations_diversity_and_pictures_of_one_evaluation(tmp_path: Path) -> None:
    events = table(tmp_path / "all.csv", pairs(0, 40, 1_600_000_000))
    asked = question("live", k=5, exclude_seen=False, compare=True, ablate=True)
    result = await evaluate(*split_by_time(events, 0.5), asked, SETTINGS)
    assert set(result["by_ablation"]) == {f"without {name}" for name in asked.blended(SETTINGS)}
    assert 0.0 <= result["diversity"] <= 1.0
    assert sum(result["rank_shares"]) == pytest.approx(result["hit_rate"])
    written = write_plots(result, tmp_path / "plots")
    assert {path.name for path in written} >= {"by_source.png", "ranks.png", "index.html"}
    assert all(path.stat().st_size > 500 for path in written)
    assert "hit_rate" in (tmp_path / "plots" / "index.html").read_text()
    json.dumps(result)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--plots"):
        write_plots(result, tmp_path / "file" / "below")


async def test_more_weight_of_unlikeness_gives_lists_of_more_categories(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    lines = ["user_id,item_id,event,ts,title"]
    for k in range(400):
        kind = ("BAG", "MUG")[k // 5 % 2]  # five of a kind, one after the other
        lines.append(f"u{k // 20},{kind}{rng.integers(12)},view,{1_600_000_000 + k},RED {kind}")
    path = tmp_path / "titles.csv"
    path.write_text("\n".join(lines) + "\n")
    events = last_words(read_events(path))
    assert set(events.texts["category"]) == {"BAG", "MUG"}
    found = await diversity_cost(
        *split_by_time(events, 0.5), SETTINGS, group="user_id", k=6, weights=weights_of("0,0.4,0.9")
    )
    none, some, much = found["by_weight"].values()
    assert found["n"] == 190 and none["unlike"] < some["unlike"] <= much["unlike"]
    assert much["hit_rate"] <= none["hit_rate"] and 1.0 <= none["categories"] <= 2.0
    with pytest.raises(ConfigurationError, match="--weights '0,2'"):
        weights_of("0,2")


async def test_what_was_bought_is_not_recommended_when_asked(tmp_path: Path) -> None:
    rows = [("s", "x", "purchase", 1_600_000_000 + k * 100_000) for k in range(6)]
    events = table(tmp_path / "all.csv", rows)
    with_it = question("live", k=5, exclude_seen=False)
    without = question("live", k=5, exclude_seen=False, exclude_bought=True)
    halves = split_by_time(events, 0.5)
    assert (await evaluate(*halves, with_it, SETTINGS))["hit_rate"] == 1.0
    assert (await evaluate(*halves, without, SETTINGS))["hit_rate"] == 0.0


async def test_ratings_of_a_file_are_predicted_before_they_are_learned(tmp_path: Path) -> None:
    lines = ["user_id,item_id,event,ts,rating"]
    rng = np.random.default_rng(1)
    for k in range(400):
        user, item = rng.integers(0, 10), rng.integers(0, 5)
        stars = 3.0 + (user % 3) - 1 + (item % 2)
        lines.append(f"u{user},i{item},rate,{1_600_000_000 + k},{stars}")
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(lines) + "\n")
    halves = split_by_time(read_events(path), 0.5)
    result = await evaluate(*halves, question("live", group="user_id", k=3), SETTINGS)
    assert result["ratings"]["n"] == 200
    spread = float(np.std([3.0 + (u % 3) - 1 + (i % 2) for u in range(10) for i in range(5)]))
    assert result["ratings"]["rmse"] < 0.5 * spread, "the mean alone misses by the spread"
    assert rating_errors([], [], live=True) == {}


async def test_tuning_tries_the_defaults_first_and_writes_a_file_the_setting_loads(
    tmp_path: Path,
) -> None:
    pytest.importorskip("optuna")
    events = table(tmp_path / "all.csv", pairs(0, 15, 1_600_000_000))
    found = await tune_on(events, SETTINGS, split=0.6, group=None, trials=2)
    assert set(found.parameters) == set(SPACE) and found.value >= found.default > 0
    write_model(found.parameters, tmp_path / "model.json")
    loaded = load_model(tmp_path / "model.json")
    assert loaded.hub_power == found.parameters["hub_power"]
    settings = load_settings({"STREAM_APP_MODEL_FILE": str(tmp_path / "model.json")})
    assert load_model(settings.model_file) == loaded
    assert load_model(None) == Model()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"neighbours_max": 99}, "'neighbours_max' is none of"),
        ({"hub_power": -1}, "hub_power=-1"),
        ({"hub_power": True}, "hub_power=True"),
        ({"pair_half_life_s": 0}, "half-lives"),
        ({"trend_short_s": 0}, "half-lives"),
        ({f"weight_{n}": 0 for n in ("direct", "two_hop", "forward", "popular")}, "sum of weights"),
    ],
)
def test_a_wrong_model_file_names_what_is_wrong(given: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        model_from(given)


def test_an_unreadable_model_file_is_named(tmp_path: Path) -> None:
    for content in (b"{", orjson.dumps([1])):
        (tmp_path / "m.json").write_bytes(content)
        with pytest.raises(ConfigurationError, match="STREAM_APP_MODEL_FILE"):
            load_model(tmp_path / "m.json")
