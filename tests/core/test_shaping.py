"""No rule is ever broken, whatever else happens, and a list is filled as far as rules allow."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.core.catalog import AVAILABLE, DELETED, HIDDEN, CatalogView
from stream_app.core.cycles import new_cycles, note_cycle
from stream_app.core.hash_index import HashIndex
from stream_app.core.learned import EVENT
from stream_app.core.list_kinds import LISTS
from stream_app.core.model import KIND
from stream_app.core.ranking import Lists
from stream_app.core.rules import BARS, Rules, bar, make_rules
from stream_app.core.scoring import EXPLORATION, POPULAR, SOURCES
from stream_app.core.scoring_extra import Extra
from stream_app.core.shaping import EMPTY_CATALOG, Fallback, explored_places, likeness
from stream_app.core.state import decode_users, encode_users
from tests.core.logs import Stream
from tests.core.scored import World, from_outside, item_id, world


def described(w: World, seed: int, *, share: float = 0.8) -> CatalogView:
    """A catalog of most items of a world, with random flags, prices and labels."""
    rng = np.random.default_rng(seed)
    ids = w.tables.nodes["id"][: w.tables.nodes_n].copy()
    ids = ids[(ids != 0) & (rng.random(len(ids)) < share)]
    n = len(ids)
    index = HashIndex()
    index.add(ids, np.arange(n))
    flags = np.where(rng.random(n) < 0.85, AVAILABLE, 0).astype(np.uint8)
    flags[rng.random(n) < 0.1] |= HIDDEN
    flags[rng.random(n) < 0.05] |= DELETED
    price = rng.uniform(1.0, 100.0, n).astype(np.float32)
    price[rng.random(n) < 0.2] = np.nan
    top = rng.integers(0, 4, n).astype(np.uint32)
    return CatalogView(
        index.keys,
        index.slots,
        flags,
        price,
        np.full(n, np.nan, np.float32),
        np.full(n, np.nan, np.float32),
        np.zeros(n),
        np.where(top > 0, 10 * top + rng.integers(0, 3, n), 0).astype(np.uint32),
        top,
        rng.integers(0, 5, n).astype(np.uint32),
    )


def row_of(catalog: CatalogView, item: int) -> int:
    found = np.flatnonzero((catalog.keys == item) & (catalog.slots >= 0))
    return int(catalog.slots[found[0]]) if len(found) else -1


def broken(w: World, i: int, items: list[int], rules: Rules, catalog: CatalogView) -> list[str]:
    """Which rules a list breaks, said once more in plain words."""
    user, wrong = w.users[i], []
    cart = set(user["cart_item"][: user["cart_n"]].tolist())
    seen = set(user["ring_item"][: user["ring_n"]].tolist())
    bought = set(user["bought_item"][: user["bought_n"]].tolist())
    excluded = set(rules.excluded_keys[rules.excluded_slots >= 0].tolist())
    categories: list[int] = []
    brands: list[int] = []
    for item in items:
        row = row_of(catalog, item)
        if row >= 0:
            flags, price = catalog.flags[row], catalog.price[row]
            if flags & (AVAILABLE | HIDDEN | DELETED) != AVAILABLE:
                wrong.append("flags")
            if not np.isnan(price) and not rules.price_min <= price <= rules.price_max:
                wrong.append("price")
            categories += [int(catalog.category[row])] * bool(catalog.category[row])
            brands += [int(catalog.brand[row])] * bool(catalog.brand[row])
        if item in excluded:
            wrong.append("excluded")
        if rules.cart and item in cart:
            wrong.append("cart")
        if rules.bought_s > 1e9 and item in bought:
            wrong.append("bought")
        if rules.seen and item in seen:
            wrong.append("seen")
    for values, most, name in (
        (categories, rules.category_max, "category"),
        (brands, rules.brand_max, "brand"),
    ):
        if most and values and max(map(values.count, values)) > most:
            wrong.append(name)
    if len(set(items)) != len(items):
        wrong.append("twice")
    return wrong


def ids_of(w: World, lists: Lists, i: int) -> list[int]:
    ids: list[int] = w.tables.nodes["id"][lists.nodes[i, : lists.counts[i]]].tolist()
    return ids


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1_000),
    st.fixed_dictionaries(
        {
            "seen": st.booleans(),
            "cart": st.booleans(),
            "bought_s": st.sampled_from((0.0, 1e10)),
            "price_min": st.sampled_from((0.0, 20.0)),
            "price_max": st.sampled_from((np.inf, 60.0, 0.5)),
            "category_max": st.integers(0, 3),
            "brand_max": st.integers(0, 3),
            "diversity": st.sampled_from((0.0, 0.3, 1.0)),
            "exploration": st.sampled_from((0.0, 0.2, 1.0)),
        }
    ),
    st.integers(0, 40),
)
def test_no_rule_is_ever_broken(seed: int, wanted: dict[str, Any], excluded: int) -> None:
    w = world(seed % 7, events=150, items=40, customers=4)
    extra = from_outside(w, seed)
    catalog = described(w, seed)
    rules = make_rules(**wanted, excluded=[item_id(k) for k in range(excluded)])
    nodes = np.arange(w.tables.nodes_n)
    fallback = Fallback(nodes, np.full(len(nodes), POPULAR, np.uint8))
    lists = w.rank(size=8, rules=rules, catalog=catalog, extra=extra, fallback=fallback)
    for i in range(len(w.users)):
        items = ids_of(w, lists, i)
        assert broken(w, i, items, rules, catalog) == []
        if lists.counts[i] < 8:  # nothing that could have been listed was left out
            rest = [int(k) for k in w.tables.nodes["id"][nodes] if int(k) not in items]
            assert all(broken(w, i, [*items, item], rules, catalog) for item in rest)


def test_without_rules_lists_are_as_before() -> None:
    w = world(31)
    plain, ruled = w.rank(), w.rank(rules=make_rules())
    for one, other in zip(plain, ruled, strict=True):
        np.testing.assert_array_equal(one, other)


def test_diversity_of_zero_with_a_cap_that_never_binds_is_the_order_of_scores() -> None:
    w = world(32)
    catalog = described(w, 1)._replace(flags=np.full(200, AVAILABLE, np.uint8))
    capped = w.rank(rules=make_rules(category_max=99), catalog=catalog)
    np.testing.assert_array_equal(capped.nodes, w.rank().nodes)


def test_more_diversity_gives_lists_of_less_alike_items() -> None:
    w = world(33)
    catalog = described(w, 2)

    def alike(diversity: float) -> float:
        lists = w.rank(size=8, rules=make_rules(diversity=diversity), catalog=catalog)
        total = 0.0
        for i in range(len(w.users)):
            rows = [row_of(catalog, item) for item in ids_of(w, lists, i)]
            total += sum(likeness(catalog, a, b) for a in rows for b in rows if a != b)
        return total

    assert alike(0.0) > alike(0.3) > alike(0.9)


def test_the_set_share_of_places_goes_to_new_items() -> None:
    w = world(34)
    n = len(w.users)
    new = w.tables.ensure(np.array([item_id(7_000 + k) for k in range(6)], np.uint64))
    extra = Extra(
        np.arange(n + 1) * 6,
        np.tile(new, n),
        np.ones(6 * n, np.float32),
        np.full(6 * n, EXPLORATION, np.uint8),
    )
    lists = w.rank(size=10, rules=make_rules(exploration=0.2), extra=extra)
    assert (lists.counts == 10).all()
    explored = lists.sources == EXPLORATION
    assert (explored.sum(axis=1) == 2).all(), "ten times 0.2, whatever the hash"
    assert explored[:, -2:].all(), "at the end"
    assert np.isin(lists.nodes[explored], new).all()
    assert not (w.rank(size=10, extra=extra).sources == EXPLORATION).any()


def test_a_share_of_less_than_a_place_is_kept_on_average() -> None:
    users = np.zeros(4_000, world(34).users.dtype)
    users["id"] = [item_id(k) for k in range(4_000)]
    rules = make_rules(exploration=0.03)
    places = [explored_places(rules, user, 0, 10) for user in users.view(np.recarray)]
    assert np.mean(places) == pytest.approx(0.3, abs=0.03)
    assert set(places) == {0, 1}


def test_a_list_the_rules_emptied_is_filled_by_the_fallback_in_order() -> None:
    w = world(35)
    known = w.tables.nodes["id"][: w.tables.nodes_n].copy()
    spare = w.tables.ensure(np.array([item_id(8_000 + k) for k in range(5)], np.uint64))
    rules = make_rules(excluded=[int(key) for key in known if key])
    chain = Fallback(np.concatenate(([3, 5], spare)), np.full(7, POPULAR, np.uint8))
    lists = w.rank(size=10, rules=rules, fallback=chain)
    for i in range(len(w.users)):
        assert lists.nodes[i, : lists.counts[i]].tolist() == spare.tolist()
        assert {SOURCES[s] for s in lists.sources[i, :5].tolist()} == {"popularity"}
    assert (w.rank(rules=rules).counts == 0).all(), "nothing left is an empty list, not an error"


def after_buying(w: World, items: int) -> World:
    """The first customer of a world alone, who then buys ``items`` in as many days."""
    stream, user = Stream(), w.users[0]
    stream.blobs[int(user["id"])] = encode_users(w.users[:1])[0]
    log = np.zeros(items, EVENT)
    log["customer"], log["kind"], log["offset"] = user["id"], KIND["purchase"], 10_000
    log["item"] = [item_id(k) for k in range(items)]
    log["ts"] = user["last_ts"] + 86_400.0 * np.arange(1, items + 1)
    log["offset"] += np.arange(items)
    stream.learn(log)
    return w._replace(users=decode_users(w.users["id"][:1], list(stream.blobs.values())))


@pytest.mark.parametrize("name", ["home", "product_complementary", "post_purchase", "email"])
def test_what_was_bought_stays_out_long_after(name: str) -> None:
    w = after_buying(world(38, events=3_000), 45)
    listed = set(ids_of(w, w.rank(which=LISTS.index(name), rules=make_rules(bought_s=1e10)), 0))
    assert listed and not {item_id(k) for k in range(45)} & listed
    older = {item_id(k) for k in range(35)}
    assert older & set(ids_of(w, w.rank(), 0)), "else nothing would have been kept out"


def int_as_hash(item: int) -> Any:
    """As kernels know it: numba takes Python's integers for signed ones."""
    return np.uint64(item)


