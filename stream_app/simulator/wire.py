"""One simulated event as a packed row, and the JSON fragment that each ``what`` code stands for."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from stream_app.simulator.words import COLOURS, LEAVES, SUPPORT_MESSAGES

# 34 bytes an event; no Python object is made before rendering.
ROW = np.dtype(
    [
        ("ts_s", "f8"),  # seconds after opening
        ("seq", "i8"),  # the event's number, from which event_id is made
        ("session", "i8"),
        ("who", "i4"),  # customer
        ("item", "i4"),  # -1: the event is about no item
        ("what", "i2"),  # type and detail, see FRAGMENTS
        ("known", "?"),  # whether the customer was logged in
        ("detail", "?"),  # whether category, brand and title are sent along
        ("channel", "u1"),
        ("dirt", "u1"),  # 0: clean, else 1 + the index in DIRT
    ]
)

TYPES = (
    "search impression click view add_to_cart remove_from_cart wishlist begin_checkout purchase"
    " refund rate review share support"
).split()
LISTS = ("search", "home", "similar")
positions = 6
quantity_max = 3
query_variants = 4
stars = 5


def _query(leaf: int, variant: int) -> str:
    nouns = LEAVES[leaf].nouns.replace("_", " ").split()
    noun = nouns[variant % len(nouns)]
    return noun if variant < 2 else f"{COLOURS[(leaf + variant) % len(COLOURS)]} {noun}"


def _details(event: str) -> list[str]:
    """What may follow the type of an event, in code order."""
    if event == "search":
        pairs = product(range(len(LEAVES)), range(query_variants))
        return [f',"query":"{_query(leaf, variant)}"' for leaf, variant in pairs]
    if event in ("impression", "click"):
        places = product(LISTS, range(1, positions + 1))
        return [f',"list":"{name}","position":{position}' for name, position in places]
    if event in ("add_to_cart", "purchase", "refund"):
        return [f',"quantity":{quantity}' for quantity in range(1, quantity_max + 1)]
    if event in ("rate", "review"):
        return [f',"rating":{rating}' for rating in range(1, stars + 1)]
    if event == "support":
        return [f',"query":"{message}"' for message in SUPPORT_MESSAGES]
    return [""]


FRAGMENTS: list[bytes] = []
CODES: dict[str, int] = {}  # event type → its first code; the details follow
for _event in TYPES:
    CODES[_event] = len(FRAGMENTS)
    FRAGMENTS += [f'"event":"{_event}"{detail}'.encode() for detail in _details(_event)]
_FIRST_CODES = np.array([CODES[event] for event in TYPES])


def event_types(what: NDArray[np.int16]) -> NDArray[np.int64]:
    """The index in :data:`TYPES` of each ``what`` code."""
    return np.searchsorted(_FIRST_CODES, what, side="right") - 1
