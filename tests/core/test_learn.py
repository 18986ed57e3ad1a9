"""Customers learned batch by batch equal a plain recompute of the log, on every prefix."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.core.journey import STEP
from stream_app.core.learn import APPLIED, DUPLICATE, ERASED, EVENT, learn
from stream_app.core.model import (
    BOUGHT_MAX,
    CART_MAX,
    KIND,
    KIND_WEIGHTS,
    RING_MAX,
    SEEN_MAX,
    VECTOR_MAX,
    Model,
)
from stream_app.core.state import decode_users, new_partition, new_users
from stream_app.offline.recompute import recomputed
from stream_app.offline.recompute_customers import books
from tests.core.logs import JOURNEY, START_S, Related, Stream, cuts, logs, pieces

WEIGHT = {name: float(KIND_WEIGHTS[number]) for name, number in KIND.items()}


def events(*rows: Mapping[str, float | str]) -> NDArray[np.void]:
    """Events of customer 1, item 1, a second apart, unless a row says otherwise."""
    batch = np.zeros(len(rows), EVENT)
    for k, row in enumerate(rows):
        fields = {"customer": 1, "item": 1, "ts": START_S + k, "offset": k, "kind": "view", **row}
        for name, value in fields.items():
            batch[k][name] = KIND[value] if isinstance(value, str) else value
    return batch


def states(stream: Stream) -> NDArray[np.void]:
    """The customers of ``stream``, by id."""
    ids = np.array(sorted(stream.blobs), np.uint64)
    return decode_users(ids, [stream.blobs[key] for key in ids.tolist()])


def kept(stream: Stream) -> dict[int, bytes | None]:
    """What the stream stores of each customer, as far as a recompute of their own log knows it."""
    return {key: books(blob) for key, blob in stream.blobs.items()}


@settings(max_examples=40, deadline=None)
@given(logs())
def test_online_equals_the_recompute_on_every_prefix(log: NDArray[np.void]) -> None:
    stream, batch = Stream(), recomputed([], JOURNEY)
    for k in range(len(log)):
        learned = stream.learn(log[k : k + 1])
        batch.apply(log[k : k + 1])
        assert learned.transitions.tobytes() == batch.transitions().tobytes()
        assert kept(stream) == {key: who.blob() for key, who in batch.customers.items()}
        (partition,) = stream.partition
        assert (partition["applied"], partition["rejected"]) == (batch.applied, batch.rejected)
        assert partition["step_counts"].tolist() == batch.step_counts().tolist()


@settings(max_examples=40, deadline=None)
@given(logs(), st.data())
def test_batch_boundaries_do_not_matter(log: NDArray[np.void], data: st.DataObject) -> None:
    whole, cut = Stream(), Stream()
    at_once = whole.learn(log).transitions
    parts = [cut.learn(part).transitions for part in pieces(log, data.draw(cuts(len(log))))]
    assert np.concatenate(parts).tobytes() == at_once.tobytes()
    assert cut.blobs == whole.blobs
    assert cut.partition.tobytes() == whole.partition.tobytes()


def test_a_long_life_stays_within_its_bounds() -> None:
    rng = np.random.default_rng(1)
    log = np.zeros(5_000, EVENT)
    log["customer"], log["ts"] = 1, START_S + np.arange(5_000) * 10.0
    log["item"] = rng.integers(1, 300, 5_000)
    log["kind"] = rng.choice([KIND["view"], KIND["add_to_cart"], KIND["purchase"]], 5_000)
    log["event_id"], log["offset"] = np.arange(1, 5_001), np.arange(5_000)
    stream = Stream()
    for part in np.array_split(log, 23):
        stream.learn(part)
    (user,) = states(stream)
    counts = ("ring_n", "seen_n", "vector_n", "cart_n", "bought_n")
    limits = (RING_MAX, SEEN_MAX, VECTOR_MAX, CART_MAX, BOUGHT_MAX)
    assert tuple(user[name] for name in counts) == limits
    assert kept(stream) == {1: recomputed([log], JOURNEY).customers[1].blob()}


def test_a_repeated_event_id_within_the_window_is_learned_once() -> None:
    first = {"event_id": 77}
    others = [{"event_id": 100 + k} for k in range(SEEN_MAX - 1)]
    stream = Stream()
    learned = stream.learn(events(first, *others, first))
    assert learned.status.tolist() == [APPLIED] * SEEN_MAX + [DUPLICATE]
    assert (stream.partition["applied"][0], stream.partition["rejected"][0]) == (SEEN_MAX, 1)
    assert states(stream)["events"].tolist() == [SEEN_MAX]


def test_the_events_of_one_record_are_taken_or_dropped_together() -> None:
    """An order of two products, sent twice: one record each, whatever a recompute goes by."""
    order: list[dict[str, float | str]] = [
        {"kind": "purchase", "item": item, "event_id": 7, "offset": 1} for item in (1, 2)
    ]
    again = [{**row, "offset": 3} for row in order]
    log = events({"offset": 0}, *order, {"offset": 2}, *again, {"offset": 4})
    stream, batch = Stream(), recomputed([log], JOURNEY)
    stream.learn(log)
    (partition,) = stream.partition
    assert (partition["applied"], partition["rejected"]) == (4, 1)
    assert (batch.applied, batch.rejected) == (4, 1)
    assert kept(stream) == {1: batch.customers[1].blob()}
    assert states(stream)["purchases"].tolist() == [2]


def test_a_repeat_beyond_the_window_is_taken_for_a_new_event() -> None:
    others = [{"event_id": 100 + k} for k in range(SEEN_MAX)]
    learned = Stream().learn(events({"event_id": 77}, *others, {"event_id": 77}))
    assert learned.status.tolist() == [APPLIED] * (SEEN_MAX + 2)


@pytest.mark.parametrize(
    ("second", "sessions"),
    [
        ({"ts": START_S + 1800.0}, 1),
        ({"ts": START_S + 1800.5}, 2),
        ({"ts": START_S - 9999.0}, 1),
        ({"ts": START_S + 1, "session": 8}, 2),
        ({"ts": START_S + 5000.0, "session": 7}, 1),
        ({"ts": START_S + 5000.0, "session": 0}, 2),
    ],
)
def test_sessions_end_with_their_id_or_after_half_an_hour(
    second: dict[str, float], sessions: int
) -> None:
    begin = {"session": 7 if "session" in second else 0}
    stream = Stream()
    learned = stream.learn(events(begin, {"item": 2, **second}))
    assert states(stream)["sessions"].tolist() == [sessions]
    assert learned.transitions["previous"][1, 0] == (1 if sessions == 1 else 0)


def test_a_refund_takes_back_the_pairs_of_its_purchase_and_no_others() -> None:
    later = START_S + 5000.0
    stream = Stream()
    learned = stream.learn(
        events(
            {"item": 5},
            {"item": 6},
            {"item": 7, "ts": later, "kind": "purchase", "value": 20.0},
            {"item": 8, "ts": later + 60},
            {"item": 7, "ts": later + 90, "kind": "refund", "value": 20.0},
            {"item": 7, "ts": later + 95, "kind": "refund", "value": 20.0},
        )
    )
    bought, taken_back = learned.transitions[[2, 4]]
    assert (bought["weight"], taken_back["weight"]) == (WEIGHT["purchase"], -WEIGHT["purchase"])
    assert taken_back["previous"].tolist() == bought["previous"].tolist() == [0, 0, 0]
    assert taken_back["ts"] == bought["ts"]
    assert taken_back["gap_s"].tolist() == bought["gap_s"].tolist()
    assert len(learned.transitions) == 5, "the second refund has nothing left to take back"
    assert states(stream)["bought_n"].tolist() == [0]


@pytest.mark.parametrize("views", [3, 40])
def test_a_refund_takes_popularity_back_however_many_events_came_between(views: int) -> None:
    week = START_S + 7 * 86_400.0
    between = [{"item": 100 + k, "ts": START_S + 60.0 + k} for k in range(views)]
    stream = Stream()
    log = events(
        {"item": 5},
        {"item": 7, "ts": START_S + 9.5, "kind": "purchase", "value": 20.0},
        *between,
        {"item": 7, "ts": week, "kind": "refund", "value": 20.0},
        {"item": 7, "ts": week + 5, "kind": "refund", "value": 20.0},
    )
    learned = stream.learn(log)
    assert len(learned.transitions) == 2 + views + 1, "once"
    (taken_back,) = learned.transitions[-1:]
    assert taken_back["previous"].tolist() == ([5, 0, 0] if views < RING_MAX else [0, 0, 0])
    assert (taken_back["item"], taken_back["ts"]) == (7, START_S + 9.0), "as of the purchase"
    assert taken_back["weight"] == -WEIGHT["purchase"]
    related = Related()
    related.merge(learned.transitions)
    tables = related.tables
    bought, viewed = tables.ensure(np.array([7, 5], np.uint64)).tolist()
    popularity = tables.nodes["popularity"]
    assert abs(popularity[bought]) < 1e-4 * popularity[viewed]
    again = recomputed([], JOURNEY)
    again.apply(log)
    assert again.transitions().tobytes() == learned.transitions.tobytes()


def test_a_transition_tells_how_long_ago_each_item_was_in_whole_seconds() -> None:
    times = (0.9, 60.2, 100.0, 50.0, 100_000.0)
    log = events(*({"item": k + 1, "ts": START_S + t, "session": 7} for k, t in enumerate(times)))
    gaps = Stream().learn(log).transitions["gap_s"].tolist()
    assert gaps == [[0, 0, 0], [60, 0, 0], [40, 100, 0], [0, 0, 50], [65_535, 65_535, 65_535]]


def test_a_purchase_is_taken_back_with_the_gaps_it_was_learned_with() -> None:
    stream = Stream()
    learned = stream.learn(
        events(
            {"item": 5, "ts": START_S + 0.7},
            {"item": 7, "ts": START_S + 99.9, "kind": "purchase", "value": 20.0},
            {"item": 7, "ts": START_S + 500.0, "kind": "refund", "value": 20.0},
        )
    )
    bought, taken_back = learned.transitions[1:]
    assert taken_back["gap_s"].tolist() == bought["gap_s"].tolist() == [99, 0, 0]


def test_a_long_absence_is_a_step_of_the_journey() -> None:
    stream = Stream()
    away = START_S + 30 * 86_400.0 + 10.0
    stream.learn(events({}, {"ts": away, "kind": "support", "item": 0}))
    (user,) = states(stream)
    assert user["previous_step"] == STEP["dormant"]
    assert user["entered_at"] == away


def test_frozen_learning_leaves_what_the_partition_learned_of_all_customers() -> None:
    live, frozen = new_partition(), new_partition()
    log = events({}, {}, {"item": 2}, {"item": 1})
    for partition, globals_too in ((live, True), (frozen, False)):
        users = new_users(np.array([1], np.uint64))
        learn(
            users,
            np.zeros(4, np.int64),
            log,
            partition,
            Model(),
            JOURNEY.plan,
            learn_globals=globals_too,
        )
        assert partition["applied"][0] == 4
    counted = ("applied", "step_counts")
    for name in frozen.dtype.names or ():
        if name not in counted:
            assert frozen[name].tobytes() == new_partition()[name].tobytes(), name
    assert live.tobytes() != frozen.tobytes()


def test_an_erased_customer_is_new_again() -> None:
    log = events({"event_id": 5}, {"kind": "purchase"}, {"kind": "erase", "item": 0})
    stream = Stream()
    learned = stream.learn(log)
    assert learned.status.tolist() == [APPLIED, APPLIED, ERASED]
    assert stream.blobs == {}
    assert recomputed([log], JOURNEY).customers == {}
    again = events({"event_id": 5, "offset": 9})
    assert stream.learn(again).status.tolist() == [APPLIED]
    assert kept(stream) == {1: recomputed([log, again], JOURNEY).customers[1].blob()}
