"""Experiments: who is in which variant, and when the difference is more than chance.

Assignment hashes the customer and the experiment's name: sticky without any state, independent
between experiments. A customer is one unit, with the outcome of their first session that ended
since the experiment began. Results may be looked at at any time: the confidence sequences hold for
all times at once (Howard, Ramdas, McAuliffe and Sekhon 2021; the normal mixture of Robbins 1970,
asymptotic as in Waudby-Smith et al. 2021), and the p-value is the mixture sequential probability
ratio test's (Johari, Pekelis and Walsh 2017).
"""

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.chance import uniform
from stream_app.core.insight_fields import EXPERIMENTS_MAX, VARIANTS_MAX
from stream_app.core.jit import kernel
from stream_app.errors import ConfigurationError

Row = Any

UNITS, CONVERTED, VALUE, VALUE_SQUARE, EVENTS, BOUNCED = range(6)
_PLANNED_UNITS = 5_000.0  # at which the confidence sequences are tightest


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment of the file. ``hold`` names variants whose customers only get lists."""

    name: str
    variants: tuple[str, ...]  # the first is the control
    shares: tuple[float, ...]
    begin: float
    end: float
    hold: frozenset[str]
    guard_drop: float  # of conversion rate, relative, that stops the experiment


class Trials(NamedTuple):
    """Compiled: what kernels read. ``edges`` are cumulated shares."""

    n: int
    seed: NDArray[np.int64]
    edges: NDArray[np.float64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    hold: NDArray[np.uint8]


def no_trials() -> Trials:
    """No experiment is on."""
    return compile_experiments(())


def compile_experiments(experiments: tuple[Experiment, ...]) -> Trials:
    """Arrays for the kernels."""
    trials = Trials(
        len(experiments),
        np.zeros(EXPERIMENTS_MAX, np.int64),
        np.ones((EXPERIMENTS_MAX, VARIANTS_MAX)),
        np.zeros(EXPERIMENTS_MAX),
        np.zeros(EXPERIMENTS_MAX),
        np.zeros((EXPERIMENTS_MAX, VARIANTS_MAX), np.uint8),
    )
    for e, experiment in enumerate(experiments):
        trials.seed[e] = name_seed(experiment.name)
        edges = np.cumsum(experiment.shares) / sum(experiment.shares)
        trials.edges[e, : len(edges)] = edges
        trials.begin[e], trials.end[e] = experiment.begin, experiment.end
        trials.hold[e, : len(edges)] = [v in experiment.hold for v in experiment.variants]
    return trials


def name_seed(name: str) -> int:
    """A number of the experiment's name: FNV-1a (Fowler, Noll and Vo 1991), 32 bits."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 & 0xFFFFFFFF
    return seed


@kernel
def variant_of(customer: Any, trials: Trials, e: int) -> int:
    """The variant of a customer's hash: always the same one."""
    u = uniform(customer, trials.seed[e], 5)
    v = 0
    while v < VARIANTS_MAX - 1 and u >= trials.edges[e, v]:
        v += 1
    return v


@kernel
def held_back(customer: Any, trials: Trials, ts: float) -> bool:
    """Whether an experiment on at ``ts`` leaves this customer without decisions."""
    for e in range(trials.n):
        on = trials.begin[e] <= ts < trials.end[e]
        if on and trials.hold[e, variant_of(customer, trials, e)] != 0:
            return True
    return False


@kernel
def count_outcome(user: Row, mind: Row, trials: Trials) -> None:
    """At the end of a session: it is the customer's outcome in experiments that had none yet."""
    for e in range(trials.n):
        bit = 1 << e
        started = trials.begin[e] <= user.session_start < trials.end[e]
        if not started or user.exposed & bit != 0:
            continue
        user.exposed |= bit
        sums = mind.experiments[e, variant_of(user.id, trials, e)]
        value = np.float64(user.session_value)
        sums[UNITS] += 1.0
        sums[CONVERTED] += 1.0 if user.session_bought > 0 else 0.0
        sums[VALUE] += value
        sums[VALUE_SQUARE] += value * value
        sums[EVENTS] += float(user.session_moves)
        sums[BOUNCED] += 1.0 if user.session_moves < 2 else 0.0


def sequence_radius(variance: float, units: float, *, alpha: float = 0.05) -> float:
    """Half width, valid at all times at once, of a mean's confidence interval; infinity at none.

    Howard et al. 2021, eq. 14, two-sided normal mixture, tightest at ``_PLANNED_UNITS``.

    >>> round(sequence_radius(1.0, 5_000.0) / (1.96 / 5_000**0.5), 2)
    1.55
    """
    if units <= 1.0:
        return math.inf
    rho = (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha) + 1.0)) / _PLANNED_UNITS
    inside = 2.0 * (units * rho + 1.0) / (units * units * rho)
    root = math.log(math.sqrt(units * rho + 1.0) / alpha)
    return math.sqrt(max(variance, 0.0) * inside * root)


def always_valid_p(difference: float, variance: float, scale: float) -> float:
    """p-value of the mSPRT: valid whenever one looks, no need to fix the sample beforehand.

    ``variance`` is that of ``difference``; ``scale`` the standard deviation of effects expected.
    Johari et al. 2017, eq. 4, with a normal mixture.

    >>> always_valid_p(0.0, 1e-4, 0.01), always_valid_p(0.1, 1e-4, 0.05) < 1e-6
    (1.0, True)
    """
    if variance <= 0.0:
        return 1.0
    spread = scale * scale
    log_ratio = 0.5 * math.log(variance / (variance + spread))
    log_ratio += 0.5 * spread * difference * difference / (variance * (variance + spread))
    return min(1.0, math.exp(-min(max(log_ratio, 0.0), 700.0)))


