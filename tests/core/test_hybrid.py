"""The blend's weights learn from what comes next, with the regret promised, and stay without it."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.hybrid import (
    ASLEEP,
    BLEND,
    BLEND_1,
    BLENDED,
    decode_blend,
    learn_blend,
    new_blend,
    pinned_blend,
    published_weights,
    ranking_weights,
    used_weights,
)
from stream_app.core.model import STEPS_MAX, Model
from stream_app.core.scoring import (
    CONTENT,
    DIRECT,
    FORWARD,
    POPULAR,
    SOURCES,
    SOURCES_N,
    TRENDING,
    TWO_HOP,
)
from stream_app.errors import ConfigurationError, SchemaUnknown
from tests.core.scored import from_outside, world

PRIOR = new_blend(Model())["weights"][0, 0]
everything = frozenset(SOURCES)


def given_by(experts: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Observations of these sources; all others are asleep."""
    n = len(next(iter(experts.values())))
    given = np.full((n, SOURCES_N), ASLEEP)
    for source, values in experts.items():
        given[:, source] = values
    return given


def test_without_feedback_the_published_weights_rank() -> None:
    assert np.allclose(
        ranking_weights(Model(), everything, new_blend(Model())),
        ranking_weights(Model(), everything),
        rtol=1e-12,
    )
    w = world(21)
    blend = new_blend(Model())
    assert learn_blend(blend, np.zeros(3, np.uint8), np.full((3, SOURCES_N), ASLEEP), PRIOR) == 0
    assert blend.tobytes() == new_blend(Model()).tobytes(), "nothing said, nothing learned"
    np.testing.assert_array_equal(w.rank().nodes, w.rank(blend=blend).nodes)


def test_regret_against_the_best_fixed_mixture_is_within_the_square_root_bound() -> None:
    """2 experts are right by turns at random, the others hardly ever; also with tiny values."""
    rng = np.random.default_rng(3)
    n, rate = 4_000, math.sqrt(math.log(len(BLENDED)) / (2 * len(BLENDED) * 4_000))
    right = rng.random(n) < 0.7
    given = np.full((n, SOURCES_N), ASLEEP)
    given[:, BLENDED] = 10.0 ** rng.uniform(-12, -3, (n, len(BLENDED)))
    given[right, TRENDING] = 0.5
    given[~right, CONTENT] = 0.4
    blend = new_blend(Model())
    loss = 0.0
    for row in given:
        weights = blend["weights"][0, 2]
        loss -= math.log(float(weights[BLENDED] @ row[BLENDED]))
        learn_blend(blend, np.full(1, 2, np.uint8), row[None], PRIOR, rate, 0.0)
    best = min(
        -float(np.log(given[:, [TRENDING, CONTENT]] @ [a, 1 - a]).sum())
        for a in np.linspace(0.01, 0.99, 99)
    )
    published = -float(np.log(given[:, BLENDED] @ PRIOR[BLENDED]).sum())
    bound = math.sqrt(2 * len(BLENDED) * n * math.log(len(BLENDED))) + math.log(
        1 / PRIOR.min(where=PRIOR > 0, initial=1)
    )
    assert loss - best <= bound
    assert loss < published - bound, "and the published weights would have been far worse"


def test_a_step_learns_for_itself_and_a_sleeping_source_keeps_its_weight() -> None:
    blend = new_blend(Model())
    given = given_by({DIRECT: np.full(300, 0.01), FORWARD: np.full(300, 0.2)})
    assert learn_blend(blend, np.full(300, 4, np.uint8), given, PRIOR) == 300
    weights = blend["weights"][0]
    assert weights[4, FORWARD] > 1.5 * PRIOR[FORWARD] and weights[4, DIRECT] < PRIOR[DIRECT]
    np.testing.assert_allclose(weights[4, [TWO_HOP, CONTENT]], PRIOR[[TWO_HOP, CONTENT]])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_array_equal(weights[3], PRIOR)
    assert blend["observed"][0].tolist() == [0] * 4 + [300] + [0] * 11
    assert blend["loss"][0, 4] < blend["published_loss"][0, 4]


def test_weights_come_back_when_a_source_becomes_useful_again() -> None:
    blend = new_blend(Model())
    steps = np.zeros(5_000, np.uint8)
    good, bad = np.full(5_000, 0.3), np.full(5_000, 1e-6)
    learn_blend(blend, steps, given_by({POPULAR: bad, TWO_HOP: good}), PRIOR)
    assert 0.0 < blend["weights"][0, 0, POPULAR] < 0.3 * PRIOR[POPULAR]
    learn_blend(blend, steps, given_by({POPULAR: good, TWO_HOP: bad}), PRIOR)
    assert blend["weights"][0, 0, POPULAR] > 0.5


def test_the_mixture_is_calibrated_once_learned() -> None:
    """What it gives with probability p comes with frequency p."""
    rng = np.random.default_rng(9)
    mixed = rng.random(20_000) < 0.8  # which of two truths draws the item: TWO_HOP's or POPULAR's
    first = rng.uniform(0.0, 0.5, 20_000)
    second = rng.uniform(0.0, 0.5, 20_000)
    came = rng.random(20_000) < np.where(mixed, first, second)
    blend = new_blend(Model())
    given = given_by(
        {TWO_HOP: np.where(came, first, 1 - first), POPULAR: np.where(came, second, 1 - second)}
    )
    learn_blend(blend, np.zeros(20_000, np.uint8), given, PRIOR)
    weights = blend["weights"][0, 0, [TWO_HOP, POPULAR]]
    share = weights[0] / weights.sum()
    assert share == pytest.approx(0.8, abs=0.1)
    p = share * first + (1 - share) * second
    for low in (0.0, 0.1, 0.2, 0.3, 0.4):
        some = (p >= low) & (p < low + 0.1)
        assert came[some].mean() == pytest.approx(p[some].mean(), abs=0.03)


