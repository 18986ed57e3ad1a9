"""Each kind of list holds what it says, in a shop one can follow by hand and in random ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.core.catalog import Catalog, CatalogItem
from stream_app.core.content import ContentIndex
from stream_app.core.learn import EVENT
from stream_app.core.list_kinds import (
    KINDS_OF_LISTS,
    LISTS,
    REPLENISH_S,
    SAME_TOP,
    SEARCH,
    own_items,
    possible,
    sizes,
)
from stream_app.core.matching import MATCHES_MAX
from stream_app.core.model import BOUGHT_DRAWN, KIND, QUERY_MAX, Model
from stream_app.core.ranking import Ranker
from stream_app.core.rules import Rules, make_rules
from stream_app.core.scoring import CONTENT, SOURCES
from stream_app.core.scoring_extra import Extra
from stream_app.core.shaping import EMPTY_CATALOG
from stream_app.core.state import decode_users, new_users
from stream_app.core.words import Vocabulary
from stream_app.hashing import stable_hash
from tests.core.logs import START_S, Related, Stream
from tests.core.scored import World, most_popular, world
from tests.core.test_shaping import described, row_of

WORDS = Vocabulary()
ANNA = 1_000
DAY_S = 86_400.0
GOODS = [  # id, title, category, price
    ("phone", "red phone", ("tech", "phones"), 300.0),
    ("phone2", "blue phone", ("tech", "phones"), 350.0),
    ("tablet", "red tablet", ("tech", "tablets"), 400.0),
    ("case", "red case", ("extras", "cases"), 20.0),
    ("cable", "usb cable", ("extras", "cables"), 5.0),
    ("desk", "oak desk", ("rooms", "desks"), 500.0),
]


class Shop:
    """Twelve customers who look at tech and then put extras into their carts; Anna comes later."""

    def __init__(self) -> None:
        self.stream, self.related = Stream(), Related(Model())
        self.names = {stable_hash(name): name for name, *_ in GOODS}
        self.catalog = Catalog(items_max=100)
        self.now = START_S
        for who in range(12):
            walk = ["phone", "phone2", "tablet", "phone", "case", "cable", "desk"]
            for item in walk[: 7 - who % 2]:
                self.does(who + 1, "view", item)
            self.does(who + 1, "add_to_cart", "case")

    def describe(self) -> None:
        """Fill the catalog."""
        self.catalog.upsert(
            [CatalogItem(n, title=t, category=c, price=p, ts=START_S) for n, t, c, p in GOODS]
        )

    def does(self, who: int, kind: str, item: str = "", query: str = "", after: float = 5) -> None:
        """One event, learned by customers and items."""
        self.now += after
        event = np.zeros(1, EVENT)
        event["customer"], event["kind"], event["ts"] = who, KIND[kind], self.now
        event["item"] = stable_hash(item) if item else 0
        words = WORDS.hashes([query], QUERY_MAX)
        event["query"][0, : len(words)] = words
        self.related.merge(self.stream.learn(event).transitions)

    def anna(self) -> NDArray[np.void]:
        """Her state."""
        key = np.array([ANNA], np.uint64)
        return decode_users(key, [self.stream.blobs.get(ANNA)])

    def found(self) -> Extra | None:
        """What matches Anna's search."""
        user, index, tables = self.anna(), ContentIndex(self.catalog), self.related.tables
        index.sync()
        near = index.matching(user["query_word"], user["query_n"])
        rows = near.rows[0][near.rows[0] >= 0]
        nodes = tables.ensure(self.catalog.ids[rows])
        n = len(rows)
        values = near.similarities[0, :n]
        return Extra(np.array([0, n]), nodes, values, np.full(n, CONTENT, np.uint8))

    def shows(
        self, name: str, *, size: int = 20, rules: Rules | None = None, later_s: float = 0.0
    ) -> list[str]:
        """Anna's list of a kind, and that its reasons are sources."""
        tables = self.related.tables
        view = self.catalog.view() if self.catalog.rows_n else EMPTY_CATALOG
        which = LISTS.index(name)
        lists = Ranker(tables, list_size=size, rules=rules).rank(
            self.anna(),
            np.zeros(1, np.int64),
            np.full(1, which, np.uint8),
            np.array([self.now + later_s]),
            self.stream.partition,
            most_popular(tables),
            self.found() if which == SEARCH and self.catalog.rows_n else None,
            catalog=view,
        )
        n = lists.counts[0]
        self.sources = [SOURCES[source] for source in lists.sources[0, :n].tolist()]
        return [self.names[item] for item in tables.nodes["id"][lists.nodes[0, :n]].tolist()]


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_product_page_shows_what_is_looked_at_together_and_what_comes_after(shop: Shop) -> None:
    shop.does(ANNA, "view", "phone")
    together = shop.shows("product_similar")
    everything = {"phone2", "tablet", "case", "cable", "desk"}
    assert set(together) == everything, "no catalog: by counts alone"
    after = shop.shows("product_complementary")
    assert set(after) == set(together) and after != together
    assert after[0] in ("case", "phone2")
    shop.describe()
    assert set(shop.shows("product_similar")) == {"phone2", "tablet"}
    assert shop.shows("product_complementary")[:1] == ["case"]
    assert "phone2" not in shop.shows("product_complementary"), "of the same category"
    assert shop.shows("product_similar", size=2) == shop.shows("product_similar")[:1]


