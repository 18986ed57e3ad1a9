"""The customer's journey as a table: steps, and the step an event leads to."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import KIND, KINDS

STEPS = ("discover", "browse", "consider", "cart", "checkout", "post_purchase", "dormant")
STEP = {name: number for number, name in enumerate(STEPS)}

# What a step needs is computed per event, nothing else.
STEP_LISTS: dict[str, tuple[str, ...]] = {
    "discover": ("home",),
    "browse": ("home",),
    "consider": ("home",),
    "cart": ("home", "cart"),
    "checkout": ("cart",),
    "post_purchase": ("home",),
    "dormant": ("home",),
}

# From which step to which one an event moves a customer; an event not named here moves nobody.
MOVES: dict[str, dict[str, str]] = {
    "search": {
        "browse": "discover",
        "consider": "discover",
        "checkout": "cart",
        "post_purchase": "discover",
        "dormant": "discover",
    },
    "view": {
        "discover": "browse",
        "checkout": "cart",
        "post_purchase": "browse",
        "dormant": "browse",
    },
    "click": {
        "discover": "browse",
        "checkout": "cart",
        "post_purchase": "browse",
        "dormant": "browse",
    },
    "add_to_cart": dict.fromkeys(STEPS, "cart"),
    "remove_from_cart": {"checkout": "cart", "dormant": "browse"},
    "wishlist": {
        "discover": "consider",
        "browse": "consider",
        "checkout": "cart",
        "post_purchase": "consider",
        "dormant": "consider",
    },
    "begin_checkout": dict.fromkeys(STEPS, "checkout"),
    "purchase": dict.fromkeys(STEPS, "post_purchase"),
    "refund": {
        "discover": "post_purchase",
        "browse": "post_purchase",
        "consider": "post_purchase",
        "dormant": "post_purchase",
    },
    "rate": {"dormant": "post_purchase"},
    "review": {"dormant": "post_purchase"},
    "share": {"discover": "consider", "browse": "consider", "dormant": "consider"},
    "support": {"dormant": "post_purchase"},
}


def transition_table() -> NDArray[np.uint8]:
    """``(kinds, steps) uint8``: the step each event leads to from each step.

    >>> table = transition_table()
    >>> STEPS[table[KIND["add_to_cart"], STEP["browse"]]]
    'cart'
    >>> STEPS[table[KIND["impression"], STEP["checkout"]]]
    'checkout'
    """
    table = np.tile(np.arange(len(STEPS), dtype=np.uint8), (len(KINDS), 1))
    for kind, moves in MOVES.items():
        for step, target in moves.items():
            table[KIND[kind], STEP[step]] = STEP[target]
    return table


def likely_next(step_counts: NDArray[np.float64], step: int) -> int:
    """The step customers most often went to from ``step``; ties give the lower number."""
    row = step_counts[step].copy()
    row[step] = -1.0
    return int(np.argmax(row))
