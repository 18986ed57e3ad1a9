"""Profiles: what customers like against the same in plain Python, and what the JSON says."""

from collections import defaultdict
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.affinities import PRICES_MAX, TOP_N, affinities, price_sample, price_standing
from stream_app.core.audience import ANALYSE, Audience, Customer
from stream_app.core.catalog import Catalog, CatalogItem, brand_hash
from stream_app.core.state import new_users
from stream_app.hashing import stable_hash
from stream_app.profiles import FROM_TOPICS, NAME_CHARS_MAX, Profiles
from stream_app.reader import Affinity, PriceAffinity, Profile, decode_profile

DAY = 1_760_000_000.0


def customer(name: str, **weights: float) -> NDArray[np.void]:
    """A ``(1,) USER`` record with these items in its vector."""
    users = new_users(np.array([stable_hash(name)], np.uint64))
    users["vector_n"] = len(weights)
    users["vector_item"][0, : len(weights)] = [stable_hash(item) for item in weights]
    users["vector_weight"][0, : len(weights)] = list(weights.values())
    users["events"], users["last_ts"] = 3, DAY
    return users


def catalog_of(*items: CatalogItem) -> Catalog:
    catalog = Catalog(items_max=max(len(items), 1))
    catalog.upsert(items)
    return catalog


def profile(catalog: Catalog, users: NDArray[np.void], audience: Audience | None = None) -> Profile:
    made = Profiles(catalog, audience or Audience(customers_max=9), ["discover"])
    return decode_profile(made.json(users, ["ada"])[0])


SHOP = (
    CatalogItem("tent", category=("Outdoor", "Tents"), brand="Acme", price=200.0),
    CatalogItem("dome", category=("Outdoor", "Tents"), brand='B"oot', price=50.0),
    CatalogItem("mug", category=("Home",), brand="Acme", price=10.0),
    CatalogItem("gift"),
)


def test_affinities_equal_plain_sums_over_the_vector() -> None:
    rng = np.random.default_rng(4)
    items = [
        CatalogItem(
            f"i{k}",
            category=((), ("a",), ("a", "b"), ("c", "d"), ("e",))[rng.integers(5)],
            brand=("", "x", "y", "z", "w")[rng.integers(5)],
            price=None if rng.random() < 0.2 else float(rng.integers(0, 50)),
        )
        for k in range(40)
    ]
    catalog = catalog_of(*items)
    catalog.delete(np.array([stable_hash("i7"), stable_hash("i8")], np.uint64))
    alive = {item.item_id: item for item in items if item.item_id not in ("i7", "i8")}
    users = np.concatenate(
        [
            customer(
                f"u{u}",
                **{f"i{k}": float(rng.integers(0, 4)) for k in rng.permutation(45)[: u % 13]},
            )
            for u in range(60)
        ]
    )
    personal = np.arange(60) % 10 != 0
    found = affinities(users, personal, catalog)
    names = {stable_hash(name): name for name in (f"i{k}" for k in range(45))}
    for u in range(60):
        sums: dict[str, dict[str, float]] = {"category": defaultdict(float)}
        sums["brand"], prices = defaultdict(float), []
        for k in range(int(users["vector_n"][u]) if personal[u] else 0):
            item = alive.get(names[int(users["vector_item"][u, k])])
            weight = float(users["vector_weight"][u, k])
            if item and weight:
                sums["category"]["/".join(item.category)] += weight
                sums["brand"][item.brand] += weight
                prices += [np.log(item.price)] * int(weight) if item.price else []
        for column, liked in (("category", found.categories), ("brand", found.brands)):
            known = {name: weight for name, weight in sums[column].items() if name}
            best = sorted(known, key=lambda name: (-known[name], brand_hash(name)))[:TOP_N]
            rows = liked.rows[u][liked.rows[u] >= 0]
            assert [brand_hash(name) for name in best] == getattr(catalog, column)[rows].tolist()
            assert liked.values[u, : len(rows)].tolist() == getattr(catalog, column)[rows].tolist()
            shares = [known[name] / sum(known.values()) for name in best]
            assert liked.shares[u, : len(best)].tolist() == pytest.approx(shares)
        expected = np.exp(np.mean(prices)) if prices else np.nan
        assert found.price[u] == pytest.approx(expected, nan_ok=True)


