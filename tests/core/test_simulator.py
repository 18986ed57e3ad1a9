"""The simulated shop: same seed same bytes, time order, learnable truth, counted dirt."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import orjson
import pytest

from stream_app.events import EventDecoder
from stream_app.ports import RawBatch
from stream_app.settings import load_settings
from stream_app.simulator import DIRT, LIVE, Shop
from stream_app.simulator.wire import TYPES, event_types


def small(**options: Any) -> Shop:
    return Shop(**({"seed": 5, "n_items": 400, "n_customers": 300, "rate": 50.0} | options))


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    shop = small(pace=LIVE, rate=400.0)
    return [orjson.loads(value) for _, value in shop.events(60_000)]


def test_the_same_seed_gives_the_same_bytes_however_they_are_asked_for() -> None:
    whole = list(small(dirty=0.05).events(30_000))
    shop = small(dirty=0.05)
    parts = [record for n in (1, 9_999, 20_000) for record in shop.events(n, chunk=777)]
    assert whole == parts
    assert whole != list(small(dirty=0.05, seed=6).events(30_000))


def test_events_are_well_formed_in_time_order_and_distinct(events: list[dict[str, Any]]) -> None:
    times = [event["ts"] for event in events]
    assert times == sorted(times)
    assert len({event["event_id"] for event in events}) == len(events)
    assert {event["event"] for event in events} == set(TYPES)
    for event in events:
        assert "session_id" in event and event["channel"] in {"web", "app", "store"}
        assert ("item_id" in event) == (event["event"] != "search")
        assert ("query" in event) == (event["event"] in {"search", "support"})
        assert ("rating" in event) == (event["event"] in {"rate", "review"})
        assert ("position" in event) == (event["event"] in {"impression", "click"})


def test_the_key_is_the_user_or_else_the_session() -> None:
    for key, value in small().events(2_000):
        event = orjson.loads(value)
        assert key.decode() == event.get("user_id", event["session_id"])


def test_some_customers_log_in_within_a_session(events: list[dict[str, Any]]) -> None:
    users_seen = defaultdict(list)
    for event in events:
        users_seen[event["session_id"]].append(event.get("user_id"))
    merges = guests = 0
    for users in users_seen.values():
        known = [user for user in users if user]
        guests += not known
        merges += bool(known) and users[0] is None
        assert len(set(known)) <= 1
        if known:  # nobody logs out
            assert all(users[users.index(known[0]) :])
    assert guests > 0.1 * len(users_seen)
    assert merges > 0.02 * len(users_seen)


def test_the_funnel_narrows_and_nothing_is_bought_that_was_not_put_in_the_cart(
    events: list[dict[str, Any]],
) -> None:
    counts = Counter(event["event"] for event in events)
    assert counts["view"] > counts["add_to_cart"] > counts["purchase"] > counts["refund"] > 0
    carts: dict[str, set[str]] = defaultdict(set)
    bought = set()
    for event in events:
        session, item = event["session_id"], event.get("item_id", "")
        if event["event"] == "add_to_cart":
            carts[session].add(item)
        if event["event"] == "purchase":
            assert item in carts[session]
            bought.add((session, item))
        if event["event"] in {"refund", "rate", "review", "support"}:
            assert (session, item) in bought


def test_popularity_has_a_long_tail_and_categories_cohere(events: list[dict[str, Any]]) -> None:
    shop = small(pace=LIVE, rate=400.0)
    views = [event for event in events if event["event"] == "view"]
    counts = np.sort(np.array(list(Counter(event["item_id"] for event in views).values())))[::-1]
    assert counts[:40].sum() > 0.25 * counts.sum()
    assert len(counts) > 350
    last: dict[str, int] = {}
    same = pairs = 0
    for event in views:
        item = int(event["item_id"][1:])
        before = last.get(event["session_id"])
        if before is not None:
            pairs += 1
            same += shop.catalog.category[before] == shop.catalog.category[item]
        last[event["session_id"]] = item
    assert same / pairs > 0.5


def test_counting_what_follows_what_finds_the_true_neighbours() -> None:
    shop = small(n_items=200, detail_share=0.0)
    rows = shop.rows(150_000)
    views = rows[event_types(rows["what"]) == TYPES.index("view")]
    views = views[np.argsort(views["session"], kind="stable")]
    follows = views["session"][1:] == views["session"][:-1]
    table = np.zeros((200, 200))
    np.add.at(table, (views["item"][:-1][follows], views["item"][1:][follows]), 1)
    np.fill_diagonal(table, 0)
    popular = table.sum(axis=0)
    hits = base = 0
    for item in range(200):
        truth = set(shop.catalog.substitutes[item]) | set(shop.catalog.complements[item])
        hits += len(truth & set(np.argsort(-table[item], kind="stable")[:10].tolist()))
        base += len(truth & set(np.argsort(-popular, kind="stable")[:10].tolist()))
    assert hits > 3 * base
    assert hits / 200 > 4.0


def test_items_and_customers_keep_arriving() -> None:
    shop = small(pace=LIVE, rate=400.0, detail_share=1.0)
    rows = shop.rows(60_000)
    seen = rows[rows["item"] >= 0]
    assert (seen["ts_s"] >= 0).all()
    # A session starts after its items were launched and its customer joined.
    assert (shop.catalog.launch_s[seen["item"]] <= seen["ts_s"]).all()
    assert (shop.customers.join_s[rows["who"]] <= rows["ts_s"]).all()
    late = np.flatnonzero(shop.catalog.launch_s > 0)
    assert np.isin(late, seen["item"]).mean() > 0.5
    detailed = [orjson.loads(value) for _, value in shop.records(rows[:500])]
    assert all("title" in event for event in detailed if event["event"] == "view")


def test_the_rate_of_event_time_is_near_what_was_asked_for() -> None:
    shop = small(rate=100.0, n_customers=2_000)
    rows = shop.rows(800_000)  # most of a day, once the first sessions are under way
    span_s = rows["ts_s"][-1] - rows["ts_s"][0]
    assert 70 < len(rows) / span_s < 170


def test_dirt_is_counted_by_kind_and_is_what_it_says() -> None:
    shop = small(dirty=0.1)
    records = list(shop.events(8_000))
    assert set(shop.dirt) == set(DIRT)
    assert 0.08 < shop.dirt.total() / len(records) < 0.12
    found: Counter[str] = Counter()
    seen: set[bytes] = set()
    for _, value in records:
        if value in seen:
            found["duplicate"] += 1
            continue
        seen.add(value)
        if len(value) > 200_000:
            found["oversize"] += 1
            continue
        try:
            value.decode()
        except UnicodeDecodeError:
            found["not_utf8"] += 1
            continue
        try:
            event = orjson.loads(value)
        except orjson.JSONDecodeError:
            found["malformed_json"] += 1
            continue
        someone = "user_id" in event or "session_id" in event
        something = "item_id" in event or event["event"] == "search"
        if event["event"] == "teleport":
            found["unknown_type"] += 1
        elif not (someone and something and "ts" in event):
            found["missing_fields"] += 1
        elif not isinstance(event["ts"], float) or not 1e9 < event["ts"] < 1e10:
            found["absurd_time"] += 1
    for kind in set(DIRT) - {"late"}:
        assert found[kind] == shop.dirt[kind], kind


def test_the_decoder_sets_exactly_the_unusable_dirt_aside() -> None:
    shop = small(dirty=0.2)
    values = [value for _, value in shop.events(5_000)]
    n = len(values)
    batch = RawBatch("clickstream", 0, n, range(n), [None] * n, values, [0] * n, [()] * n)
    rejects = EventDecoder(load_settings({})).decode(batch).rejects
    assert len(rejects) == shop.dirt.total() - shop.dirt["duplicate"] - shop.dirt["late"]
    reasons = Counter(reject.reason for reject in rejects)
    assert reasons["oversize"] == shop.dirt["oversize"]
    assert reasons["not_utf8"] == shop.dirt["not_utf8"]
    assert reasons["malformed_json"] == shop.dirt["malformed_json"]
    assert reasons["unknown_event"] == shop.dirt["unknown_type"]
    assert reasons["missing_customer"] and reasons["missing_item"] and reasons["missing_field"]
    assert reasons["absurd_time"] and reasons["wrong_type"]


def test_the_caller_may_stamp_events_with_real_time() -> None:
    shop = small()
    ts = 1_800_000_000.0 + np.arange(100) / 8
    events = [orjson.loads(value) for _, value in shop.records(shop.rows(100), ts)]
    assert [event["ts"] for event in events] == ts.tolist()


def test_catalog_and_customers_can_be_told_beforehand() -> None:
    shop = small()
    items = [orjson.loads(value) for _, value in shop.catalog.records()]
    assert len(items) == 400 and set(items[0]) == {
        "item_id", "title", "category", "brand", "price", "tags",
    }  # fmt: skip
    users = [key.decode() for key, _ in shop.customers.records()]
    assert 0 < len(users) < 300 and users[0].startswith("u")
