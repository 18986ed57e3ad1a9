"""The learned blend in shops whose truth is known: regret against the best lists, and fixed blends.

Customers of such a shop look at items by turns. The next one is, with known shares, any item by its
popularity, one of those that are like the current one, or what usually follows it; so the chance of
every next item is known, and with it that of the best list there can be. All goes through LEARN and
RELATE as a worker runs them. Called by ``evaluate-blend`` and by tests.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core.hybrid import BLENDED, pinned_blend, prior_of
from stream_app.core.list_kinds import HOME
from stream_app.core.model import SEGMENTS_OF_EVENT
from stream_app.core.ranking import Ranker
from stream_app.core.scoring import DIRECT, FORWARD, POPULAR, SOURCES, SOURCES_N, TWO_HOP
from stream_app.core.state import decode_users
from stream_app.hashing import stable_hash
from stream_app.offline.engine import Engine, configured
from stream_app.ports import USERS
from stream_app.settings import Settings

ITEMS, ALIKE = 400, 8  # items of a shop; how many are like each other
CUSTOMERS = 50  # in the shop at a time
LEAVES = 1 / 6  # after a move
LOOK_S = 30.0  # at an item
START_S = 1_700_000_000.0
FOLLOWS = 0.7  # the rest goes to what follows the follower
CHECKPOINTS = 8
LEARNED, PUBLISHED = "learned", "published weights"
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Shop(NamedTuple):
    """Shares of moves: to whatever is popular, to the current item's like, to its follower."""

    popular: float
    alike: float
    following: float


SHOPS = {
    "mixed": Shop(0.3, 0.4, 0.3),
    "fashion": Shop(0.9, 0.07, 0.03),
    "likes": Shop(0.1, 0.85, 0.05),
    "series": Shop(0.1, 0.05, 0.85),
}


