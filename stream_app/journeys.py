"""The journey file: read, checked word by word, compiled for the kernels. Read once at start."""

import difflib
import re
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stream_app.core.journey import (
    CARTS,
    CONDITION,
    PASSED_MAX,
    SINCE,
    STAY,
    STEP,
    TIMEOUT,
    Journey,
    Plan,
)
from stream_app.core.model import INTERNAL, KIND, KINDS, STEPS_MAX
from stream_app.core.ranking import LISTS
from stream_app.errors import ConfigurationError

_UNITS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "week": 604_800.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(second|minute|hour|day|week)s?\s*$")
_OWN_KINDS = tuple(kind for kind in KINDS if kind not in (*INTERNAL, "erase"))
TIMEOUTS_MAX, CONDITIONS_MAX = 32, 64


def duration_s(text: object) -> float:
    """Seconds of a text such as ``"30 minutes"``.

    >>> duration_s("30 minutes"), duration_s("1.5 days")
    (1800.0, 129600.0)
    """
    found = _DURATION.match(text) if isinstance(text, str) else None
    if not found or float(found[1]) == 0.0:
        raise ValueError('must be a time such as "30 minutes", "1 hour" or "28 days"')
    return float(found[1]) * _UNITS_S[found[2]]


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class When(_Words):
    """A condition on the state after an event; all that is said must hold."""

    to: str
    after: tuple[str, ...] = ()  # kinds of events; none = all
    returning: bool = False
    cart: Literal["any", "empty", "filled"] = "any"
    category_views: int = Field(0, ge=0, le=255)
    session_events: int = Field(0, ge=0, le=65_535)
    purchases: int = Field(0, ge=0, le=65_535)
    sessions: int = Field(0, ge=0, le=65_535)


class Step(_Words):
    """A step: what is shown, what is done, where events lead."""

    number: int | None = Field(None, ge=len(STEP), lt=STEPS_MAX)
    lists: tuple[str, ...]
    actions: tuple[str, ...] = ("show_list",)
    on: dict[str, str] = {}
    when: tuple[When, ...] = ()


class Timeout(_Words):
    """What happens when time passes in some steps."""

    steps: tuple[str, ...] = Field(min_length=1)
    after: Annotated[float, BeforeValidator(duration_s)]
    since: Literal["event", "entry", "purchase", "session"] = "event"
    cart: Literal["any", "empty", "filled"] = "any"
    to: str | None = None
    action: str = ""
    announce: Literal["known", "all", "none"] = "known"


class JourneyFile(_Words):
    """The whole file."""

    start: str
    steps: dict[str, Step] = Field(min_length=1)
    timeouts: dict[str, Timeout] = Field({}, max_length=TIMEOUTS_MAX)


@cache
def load_journey(path: Path | None = None) -> Journey:
    """The journey of ``path``; the shipped one without it.

    Raises :class:`~stream_app.errors.ConfigurationError` naming every wrong word and the cure.
    """
    shown = f"STREAM_APP_JOURNEY_FILE={path}" if path else "the shipped journey"
    try:
        text = (
            path.read_text() if path else files("stream_app").joinpath("journey.toml").read_text()
        )
        return parse_journey(text)
    except OSError as exc:
        raise ConfigurationError(f"{shown}: cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{shown}: is not UTF-8 text ({exc})") from exc
    except ConfigurationError as exc:
        raise ConfigurationError(f"{shown}: {exc}") from exc


def parse_journey(text: str) -> Journey:
    """The journey that a file's text describes; errors as :func:`load_journey`."""
    try:
        table = JourneyFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"is not TOML: {exc}") from exc
    except ValidationError as exc:
        problems = [_told(error) for error in exc.errors()]
        raise ConfigurationError("\n  ".join(["wrong words:", *problems])) from exc
    problems = list(_problems(table))
    if problems:
        raise ConfigurationError("\n  ".join(["does not fit together:", *problems]))
    return _compiled(table)


def _told(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}={error['input']!r}: {message}"


def _unknown(where: str, word: str, known: Any, what: str) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    return f"{where}: there is no {what} {word!r}; {hint}"


