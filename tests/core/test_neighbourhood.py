"""User-based filtering on the stream equals vectors, cosines and weighted sums made at once."""

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.learn import EVENT
from stream_app.core.model import KIND, KIND_WEIGHTS, RING_MAX, Model
from stream_app.core.neighbourhood import (
    FANS_MAX,
    KNN_MAX,
    SNAPSHOT_ITEMS,
    draw_user_knn,
)
from stream_app.core.similarity import cosine
from stream_app.core.state import decode_users
from stream_app.core.tables import ItemTables
from tests.core.logs import START_S, Related, Stream
from tests.core.scored import item_id

Snapshot = tuple[int, dict[int, float]]  # unix seconds, rating by item
MODEL = Model()


def random_log(seed: int, *, events: int = 260, items: int = 9) -> NDArray[np.void]:
    """Customers with tastes of their own who come back after hours or days."""
    rng = np.random.default_rng(seed)
    log = np.zeros(events, EVENT)
    now = START_S
    for k in range(events):
        now += float(rng.choice([5.0, 300.0, 7200.0, 86_400.0]))
        who = int(rng.integers(1, 15))
        item = (who * 2 + int(rng.integers(0, 5))) % items
        log[k]["customer"], log[k]["item"], log[k]["ts"] = who, item_id(item), now
        log[k]["offset"], log[k]["session"] = k, int(now // 3600) + 1
        log[k]["kind"] = KIND[str(rng.choice(["view", "view", "add_to_cart", "purchase"]))]
    return log


class Batch:
    """The same from the definition: dictionaries, no ring, no kernel."""

    def __init__(self) -> None:
        self.vectors: dict[int, dict[int, float]] = defaultdict(dict)
        self.seen_at: dict[int, float] = {}
        self.session: dict[int, tuple[int, int]] = {}
        self.fans: dict[int, dict[int, Snapshot]] = defaultdict(dict)

    def apply(self, event: NDArray[np.void]) -> None:
        who, item, ts = int(event["customer"]), int(event["item"]), float(event["ts"])
        vector = self.vectors[who]
        fade = 0.5 ** ((ts - self.seen_at.get(who, ts)) / MODEL.vector_half_life_s)
        for other in vector:
            vector[other] *= fade
        session, length = self.session.get(who, (0, 0))
        length = length if session == int(event["session"]) else 0
        if length == 0:
            self.tell(who, ts)
        vector[item] = vector.get(item, 0.0) + KIND_WEIGHTS[event["kind"]]
        self.session[who], self.seen_at[who] = (int(event["session"]), length + 1), ts
        if length + 1 in (3, 9, 27):
            self.tell(who, ts)

    def tell(self, who: int, ts: float) -> None:
        vector = self.vectors[who]
        best = sorted(vector, key=lambda item: (-np.float32(vector[item]), item))[:SNAPSHOT_ITEMS]
        if len(best) < 2:
            return
        ratings = {item: round(255 * vector[item] / vector[best[0]]) / 255 for item in best}
        for item in best:
            self.fans[item].pop(who, None)
            self.fans[item][who] = (int(ts), ratings)
            while len(self.fans[item]) > FANS_MAX:
                del self.fans[item][next(iter(self.fans[item]))]

    def scores(self, who: int, context: list[int], ts: float) -> dict[int, float]:
        """Σ cosine · rating over the nearest neighbours."""
        told: dict[int, Snapshot] = {}
        for item in context:
            for other, snapshot in self.fans[item].items():
                if other != who and snapshot[0] >= told.get(other, snapshot)[0]:
                    told[other] = snapshot
        vector = self.vectors[who]
        near = []
        for other, (when, ratings) in told.items():
            items = sorted(vector.keys() | ratings.keys())
            ours = [vector.get(item, 0.0) for item in items]
            near.append((cosine(ours, [ratings.get(i, 0.0) for i in items]), other, when, ratings))
        near.sort(key=lambda n: (-n[0], n[1]))
        found: dict[int, float] = defaultdict(float)
        for similarity, _, when, ratings in near[:KNN_MAX]:
            fade = 0.5 ** ((ts - when) / MODEL.vector_half_life_s)
            for item, rating in ratings.items():
                found[item] += similarity * rating * fade
        return dict(found)


def drawn(
    stream: Stream, tables: ItemTables, who: int, context: list[int], ts: float
) -> dict[int, float]:
    users = decode_users(np.array([who], np.uint64), [stream.blobs[who]])
    nodes = tables.lookup(np.array(context, np.uint64))[None, :]
    starts, out = np.zeros(2, np.int64), np.zeros(99, np.int64)
    values, wanted = np.zeros(99, np.float32), np.zeros(9, np.uint64)
    missing = draw_user_knn(
        users,
        np.zeros(1, np.int64),
        nodes,
        np.array([ts]),
        MODEL.vector_half_life_s,
        tables.keys,
        tables.slots,
        tables.nodes,
        tables.fans.reshape(-1),
        tables.fans_n,
        starts,
        out,
        values,
        wanted,
    )
    assert missing == 0
    n = int(starts[1])
    return dict(zip(tables.nodes["id"][out[:n]].tolist(), values[:n].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_and_scores_equal_the_batch_on_every_prefix(seed: int) -> None:
    stream, related, batch = Stream(MODEL), Related(MODEL), Batch()
    recent: dict[int, list[int]] = defaultdict(list)
    compared = 0
    for part in np.array_split(random_log(seed), 40):
        learned = stream.learn(part)
        related.merge(learned.transitions, learned.snapshots)
        for event in part:
            batch.apply(event)
            recent[int(event["customer"])].append(int(event["item"]))
        who, ts = int(part[-1]["customer"]), float(part[-1]["ts"])
        context = list(dict.fromkeys(recent[who][:-RING_MAX:-1]))[:6]
        found = drawn(stream, related.tables, who, context, ts)
        expected = batch.scores(who, context, ts)
        assert found.keys() == expected.keys()
        for item, value in expected.items():
            assert found[item] == pytest.approx(value, rel=0.02)  # ratings are kept in a byte
        compared += len(found)
    assert compared > 100


def test_fans_survive_being_stored_and_read() -> None:
    stream, related = Stream(MODEL), Related(MODEL)
    learned = stream.learn(random_log(5))
    related.merge(learned.transitions, learned.snapshots)
    blobs = related.blobs()
    again = ItemTables(MODEL, rows_max=100, nodes_max=200)
    nodes = again.ensure(np.array(list(blobs), np.uint64))
    again.decode(nodes, list(blobs.values()), now=0.0)
    assert again.encode(nodes) == list(blobs.values())
    assert again.fans_n.max() == FANS_MAX


def test_batch_boundaries_change_nothing() -> None:
    log = random_log(6)
    results = []
    for parts in (1, 9, len(log)):
        stream, related = Stream(MODEL), Related(MODEL)
        for part in np.array_split(log, parts):
            learned = stream.learn(part)
            related.merge(learned.transitions, learned.snapshots)
        ids = np.unique(log["item"])
        rows = related.tables.nodes["row"][related.tables.lookup(ids)]
        kept = related.tables.fans_n[rows]
        results.append((kept.tobytes(), related.tables.fans[rows].tobytes()))
    assert results[0] == results[1] == results[2]


def test_an_erased_customer_is_forgotten_by_the_items_they_like() -> None:
    log = random_log(7)
    erase = np.zeros(1, EVENT)
    erase["customer"], erase["kind"] = 3, KIND["erase"]
    erase["offset"], erase["ts"] = len(log), log["ts"][-1] + 1
    stream, related = Stream(MODEL), Related(MODEL)
    learned = stream.learn(log)
    related.merge(learned.transitions, learned.snapshots)
    liked = decode_users(np.array([3], np.uint64), [stream.blobs[3]])["vector_item"][0]
    assert 3 in related.tables.fans["customer"]
    learned = stream.learn(erase)
    related.merge(learned.transitions, learned.snapshots)
    tables = related.tables
    for node in tables.lookup(liked[liked != 0][:SNAPSHOT_ITEMS]).tolist():
        row = tables.nodes["row"][node]
        assert 3 not in tables.fans["customer"][row, : tables.fans_n[row]]