def results(experiment: Experiment, sums: NDArray[np.float64]) -> dict[str, Any]:
    """Measures per variant, difference to the control, and what to do.

    ``sums (VARIANTS_MAX, 6)`` are added up over partitions. The verdict is *stop: guardrail* when
    the conversion rate is below the control's by more than the guard with confidence, *better* or
    *worse* when the sequence excludes zero, else *go on*.
    """
    rows = []
    control = sums[0]
    for v, variant in enumerate(experiment.variants):
        units = float(sums[v, UNITS])
        rate = float(sums[v, CONVERTED]) / max(units, 1.0)
        value = float(sums[v, VALUE]) / max(units, 1.0)
        row: dict[str, Any] = {
            "variant": variant,
            "customers": int(units),
            "conversion_rate": rate,
            "value_per_customer": value,
            "events_per_customer": float(sums[v, EVENTS]) / max(units, 1.0),
            "bounce_rate": float(sums[v, BOUNCED]) / max(units, 1.0),
        }
        if v:
            row |= _against(control, sums[v], experiment.guard_drop)
        rows.append(row)
    total = sums[: len(experiment.variants), UNITS].sum()
    expected = np.array(experiment.shares) / sum(experiment.shares) * total
    gap = sums[: len(experiment.variants), UNITS] - expected
    mismatch = float((gap * gap / np.maximum(expected, 1e-9)).sum()) if total else 0.0
    return {
        "experiment": experiment.name,
        "variants": rows,
        # Far more or fewer customers than assigned means that counting is broken: p < 1e-5.
        "sample_ratio_mismatch": mismatch > 19.5 + 5.0 * (len(experiment.variants) - 2),
    }


def _against(
    control: NDArray[np.float64], other: NDArray[np.float64], guard_drop: float
) -> dict[str, Any]:
    n0, n1 = max(float(control[UNITS]), 1.0), max(float(other[UNITS]), 1.0)
    p0, p1 = float(control[CONVERTED]) / n0, float(other[CONVERTED]) / n1
    pooled = (float(control[CONVERTED]) + float(other[CONVERTED]) + 1.0) / (n0 + n1 + 2.0)
    spread = pooled * (1.0 - pooled)
    # Both arms as one sequence of n0 n1 / (n0 + n1) units.
    radius = sequence_radius(spread, n0 * n1 / (n0 + n1))
    difference = p1 - p0
    verdict = "go on"
    if difference + radius < -guard_drop * p0:
        verdict = "stop: guardrail"
    elif abs(difference) > radius:
        verdict = "better" if difference > 0 else "worse"
    return {
        "difference": difference,
        # Rates differ by one at most: with few customers that is all that is known.
        "interval": [max(difference - radius, -1.0), min(difference + radius, 1.0)],
        "p_value": always_valid_p(difference, spread * (1.0 / n0 + 1.0 / n1), 0.1 * pooled),
        "verdict": verdict,
    }


def parse_experiments(text: str, name: str) -> tuple[Experiment, ...]:
    """Read ``[experiment.NAME]`` tables.

    Raises :class:`~stream_app.errors.ConfigurationError` naming file, entry and cure.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{name}: no valid TOML: {exc}") from exc
    faults: list[str] = [f"{key}: use [experiment.NAME]" for key in data if key != "experiment"]
    table = data.get("experiment", {})
    found = [_experiment(label, body, faults) for label, body in table.items()]
    if len(found) > EXPERIMENTS_MAX:
        faults.append(f"{len(found)} experiments, at most {EXPERIMENTS_MAX} at a time")
    if faults:
        raise ConfigurationError(f"{name}:\n  " + "\n  ".join(faults))
    return tuple(found)


_KEYS = {"variants", "from", "until", "show_list_only", "guard_drop"}


def _experiment(name: str, body: Mapping[str, Any], faults: list[str]) -> Experiment:
    where = f"experiment.{name}"
    for key in set(body) - _KEYS:
        close = difflib.get_close_matches(key, _KEYS, n=1)
        faults.append(
            f"{where}.{key}: there is no such entry; "
            + (f"did you mean {close[0]!r}?" if close else f"use {', '.join(sorted(_KEYS))}")
        )
    shares = body.get("variants", {})
    good = isinstance(shares, dict) and 2 <= len(shares) <= VARIANTS_MAX
    if not good or not all(isinstance(s, int | float) and s > 0 for s in shares.values()):
        faults.append(
            f"{where}.variants: must name 2 to {VARIANTS_MAX} variants with their shares, the"
            " control first, such as { control = 0.5, coupons = 0.5 }"
        )
        shares = {"control": 1.0, "other": 1.0}
    hold = body.get("show_list_only", [])
    if not isinstance(hold, list) or set(hold) - set(shares):
        faults.append(f"{where}.show_list_only = {hold!r}: must be a list of variants")
        hold = []
    drop = body.get("guard_drop", 0.1)
    if not isinstance(drop, int | float) or not 0 <= drop <= 1:
        faults.append(f"{where}.guard_drop = {drop!r}: must be a share from 0 to 1")
        drop = 0.1
    days = []
    for key, default in (("from", 0.0), ("until", math.inf)):
        value = body.get(key)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if value is not None and not isinstance(value, datetime):
            faults.append(f"{where}.{key} = {value!r}: must be a date such as 2026-11-27")
        days.append(
            value.replace(tzinfo=value.tzinfo or UTC).timestamp()
            if isinstance(value, datetime)
            else default
        )
    begin, end = days
    portions = tuple(map(float, shares.values()))
    return Experiment(name, tuple(shares), portions, begin, end, frozenset(hold), float(drop))
