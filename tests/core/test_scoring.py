"""The scoring kernels equal the formulas, compiled or not, and keep their promises at the edges."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.core.hybrid import ranking_weights
from stream_app.core.learn import EVENT
from stream_app.core.list_kinds import CART, LISTS
from stream_app.core.model import CONTEXT_MAX, KIND, Model
from stream_app.core.ranking import Lists, Popular, Ranker
from stream_app.core.revisits import new_recent, recent_items
from stream_app.core.scoring import DIRECT, FORWARD, POPULAR, REPEAT, RETURN, SOURCES, TWO_HOP
from stream_app.core.state import new_partition
from stream_app.core.tables import ItemTables
from stream_app.errors import ConfigurationError
from tests.core.logs import START_S, Related, Stream
from tests.core.scored import World, from_outside, item_id, most_popular, pair_weights, world
from tests.core.test_shaping import described

BLENDED = frozenset(SOURCES[:4])
every_kind = range(len(LISTS))
single_precision = 2e-5  # relative: candidates are summed in float32


def ring_of(user: NDArray[np.void]) -> list[int]:
    """A customer's recent items, newest first, each once."""
    return list(dict.fromkeys(user["ring_item"][: user["ring_n"]][::-1].tolist()))


def fading(user: NDArray[np.void], model: Model) -> NDArray[np.float64]:
    """How much each of a customer's recent items counts, newest first."""
    items = user["ring_item"][: user["ring_n"]][::-1]
    times = user["ring_ts"][: user["ring_n"]][::-1].astype(np.float64)
    when = np.array([times[items == item][0] for item in ring_of(user)[:CONTEXT_MAX]])
    gaps_s = np.maximum(times[0] - when, 0.0) if len(when) else when
    near = 1.0 / np.sqrt(1.0 + gaps_s / model.pair_gap_s)
    faded: NDArray[np.float64] = near * np.exp(-model.context_decay * np.arange(len(when)))
    return faded


def expected_scores(
    w: World,
    user: NDArray[np.void],
    sources: frozenset[str],
    outside: Mapping[int, NDArray[np.float64]] | None = None,
) -> NDArray[np.float64]:
    """Every item's blended score, by products of dense matrices; ``outside`` by source number."""
    t, model = w.tables, w.tables.model
    nodes = t.nodes[: t.nodes_n]
    forward, backward = pair_weights(t)
    pairs = forward + backward
    g = t.growth(float(user["last_ts"]))
    mass = nodes["mass"] + model.mass_prior * g
    near = t.lookup(np.array(ring_of(user)[:CONTEXT_MAX], np.uint64))
    fade = fading(user, model)
    heavy = np.where(nodes["mass"] > 0, nodes["mass"], np.inf)  # others have no table
    direct = (fade / np.sqrt(heavy[near])) @ pairs[near] / np.sqrt(mass)
    hops = np.argsort(-direct, kind="stable")[: model.two_hop_max]
    through = direct[hops] / heavy[hops] ** model.hub_power
    two_hop = through @ pairs[hops] / mass**0.375
    touched = (direct > 0) | (two_hop > 0)
    touched[w.popular.nodes] = True
    touched[t.lookup(np.array(ring_of(user), np.uint64))] = True
    for value in (outside or {}).values():
        touched |= value > 0
    values = {DIRECT: direct, TWO_HOP: two_hop, FORWARD: forward[near[0]]}
    values |= {POPULAR: np.where(touched, nodes["popularity"], 0.0), **(outside or {})}
    found = fade @ nodes["found"][near] / g
    moved = fade @ (nodes["out"] - nodes["repeats"])[near] / g
    sure = (found + model.found_prior * model.found_rate) / (moved + model.found_prior)
    weights = ranking_weights(model, sources)[0]
    score = np.zeros(t.nodes_n)
    for source, value in values.items():
        share = model.blend_share * sure * weights[source]
        score += share * (value / max(value.sum(), 1e-300)) ** 0.75
    return score


