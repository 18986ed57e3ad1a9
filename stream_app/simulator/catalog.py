"""The simulated shop's items, and the truth about which belong together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.simulator.words import ADJECTIVES, BRANDS, COLOURS, LEAVES, MATERIALS

substitutes_per_item = 6
complements_per_item = 4
price_spread = 0.45  # standard deviation of log price inside a category
zipf_exponent = 0.9  # of popularity inside a category
launched_at_start = 0.85  # the rest arrives over ``growth_s``


@dataclass(frozen=True, slots=True)
class Catalog:
    """``n`` items; all arrays are parallel. Item ``i`` is called ``i<i>``.

    ``category`` ``(n,) int64`` indexes :data:`~stream_app.simulator.words.LEAVES`, ``brand``
    ``(n,) int64`` ``BRANDS``; ``price`` and ``relative_price`` ``(n,) float64``, the
    latter the log of price over its category's median. ``launch_s`` ``(n,) float64`` is seconds
    after opening; until then ``predecessor`` ``(n,) int64`` is sold in its place.
    ``substitutes`` ``(n, 6) int64`` and ``complements`` ``(n, 4) int64`` are the items that
    customers really go to next. ``ranked`` ``(n,) int64`` lists items by category and falling
    popularity, category ``c`` from ``first[c]`` to ``first[c + 1]``.
    """

    ids: list[str]
    titles: list[str]
    category: NDArray[np.int64]
    brand: NDArray[np.int64]
    price: NDArray[np.float64]
    relative_price: NDArray[np.float64]
    launch_s: NDArray[np.float64]
    predecessor: NDArray[np.int64]
    substitutes: NDArray[np.int64]
    complements: NDArray[np.int64]
    ranked: NDArray[np.int64]
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, item: int) -> str:
        """The category path of an item, ``department/leaf``."""
        leaf = LEAVES[self.category[item]]
        return f"{leaf.department}/{leaf.name}"

    def popular(self, category: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
        """An item of each category by Zipf popularity; ``u`` uniform in [0, 1), shapes equal.

        The continuous inverse of the truncated power law: exact enough, and no table per category.
        """
        low = self.first[category]
        size = self.first[category + 1] - low
        power = 1.0 - zipf_exponent
        rank = ((u * ((size + 1.0) ** power - 1.0) + 1.0) ** (1.0 / power)).astype(np.int64) - 1
        return np.asarray(self.ranked[low + np.minimum(rank, size - 1)], np.int64)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, JSON) of every item for a catalog topic."""
        for item, (name, title) in enumerate(zip(self.ids, self.titles, strict=True)):
            record = {
                "item_id": name,
                "title": title,
                "category": self.path(item),
                "brand": BRANDS[self.brand[item]],
                "price": float(self.price[item]),
                "tags": title.lower().split()[1:3],
            }
            yield name.encode(), orjson.dumps(record)


def make_catalog(rng: np.random.Generator, n: int, *, growth_s: float) -> Catalog:
    """A catalog of ``n`` items, at least two for each category."""
    assert n >= 2 * len(LEAVES), f"a catalog needs at least {2 * len(LEAVES)} items"
    weight = 1.0 / (1.0 + np.arange(len(LEAVES))) ** 0.5
    extra = rng.choice(len(LEAVES), n - 2 * len(LEAVES), p=weight / weight.sum())
    category = np.concatenate([np.repeat(np.arange(len(LEAVES)), 2), extra])
    rng.shuffle(category)
    ranked = np.argsort(category, kind="stable")
    first = np.searchsorted(category[ranked], np.arange(len(LEAVES) + 1))
    # Each category has a third of the brands, so that brand and category tell about each other.
    brand = (category * 5 + rng.integers(0, len(BRANDS) // 3, n)) % len(BRANDS)
    median = np.array([leaf.price for leaf in LEAVES])[category]
    price = np.maximum(np.round(median * np.exp(rng.normal(0.0, price_spread, n)), 2), 0.5)
    # The head of each category is there from the start, so that everyone has a predecessor.
    head = ranked[first[category]]
    launch_s = np.where(rng.random(n) < launched_at_start, 0.0, rng.random(n) * growth_s)
    launch_s[head] = 0.0
    old = np.flatnonzero(launch_s == 0.0)
    guess = rng.choice(old, n)
    return Catalog(
        ids=[f"i{i}" for i in range(n)],
        titles=_titles(rng, category, brand),
        category=category,
        brand=brand,
        price=price,
        relative_price=np.log(price / median),
        launch_s=launch_s,
        predecessor=np.where(category[guess] == category, guess, head),
        substitutes=_near(rng, ranked, first, category, category, substitutes_per_item),
        complements=_near(rng, ranked, first, category, _partner()[category], complements_per_item),
        ranked=ranked,
        first=first,
    )


def _partner() -> NDArray[np.int64]:
    """For each category the one that goes with it."""
    index = {leaf.name: number for number, leaf in enumerate(LEAVES)}
    return np.array([index[leaf.complement] for leaf in LEAVES])


def _near(
    rng: np.random.Generator,
    ranked: NDArray[np.int64],
    first: NDArray[np.int64],
    category: NDArray[np.int64],
    target: NDArray[np.int64],
    k: int,
) -> NDArray[np.int64]:
    """``(n, k)`` items of category ``target`` near each item's own relative rank, never itself."""
    n = len(ranked)
    position = np.empty(n, np.int64)
    position[ranked] = np.arange(n) - first[category[ranked]]
    size = np.diff(first)
    centre = position * size[target] // size[category]
    reach = rng.integers(1, 3 * k, (n, k))
    place = (centre[:, None] + reach) % size[target][:, None]
    near = ranked[first[target][:, None] + place]
    itself = near == np.arange(n)[:, None]
    return np.where(itself, ranked[first[target] + (centre + 1) % size[target]][:, None], near)


def _titles(
    rng: np.random.Generator, category: NDArray[np.int64], brand: NDArray[np.int64]
) -> list[str]:
    n = len(category)
    picks = (rng.integers(0, len(words), n) for words in (ADJECTIVES, COLOURS, MATERIALS))
    nouns = [[noun.replace("_", " ") for noun in leaf.nouns.split()] for leaf in LEAVES]
    noun = rng.integers(0, 6, n)
    return [
        f"{BRANDS[b]} {ADJECTIVES[a]} {COLOURS[c]} {MATERIALS[m]} {nouns[g][w % len(nouns[g])]}"
        for b, g, w, a, c, m in zip(
            brand.tolist(),
            category.tolist(),
            noun.tolist(),
            *(pick.tolist() for pick in picks),
            strict=True,
        )
    ]
