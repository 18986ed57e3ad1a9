"""What may be done for a customer: actions and promotions as a readable file, checked and compiled.

The shipped default is ``stream_app/actions.toml``; ``STREAM_APP_ACTIONS_FILE`` names another.
"""

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.insight_fields import ARMS_MAX, OFFERS_MAX
from stream_app.core.model import KINDS
from stream_app.errors import ConfigurationError

# What an arm's conditions may ask for; numbers of the customer at the moment of the decision.
FACTS = (
    "cart_items",
    "bought_items",
    "purchases",
    "sessions",
    "session_events",
    "absence_days",  # before this session
    "purchase_days",  # since the last purchase; a million without one
    "cart_minutes",  # since the last add_to_cart; a million without one
    "p_session",
    "p_week",
    "p_churn",
    "order_value",
    "price_level",  # of what was looked at: standard deviations from the shop's mean
    "monetary",
    "support",  # 1 right after a support event, else 0
    "segment",  # number of the segment + 1, 0 before the first session has ended
)
SHOW_LIST, OFFER_COUPON = "show_list", "offer_coupon"
STEPS_MAX = 32


class Arms(NamedTuple):
    """Compiled: what the decision kernel reads. Rows are arms, ``n`` of them are used."""

    n: int
    low: NDArray[np.float64]  # (ARMS_MAX, facts) conditions
    high: NDArray[np.float64]
    steps: NDArray[np.uint8]  # (ARMS_MAX, STEPS_MAX)
    hours: NDArray[np.uint8]  # (ARMS_MAX, 24)
    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    cap: NDArray[np.int64]  # offers per customer in ``cap_s``; 0 = no cap
    cap_s: NDArray[np.float64]
    daily: NDArray[np.float64]  # offers a day and partition
    marketing: NDArray[np.uint8]
    discount: NDArray[np.float64]  # share of a purchase's value that it costs
    cap_s_max: float
    margin: float
    hold_s: float
    reward: NDArray[np.float64]  # (kinds,)


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing that may be done, as the file says."""

    action: str
    promotion: str | None
    reason: str
    low: Mapping[str, float]
    high: Mapping[str, float]
    steps: frozenset[str] | None
    hours: tuple[int, int]
    begin: float
    end: float
    cap: int
    cap_days: float
    daily: float
    marketing: bool
    discount: float


@dataclass(frozen=True, slots=True)
class Actions:
    """The whole file."""

    arms: tuple[Arm, ...]
    margin: float
    hold_minutes: float
    reward: Mapping[str, float]

    def compiled(self, steps: Sequence[str], partitions: int) -> Arms:
        """Arrays for the kernel. ``steps`` are the journey's; daily limits are split evenly.

        Raises :class:`~stream_app.errors.ConfigurationError` for a step the journey has not.
        """
        out = _blank(self)
        for a, arm in enumerate(self.arms):
            for name, value in arm.low.items():
                out.low[a, FACTS.index(name)] = value
            for name, value in arm.high.items():
                out.high[a, FACTS.index(name)] = value
            if arm.steps is not None:
                missing = sorted(arm.steps - set(steps))
                if missing:
                    raise ConfigurationError(
                        f"actions: {arm.promotion or arm.action} is for step {missing[0]!r}, which"
                        f" the journey has not; its steps are {', '.join(steps)}"
                    )
                out.steps[a] = 0
                out.steps[a, [steps.index(step) for step in arm.steps]] = 1
            first, last = arm.hours
            inside = [first <= h < last if first < last else h >= first or h < last for h in _HOURS]
            out.hours[a] = inside
            out.daily[a] = math.floor(arm.daily / partitions) if arm.daily < math.inf else math.inf
            if out.daily[a] == 0:
                raise ConfigurationError(
                    f"actions: {arm.promotion or arm.action} per_day = {arm.daily:g} is less than"
                    f" one for each of {partitions} partitions: raise it"
                )
        return out


_HOURS = range(24)
_TOP = {"margin", "margin_min", "hold_minutes", "reward", "action", "promotion"}
_ARM = {"reason", "when", "steps", "hours", "from", "until", "per_customer", "per_days", "per_day"}
_ACTION = _ARM | {"consent"}
_PROMOTION = _ARM | {"discount"}


def _blank(actions: Actions) -> Arms:
    arms, facts = actions.arms, len(FACTS)
    column = np.zeros(ARMS_MAX)

    def filled(values: Sequence[float]) -> NDArray[np.float64]:
        out = column.copy()
        out[: len(values)] = values
        return out

    reward = np.array([actions.reward.get(kind, 0.0) for kind in KINDS])
    return Arms(
        len(arms),
        np.full((ARMS_MAX, facts), -np.inf),
        np.full((ARMS_MAX, facts), np.inf),
        np.ones((ARMS_MAX, STEPS_MAX), np.uint8),
        np.ones((ARMS_MAX, 24), np.uint8),
        filled([arm.begin for arm in arms]),
        filled([arm.end for arm in arms]),
        filled([arm.cap for arm in arms]).astype(np.int64),
        filled([arm.cap_days * 86400.0 for arm in arms]),
        column.copy(),
        filled([arm.marketing for arm in arms]).astype(np.uint8),
        filled([arm.discount for arm in arms]),
        max(arm.cap_days * 86400.0 if arm.cap else 0.0 for arm in arms),
        actions.margin,
        actions.hold_minutes * 60.0,
        reward,
    )


def parse_actions(text: str, name: str) -> Actions:
    """Read the file's text; ``name`` is for messages.

    Raises :class:`~stream_app.errors.ConfigurationError` with every fault found, where and why.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{name}: no valid TOML: {exc}") from exc
    return _Reader(name).actions(data)