def add_revisits(w: World, user: NDArray[np.void], score: NDArray[np.float64]) -> None:
    """The probabilities of the customer's own items, from the learned weights."""
    model, nodes, part = w.tables.model, w.tables.nodes, w.partition[0]
    g = w.tables.growth(float(user["last_ts"]))
    recent = new_recent()
    n, _ = recent_items(np.array([user]).view(np.recarray)[0], recent)
    logits = -2.0 + part["revisit_weights"][recent.categories[:n]].astype(np.float64).sum(axis=1)
    own = w.tables.lookup(recent.items[:n])
    usual = (part["repeats"] + 1.0) / (part["transitions"] + 4.0)
    rate = nodes["repeats"][own[0]] / g + model.repeat_prior * usual
    rate /= nodes["out"][own[0]] / g + model.repeat_prior
    logits[0] += np.log(rate / (1 - rate)) - np.log(usual / (1 - usual))
    score[own[0]] = 0.0
    score[own] = model.return_share * score[own] + 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "sources", [frozenset(SOURCES), BLENDED, frozenset({"two_hop"}), frozenset({"next_item"})]
)
def test_lists_equal_the_formulas(seed: int, sources: frozenset[str]) -> None:
    w = world(seed)
    lists = w.rank(size=12, sources=sources)
    for i, user in enumerate(w.users):
        score = expected_scores(w, user, sources)
        if "repeat" in sources:
            add_revisits(w, user, score)
        order = np.lexsort((w.tables.nodes["id"][: len(score)], -score))[:12]
        count = int(np.count_nonzero(score[order] > 0))
        assert lists.counts[i] == count
        np.testing.assert_allclose(
            lists.scores[i, :count], score[order][:count], rtol=single_precision
        )
        found = score[lists.nodes[i, :count]]
        np.testing.assert_allclose(found, lists.scores[i, :count], rtol=single_precision)


def test_a_neighbour_names_the_item_it_was_drawn_from() -> None:
    w = world(1)
    forward, backward = pair_weights(w.tables)
    lists = w.rank()
    for i, user in enumerate(w.users):
        near = w.tables.lookup(np.array(ring_of(user)[:CONTEXT_MAX], np.uint64))
        fade = fading(user, w.tables.model)
        mass = w.tables.nodes["mass"][near]
        pull = (fade / np.sqrt(np.where(mass > 0, mass, np.inf)))[:, None] * (forward + backward)[
            near
        ]
        pull[np.arange(len(near)), near] = 0.0  # none is the reason for itself
        for node, source, because in zip(
            lists.nodes[i], lists.sources[i], lists.because[i], strict=True
        ):
            own = source in (REPEAT, RETURN)
            strongest = near[np.argmax(pull[:, node])] if pull[:, node].max() > 0 else -1
            assert because == (-1 if own else strongest)


def fingerprint() -> str:
    """Everything scoring returns for one small world, compiled or not."""
    w = world(5, events=60, items=15, customers=3)
    digest = hashlib.blake2b()
    extra = from_outside(w, 2)
    catalog = described(w, 5)
    ranked = [w.rank(), w.rank(exclude_seen=True), w.rank(which=CART), w.rank(extra=extra)]
    for lists in [*ranked, *(w.rank(which=k, extra=extra, catalog=catalog) for k in every_kind)]:
        for array in lists:
            digest.update(array.tobytes())
    digest.update(w.partition.tobytes())
    return digest.hexdigest()


def test_plain_python_computes_the_same_bits() -> None:
    code = "from tests.core.test_scoring import fingerprint; print(fingerprint())"
    plain = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert plain.stdout.strip() == fingerprint()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from((*SOURCES, None)))
def test_what_is_excluded_never_appears(seed: int, source: str | None) -> None:
    w = world(seed, events=120, items=25, customers=4)
    sources = frozenset({source}) if source else None
    unseen = w.rank(exclude_seen=True, sources=sources)
    cart = w.rank(which=CART, sources=sources)
    for i, user in enumerate(w.users):
        ids = w.tables.nodes["id"]
        shown = set(ids[unseen.nodes[i, : unseen.counts[i]]].tolist())
        assert not shown & set(ring_of(user))
        shown = set(ids[cart.nodes[i, : cart.counts[i]]].tolist())
        assert not shown & set(user["cart_item"][: user["cart_n"]].tolist())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from((*SOURCES, None)))
def test_lists_are_sorted_distinct_and_positive(seed: int, source: str | None) -> None:
    w = world(seed, events=120, items=25, customers=4)
    lists = w.rank(size=7, sources=frozenset({source}) if source else None)
    for i in range(len(w.users)):
        n = lists.counts[i]
        nodes, scores = lists.nodes[i, :n], lists.scores[i, :n]
        assert len(set(nodes.tolist())) == n
        assert (scores > 0).all()
        keys = list(zip((-scores).tolist(), w.tables.nodes["id"][nodes].tolist(), strict=True))
        assert keys == sorted(keys)
        assert (lists.nodes[i, n:] == -1).all()