def test_what_sources_gave_an_item_is_their_share_without_the_customers_own() -> None:
    w = world(22)
    extra = from_outside(w, 4)
    targets = w.tables.nodes["id"][np.arange(len(w.users)) * 5 % 60].copy()
    given = w.probe(targets, extra)
    for i, user in enumerate(w.users):
        ring = set(user["ring_item"][: user["ring_n"]].tolist())
        if int(targets[i]) in ring:
            assert (given[i] == ASLEEP).all()
            continue
        for source in (CONTENT, TRENDING):
            at = np.arange(extra.starts[i], extra.starts[i + 1])
            at = at[extra.sources[at] == source]
            ids = w.tables.nodes["id"][extra.nodes[at]]
            others = np.array([int(key) not in ring for key in ids])
            total = extra.values[at][others].sum()
            mine = extra.values[at][ids == targets[i]].sum()
            assert given[i, source] == pytest.approx(mine / total, rel=1e-5)
        shares = given[i, BLENDED]
        assert ((shares == ASLEEP) | ((shares >= 0) & (shares <= 1 + 1e-6))).all()


def test_all_possible_next_items_share_a_probability_of_one() -> None:
    w = world(23, items=40, customers=3)
    user = w.users[:1]
    ids = w.tables.nodes["id"][: w.tables.nodes_n].copy()
    many = w._replace(users=np.repeat(user, len(ids)))
    given = many.probe(ids, None)
    for source in (DIRECT, TWO_HOP, FORWARD, POPULAR):
        column = given[:, source]
        assert column[column >= 0].sum() == pytest.approx(1.0, rel=1e-5)


def test_pinned_weights_rank_as_the_learned_ones_did_when_they_were_written() -> None:
    rng = np.random.default_rng(5)
    parts = np.concatenate([new_blend(Model()) for _ in range(2)])
    for part in range(2):
        learned = rng.random((STEPS_MAX, len(BLENDED)))
        parts["weights"][part][:, BLENDED] = learned / learned.sum(axis=1, keepdims=True)
    parts["published_loss"][:, :4] = (0.0, 0.02, 0.5, 0.5)  # not trusted, half, fully
    parts["observed"][:, :4] = [(7, 7, 30, 0), (0, 0, 10, 0)]
    one = pinned_blend(used_weights(parts[:1], Model()), Model())
    for sources in (everything, everything - {"content", "popularity"}):
        expected = ranking_weights(Model(), sources, parts[:1])
        found = ranking_weights(Model(), sources, one)
        np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-12)
    both = used_weights(parts, Model())
    np.testing.assert_allclose(both[2], np.average(parts["weights"][:, 2], 0, weights=(30, 10)))
    np.testing.assert_allclose(both[3], PRIOR, err_msg="nothing was observed")


def test_learned_weights_change_the_lists() -> None:
    w = world(24)
    blend = new_blend(Model())
    blend["weights"][:] = 0.0
    blend["weights"][:, :, POPULAR] = 1.0
    np.testing.assert_array_equal(w.rank(blend=blend).nodes, w.rank().nodes, "nothing proved yet")
    blend["published_loss"] = 0.5
    only = w.rank(blend=blend)
    shown = {SOURCES[source] for source in only.sources[only.nodes >= 0].tolist()}
    assert shown <= {"popularity", "repeat", "return"} and "popularity" in shown


def test_weights_of_a_release_with_fewer_sources_go_on_as_if_the_new_ones_had_slept() -> None:
    rng = np.random.default_rng(6)
    known, steps = BLEND_1["weights"].shape[1], np.zeros(400, np.uint8)
    given = np.full((len(steps), SOURCES_N), ASLEEP)
    blended = [s for s in BLENDED.tolist() if s < known]
    given[:, blended] = rng.random((len(steps), len(blended))) ** 4
    prior = PRIOR[:known] / PRIOR[:known].sum()
    old = np.zeros(1, BLEND_1)
    old["schema"], old["sources_n"], old["weights"] = 1, known, prior
    learn_blend(old, steps[:300], given[:300, :known].copy(), prior)
    found, expected = decode_blend(old.tobytes(), Model()), new_blend(Model())
    learn_blend(found, steps[300:], given[300:], PRIOR)
    learn_blend(expected, steps, given, PRIOR)
    for name in BLEND.names or ():
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)
    assert found["observed"][0, 0] == 400 and found["schema"][0] == 2
    assert found["weights"][0, 1, known:] == pytest.approx(PRIOR[known:])
    assert decode_blend(found.tobytes(), Model()).tobytes() == found.tobytes()


def test_records_of_another_release_stop_the_worker_with_a_reason() -> None:
    blend = new_blend(Model())
    assert decode_blend(blend.tobytes(), Model()).tobytes() == blend.tobytes()
    assert decode_blend(None, Model()).dtype == BLEND
    with pytest.raises(SchemaUnknown, match="blend weights have schema 9"):
        decode_blend(b"\x09" + blend.tobytes()[1:], Model())
    with pytest.raises(ConfigurationError, match="magic"):
        ranking_weights(Model(), frozenset({"magic"}))
    assert published_weights(Model())[:4].sum() == pytest.approx(1.0)