def test_a_product_page_shows_nothing_from_the_cart_and_nothing_before_a_view(shop: Shop) -> None:
    assert shop.shows("product_similar") == shop.shows("product_complementary") == []
    shop.does(ANNA, "add_to_cart", "case")
    shop.does(ANNA, "view", "phone")
    assert "case" not in shop.shows("product_similar") + shop.shows("product_complementary")


def test_checkout_offers_small_things_only(shop: Shop) -> None:
    shop.does(ANNA, "add_to_cart", "phone")
    assert {"phone2", "case"} <= set(shop.shows("checkout"))
    shop.describe()
    offered = shop.shows("checkout")
    assert offered[0] == "case" and set(offered) <= {"case", "cable"}, "half of 300 at most"
    shop.does(ANNA, "add_to_cart", "case")
    assert set(shop.shows("checkout")) <= {"cable"}
    assert shop.shows("checkout", size=4) == shop.shows("checkout")[:1]


def test_after_a_purchase_come_accessories_and_later_the_same_again(shop: Shop) -> None:
    shop.does(ANNA, "purchase", "phone")
    first = shop.shows("post_purchase")
    assert "case" in first and "phone" not in first
    assert "phone" not in shop.shows("post_purchase", later_s=REPLENISH_S - 1.0)
    again = shop.shows("post_purchase", later_s=REPLENISH_S)
    assert again[0] == "phone" and shop.sources[0] == "return"
    assert [item for item in again if item != "phone"] == first


def test_each_category_is_replenished_after_its_own_time(shop: Shop) -> None:
    shop.describe()
    shop.does(ANNA, "purchase", "phone")
    shop.does(ANNA, "purchase", "cable")
    rows = shop.catalog.rows(np.array([stable_hash("cable")], np.uint64))
    cable_days = {int(shop.catalog.category[rows[0]]): 5.0 * DAY_S}
    rules = make_rules(cycles_s=cable_days)
    assert "cable" not in shop.shows("post_purchase", rules=rules, later_s=4 * DAY_S)
    assert shop.shows("post_purchase", rules=rules, later_s=6 * DAY_S)[0] == "cable"
    both = shop.shows("post_purchase", rules=rules, later_s=REPLENISH_S + 6 * DAY_S)
    assert both[:2] == ["cable", "phone"], "the longest overdue first"


def test_a_digest_is_of_interests_without_the_cart_and_what_was_bought(shop: Shop) -> None:
    shop.does(ANNA, "purchase", "phone")
    shop.does(ANNA, "add_to_cart", "case")
    found = shop.shows("email")
    assert {"phone2", "tablet"} <= set(found) and not {"phone", "case"} & set(found)


