"""Predictions, segments, decisions and feedback, as LEARN makes them from a log of events."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.actions import FACTS, parse_actions
from stream_app.core.experiments import compile_experiments as compiled
from stream_app.core.experiments import no_trials, parse_experiments, results, variant_of
from stream_app.core.feedback import CLICKS, IMPRESSIONS, PURCHASES
from stream_app.core.insight import Policy, elapse_for_all
from stream_app.core.insight_fields import HEADS, MARKETING, PERSONAL
from stream_app.core.journey import STEPS
from stream_app.core.learn import EVENT, learn
from stream_app.core.model import KIND, Model
from stream_app.core.prequential import bucket_auc, report
from stream_app.core.segments import segment_report
from stream_app.core.state import new_partition, new_users
from stream_app.decisions import load_decisions
from stream_app.errors import ConfigurationError
from tests.core.logs import JOURNEY, START_S

DAY_S = 86_400.0
COUPON = """
[action.show_list]
[promotion.TEN]
discount = 0.1
per_customer = 2
per_days = 30
"""


class Shop:
    """Customers of one partition, learned event by event or in batches."""

    def __init__(self, customers: int, *, actions: str = "[action.show_list]") -> None:
        arms = parse_actions(actions, "test").compiled(STEPS, 1)
        self.policy = Policy(arms, no_trials())
        self.users = new_users(np.arange(1, customers + 1, dtype=np.uint64))
        self.partition = new_partition()
        self.offset = 0

    def happen(self, log: NDArray[np.void], *, cuts: int = 1) -> None:
        """Learn ``log``; customer k is row k - 1."""
        log["offset"] = self.offset + np.arange(len(log))
        self.offset += len(log)
        for part in np.array_split(log, cuts):
            rows = part["customer"].astype(np.int64) - 1
            given = (part, self.partition, Model(), JOURNEY.plan)
            learn(self.users, rows, *given, policy=self.policy)

    def end(self, ts: float) -> None:
        """Time passes without events."""
        elapse_for_all(self.users, self.partition["insight"], ts, Model(), self.policy)

    @property
    def mind(self) -> NDArray[np.void]:
        mind: NDArray[np.void] = self.partition["insight"][0]
        return mind


def sessions(n: int, customers: int, *, seed: int = 0) -> NDArray[np.void]:
    """Sessions of five events, an hour apart; who puts something into the cart mostly buys it."""
    rng = np.random.default_rng(seed)
    log = np.zeros(5 * n, EVENT)
    log["customer"] = np.repeat(rng.integers(1, customers + 1, n), 5)
    log["ts"] = START_S + np.repeat(np.arange(n), 5) * 3600.0 + np.tile(np.arange(5) * 20.0, n)
    log["item"] = rng.integers(1, 50, len(log))
    log["session"] = np.repeat(np.arange(1, n + 1), 5)
    kinds = np.full((n, 5), KIND["view"])
    carts = rng.random(n) < 0.4
    kinds[carts, 2] = KIND["add_to_cart"]
    kinds[carts & (rng.random(n) < 0.8), 4] = KIND["purchase"]
    log["kind"] = kinds.ravel()
    log["value"] = np.where(log["kind"] == KIND["purchase"], 20.0, 0.0)
    return log


@pytest.fixture(scope="module")
def learned() -> Shop:
    shop = Shop(60)
    shop.happen(sessions(2_500, 60), cuts=9)
    shop.end(START_S + 2_500 * 3600.0 + 60 * DAY_S)
    return shop


def test_predictions_beat_the_base_rate_and_are_calibrated(learned: Shop) -> None:
    found = report(learned.mind["gauges"][0], learned.mind["buckets"][0])
    assert found["labels"] == 2_500, "one label of every session"
    assert found["auc"] > 0.85
    assert found["log_loss"] < 0.75 * found["base_log_loss"]
    assert found["calibration_error"] < 0.05
    assert found["drifts"] == 0


def test_every_head_gets_its_labels(learned: Shop) -> None:
    labels = {name: learned.mind["gauges"][k][0] for k, name in enumerate(HEADS)}
    assert labels["churn"] == 2_500
    assert labels["purchase_in_week"] > 60 * 10, "one of each customer's weeks"
    assert not learned.users["moment_on"].any() and not learned.users["week_on"].any()


def test_the_expected_order_is_what_orders_are_worth(learned: Shop) -> None:
    assert learned.users["order_value"] == pytest.approx(20.0, rel=0.2)


def test_batches_cut_otherwise_give_the_same_bits(learned: Shop) -> None:
    other = Shop(60)
    other.happen(sessions(2_500, 60), cuts=401)
    other.end(START_S + 2_500 * 3600.0 + 60 * DAY_S)
    assert other.partition.tobytes() == learned.partition.tobytes()
    assert other.users.tobytes() == learned.users.tobytes()


def test_segments_are_all_used_and_their_quality_is_known(learned: Shop) -> None:
    found = segment_report(learned.mind, Model().segments_n)
    assert found["placed"] == 2_500
    assert min(found["shares"]) > 0.0 and found["silhouette"] > 0.1
    assert found["inertia"] < found["next_inertia"]


def test_a_drifted_loss_raises_the_alarm() -> None:
    shop = Shop(60)
    shop.happen(sessions(1_500, 60), cuts=3)
    turned = sessions(1_500, 60, seed=1)
    turned["ts"] += 1_500 * 3600.0
    turned["session"] += 1_500
    bought = turned["kind"] == KIND["purchase"]
    turned["kind"][turned["kind"] == KIND["add_to_cart"]] = KIND["view"]
    turned["kind"][~np.repeat(bought.reshape(-1, 5).any(axis=1), 5)] = KIND["add_to_cart"]
    shop.happen(turned, cuts=3)
    assert shop.mind["gauges"][0][12] >= 1


def test_caps_are_never_exceeded_and_consent_is_honoured() -> None:
    shop = Shop(20, actions=COUPON)
    shop.users["refused"][:5] = MARKETING
    shop.users["refused"][5:8] = PERSONAL
    offers: dict[int, list[float]] = {}
    for event in np.split(sessions(1_200, 20), 6_000):
        before = shop.users["action_ts"].copy(), shop.users["action"].copy()
        shop.happen(event)
        row = int(event["customer"][0]) - 1
        user = shop.users[row]
        fresh = (user["action_ts"], user["action"]) != (before[0][row], before[1][row])
        if user["action"] == 2 and fresh:
            offers.setdefault(row, []).append(float(event["ts"][0]))
    assert offers and min(offers) >= 8, "who refused gets none"
    for times in offers.values():
        for first in times:
            assert sum(first <= ts < first + 30 * DAY_S for ts in times) <= 2


def test_propensities_are_those_of_the_draw() -> None:
    shop = Shop(2_000, actions="[action.show_list]\n[action.cross_sell]\n[action.remind_cart]")
    log = np.zeros(2_000, EVENT)
    log["customer"], log["ts"] = np.arange(1, 2_001), START_S
    log["kind"], log["item"] = KIND["view"], 3
    shop.happen(log)
    assert shop.users["action_propensity"] == pytest.approx(1 / 3, abs=1e-6)
    assert np.bincount(shop.users["action"])[1:] == pytest.approx(2_000 / 3, rel=0.1)


def test_clicks_on_our_lists_earn_them_their_purchases() -> None:
    shop = Shop(1)
    log = np.zeros(4, EVENT)
    log["customer"], log["ts"], log["item"] = 1, START_S + np.arange(4), [5, 5, 5, 6]
    log["kind"] = [KIND[name] for name in ("impression", "click", "purchase", "purchase")]
    log["list"], log["source"] = [1, 1, 0, 0], [2, 2, 0, 0]
    shop.happen(log)
    home = shop.mind["feedback"][0]
    assert (home[IMPRESSIONS], home[CLICKS], home[PURCHASES]) == (1, 1, 1)


def test_assignment_is_sticky_and_as_shared() -> None:
    (one,) = parse_experiments("[experiment.a]\nvariants = { no = 0.75, yes = 0.25 }", "test")
    trials = compiled((one,))
    found = [variant_of(np.uint64(k * 7919), trials, 0) for k in range(4_000)]
    assert found == [variant_of(np.uint64(k * 7919), trials, 0) for k in range(4_000)]
    assert np.mean(found) == pytest.approx(0.25, abs=0.03)


def test_looking_all_the_time_finds_no_difference_where_there_is_none() -> None:
    (one,) = parse_experiments("[experiment.a]\nvariants = { no = 1, yes = 1 }", "test")
    wrong = 0
    for seed in range(100):
        bought = np.cumsum(np.random.default_rng(seed).random((2, 3_000)) < 0.1, axis=1)
        verdicts = set()
        for n in range(50, 3_000, 50):
            sums = np.zeros((4, 6))
            sums[:2, 0], sums[:2, 1] = n, bought[:, n - 1]
            verdicts.add(results(one, sums)["variants"][1]["verdict"])
        wrong += verdicts != {"go on"}
    assert wrong <= 5


def test_a_real_difference_is_found_and_the_guardrail_stops_harm() -> None:
    (one,) = parse_experiments("[experiment.a]\nvariants = { no = 1, yes = 1 }", "test")
    sums = np.zeros((4, 6))
    sums[:2, 0] = 20_000
    for rates, verdict in (((0.1, 0.13), "better"), ((0.1, 0.06), "stop: guardrail")):
        sums[:2, 1] = np.array(rates) * 20_000
        row = results(one, sums)["variants"][1]
        assert (row["verdict"], row["p_value"] < 0.01) == (verdict, True)


def test_of_a_handful_of_customers_no_more_than_the_possible_is_said() -> None:
    (one,) = parse_experiments("[experiment.a]\nvariants = { no = 1, yes = 1 }", "test")
    sums = np.zeros((4, 6))
    for customers, bought in (([1, 1], [0, 1]), ([3, 2], [1, 2])):
        sums[:2, 0], sums[:2, 1] = customers, bought
        row = results(one, sums)["variants"][1]
        assert (row["interval"], row["verdict"]) == ([-1.0, 1.0], "go on")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("margin = 2", "margin = 2: must lie between 0 and 1"),
        ("[action.show_lst]", "action.show_list: must be there"),
        ("[action.show_list]\nwhen = { p_week = { min = 1 } }", "nothing but a reason"),
        ("[action.a]\nwhen = { cart_item = { min = 1 } }", "did you mean 'cart_items'?"),
        ("[promotion.A]\ndiscount = 0.28", "less than margin_min"),
        ("[promotion.A]", "promotion.A.discount is missing"),
        ("[action.a]\nhours = [8]", "must be [first, end] of the day"),
        ("[action.a", "no valid TOML"),
    ],
)
def test_a_wrong_actions_file_is_explained(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"actions\.toml") as told:
        parse_actions(text, "actions.toml")
    assert said in str(told.value)


def test_a_step_that_the_journey_has_not_is_named() -> None:
    actions = parse_actions('[action.show_list]\n[action.a]\nsteps = ["moon"]', "x")
    with pytest.raises(ConfigurationError, match="step 'moon'"):
        actions.compiled(STEPS, 1)


def test_the_shipped_file_is_right_and_public_fields_are_json(learned: Shop) -> None:
    decisions = load_decisions(None, None, JOURNEY.names, 4)
    assert {"remind_cart", "offer_coupon"} <= {arm.action for arm in decisions.actions.arms}
    users = learned.users[:3].copy()
    users["action"], users["action_propensity"] = [0, 1, 9], 0.5
    refused = np.array([0, 0, MARKETING], np.uint8)
    fields = decisions.scalars(users, refused)
    decided = fields["next_best_action"]
    assert decided[0] == b"null" and b'"action":"show_list"' in decided[2]
    assert b'"propensity":0.5' in decided[1]
    assert fields["segment"][0].startswith(b'"') and 0 <= float(fields["purchase_intent"][0]) <= 1


def test_every_fact_has_a_condition_column() -> None:
    arms = parse_actions("[action.show_list]", "x").compiled(STEPS, 1)
    assert arms.low.shape[1] == len(FACTS) == 16


def test_bucketed_auc_is_close_to_the_exact_one() -> None:
    from stream_app.core.classification_metrics import auc
    from stream_app.core.prequential import BUCKETS_N, GAUGES_N, note_label

    rng = np.random.default_rng(3)
    p = rng.beta(1.0, 4.0, 4_000)
    truth = rng.random(4_000) < p
    gauges, buckets = np.zeros(GAUGES_N), np.zeros((BUCKETS_N, 3))
    for chance, yes in zip(p.tolist(), truth.tolist(), strict=True):
        note_label(chance, yes, 1.0, 0.0, gauges, buckets)
    assert bucket_auc(buckets) == pytest.approx(auc(truth, p), abs=0.01)
