"""The kinds of lists, as a table: from what each is drawn, what it must not hold, how long it is.

Scoring (:mod:`stream_app.core.ranking`) reads a row of it for each list; there are no branches by
name. ``docs/journey.md`` says where each is shown. Kinds are appended, never reordered: their
numbers are in stored outboxes and feedback counters.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import BOUGHT_DRAWN
from stream_app.core.scoring import SOURCES, SOURCES_N

LISTS = (
    "home",
    "cart",
    "product_similar",
    "product_complementary",
    "checkout",
    "post_purchase",
    "email",
    "search",
    "cart_items",
)
HOME, CART, SIMILAR, COMPLEMENTARY, CHECKOUT, POST_PURCHASE, EMAIL, SEARCH, CART_ITEMS = range(9)

# What a list is drawn from, newest or strongest first.
RECENT, IN_CART, LAST, BOUGHT, INTERESTS = range(5)
# What it is restricted to, if to anything.
ANYTHING, MATCHES, CART_ONLY = range(3)
# How its items' categories stand to that of the first anchor, where the catalog knows both.
ANY_CATEGORY, SAME_TOP, OTHER_CATEGORY = range(3)
# Candidates besides those that scoring finds.
POPULAR_SEEDS, NO_SEEDS, ANCHOR_SEEDS, CART_SEEDS = range(4)
# Bits of what is left out, besides what the shop's rules bar.
OUT_ANCHORS, OUT_CART, OUT_BOUGHT = 1, 2, 4

REPLENISH_S = 21 * 86_400.0  # after a purchase, where the shop has set no repurchase cycle

LIST_KIND = np.dtype(
    [
        ("sources", "f8", (SOURCES_N,)),  # what each source's weight is multiplied with
        ("matched", "f8"),  # weight of what matches the customer's search
        ("replenish_s", "f8"),  # anchors come back after that time, 0 = never
        ("price_share", "f8"),  # at most this share of the cart's mean price, 0 = any
        ("share", "f8"),  # of STREAM_APP_LIST_SIZE
        ("anchor", "u1"),
        ("only", "u1"),
        ("relation", "u1"),
        ("seeds", "u1"),
        ("out", "u1"),
        ("filled", "u1"),  # popular items fill it, new items may be tried in it
        ("plain", "u1"),  # nothing is restricted
    ],
    align=True,
)


def _row(
    anchor: int,
    *,
    share: float = 1.0,
    only: int = ANYTHING,
    relation: int = ANY_CATEGORY,
    seeds: int = NO_SEEDS,
    out: int = 0,
    filled: bool = False,
    matched: float = 0.0,
    replenish_s: float = 0.0,
    price_share: float = 0.0,
    sources: dict[str, float] | None = None,  # none: all as the weights say
) -> NDArray[np.void]:
    row = np.zeros(1, LIST_KIND)
    row["sources"] = 1.0 if sources is None else [sources.get(name, 0.0) for name in SOURCES]
    for name, value in {
        "matched": matched,
        "replenish_s": replenish_s,
        "price_share": price_share,
        "share": share,
        "anchor": anchor,
        "only": only,
        "relation": relation,
        "seeds": seeds,
        "out": out,
        "filled": filled,
        "plain": not (only or relation or out or replenish_s or price_share),
    }.items():
        row[name] = value
    return row


# Neighbours of neighbours cost most of a home list's time, and a page that is about one item has
# enough in those of the item itself.
_TOGETHER = {"co_occurrence": 1.0}
_NEXT = {"co_occurrence": 0.25, "next_item": 1.0}
_OWN = {"popularity": 0.1, "repeat": 1.0, "return": 1.0}
_TABLES = {"co_occurrence": 1.0, "two_hop": 1.0, "next_item": 1.0, "popularity": 1.0}

KINDS_OF_LISTS = np.concatenate(
    [
        _row(RECENT, seeds=POPULAR_SEEDS, filled=True),  # home
        _row(IN_CART, seeds=POPULAR_SEEDS, filled=True),  # cart
        _row(  # product_similar: looked at together with this one, of its kind
            LAST,
            share=0.5,
            relation=SAME_TOP,
            out=OUT_ANCHORS | OUT_CART,
            sources={**_TOGETHER, "content": 1.0, "embedding": 1.0, "jaccard": 1.0},
        ),
        _row(  # product_complementary: what comes after this one, of another kind
            LAST,
            share=0.5,
            relation=OTHER_CATEGORY,
            out=OUT_ANCHORS | OUT_CART | OUT_BOUGHT,
            sources=_NEXT,
        ),
        _row(  # checkout: small things that follow what is in the cart
            IN_CART,
            share=0.25,
            out=OUT_ANCHORS | OUT_BOUGHT,
            price_share=0.5,
            sources=_NEXT,
        ),
        _row(  # post_purchase: what follows what was bought, and that again when it is due
            BOUGHT,
            share=0.5,
            seeds=ANCHOR_SEEDS,
            out=OUT_ANCHORS | OUT_CART | OUT_BOUGHT,
            replenish_s=REPLENISH_S,
            sources=_NEXT,
        ),
        # email: not filled, because what fills up a list may be in the cart or bought
        _row(INTERESTS, seeds=POPULAR_SEEDS, out=OUT_CART | OUT_BOUGHT),
        _row(  # search: what matches, the likeliest first
            RECENT,
            only=MATCHES,
            matched=20.0,
            sources={**_OWN, **_TABLES},
        ),
        _row(RECENT, only=CART_ONLY, seeds=CART_SEEDS, sources=_OWN),  # cart_items
    ]
)
assert len(KINDS_OF_LISTS) == len(LISTS)

# By anchor or restriction, the count of a customer that must not be 0 for a list to be computed.
_NEEDS_ANCHOR = {IN_CART: "cart_n", LAST: "ring_n", BOUGHT: "bought_n"}
_NEEDS_ONLY = {MATCHES: "query_n", CART_ONLY: "cart_n"}
_NEEDS: dict[int, set[str]] = {
    number: {
        name
        for name in (
            _NEEDS_ANCHOR.get(int(row["anchor"])) if not row["filled"] else None,
            _NEEDS_ONLY.get(int(row["only"])),
        )
        if name
    }
    for number, row in enumerate(KINDS_OF_LISTS)
}


_DRAWN = np.ascontiguousarray((KINDS_OF_LISTS["sources"] > 0.0).T)
# Kinds drawn from more than what a customer did last and has in the cart.
_FROM_MORE = [
    (kind, name)
    for anchor, name in ((BOUGHT, "bought_item"), (INTERESTS, "vector_item"))
    for kind in np.flatnonzero(KINDS_OF_LISTS["anchor"] == anchor).tolist()
]


@lru_cache(maxsize=16)
def sizes(list_size: int) -> NDArray[np.int64]:
    """``(lists,)``: how many entries each kind of list has at most, at least one.

    >>> sizes(20).tolist()
    [20, 20, 10, 10, 5, 10, 20, 20, 20]
    """
    found: NDArray[np.int64] = np.ceil(list_size * KINDS_OF_LISTS["share"]).astype(np.int64)
    return found


def drawn_from(source: int, which: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Places in ``which (m,)`` of the lists that use candidates of ``source``."""
    return np.flatnonzero(_DRAWN[source][which])


