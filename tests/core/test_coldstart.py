"""New items in a shop where a title tells which go together."""

from pathlib import Path

import pytest

from stream_app.errors import EventFileError
from stream_app.offline.coldstart import BEFOREHAND, WITH, WITHOUT, cold_start
from stream_app.offline.evaluate import split_by_time
from stream_app.offline.eventfile import EventTable, read_events
from tests.core.test_evaluate import SETTINGS

OLD, NEW = 240, 60
WORDS = ("anchor", "bramble", "copper", "dragon", "ember", "falcon")


def shop(path: Path) -> EventTable:
    """Customers look at things of one word; then new ones of the same word come up, one each."""
    lines = ["user_id,item_id,event,ts,title"]
    for k in range(OLD + NEW):
        word = WORDS[k % 6]
        item = f"{word}-{k // 6 % 4}" if k < OLD else f"{word}-new-{(k - OLD) // 30}"
        lines.append(f"u{k % 30},{item},view,{1_600_000_000 + 60 * k},{word} {word} thing")
    path.write_text("\n".join(lines) + "\n")
    return read_events(path)


async def test_a_catalog_that_is_there_beforehand_reaches_items_before_their_first_event(
    tmp_path: Path,
) -> None:
    halves = split_by_time(shop(tmp_path / "shop.csv"), OLD / (OLD + NEW))
    found = await cold_start(*halves, SETTINGS, group="user_id", k=20)
    assert (found["new_items"], found["first_events"]) == (12, 12)
    assert found["predictions_of_new_items"] == NEW - 12
    variants = found["variants"]
    assert variants[WITHOUT]["first"]["hit_rate"] == 0.0, "nobody knew it"
    assert variants[WITH]["first"]["hit_rate"] == 0.0, "its first event describes it"
    assert variants[BEFOREHAND]["first"]["hit_rate"] > 0.2
    gain = variants[BEFOREHAND]["later_gain"]
    low, high = gain["hit_rate_interval"]
    assert low <= gain["hit_rate"] <= high
    assert variants[WITHOUT]["later_gain"]["hit_rate_interval"] == [0.0, 0.0]
    assert all(0.0 < part["recommended"] <= 1.0 for part in variants.values())


async def test_fewer_lists_measure_the_same_predictions_of_new_items(tmp_path: Path) -> None:
    halves = split_by_time(shop(tmp_path / "shop.csv"), 0.5)
    all_lists = await cold_start(*halves, SETTINGS, group="user_id", k=20)
    some = await cold_start(*halves, SETTINGS, group="user_id", k=8, every=7)
    for name in ("new_items", "predictions_of_new_items", "first_events"):
        assert some[name] == all_lists[name] > 0
    for name, part in some["variants"].items():
        assert part["recommended"] <= all_lists["variants"][name]["recommended"]


async def test_without_new_items_there_is_nothing_to_measure(tmp_path: Path) -> None:
    events = shop(tmp_path / "shop.csv").part(0, OLD)
    with pytest.raises(EventFileError, match="no new item"):
        await cold_start(*split_by_time(events, 0.5), SETTINGS, group="user_id", k=20)
