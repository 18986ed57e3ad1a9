"""The journey table: where each event leads, that every step can be reached and left."""

import numpy as np
import pytest

from stream_app.core.journey import MOVES, STEP, STEP_LISTS, STEPS, likely_next, transition_table
from stream_app.core.model import KIND, KINDS
from stream_app.core.ranking import LISTS

TABLE = transition_table()


def walk(*kinds: str, start: str = "discover") -> str:
    """The step that ``kinds`` lead to, one after the other."""
    step = STEP[start]
    for kind in kinds:
        step = int(TABLE[KIND[kind], step])
    return STEPS[step]


@pytest.mark.parametrize(
    ("kinds", "step"),
    [
        ("impression", "discover"),
        ("search", "discover"),
        ("view", "browse"),
        ("view view search", "discover"),
        ("view wishlist", "consider"),
        ("share", "consider"),
        ("view add_to_cart", "cart"),
        ("add_to_cart view", "cart"),
        ("add_to_cart begin_checkout", "checkout"),
        ("add_to_cart begin_checkout view", "cart"),
        ("add_to_cart begin_checkout remove_from_cart", "cart"),
        ("add_to_cart begin_checkout purchase", "post_purchase"),
        ("purchase review", "post_purchase"),
        ("purchase view", "browse"),
        ("purchase refund", "post_purchase"),
        ("purchase support", "post_purchase"),
    ],
)
def test_a_customer_walks_through_the_steps(kinds: str, step: str) -> None:
    assert walk(*kinds.split()) == step


def test_whatever_a_dormant_customer_does_wakes_them() -> None:
    asleep = {kind for kind in KINDS if walk(kind, start="dormant") == "dormant"}
    assert asleep == {"impression", "erase"}, "neither is something the customer did"


def test_a_step_that_the_table_does_not_name_stays() -> None:
    for kind in KINDS:
        for step in STEPS:
            assert walk(kind, start=step) == MOVES.get(kind, {}).get(step, step)


def test_every_step_but_dormant_is_reached_by_events_and_every_step_is_left() -> None:
    reached = {STEPS[int(step)] for step in np.unique(TABLE)}
    moved = {target for moves in MOVES.values() for target in moves.values()}
    assert reached == set(STEPS)
    assert moved == set(STEPS) - {"dormant"}, "only the passing of time makes a customer dormant"
    for step in STEPS:
        assert any(walk(kind, start=step) != step for kind in KINDS)


def test_every_step_has_lists_that_exist() -> None:
    assert STEP_LISTS.keys() == set(STEPS)
    for names in STEP_LISTS.values():
        assert names
        assert set(names) <= set(LISTS)


def test_the_likely_next_step_is_the_one_most_took_and_another_one() -> None:
    counts = np.zeros((len(STEPS), len(STEPS)))
    assert likely_next(counts, STEP["discover"]) == STEP["browse"]
    assert likely_next(counts, STEP["cart"]) == STEP["discover"]
    counts[STEP["cart"], [STEP["cart"], STEP["checkout"], STEP["browse"]]] = 99.0, 5.0, 4.0
    assert likely_next(counts, STEP["cart"]) == STEP["checkout"]
    assert counts[STEP["cart"], STEP["cart"]] == 99.0
