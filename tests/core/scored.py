"""A small world to score: random logs learned by the real code, read back as dense matrices."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.catalog import CatalogView
from stream_app.core.drawing import new_drawn
from stream_app.core.jaccard import Desk, draw_jaccard, new_desk, room_of
from stream_app.core.learn import EVENT, TRANSITION
from stream_app.core.list_kinds import RECENT
from stream_app.core.model import KIND, Model
from stream_app.core.ranking import Lists, Popular, Ranker
from stream_app.core.revisits import new_recent
from stream_app.core.rules import Rules
from stream_app.core.scoring import JACCARD, OWN_N, SOURCES_N, View
from stream_app.core.scoring_extra import Extra
from stream_app.core.shaping import EMPTY_CATALOG, NO_FALLBACK, Fallback
from stream_app.core.state import decode_users
from stream_app.core.tables import ItemTables
from tests.core.logs import START_S, Related, Stream

Matrix = NDArray[np.float64]


def item_id(number: int) -> int:
    """A well-spread 64-bit id."""
    return (number + 1) * 0x9E3779B97F4A7C15 % 2**64


class World(NamedTuple):
    """Customers ``users (n,)`` and the item tables after one log."""

    users: NDArray[np.void]
    partition: NDArray[np.void]
    tables: ItemTables
    popular: Popular
    transitions: NDArray[np.void]  # all that the tables were learned from

    def rank(
        self,
        *,
        size: int = 20,
        exclude_seen: bool = False,
        which: int = 0,
        sources: frozenset[str] | None = None,
        extra: Extra | None = None,
        blend: NDArray[np.void] | None = None,
        rules: Rules | None = None,
        catalog: CatalogView = EMPTY_CATALOG,
        fallback: Fallback = NO_FALLBACK,
    ) -> Lists:
        """Lists of all customers as of their last event."""
        ranker = Ranker(
            self.tables, list_size=size, exclude_seen=exclude_seen, sources=sources, rules=rules
        )
        n = len(self.users)
        return ranker.rank(
            self.users,
            np.arange(n),
            np.full(n, which, np.uint8),
            self.users["last_ts"],
            self.partition,
            self.popular,
            extra,
            blend,
            catalog,
            fallback,
        )

    def probe(self, items: NDArray[np.uint64], extra: Extra | None) -> NDArray[np.float64]:
        """What the sources gave ``items`` for the customers in turn."""
        ranker = Ranker(self.tables, list_size=1)
        return ranker.probe(self.users, items, self.users["last_ts"], self.popular, extra)


def world(seed: int, *, events: int = 600, items: int = 80, customers: int = 12) -> World:
    """Learn a random log: items near each other follow each other, some kinds of events each."""
    *_, last = worlds(seed, events=events, items=items, customers=customers)
    return last


def worlds(
    seed: int, *, events: int = 600, items: int = 80, customers: int = 12
) -> Iterator[World]:
    """The same after every seventh of the log. They share the item tables, which go on."""
    rng = np.random.default_rng(seed)
    log = np.zeros(events, EVENT)
    who = rng.integers(1, customers + 1, events)
    walk = np.zeros(customers + 1, np.int64)
    now = START_S
    for k, c in enumerate(who.tolist()):
        now += float(rng.choice([5.0, 40.0, 900.0, 5000.0]))
        walk[c] = (walk[c] + rng.choice([-2, -1, 0, 0, 1, 1, 3, 17])) % items
        log[k]["customer"], log[k]["item"] = c, item_id(int(walk[c]))
        log[k]["ts"], log[k]["offset"] = now, k
        log[k]["kind"] = KIND[str(rng.choice(["view", "view", "view", "add_to_cart", "purchase"]))]
    stream, related = Stream(), Related(Model())
    moves = np.zeros(0, TRANSITION)
    for part in np.array_split(log, 7):
        transitions = stream.learn(part).transitions
        related.merge(transitions)
        moves = np.concatenate((moves, transitions))
        ids = np.array(sorted(stream.blobs), np.uint64)
        tables = related.tables
        yield World(
            decode_users(ids, [stream.blobs[key] for key in ids.tolist()]),
            stream.partition,
            tables,
            most_popular(tables),
            moves,
        )


def from_outside(w: World, seed: int, *, per_source: int = 6, lists: int | None = None) -> Extra:
    """Candidates of every source outside the kernel for every list, also of unknown items."""
    rng = np.random.default_rng(seed)
    n = len(w.users) if lists is None else lists
    strange = w.tables.ensure(np.array([item_id(9_000 + k) for k in range(8)], np.uint64))
    pool = np.concatenate((np.arange(w.tables.nodes_n - 8), strange))
    starts, nodes, sources = [0], [], []
    for _ in range(n):
        for source in range(OWN_N, SOURCES_N):
            nodes.append(rng.choice(pool, per_source, replace=False))
            sources.append(np.full(per_source, source, np.uint8))
        starts.append(starts[-1] + per_source * (SOURCES_N - OWN_N))
    return Extra(
        np.array(starts),
        np.concatenate(nodes).astype(np.int64),
        rng.random(starts[-1]).astype(np.float32),
        np.concatenate(sources),
    )


def drawn_by_jaccard(
    w: World,
    rows: NDArray[np.int64] | None = None,
    *,
    anchor: int = RECENT,
    desk: Desk | None = None,
) -> Extra:
    """What the source hands over for one list of each of ``w.users[rows]``, all if not given."""
    t, rows = w.tables, np.arange(len(w.users)) if rows is None else rows
    out = new_drawn(len(rows), room_of(t.model))
    draw_jaccard(
        View(t.nodes, t.neighbour, t.forward, t.backward, t.filled),
        t.keys,
        t.slots,
        w.users,
        rows,
        np.full(len(rows), anchor, np.uint8),
        t.growths(w.users["last_ts"][rows]),
        t.model,
        new_recent(),
        desk or new_desk(t.nodes_n, t.model),
        out,
    )
    n = int(out.starts[-1])
    sources = np.full(n, JACCARD, np.uint8)
    return Extra(out.starts, out.nodes[:n], out.values[:n], sources, out.because[:n])


def most_popular(tables: ItemTables) -> Popular:
    """The items of highest popularity, ties by id."""
    nodes = tables.nodes[: tables.nodes_n]
    order = np.lexsort((nodes["id"], -nodes["popularity"]))[: tables.model.popular_max]
    return Popular(order.astype(np.int64), nodes["popularity"][order])


def pair_weights(tables: ItemTables) -> tuple[Matrix, Matrix]:
    """Forward and backward weights of the neighbour tables as dense (items, items) matrices."""
    n = tables.nodes_n
    forward, backward = np.zeros((n, n)), np.zeros((n, n))
    for node in range(n):
        row = tables.nodes["row"][node]
        filled = tables.filled[row]
        at = tables.neighbour[row, :filled]
        forward[node, at] = tables.forward[row, :filled]
        backward[node, at] = tables.backward[row, :filled]
    return forward, backward
