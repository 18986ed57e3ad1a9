"""What the demo counts and shows, from records as the worker publishes them."""

import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from stream_app.demo.feed import FileSource, ShopSource
from stream_app.demo.options import Options, read_options
from stream_app.demo.stats import Board, Freshness, places_max
from stream_app.demo.view import line, screen, summary
from stream_app.errors import ConfigurationError


def record(user: str, step: str, items: list[str], *, offset: int = 0) -> dict[str, Any]:
    return {
        "user_id": user,
        "version": offset + 1,
        "generated_at": 1.0,
        "step": step,
        "previous_step": "discover",
        "entered_at": 1.0,
        "source": {"topic": "clickstream", "partition": 0, "offset": offset},
        "lists": {"home": [{"item_id": item, "score": 1.0, "reason": {}} for item in items]},
    }


def test_freshness_is_matched_whichever_side_is_heard_of_first() -> None:
    freshness = Freshness()
    assert math.isnan(freshness.quantiles_ms()[0])
    freshness.sent((0, 7), 10.0)
    freshness.seen((0, 7), 10.1)
    freshness.seen((1, 3), 20.2)
    freshness.sent((1, 3), 20.0)
    assert sorted(round(s, 6) for s in freshness.seconds) == [0.1, 0.2]
    p50, p99 = freshness.quantiles_ms()
    assert p50 == pytest.approx(150.0) and 195.0 < p99 <= 200.0


def test_what_is_remembered_is_bounded() -> None:
    freshness = Freshness()
    for offset in range(places_max + 10):
        freshness.sent((0, offset), 0.0)
    freshness.seen((0, 5), 1.0)  # forgotten
    freshness.seen((0, 15), 1.0)
    assert list(freshness.seconds) == [1.0]


def test_each_customer_is_counted_in_the_step_they_are_in_now() -> None:
    board = Board()
    for offset, (user, step) in enumerate([("a", "browse"), ("b", "browse"), ("a", "cart")]):
        board.list_seen(record(user, step, ["i1"], offset=offset), 1.0)
    assert board.funnel() == {"browse": 1, "cart": 1}
    assert board.lists == 3


def test_a_busy_customer_is_followed_and_left_when_silent() -> None:
    board = Board()
    for user in ("a", "b"):
        for _ in range(9):
            board.event_sent(user, {"event": "view", "item_id": "i1"})
    board.list_seen(record("newcomer", "browse", ["i1"]), 1.0)
    assert board.followed is None
    board.list_seen(record("a", "browse", ["i1", "i2"]), 1.0)
    board.list_seen(record("b", "browse", ["i9"]), 2.0)
    board.list_seen(record("a", "consider", ["i3", "i1"]), 3.0)
    assert board.followed is not None
    assert board.followed.user == "a" and board.followed.step == "consider"
    assert board.followed.items == ("i3", "i1") and board.followed.before == ("i1", "i2")
    board.list_seen(record("b", "browse", ["i9"]), 60.0)
    assert board.followed.user == "b"


def test_the_screen_the_line_and_the_summary_show_what_was_seen() -> None:
    board = Board(sent=10, applied=8, trending=[{"item_id": "i2", "score": 3.0}])
    board.mark(0.0)
    board.sent = 30
    board.dead["malformed_json"] = 2
    for _ in range(5):
        board.event_sent("u1", {"event": "view", "item_id": "i1"})
    board.freshness.sent((0, 1), 0.0)
    board.list_seen(record("u1", "browse", ["i1"]), 0.5)
    board.list_seen(record("u1", "cart", ["i2", "[red]"], offset=1), 1.0)
    console = Console(width=120, record=True, force_terminal=False)
    console.print(screen(board, {"i1": "Red kettle", "i2": "Tea"}, at_s=2.0, left_s=5.0))
    shown = console.export_text()
    for text in ("5 s to go", "10/s", "Red kettle", "Tea", "new", "[red]", "discover → cart"):
        assert text in shown
    assert "in 10/s" in line(board, at_s=2.0, left_s=5.0)
    text = summary(board)
    assert "events sent        30" in text and "2 (malformed_json 2)" in text
    assert "p50 1000 ms" in text and "cart" in text


def test_sources_give_what_is_asked_for_until_there_is_no_more(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,ts,title\nu1,a,2,Apple\nu1,b,1,\n,c,3,\n")
    source = FileSource(path)
    assert source.titles == {"a": "Apple"}
    taken = source.take(2, 0.0) + source.take(5, 0.0)
    assert [orjson.loads(value)["item_id"] for _, value in taken] == ["b", "a", "c"]
    assert [key for key, _ in taken] == [b"u1", b"u1", None]
    assert source.take(5, 0.0) == []
    shop = ShopSource(400.0)
    assert len(shop.take(20, 1_700_000_000.0)) == 20
    assert shop.take(0, 1_700_000_000.0) == []


@pytest.mark.parametrize("text", ["zero", "0", "-3", "nan", "inf"])
def test_a_wrong_option_is_named_with_its_cure(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"DEMO_SECONDS='{text}': must be a number above"):
        read_options({"DEMO_SECONDS": text})
    assert read_options({}) == Options(60.0, 400.0, None)
