"""Where the truth is known: the bandit's regret, off-policy estimates, private counts."""

from typing import Any

import numpy as np
import pytest

from stream_app.core.aggregates import private_counts
from stream_app.core.counterfactual import doubly_robust, ips, snips
from stream_app.offline.regret import ARMS, regret
from stream_app.simulator.customers import make_customers


@pytest.fixture(scope="module")
def played() -> dict[str, Any]:
    shop = make_customers(np.random.default_rng(0), 12_000, growth_s=1.0)
    return regret(shop.price_sensitivity)


def test_the_bandit_beats_every_fixed_decision(played: dict[str, Any]) -> None:
    last = {name: row[-1] for name, row in played["regret"].items()}
    fixed = min(value for name, value in last.items() if name.startswith("always"))
    assert last["bandit"] < 0.75 * fixed < last["uniform"]


def test_regret_grows_ever_more_slowly(played: dict[str, Any]) -> None:
    at, row = np.array(played["decisions"]), np.array(played["regret"]["bandit"])
    slopes = np.diff(row) / np.diff(at)
    assert slopes[-1] < 0.5 * slopes[0]


def test_estimates_from_the_log_cover_the_truth(played: dict[str, Any]) -> None:
    for name in ARMS:
        row = played["estimates"][name]
        for kind in ("ips", "snips", "doubly_robust"):
            value, low, high = row[kind]
            half = 1.6 * (high - low) / 2  # 99.8 %: twelve intervals are looked at
            assert abs(value - row["true"]) < half, (name, kind)


def test_estimators_are_unbiased_over_many_logs() -> None:
    rng = np.random.default_rng(5)
    context = rng.random(400)
    chance = 0.2 + 0.6 * context  # of the second of two actions
    found = []
    for _ in range(400):
        second = rng.random(400) < chance
        reward = np.where(second, 2.0 * context, 1.0) + rng.normal(0.0, 0.2, 400)
        propensity = np.where(second, chance, 1.0 - chance)
        target = second.astype(float)
        model = np.where(second, context, 0.5)  # wrong on purpose
        robust = doubly_robust(propensity, target, reward, model, context)
        given = (propensity, target, reward)
        found.append((ips(*given).value, snips(*given).value, robust.value))
    truth = (2.0 * context).mean()
    assert np.mean(found, axis=0) == pytest.approx(truth, rel=0.01)
    spread = np.std(found, axis=0)
    assert spread[2] < spread[0], "even a wrong model takes variance out"


def test_noise_of_private_counts_is_laplace_of_the_stated_scale() -> None:
    noise = private_counts(np.zeros(40_000), epsilon=0.5, per_customer_max=2, secret=9, release=3)
    assert abs(noise.mean()) < 0.1
    assert np.abs(noise).mean() == pytest.approx(4.0, rel=0.03)
    again = private_counts(np.zeros(40_000), epsilon=0.5, per_customer_max=2, secret=9, release=3)
    assert (noise == again).all(), "asking again tells nothing new"


def test_neighbouring_data_are_hard_to_tell_apart() -> None:
    """The ratio of the chances of any outcome is at most e^ε, within what sampling allows."""
    epsilon = 0.5
    ones = private_counts(
        np.ones(200_000), epsilon=epsilon, per_customer_max=1, secret=1, release=1
    )
    none = private_counts(
        np.zeros(200_000), epsilon=epsilon, per_customer_max=1, secret=2, release=1
    )
    edges = np.linspace(-6.0, 7.0, 27)
    a, b = np.histogram(ones, edges)[0], np.histogram(none, edges)[0]
    ratio = np.abs(np.log(a / b))
    slack = 4.0 * np.sqrt(1.0 / a + 1.0 / b)
    assert (ratio < epsilon + slack).all()
