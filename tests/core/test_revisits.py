"""The regression of coming back: what it sees in a ring, and that its probabilities come true."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.learn import EVENT
from stream_app.core.model import KIND
from stream_app.core.revisits import (
    CATEGORIES_N,
    REVISIT_WEIGHTS_N,
    Recent,
    new_recent,
    recent_items,
    revisit_logit,
)
from stream_app.core.state import decode_users
from tests.core.logs import START_S, Stream

Visit = tuple[int, str, float]


def visits(customer: int, *rows: Visit) -> NDArray[np.void]:
    """Events (item, kind, seconds after the last one)."""
    events = np.zeros(len(rows), EVENT)
    now = START_S
    for k, (item, kind, pause) in enumerate(rows):
        now += pause
        events[k]["customer"], events[k]["item"] = customer, item
        events[k]["ts"], events[k]["kind"] = now, KIND[kind]
    return events


def recent_of(stream: Stream, customer: int) -> tuple[Recent, int, int]:
    """What scoring sees of a customer."""
    users = decode_users(np.array([customer], np.uint64), [stream.blobs[customer]])
    recent = new_recent()
    return recent, *look(users, recent)


def look(users: NDArray[np.void], recent: Recent) -> tuple[int, int]:
    """The kernel on the first record."""
    return recent_items(users[0], recent)


def probability(stream: Stream, customer: int, place: int = 0) -> float:
    """That the ``place``-th recent item comes next."""
    recent, n, _ = recent_of(stream, customer)
    assert place < n
    weights = stream.partition["revisit_weights"][0]
    return float(1.0 / (1.0 + np.exp(-revisit_logit(recent.categories, place, weights))))


def test_a_ring_is_read_newest_first_over_session_bounds() -> None:
    stream = Stream()
    stream.learn(
        visits(1, (9, "view", 0), (8, "view", 5), (9, "view", 5), (7, "view", 9000), (8, "view", 5))
    )
    recent, n, in_session = recent_of(stream, 1)
    assert (n, in_session) == (3, 2)
    assert recent.items[:n].tolist() == [8, 7, 9]
    assert recent.often[:n].tolist() == [2, 1, 2]
    assert recent.times[:n].tolist() == [1, 1, 2], "in the session it was last seen in, or before"


def test_every_category_has_a_weight_of_its_own() -> None:
    rng = np.random.default_rng(7)
    stream = Stream()
    kinds = list(KIND)[2:10]
    for customer in range(1, 40):
        rows = [
            (int(rng.integers(1, 6)), str(rng.choice(kinds)), float(rng.choice([1, 99, 9e3, 1e6])))
            for _ in range(20)
        ]
        stream.learn(visits(customer, *rows))
        if customer not in stream.blobs:
            continue
        recent, n, _ = recent_of(stream, customer)
        used = recent.categories[:n]
        assert used.min(initial=0) >= 0
        assert used.max(initial=0) < REVISIT_WEIGHTS_N
        assert (np.diff(used[:, 1:], axis=1) > 0).all(), "blocks do not overlap"
        assert used.shape[1] == CATEGORIES_N


@pytest.mark.parametrize("repeated", [True, False])
def test_it_learns_whether_customers_look_again(repeated: bool) -> None:
    stream = Stream()
    for customer in range(1, 200):
        items = [1, 1] if repeated else [1, 2]
        stream.learn(visits(customer, *[(item, "view", 5.0) for item in items]))
    stream.learn(visits(1000, (5, "view", 0.0)))
    p = probability(stream, 1000)
    assert p > 0.9 if repeated else p < 0.05


def test_what_follows_a_view_differs_from_what_follows_a_purchase() -> None:
    stream = Stream()
    for customer in range(1, 300):
        rows = [(1, "view", 0), (1, "add_to_cart", 9), (1, "purchase", 9), (2, "view", 9)]
        stream.learn(visits(customer, *rows))
    stream.learn(visits(1000, (5, "view", 0.0)))
    stream.learn(visits(1001, (5, "view", 0.0), (5, "add_to_cart", 9.0), (5, "purchase", 9.0)))
    assert probability(stream, 1000) > 0.8
    assert probability(stream, 1001) < 0.2


def test_probabilities_come_true() -> None:
    """Three of ten customers return to the item before the last: so says the model."""
    rng = np.random.default_rng(1)
    stream = Stream()
    for customer in range(1, 3000):
        last = 1 if rng.random() < 0.3 else 3
        stream.learn(visits(customer, (1, "view", 0), (2, "view", 9), (last, "view", 9)))
    stream.learn(visits(9000, (1, "view", 0), (2, "view", 9)))
    assert probability(stream, 9000, place=1) == pytest.approx(0.3, abs=0.1)