def cycles_of(*, item: int = 1, category: int = 0, days: float, times: int = 9) -> NDArray[np.void]:
    cycles, key = new_cycles(), int_as_hash(item)
    for _ in range(times):
        note_cycle(cycles.view(np.recarray)[0], key, category, days * 86_400.0, 1e9)
    return cycles


def test_a_bought_item_comes_back_after_its_categorys_cycle() -> None:
    w = world(36)
    users = w.users.view(np.recarray)
    i = next(k for k in range(len(users)) if users[k].bought_n > 0)
    item = int(users[i].bought_item[0])
    at = float(users[i].bought_ts[0])
    catalog = described(w, 3, share=1.0)
    row = row_of(catalog, item)
    catalog.flags[:] = AVAILABLE
    catalog.category[row], catalog.category_top[row] = 77, 7

    def reason(rules: Rules, days: float) -> str:
        return BARS[bar(rules, catalog, users[i], 0, at + days * 86_400, item)]

    month, week = make_rules(bought_s=30 * 86_400.0), {77: 7 * 86_400.0}
    assert (reason(month, 29), reason(month, 31)) == ("bought", "")
    by_category = make_rules(bought_s=30 * 86_400.0, cycles_s=week)
    assert (reason(by_category, 6), reason(by_category, 8)) == ("bought", "")
    by_top = make_rules(cycles_s={7: 7 * 86_400.0})
    assert (reason(by_top, 6), reason(by_top, 8)) == ("bought", "")
    assert reason(make_rules(), 0) == ""
    learned = make_rules(bought_s=30 * 86_400.0, learned_share=0.75)._replace(
        learned=cycles_of(category=77, days=20.0)
    )
    assert (reason(learned, 14), reason(learned, 16)) == ("bought", ""), "3/4 of twenty days"
    own = learned._replace(learned=cycles_of(item=item, days=4.0))
    assert (reason(own, 2), reason(own, 4)) == ("bought", "")
    seldom = learned._replace(learned=cycles_of(category=77, days=20.0, times=4))
    assert (reason(seldom, 29), reason(seldom, 31)) == ("bought", ""), "too few to know"
    told = learned._replace(cycle_category=by_top.cycle_category, cycle_s=by_top.cycle_s)
    assert (reason(told, 6), reason(told, 8)) == ("bought", ""), "what is set goes first"
    unknown = EMPTY_CATALOG
    assert bar(by_top, unknown, users[i], 0, at, item) == 0, "of an unknown category"