class _Reader:
    """Collects faults, so that one reading names them all."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._faults: list[str] = []

    def actions(self, data: Mapping[str, Any]) -> Actions:
        self._known("", data, _TOP)
        margin = self._number("", data, "margin", 0.3, 0.0, 1.0)
        guard = self._number("", data, "margin_min", 0.05, 0.0, 1.0)
        hold = self._number("", data, "hold_minutes", 30.0, 0.0, 1e6)
        reward = self._table("", data, "reward")
        self._known("reward.", reward, set(KINDS))
        rewards = {k: self._number("reward.", reward, k, 0.0, -1e9, 1e9) for k in reward}
        table = self._table("", data, "action")
        names = sorted(table, key=lambda name: name != SHOW_LIST)  # the fallback is the first arm
        arms = [
            self._arm(f"action.{name}.", self._table("action.", table, name), name, None)
            for name in names
        ]
        for promotion, body in self._table("", data, "promotion").items():
            arm = self._arm(f"promotion.{promotion}.", _dict(body), OFFER_COUPON, promotion)
            if margin - arm.discount < guard:
                self._fault(
                    f"promotion.{promotion}.discount = {arm.discount:g}: leaves"
                    f" {margin - arm.discount:g} of the margin {margin:g}, less than margin_min"
                    f" = {guard:g}; lower the discount"
                )
            arms.append(arm)
        self._check(arms)
        if self._faults:
            raise ConfigurationError(f"{self._name}:\n  " + "\n  ".join(self._faults))
        return Actions(tuple(arms), margin, hold, rewards)

    def _check(self, arms: Sequence[Arm]) -> None:
        plain = [arm for arm in arms if arm.action == SHOW_LIST]
        free = Arm(
            SHOW_LIST, None, "", {}, {}, None, (0, 24), 0.0, math.inf, 0, 30.0, math.inf, False, 0.0
        )
        if not plain or replace(plain[0], reason="") != free:
            self._fault(f"action.{SHOW_LIST}: must be there, with nothing but a reason")
        if len(arms) > ARMS_MAX:
            self._fault(f"{len(arms)} actions and promotions, at most {ARMS_MAX}: leave some out")
        if any(arm.action == OFFER_COUPON and arm.promotion is None for arm in arms):
            self._fault(f"action.{OFFER_COUPON}: offers are written as [promotion.NAME]")

    def _arm(self, where: str, body: Mapping[str, Any], action: str, promotion: str | None) -> Arm:
        self._known(where, body, _PROMOTION if promotion else _ACTION)
        when = self._table(where, body, "when")
        self._known(f"{where}when.", when, set(FACTS))
        low, high = {}, {}
        for fact in FACTS:
            if fact in when:
                limits = self._table(f"{where}when.", when, fact)
                self._known(f"{where}when.{fact}.", limits, {"min", "max"})
                at = f"{where}when.{fact}."
                if "min" in limits:
                    low[fact] = self._number(at, limits, "min", 0.0, -math.inf, math.inf)
                if "max" in limits:
                    high[fact] = self._number(at, limits, "max", 0.0, -math.inf, math.inf)
                if low.get(fact, -math.inf) > high.get(fact, math.inf):
                    self._fault(f"{at[:-1]}: min is above max, so it never holds")
        cap = int(self._number(where, body, "per_customer", 0, 0, OFFERS_MAX))
        consent = body.get("consent", "marketing" if promotion else "none")
        if consent not in ("none", "marketing"):
            self._fault(f"{where}consent = {consent!r}: use none or marketing")
        return Arm(
            action,
            promotion,
            str(body.get("reason", action.replace("_", " "))),
            low,
            high,
            self._steps(where, body),
            self._hours(where, body),
            self._day(where, body, "from", 0.0),
            self._day(where, body, "until", math.inf),
            cap,
            self._number(where, body, "per_days", 30.0, 1e-3, 3650.0),
            self._number(where, body, "per_day", math.inf, 1.0, math.inf),
            consent == "marketing",
            self._number(where, body, "discount", None, 0.0, 1.0) if promotion else 0.0,
        )

    def _fault(self, text: str) -> None:
        self._faults.append(text)

    def _known(self, where: str, table: Mapping[str, Any], names: set[str]) -> None:
        for key in table:
            if key not in names:
                close = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"use {', '.join(sorted(names))}"
                self._fault(f"{where}{key}: there is no such entry; {hint}")

    def _table(self, where: str, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            self._fault(f"{where}{key} = {value!r}: must be a table")
            return {}
        return value

    def _number(
        self,
        where: str,
        table: Mapping[str, Any],
        key: str,
        default: float | None,
        low: float,
        high: float,
    ) -> float:
        value = table.get(key, default)
        if value is None:
            self._fault(f"{where}{key} is missing: a number from {low:g} to {high:g}")
            return low
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            self._fault(f"{where}{key} = {value!r}: must be a number")
            return low
        if not low <= value <= high:
            self._fault(f"{where}{key} = {value:g}: must lie between {low:g} and {high:g}")
            return low
        return float(value)

    def _steps(self, where: str, body: Mapping[str, Any]) -> frozenset[str] | None:
        steps = body.get("steps")
        if steps is None:
            return None
        if not isinstance(steps, list) or not steps or not all(isinstance(s, str) for s in steps):
            self._fault(f"{where}steps = {steps!r}: must be a list of steps of the journey")
            return None
        return frozenset(steps)

    def _hours(self, where: str, body: Mapping[str, Any]) -> tuple[int, int]:
        hours = body.get("hours", [0, 24])
        whole = isinstance(hours, list) and len(hours) == 2
        if not whole or not all(isinstance(h, int) and 0 <= h <= 24 for h in hours):
            self._fault(f"{where}hours = {hours!r}: must be [first, end] of the day in UTC, 0..24")
            return 0, 24
        return hours[0], hours[1]

    def _day(self, where: str, body: Mapping[str, Any], key: str, default: float) -> float:
        value = body.get(key)
        if value is None:
            return default
        if isinstance(value, datetime):
            return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
        self._fault(f"{where}{key} = {value!r}: must be a date such as 2026-11-27")
        return default


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