def _problems(table: JourneyFile) -> Any:
    steps = table.steps
    if table.start not in steps:
        yield _unknown("start", table.start, steps, "step")
    numbers: dict[int, str] = {}
    for name, step in steps.items():
        at = f"steps.{name}"
        number = STEP.get(name, step.number)
        if name in STEP and step.number is not None:
            yield f"{at}.number: {name} always has {STEP[name]}: leave it out"
        elif number is None:
            yield f"{at}.number: an own step needs one from {len(STEP)} to {STEPS_MAX - 1}"
        elif number in numbers:
            yield f"{at}.number: {number} is that of {numbers[number]!r}"
        else:
            numbers[number] = name
        for word in step.lists:
            if word not in LISTS:
                yield _unknown(f"{at}.lists", word, LISTS, "list")
        for kind, target in step.on.items():
            if kind not in _OWN_KINDS:
                yield _unknown(f"{at}.on", kind, _OWN_KINDS, "event")
            if target not in steps:
                yield _unknown(f"{at}.on.{kind}", target, steps, "step")
        for condition in step.when:
            if condition.to not in steps:
                yield _unknown(f"{at}.when.to", condition.to, steps, "step")
            for kind in condition.after:
                if kind not in _OWN_KINDS:
                    yield _unknown(f"{at}.when.after", kind, _OWN_KINDS, "event")
    if sum(len(step.when) for step in steps.values()) > CONDITIONS_MAX:
        yield f"steps: more than {CONDITIONS_MAX} conditions"
    for name, timeout in table.timeouts.items():
        for word in (*timeout.steps, *([timeout.to] if timeout.to else [])):
            if word not in steps:
                yield _unknown(f"timeouts.{name}", word, steps, "step")
    yield from _circles(table)


def _circles(table: JourneyFile) -> Any:
    """Time alone must not lead through more steps than one event passes through."""
    leads: dict[str, set[str]] = {}
    for timeout in table.timeouts.values():
        for step in timeout.steps:
            if timeout.to and timeout.to != step and timeout.since == "entry":
                leads.setdefault(step, set()).add(timeout.to)
    for step in leads:
        reached, length = {step}, 0
        while reached and length <= PASSED_MAX:
            reached = set().union(*(leads.get(name, set()) for name in reached))
            length += 1
        if reached:
            yield f"timeouts: from {step!r} time alone leads through more than {PASSED_MAX} steps"


def _compiled(table: JourneyFile) -> Journey:
    number = {name: STEP.get(name, step.number) or 0 for name, step in table.steps.items()}
    start = number[table.start]
    names = [table.start] * STEPS_MAX
    by_number = [table.steps[table.start]] * STEPS_MAX
    moves = np.tile(np.arange(STEPS_MAX, dtype=np.uint8), (len(KINDS), 1))
    for name, at in number.items():
        names[at], by_number[at] = name, table.steps[name]
    for at, step in enumerate(by_number):
        if at not in number.values():
            moves[: KIND["erase"], at] = start  # a step that is no more: they begin anew
        for kind, target in step.on.items():
            moves[KIND[kind], at] = number[target]
    conditions = [
        (
            sum(1 << KIND[kind] for kind in when.after or _OWN_KINDS),
            when.category_views,
            when.session_events,
            when.purchases,
            when.sessions,
            number[name],
            number[when.to],
            when.returning,
            CARTS.index(when.cart),
        )
        for name, step in table.steps.items()
        for when in step.when
    ]
    timeouts = [
        (
            timeout.after,
            sum(1 << number[step] for step in set(timeout.steps)),
            SINCE.index(timeout.since),
            CARTS.index(timeout.cart),
            number[timeout.to] if timeout.to else STAY,
            timeout.announce in ("known", "all"),
            timeout.announce == "all",
        )
        for timeout in table.timeouts.values()
    ]
    return Journey(
        Plan(moves, np.array(conditions, CONDITION), np.array(timeouts, TIMEOUT), start),
        tuple(names),
        np.array([[name in step.lists for name in LISTS] for step in by_number]),
        tuple(step.actions for step in by_number),
        tuple(table.timeouts),
        tuple(timeout.action for timeout in table.timeouts.values()),
        tuple(number.values()),
    )