def test_ties_go_to_the_smaller_id_however_items_lie_in_memory() -> None:
    """Six items follow the same one equally often, met in any order."""
    for order in ([3, 1, 6, 2, 5, 4], [6, 5, 4, 3, 2, 1]):
        stream, related = Stream(), Related(Model())
        for k, item in enumerate(order):
            events = np.zeros(2, EVENT)
            events["customer"], events["item"] = 100 + k, [50, item]
            events["ts"], events["kind"] = START_S, KIND["view"]
            related.merge(stream.learn(events).transitions)
        one = stream.learn(single_event(7, 50))
        related.merge(one.transitions)
        lists = rank_one(stream, related, 7, frozenset({"next_item"}))
        ids = related.tables.nodes["id"][lists.nodes[0, : lists.counts[0]]]
        assert ids.tolist() == [1, 2, 3, 4, 5, 6]


def single_event(customer: int, item: int) -> NDArray[np.void]:
    """One view."""
    events = np.zeros(1, EVENT)
    events["customer"], events["item"] = customer, item
    events["ts"], events["kind"] = START_S, KIND["view"]
    return events


def rank_one(
    stream: Stream, related: Related, customer: int, sources: frozenset[str] | None = None
) -> Lists:
    """The home list of one customer."""
    from stream_app.core.state import decode_users

    users = decode_users(np.array([customer], np.uint64), [stream.blobs.get(customer)])
    tables = related.tables
    return Ranker(tables, list_size=10, sources=sources).rank(
        users,
        np.zeros(1, np.int64),
        np.zeros(1, np.uint8),
        np.array([START_S]),
        stream.partition,
        most_popular(tables),
    )


def test_nothing_known_gives_an_empty_list() -> None:
    lists = rank_one(Stream(), Related(Model()), 1)
    assert lists.counts.tolist() == [0]


def test_an_item_without_a_table_leaves_the_popular_ones_and_itself() -> None:
    w = world(2)
    stream = Stream()
    stream.learn(single_event(7, item_id(10_000)))
    related = Related(Model())
    related.tables = w.tables
    unknown = rank_one(stream, related, 7, BLENDED)
    popular = most_popular(w.tables).nodes[:10]
    assert unknown.nodes[0].tolist() == popular.tolist()
    assert {SOURCES[source] for source in unknown.sources[0]} == {"popularity"}


def test_items_whose_masses_were_not_read_are_left_out() -> None:
    w = world(3)
    hidden = w.rank(exclude_seen=True).nodes[0, 0]
    w.tables.nodes["known"][hidden] = 0
    assert hidden not in w.rank(exclude_seen=True).nodes[0]


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "exploration"])
def test_one_source_alone_gives_only_its_own(source: str) -> None:
    w = world(4)
    lists = w.rank(sources=frozenset({source}), extra=from_outside(w, 1))
    shown = lists.sources[lists.nodes >= 0]
    assert {SOURCES[number] for number in shown.tolist()} == {source}


def test_an_unknown_source_is_named_with_the_cure() -> None:
    tables = ItemTables(Model(), rows_max=1, nodes_max=1)
    with pytest.raises(ConfigurationError, match=r"magic.*two_hop"):
        Ranker(tables, list_size=1, sources=frozenset({"magic"}))
    with pytest.raises(ConfigurationError, match="none"):
        Ranker(tables, list_size=1, sources=frozenset())


def test_a_batch_is_scored_like_its_customers_one_by_one() -> None:
    w = world(6)
    together = w.rank()
    ranker = Ranker(w.tables, list_size=20)
    for i in range(len(w.users)):
        alone = ranker.rank(
            w.users,
            np.array([i]),
            np.zeros(1, np.uint8),
            w.users["last_ts"][i : i + 1],
            w.partition,
            Popular(*w.popular),
        )
        for one, many in zip(alone, together, strict=True):
            assert np.array_equal(np.asarray(one)[0], np.asarray(many)[i])


def test_no_table_of_the_partition_outgrows_its_commit() -> None:
    partition = new_partition()
    mind = partition["insight"]  # of fixed size, by far the largest part
    assert partition.nbytes - mind.nbytes < 8192, "it is written with every batch"
    assert mind.nbytes < 24_576, "and so is what predictions and decisions have learned"


def test_an_item_with_a_full_table_stays_below_its_published_size() -> None:
    model = Model()
    stream, related = Stream(model), Related(model)
    for item in range(2, 3 * model.neighbours_max):
        events = np.zeros(2, EVENT)
        events["customer"], events["item"] = item, [1, item]
        events["ts"], events["kind"] = START_S, KIND["view"]
        related.merge(stream.learn(events).transitions)
    assert max(map(len, related.blobs().values())) <= 1400
