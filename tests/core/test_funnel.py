"""The console's funnel: steps of the file alone, in its order, and who goes on."""

import numpy as np

from stream_app.console.funnel import Stage, defined, funnel, goal_of
from stream_app.core.journey import STEPS
from stream_app.core.model import STEPS_MAX
from stream_app.journeys import load_journey, parse_journey

OWN = """
start = "hello"
[steps.hello]
number = 9
lists = ["home"]
on.view = "keen"
on.purchase = "owner"
[steps.keen]
number = 7
lists = ["home"]
on.purchase = "owner"
[steps.owner]
number = 12
lists = ["home"]
"""


def test_the_shipped_journey_has_its_seven_steps() -> None:
    journey = load_journey()
    assert tuple(journey.names[k] for k in journey.defined) == STEPS
    assert goal_of(journey) == STEPS.index("post_purchase")
    assert defined(journey, np.zeros((STEPS_MAX, STEPS_MAX))).shape == (7, 7)


def test_a_shop_sees_its_own_steps_in_the_order_of_its_file() -> None:
    journey = parse_journey(OWN)
    names = [journey.names[k] for k in journey.defined]
    assert names == ["hello", "keen", "owner"]
    counts = np.zeros((STEPS_MAX, STEPS_MAX))
    counts[9, 7], counts[9, 12], counts[7, 12], counts[7, 9] = 8, 2, 3, 1
    counts[3, 9] = 5  # from a step that was taken out of the file
    moves = defined(journey, counts)
    assert moves.tolist() == [[0, 8, 2], [1, 0, 3], [0, 0, 0]]
    assert funnel(names, moves, goal_of(journey)) == [
        Stage("hello", 10, 10, 2),  # all begin there, and one came back
        Stage("keen", 8, 3, 3),
        Stage("owner", 5, None, None),
    ]


def test_a_journey_without_purchases_has_a_funnel_too() -> None:
    journey = parse_journey(OWN.replace('on.purchase = "owner"', 'on.share = "owner"'))
    assert goal_of(journey) is None
    found = funnel(["a", "b"], np.array([[0, 3], [1, 0]]), None)
    assert found == [Stage("a", 3, 3, None), Stage("b", 3, 0, None)]