def test_a_search_shows_what_matches_and_the_likeliest_first(shop: Shop) -> None:
    shop.does(ANNA, "search", query="Red!")
    assert shop.shows("search") == [], "without a catalog nothing is known of words"
    shop.describe()
    red = shop.shows("search")
    assert set(red) == {"phone", "tablet", "case"}
    shop.does(ANNA, "search", query="phone")
    assert set(shop.shows("search")) == {"phone", "phone2"}
    shop.does(ANNA, "search", query="red phone")
    assert shop.shows("search")[0] == "phone", "all words before one of them"
    shop.does(ANNA, "view", "tablet")
    assert shop.shows("search")[0] == "phone", "the search stands until the next one"
    shop.does(ANNA, "search", query="nothing of ours")
    assert shop.shows("search") == []


def test_of_equal_matches_those_near_the_customers_items_come_first(shop: Shop) -> None:
    shop.describe()
    shop.catalog.upsert(
        [CatalogItem(name, title="same words", ts=START_S + 1) for name in ("case", "desk")]
    )
    shop.does(ANNA, "view", "phone")
    shop.does(ANNA, "search", query="same words")
    assert shop.shows("search") == ["case", "desk"]
    shop.catalog.upsert([CatalogItem("case", title="same words", available=False, ts=START_S + 2)])
    assert shop.shows("search") == ["desk"]


def test_a_search_ends_with_the_session(shop: Shop) -> None:
    shop.does(ANNA, "search", query="one two three four five six seven eight nine ten")
    assert shop.anna()["query_n"].tolist() == [QUERY_MAX]
    shop.does(ANNA, "view", "phone")
    assert shop.anna()["query_n"].tolist() == [QUERY_MAX]
    shop.does(ANNA, "view", "phone", after=7_200.0)
    assert shop.anna()["query_n"].tolist() == [0]
    shop.does(ANNA, "search", query="red")
    shop.does(ANNA, "search")
    assert shop.anna()["query_n"].tolist() == [0], "a search that says no words says nothing"


def test_the_cart_is_listed_whole_whatever_the_rules_leave_out_elsewhere(shop: Shop) -> None:
    for item in ("desk", "case", "cable"):
        shop.does(ANNA, "add_to_cart", item)
    for k in range(16):  # no longer among the recent items
        shop.does(ANNA, "view", f"other{k % 2}" if k < 15 else "case")
    rules = make_rules(seen=True, cart=True)
    reminded = shop.shows("cart_items", rules=rules)
    assert sorted(reminded) == ["cable", "case", "desk"]
    assert set(shop.sources) <= {"repeat", "return"}
    shop.does(ANNA, "remove_from_cart", "case")
    assert set(shop.shows("cart_items", rules=rules)) == {"desk", "cable"}
    shop.describe()
    shop.catalog.upsert([CatalogItem("desk", available=False, ts=START_S + 1)])
    assert shop.shows("cart_items", rules=rules) == ["cable"], "what is gone cannot be bought"


def test_lists_without_a_reason_are_not_computed() -> None:
    users = np.repeat(new_users(np.array([1], np.uint64)), 2)
    users["cart_n"], users["ring_n"], users["query_n"] = (0, 2), (0, 1), (0, 3)
    wanted = np.ones((2, len(LISTS)), np.bool_)
    nothing, something = possible(wanted, users, searchable=True)
    assert [name for name, is_on in zip(LISTS, nothing, strict=True) if is_on] == [
        "home",
        "cart",
        "email",
    ]
    missing = [name for name, is_on in zip(LISTS, something, strict=True) if not is_on]
    assert missing == ["post_purchase"]
    assert not possible(wanted, users, searchable=False)[:, SEARCH].any()
    assert wanted.all(), "the journey's table stays as it is"


def test_only_what_a_step_needs_is_read() -> None:
    users = new_users(np.array([1], np.uint64))
    users["bought_item"][0, 29], users["bought_n"] = 7, 30
    users["bought_item"][0, 19], users["vector_item"], users["step"] = 9, 8, 1
    lists = np.zeros((2, len(LISTS)), np.bool_)
    lists[1, LISTS.index("post_purchase")] = True
    found = own_items(users, lists).tolist()
    assert 7 in found and 8 not in found and 9 not in found, "the last of what was bought"
    users["step"] = 0
    assert 7 not in own_items(users, lists).tolist()