def test_a_profile_names_what_the_customer_likes_best_first() -> None:
    found = profile(catalog_of(*SHOP), customer("ada", tent=3.0, dome=1.0, mug=2.0, gift=9.0))
    assert found.category_affinities == [
        Affinity("Outdoor/Tents", 0.6667),
        Affinity("Home", 0.3333),
    ]
    assert found.brand_affinities == [Affinity("Acme", 0.8333), Affinity('B"oot', 0.1667)]
    typical = round(float(np.exp((3 * np.log(200) + np.log(50) + 2 * np.log(10)) / 6)), 2)
    assert found.price_affinity == PriceAffinity(typical, 0.67, "middle")
    assert found.last_purchase is None


def test_whoever_likes_nothing_known_has_a_profile_without_likings() -> None:
    catalog = catalog_of(*SHOP)
    refused = Audience(customers_max=9)
    refused.upsert([Customer("ada", consent=ANALYSE)])
    for found in (
        profile(catalog, customer("ada")),
        profile(catalog, customer("ada", gift=2.0, unheard=1.0)),
        profile(catalog, customer("ada", tent=0.0)),
        profile(catalog, customer("ada", tent=2.0), refused),
        profile(Catalog(items_max=1), customer("ada", tent=2.0)),
    ):
        assert (found.category_affinities, found.brand_affinities) == ([], [])
        assert found.price_affinity is None


def test_a_profile_repeats_what_the_shop_has_said() -> None:
    audience = Audience(customers_max=9)
    said: dict[str, Any] = {"region": "de", "tags": ["vip"], "attributes": {"size": ["41", "42"]}}
    audience.upsert([Customer("ada", described=msgspec.json.encode(said)[1:-1])])
    users = customer("ada")
    users["purchase_ts"] = DAY - 5
    found = profile(catalog_of(*SHOP), users, audience)
    assert (found.region, found.language, found.tags) == ("de", None, ["vip"])
    assert found.attributes == {"size": ["41", "42"]}
    assert found.last_purchase == DAY - 5
    audience.delete(users["id"])
    assert profile(catalog_of(*SHOP), users, audience).attributes == {}


def test_names_follow_the_catalog_and_stay_short() -> None:
    catalog = catalog_of(CatalogItem("a", brand="x" * 999, category=("C",), price=1.0))
    profiles = Profiles(catalog, Audience(customers_max=9), ["discover"])
    users = customer("ada", a=1.0)

    def now() -> Profile:
        return decode_profile(profiles.json(users, ["ada"])[0])

    assert now().brand_affinities == [Affinity("x" * NAME_CHARS_MAX, 1.0)]
    catalog.upsert([CatalogItem("a", brand="y", category=("C", "D"), price=8.0)])
    assert now().brand_affinities == [Affinity("y", 1.0)]
    assert now().category_affinities == [Affinity("C/D", 1.0)]
    assert now().price_affinity == PriceAffinity(8.0, 0.5, "middle")


def test_a_price_is_compared_with_a_sample_of_a_large_catalog() -> None:
    items = [CatalogItem(f"i{k}", price=float(k + 1)) for k in range(PRICES_MAX + 10)]
    sample = price_sample(catalog_of(*items))
    assert len(sample) <= PRICES_MAX
    prices = np.array([1.0, len(items) * 0.25, len(items) * 0.9])
    shares, levels = price_standing(prices, sample)
    assert shares.tolist() == pytest.approx([0.0, 0.25, 0.9], abs=0.01)
    assert levels.tolist() == [1, 2, 3]


def test_every_member_that_a_state_does_not_tell_is_known_by_name() -> None:
    fields = {field.name: field.required for field in msgspec.structs.fields(Profile)}
    told_later = {name for name, required in fields.items() if not required}
    assert told_later - {"last_purchase"} == FROM_TOPICS