def truth(shop: Shop, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Chances of the first item ``(ITEMS,)``, and of the next by the current ``(ITEMS, ITEMS)``.

    >>> first, following = truth(SHOPS["mixed"], np.random.default_rng(1))
    >>> bool(np.allclose(following.sum(axis=1), 1.0)), bool(np.isclose(first.sum(), 1.0))
    (True, True)
    """
    popularity = rng.permutation(1.0 / np.arange(1, ITEMS + 1))
    popularity /= popularity.sum()
    kind = rng.permutation(ITEMS) // ALIKE
    alike = (kind[:, None] == kind) & ~np.eye(ITEMS, dtype=np.bool_)
    order = rng.permutation(ITEMS)
    following = np.zeros((ITEMS, ITEMS))
    following[order, np.roll(order, -1)] = FOLLOWS
    following[order, np.roll(order, -2)] = 1.0 - FOLLOWS
    likely = alike / alike.sum(axis=1, keepdims=True)
    return popularity, (
        shop.popular * popularity + shop.alike * likely + shop.following * following
    )


def _fixed(weights: Floats, settings: Settings, engine: Engine) -> NDArray[np.void]:
    """A blend that ranks with ``weights (SOURCES_N,)``, whatever happens."""
    on = [SOURCES.index(name) for name in configured(settings) if SOURCES.index(name) in BLENDED]
    kept = np.zeros(SOURCES_N)
    kept[on] = weights[on]
    return pinned_blend(kept, engine.stages.items.tables.model)


def _policies(settings: Settings, engine: Engine) -> dict[str, NDArray[np.void] | None]:
    """What each policy ranks with; ``None``: what the worker has learned by then."""
    found: dict[str, NDArray[np.void] | None] = {LEARNED: None}
    prior = prior_of(engine.stages.items.tables.model)
    found[PUBLISHED] = _fixed(prior, settings, engine)
    found["equal weights"] = _fixed(np.ones(SOURCES_N), settings, engine)
    for source in (DIRECT, TWO_HOP, FORWARD, POPULAR):
        one = np.zeros(SOURCES_N)
        one[source] = 1.0
        found[f"{SOURCES[source]} only"] = _fixed(one, settings, engine)
    return found


class _Customers:
    """Who is in the shop, and what they look at."""

    def __init__(self, first: Floats, following: Floats, rng: np.random.Generator) -> None:
        self._first, self._following, self._rng = first, following, rng
        self._next_id = CUSTOMERS
        self.names = [f"c{k}" for k in range(CUSTOMERS)]
        self.items = rng.choice(ITEMS, CUSTOMERS, p=first)

    def move(self) -> list[int]:
        """On to the next items, then some leave and others come; returns who these are."""
        for k, item in enumerate(self.items.tolist()):
            self.items[k] = self._rng.choice(ITEMS, p=self._following[item])
        return np.flatnonzero(self._rng.random(CUSTOMERS) < LEAVES).tolist()

    def replace(self, places: Sequence[int]) -> None:
        """New customers at first items in ``places``."""
        for k in places:
            self.names[k], self._next_id = f"c{self._next_id}", self._next_id + 1
            self.items[k] = self._rng.choice(ITEMS, p=self._first)

    def views(self, places: Sequence[int], ts: float) -> list[bytes]:
        """Their events."""
        return [
            orjson.dumps(
                {
                    "event": "view",
                    "ts": ts,
                    "user_id": self.names[k],
                    "item_id": f"item-{self.items[k]}",
                }
            )
            for k in places
        ]


async def regret(
    shop: Shop, settings: Settings, *, moves: int, k: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Play ``moves``; regret of the learned blend and of fixed ones, in hits of lists of ``k``.

    The regret of a list is the chance that the best list has the next item, less its own. ``late``
    is the mean chance over the later half, ``gain_interval`` the 95 % interval of what the learned
    blend gains there over the published weights, rounds taken as independent. ``weights`` are those
    learned in the end, over all steps.
    """
    rng = np.random.default_rng(seed)
    first, following = truth(shop, rng)
    engine = Engine(settings, list_size=k)
    await engine.start()
    policies = _policies(settings, engine)
    ranker = Ranker(engine.stages.items.tables, list_size=k, sources=configured(settings))
    best = np.sort(following, axis=1)[:, -k:].sum(axis=1)
    places = {stable_hash(f"item-{i}"): i for i in range(ITEMS)}
    customers, ts = _Customers(first, following, rng), START_S
    await engine.apply(customers.views(range(CUSTOMERS), ts))
    rounds = max(moves // CUSTOMERS, 2)
    chances = {name: np.zeros((rounds, CUSTOMERS)) for name in (*policies, "best possible")}
    for n in range(rounds):
        ts += LOOK_S
        at = customers.items
        for name, blend in policies.items():
            used = engine.stages.learn.blend_of(0) if blend is None else blend
            lists = await _listed(engine, ranker, customers.names, ts, used)
            for j, ids in enumerate(lists):
                items = [places[i] for i in ids.tolist()]
                chances[name][n, j] = following[at[j], items].sum()
        chances["best possible"][n] = best[at]
        leaving = customers.move()
        await engine.apply(customers.views(range(CUSTOMERS), ts))
        if leaving:
            customers.replace(leaving)
            await engine.apply(customers.views(leaving, ts + LOOK_S / 2))
    return _result(shop, engine, chances, k)


async def _listed(
    engine: Engine, ranker: Ranker, names: Sequence[str], ts: float, blend: Any
) -> list[NDArray[np.uint64]]:
    """Ids on the home list of each customer."""
    ids = np.array([stable_hash(name, 0) for name in names], np.uint64)
    blobs = await engine.store.load(USERS, [0] * len(ids), [key.tobytes() for key in ids])
    users, items = decode_users(ids, blobs), engine.stages.items
    rows, kinds = np.arange(len(ids)), np.full(len(ids), HOME, np.uint8)
    times = np.full(len(ids), ts)
    items.tables.advance(ts)
    nowhere = np.zeros((len(ids), SEGMENTS_OF_EVENT), np.uint32)
    extra = engine.stages.learn.listing.candidates.draw(users, rows, kinds, times, nowhere)
    partition = engine.stages.learn.owned[0].partition
    lists = ranker.rank(users, rows, kinds, times, partition, items.popular(), extra, blend)
    node_ids = items.tables.nodes["id"]
    return [node_ids[lists.nodes[j, : lists.counts[j]]] for j in range(len(ids))]


def _result(shop: Shop, engine: Engine, chances: dict[str, Floats], k: int) -> dict[str, Any]:
    best, rounds = chances["best possible"], len(chances[LEARNED])
    at = np.unique(np.geomspace(min(10, rounds), rounds, CHECKPOINTS).astype(np.int64))
    late = slice(rounds // 2, rounds)
    gain = (chances[LEARNED] - chances[PUBLISHED])[late].mean(axis=1)
    error = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5
    blend = engine.stages.learn.owned[0].blend
    observed = blend["observed"][0]
    tables = [DIRECT, TWO_HOP, FORWARD, POPULAR]  # nothing else has candidates in such a shop
    mean: Floats = (observed @ blend["weights"][0])[tables]
    return {
        "shop": shop._asdict(),
        "k": k,
        "moves": (at * CUSTOMERS).tolist(),
        "regret": {
            name: (best - chance).sum(axis=1).cumsum()[at - 1].tolist()
            for name, chance in chances.items()
            if name != "best possible"
        },
        "late": {name: float(chance[late].mean()) for name, chance in chances.items()},
        "gain": float(gain.mean()),
        "gain_interval": [float(gain.mean()) - error, float(gain.mean()) + error],
        "observations": int(observed.sum()),
        "weights": {
            SOURCES[s]: float(share)
            for s, share in zip(tables, mean / max(mean.sum(), 1e-300), strict=True)
        },
    }