def broken(w: World, i: int, name: str, items: list[int], catalog: object) -> list[str]:
    """Which of its promises a list breaks, said once more in plain words."""
    user, kind = w.users[i], KINDS_OF_LISTS[LISTS.index(name)]
    cart = user["cart_item"][: user["cart_n"]].tolist()
    bought = user["bought_item"][: user["bought_n"]].tolist()
    last = int(user["ring_item"][user["ring_n"] - 1])
    wrong = []
    if name in ("product_similar", "product_complementary") and {last, *cart} & set(items):
        wrong.append("the item itself, or the cart")
    if name == "post_purchase" and set(bought[:-BOUGHT_DRAWN]) & set(items):
        wrong.append("bought long ago")
    if name in ("product_complementary", "checkout", "email") and set(bought) & set(items):
        wrong.append("bought")
    if name in ("checkout", "post_purchase", "email", "cart") and set(cart) & set(items):
        wrong.append("cart")
    if name == "cart_items" and not set(items) <= set(cart):
        wrong.append("not in the cart")
    about = row_of(catalog, last)  # type: ignore[arg-type]
    for item in items:
        row = row_of(catalog, item)  # type: ignore[arg-type]
        if row < 0 or about < 0 or not catalog.category[about]:  # type: ignore[attr-defined]
            continue
        top, leaf = (
            (column[row], column[about])
            for column in (catalog.category_top, catalog.category)  # type: ignore[attr-defined]
        )
        if kind["relation"] == SAME_TOP and top[0] and top[0] != top[1]:
            wrong.append("another kind of thing")
        if name == "product_complementary" and leaf[0] == leaf[1]:
            wrong.append("more of the same")
    return wrong


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.sampled_from(LISTS), st.booleans())
def test_no_list_breaks_its_promises_in_random_shops(seed: int, name: str, known: bool) -> None:
    w = world(seed, events=150, items=25, customers=4)
    catalog = described(w, seed) if known else EMPTY_CATALOG
    lists = w.rank(which=LISTS.index(name), catalog=catalog)
    ids = w.tables.nodes["id"]
    for i, count in enumerate(lists.counts.tolist()):
        items = ids[lists.nodes[i, :count]].tolist()
        assert broken(w, i, name, items, catalog) == []
        assert len(set(items)) == count <= sizes(20)[LISTS.index(name)]
        assert (np.diff(lists.scores[i, :count]) <= 0).all() and (lists.nodes[i, count:] < 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.lists(st.sampled_from("red blue silk wool shoe".split())))
def test_matches_equal_the_formula(seed: int, query: list[str]) -> None:
    """TF-IDF cosine times the share of the query's weight, over every item of a catalog."""
    rng = np.random.default_rng(seed)
    catalog = Catalog(items_max=100)
    vocabulary = "red blue silk wool shoe boot hat".split()
    titles = [list(rng.choice(vocabulary, rng.integers(1, 5), replace=False)) for _ in range(90)]
    items = [CatalogItem(f"i{k}", title=" ".join(title)) for k, title in enumerate(titles)]
    catalog.upsert(items)
    index = ContentIndex(catalog)
    index.sync()
    hashes = WORDS.hashes([" ".join(query)], QUERY_MAX)
    asked = np.zeros((1, QUERY_MAX), np.uint32)
    asked[0, : len(hashes)] = hashes
    near = index.matching(asked, np.array([len(hashes)], np.uint8))
    count = {word: sum(word in title for title in titles) for word in vocabulary}
    weight = {word: (np.log(91 / (1 + n)) + 1) ** 2 for word, n in count.items()}
    whole = sum(weight[word] for word in set(query) if count[word])
    expected = []
    for k, title in enumerate(titles):
        got = sum(weight[word] for word in set(query) & set(title))
        if got > 0:
            length = np.sqrt(sum(weight[word] for word in title) * whole)
            expected.append((-(got / length * got / whole), stable_hash(f"i{k}")))
    expected = sorted(expected)[:MATCHES_MAX]
    found = near.rows[0][near.rows[0] >= 0]
    np.testing.assert_allclose(
        near.similarities[0, : len(found)], [-value for value, _ in expected], rtol=1e-5
    )
    again = index.matching(asked, np.array([len(hashes)], np.uint8))
    assert again.rows.tobytes() == near.rows.tobytes(), "its work space was left clean"