def _last_bought(users: NDArray[np.void], having: NDArray[np.int64]) -> NDArray[np.uint64]:
    """``(n, BOUGHT_DRAWN)``, 0 where there are fewer."""
    at = users["bought_n"][having].astype(np.int64)[:, None] - 1 - np.arange(BOUGHT_DRAWN)
    return np.where(at >= 0, users["bought_item"][having[:, None], np.maximum(at, 0)], 0)


def own_items(users: NDArray[np.void], lists: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Ids, 0 among them, of what the lists ``(steps, lists)`` of ``users (n,)`` are drawn from."""
    parts = [users["ring_item"].ravel(), users["cart_item"].ravel()]
    for kind, name in _FROM_MORE:
        having = lists[:, kind][users["step"]].nonzero()[0]
        if len(having):
            last = name == "bought_item"
            own = _last_bought(users, having) if last else users[name][having]
            parts.append(own.ravel())
    return np.concatenate(parts)


def possible(
    wanted: NDArray[np.bool_], users: NDArray[Any], *, searchable: bool
) -> NDArray[np.bool_]:
    """``wanted (n, lists)`` without lists for which ``users (n,)`` gave no reason yet.

    ``searchable``: there is a catalog to search in.
    """
    found = wanted.copy()
    for number in np.flatnonzero(wanted.any(axis=0)).tolist():
        for name in _NEEDS[number]:
            found[:, number] &= users[name] > 0
    if not searchable:
        found[:, SEARCH] = False
    return found
