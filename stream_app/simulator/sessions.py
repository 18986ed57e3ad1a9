"""What customers do: sessions as a Markov chain over items, each item going down the funnel.

Source of the shape: item-to-item transitions dominated by substitutes before and complements after
a cart, and repeats (see e.g. Ben-Shimon et al., RecSys Challenge 2015, for the shares).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream_app.simulator.catalog import Catalog, complements_per_item, substitutes_per_item
from stream_app.simulator.customers import GUEST, KNOWN, Customers
from stream_app.simulator.pace import Pace
from stream_app.simulator.wire import (
    CODES,
    LISTS,
    ROW,
    positions,
    quantity_max,
    query_variants,
    stars,
)
from stream_app.simulator.words import SUPPORT_MESSAGES

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.void]

episodes_max = 20  # items looked at in one session
candidates = 3  # items a customer compares when coming to a category
FRESH, REPEAT, SUBSTITUTE, COMPLEMENT = range(4)
# Cumulative chances of REPEAT, SUBSTITUTE, COMPLEMENT for the next item; the rest is FRESH.
NEXT = np.array([0.15, 0.60, 0.68])
NEXT_AFTER_CART = np.array([0.10, 0.25, 0.75])
SHARES = {
    "another_item": 0.76,
    "same_category": 0.6,
    "follow_flash": 0.5,
    "search": 0.5,
    "impression": 0.35,
    "click": 0.4,
    "add_to_cart": 0.09,
    "remove_from_cart": 0.12,
    "wishlist": 0.04,
    "share": 0.01,
    "begin_checkout": 0.55,
    "purchase": 0.75,
    "refund": 0.05,
    "rate": 0.15,
    "review": 0.05,
    "support": 0.04,
}


@dataclass(frozen=True, slots=True)
class Episodes:
    """Items looked at, one row per (session, item), in session order; all ``(m,)``.

    ``compared`` is ``(m, 3)``: what the customer chose from where ``how`` is FRESH.
    """

    session: Ints
    number: Ints  # within the session, from 0
    item: Ints
    how: Ints
    compared: Ints
    carted: Bools


@dataclass(slots=True)
class _Rows:
    """Collects events column by column."""

    catalog: Catalog
    who: Ints
    known_from: Ints
    channel: Ints
    first_session: int
    parts: list[Rows] = field(default_factory=list)

    def add(
        self, session: Ints, number: Ints, item: Ints | int, what: Ints | int, at: Floats
    ) -> None:
        """Append events of session indices ``session`` at ``at`` seconds after opening."""
        rows = np.zeros(len(session), ROW)
        rows["ts_s"] = at
        rows["session"] = session + self.first_session
        rows["who"] = self.who[session]
        rows["item"] = item
        rows["what"] = what
        rows["known"] = number >= self.known_from[session]
        rows["channel"] = self.channel[session]
        self.parts.append(rows)


def make_sessions(
    rng: np.random.Generator,
    catalog: Catalog,
    customers: Customers,
    pace: Pace,
    starts_s: Floats,
    flash: Ints,
    *,
    first_session: int,
    detail_share: float,
) -> Rows:
    """Every event of the sessions that start at ``starts_s``, not sorted; some are far ahead."""
    n = len(starts_s)
    at_s = float(starts_s[0]) if n else 0.0
    who = customers.visiting(at_s, rng.random(n))
    episodes = _browse(rng, catalog, customers, who, flash, at_s)
    login = customers.login[who]
    known_from = np.where(login == KNOWN, 0, np.where(login == GUEST, 2**31, rng.integers(1, 4, n)))
    rows = _Rows(catalog, who, known_from, customers.channel[who], first_session)

    dwell = pace.think_time_s * np.exp(rng.normal(0.0, 0.8, len(episodes.item)))
    ends = np.cumsum(dwell)
    first = np.searchsorted(episodes.session, np.arange(n))
    before = (ends - dwell)[first]
    begin = starts_s[episodes.session] + ends - dwell - before[episodes.session]
    _look(rng, rows, episodes, begin, dwell, detail_share)
    last = np.searchsorted(episodes.session, np.arange(n), side="right") - 1
    session_end = begin[last] + dwell[last] if n else starts_s
    _buy(rng, rows, episodes, begin, dwell, session_end, pace)
    return np.concatenate(rows.parts)


def _browse(
    rng: np.random.Generator,
    catalog: Catalog,
    customers: Customers,
    who: Ints,
    flash: Ints,
    at_s: float,
) -> Episodes:
    """Walk all sessions from item to item at once; one numpy step per episode number."""
    length = np.minimum(rng.geometric(1.0 - SHARES["another_item"], len(who)), episodes_max)
    on_sale = catalog.launch_s <= at_s
    item = np.zeros(len(who), np.int64)
    carted = np.zeros(len(who), np.bool_)
    steps = []
    for number in range(int(length.max(initial=0))):
        go = np.flatnonzero(length > number)
        person, previous = who[go], item[go]
        u = rng.random((len(go), 5))
        chances = np.where(carted[go, None], NEXT_AFTER_CART, NEXT)
        how = (1 + (u[:, :1] >= chances).sum(axis=1)) % 4
        if number == 0:
            how[:] = FRESH
        category = catalog.category[previous]
        moves = np.full(len(go), number == 0) | (u[:, 1] >= SHARES["same_category"])
        category = np.where(moves, customers.wanted(person, u[:, 2]), category)
        follows = (flash[go] >= 0) & (u[:, 3] < SHARES["follow_flash"])
        category = np.where(follows, flash[go], category)
        compared = catalog.popular(
            np.repeat(category[:, None], candidates, axis=1), rng.random((len(go), candidates))
        )
        compared = np.where(on_sale[compared], compared, catalog.predecessor[compared])
        liking = _liking(catalog, customers, person[:, None], compared)
        best = (liking + rng.gumbel(size=liking.shape)).argmax(axis=1)
        pick = (u[:, 4] * substitutes_per_item).astype(np.int64)
        chosen = np.choose(
            how,
            [
                compared[np.arange(len(go)), best],
                previous,
                catalog.substitutes[previous, pick],
                catalog.complements[previous, pick * complements_per_item // substitutes_per_item],
            ],
        )
        chosen = np.where(on_sale[chosen], chosen, catalog.predecessor[chosen])
        wish = np.exp(_liking(catalog, customers, person, chosen)) * np.where(how == REPEAT, 2, 1)
        puts = rng.random(len(go)) < np.minimum(SHARES["add_to_cart"] * wish, 0.5)
        item[go], carted[go] = chosen, puts
        steps.append((go, np.full(len(go), number), chosen, how, compared, puts))
    if not steps:
        none = np.zeros(0, np.int64)
        return Episodes(none, none, none, none, none.reshape(0, candidates), none.astype(np.bool_))
    columns = [np.concatenate(column) for column in zip(*steps, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Episodes(*(column[order] for column in columns))


def _liking(catalog: Catalog, customers: Customers, who: Ints, item: Ints) -> Floats:
    """How much customers like items, about 0 ± 1: favourite brands, and prices they can bear."""
    brand = catalog.brand[item]
    favourite = (customers.brand[who, 0] == brand) | (customers.brand[who, 1] == brand)
    liking: Floats = 0.8 * favourite
    liking -= customers.price_sensitivity[who] * catalog.relative_price[item]
    return liking


def _look(
    rng: np.random.Generator,
    rows: _Rows,
    e: Episodes,
    begin: Floats,
    dwell: Floats,
    detail_share: float,
) -> None:
    """Search, impressions, click, view, wishlist, share."""
    m = len(e.item)
    u = rng.random((m, 6))
    fresh = e.how == FRESH
    searches = fresh & (u[:, 0] < SHARES["search"])
    variant = rng.integers(0, query_variants, m)
    query = CODES["search"] + rows.catalog.category[e.item] * query_variants + variant
    rows.add(e.session[searches], e.number[searches], -1, query[searches], begin[searches])

    shown = fresh & (u[:, 1] < SHARES["impression"])
    where = np.where(searches, LISTS.index("search"), LISTS.index("home")) * positions
    for place in range(candidates):
        what = CODES["impression"] + where[shown] + place
        at = begin[shown] + (0.1 + 0.001 * place) * dwell[shown]
        rows.add(e.session[shown], e.number[shown], e.compared[shown, place], what, at)
    place = (e.compared == e.item[:, None]).argmax(axis=1)
    similar = LISTS.index("similar") * positions + rng.integers(0, positions, m)
    neighbour = (e.how >= SUBSTITUTE) & (u[:, 2] < SHARES["click"])
    clicked = shown | neighbour
    what = CODES["click"] + np.where(shown, where + place, similar)
    at = begin + 0.3 * dwell
    rows.add(e.session[clicked], e.number[clicked], e.item[clicked], what[clicked], at[clicked])

    rows.add(e.session, e.number, e.item, CODES["view"], begin + 0.35 * dwell)
    rows.parts[-1]["detail"] = u[:, 3] < detail_share
    for column, event in ((4, "wishlist"), (5, "share")):
        does = u[:, column] < SHARES[event]
        at = begin[does] + 0.5 * dwell[does]
        rows.add(e.session[does], e.number[does], e.item[does], CODES[event], at)


def _buy(
    rng: np.random.Generator,
    rows: _Rows,
    e: Episodes,
    begin: Floats,
    dwell: Floats,
    session_end: Floats,
    pace: Pace,
) -> None:
    """Cart, removal, checkout, purchase, and what follows a purchase."""
    cart = np.flatnonzero(e.carted)
    session, number, item = e.session[cart], e.number[cart], e.item[cart]
    quantity = np.minimum(rng.geometric(0.8, len(cart)), quantity_max) - 1
    at = begin[cart] + 0.7 * dwell[cart]
    rows.add(session, number, item, CODES["add_to_cart"] + quantity, at)
    removed = rng.random(len(cart)) < SHARES["remove_from_cart"]
    what = CODES["remove_from_cart"]
    at = begin[cart] + 0.95 * dwell[cart]
    rows.add(session[removed], number[removed], item[removed], what, at[removed])

    kept = ~removed
    session, item, quantity = session[kept], item[kept], quantity[kept]
    u = rng.random((len(session_end), 3))
    goes = u[:, 0] < SHARES["begin_checkout"]
    pays = goes & (u[:, 1] < SHARES["purchase"])
    is_last = np.ones(len(session), np.bool_)
    is_last[:-1] = session[1:] != session[:-1]
    late = np.full(len(session), episodes_max)  # who can log in has done so by now
    pause = pace.think_time_s * (0.3 + u[:, 2])
    enters = is_last & goes[session]
    at = (session_end + pause)[session]
    rows.add(session[enters], late[enters], item[enters], CODES["begin_checkout"], at[enters])
    buys = pays[session]
    session, item, quantity = session[buys], item[buys], quantity[buys]
    late = late[: len(session)]
    at = (session_end + 2 * pause)[session]
    rows.add(session, late, item, CODES["purchase"] + quantity, at)

    liking = rng.normal(4.0, 1.0, len(session))
    rating = np.clip(np.round(liking), 1, stars).astype(np.int64) - 1
    details = {
        "refund": quantity,
        "rate": rating,
        "review": rating,
        "support": rng.integers(0, len(SUPPORT_MESSAGES), len(session)),
    }
    for event, detail in details.items():
        does = rng.random(len(session)) < SHARES[event]
        wait = np.minimum(rng.exponential(pace.after_sales_s, len(session)), 4 * pace.after_sales_s)
        rows.add(
            session[does], late[does], item[does], CODES[event] + detail[does], (at + wait)[does]
        )
