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

_STAY = "="
# Rows: the event; columns: the step the customer is in. "=" stays.
_TABLE: dict[str, tuple[str, ...]] = {
    #                    discover         browse           consider         cart             checkout         post_purchase    dormant
    "impression":       (_STAY,           _STAY,           _STAY,           _STAY,           _STAY,           _STAY,           _STAY),
    "search":           (_STAY,           "discover",      "discover",      _STAY,           "cart",          "discover",      "discover"),
    "view":             ("browse",        _STAY,           _STAY,           _STAY,           "cart",          "browse",        "browse"),
    "click":            ("browse",        _STAY,           _STAY,           _STAY,           "cart",          "browse",        "browse"),
    "add_to_cart":      ("cart",          "cart",          "cart",          _STAY,           "cart",          "cart",          "cart"),
    "remove_from_cart": (_STAY,           _STAY,           _STAY,           _STAY,           "cart",          _STAY,           "browse"),
    "wishlist":         ("consider",      "consider",      _STAY,           _STAY,           "cart",          "consider",      "consider"),
    "begin_checkout":   ("checkout",      "checkout",      "checkout",      "checkout",      _STAY,           "checkout",      "checkout"),
    "purchase":         ("post_purchase", "post_purchase", "post_purchase", "post_purchase", "post_purchase", _STAY,           "post_purchase"),
    "refund":           ("post_purchase", "post_purchase", "post_purchase", _STAY,           _STAY,           _STAY,           "post_purchase"),
    "rate":             (_STAY,           _STAY,           _STAY,           _STAY,           _STAY,           _STAY,           "post_purchase"),
    "review":           (_STAY,           _STAY,           "consider",      _STAY,           _STAY,           _STAY,           "post_purchase"),
    "share":            ("consider",      "consider",      _STAY,           _STAY,           _STAY,           _STAY,           "consider"),
    "support":          (_STAY,           _STAY,           _STAY,           _STAY,           _STAY,           _STAY,           "post_purchase"),
}  # fmt: skip


def transition_table() -> NDArray[np.uint8]:
    """``(kinds, steps) uint8``: the step each event leads to from each step.

    >>> table = transition_table()
    >>> STEPS[table[KIND["add_to_cart"], STEP["browse"]]]
    'cart'
    >>> STEPS[table[KIND["impression"], STEP["checkout"]]]
    'checkout'
    """
    table = np.empty((len(KINDS), len(STEPS)), np.uint8)
    for kind, targets in _TABLE.items():
        for step, target in enumerate(targets):
            table[KIND[kind], step] = step if target == _STAY else STEP[target]
    return table


def likely_next(step_counts: NDArray[np.float64], step: int) -> int:
    """The step customers most often went to from ``step``; ties and no data give the lower number."""
    row = step_counts[step].copy()
    row[step] = -1.0
    return int(np.argmax(row))
