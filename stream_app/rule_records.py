"""Merchandising rules as people write them: a TOML file, and records of the ``rules`` topic."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson

from stream_app.core.merchandising import ACTIONS, PINS_MAX, Rule
from stream_app.core.ranking import LISTS
from stream_app.errors import ConfigurationError, EventRejected
from stream_app.ports import Headers

RULES_MAX = 500
AUTHOR_HEADER = "author"  # of a record of the topic: also of one that drops a rule
AUTHOR_CHARS_MAX = 100
_NEEDS = {  # action → the field without which it would say nothing
    "pin": "items",
    "boost": "factor",
    "bury": "factor",
    "cap": "most",
}
Texts = str | list[str]
Moment = datetime | float


class RuleRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A rule as written. ``author`` and ``comment`` are for the log of who changed what."""

    action: str
    id: str | None = None
    match: Texts = []
    items: Texts = []
    price_min: float | None = None
    price_max: float | None = None
    factor: float | None = None
    place: int = 1
    by: str = "brand"
    most: int | None = None
    lists: Texts = []
    steps: Texts = []
    starts: Moment | None = None
    ends: Moment | None = None
    author: str = ""
    comment: str = ""


def rule_of(rule_id: str, fields: dict[str, Any], steps: Sequence[str]) -> Rule:
    """The rule that ``fields`` describe; ``steps`` are the names of the journey's.

    Raises :class:`~stream_app.errors.EventRejected` naming the rule, the field and what is right.

    >>> rule_of("r", {"action": "bury", "match": "brand=Acme", "factor": 0.5}, ["browse"]).factor
    0.5
    >>> rule_of("r", {"action": "hide"}, [])
    Traceback (most recent call last):
    stream_app.errors.EventRejected: bad_rule: rule 'r': action 'hide' is none of pin, boost, ...
    """
    try:
        record = msgspec.convert({k: _midnight(v) for k, v in fields.items()}, RuleRecord)
    except msgspec.ValidationError as exc:
        raise _bad(rule_id, str(exc)) from exc
    _check(rule_id, record, steps)
    return Rule(
        rule_id,
        record.action,
        match=_several(record.match),
        items=_several(record.items),
        price_min=record.price_min or 0.0,
        price_max=math.inf if record.price_max is None else record.price_max,
        factor=1.0 if record.factor is None else record.factor,
        place=record.place - 1,
        by=record.by if record.action == "cap" else "",
        most=record.most or 0,
        lists=_several(record.lists),
        steps=_several(record.steps),
        starts=_seconds(record.starts, 0.0),
        ends=_seconds(record.ends, math.inf),
    )


def _check(rule_id: str, record: RuleRecord, steps: Sequence[str]) -> None:
    if record.action not in ACTIONS:
        raise _bad(rule_id, f"action {record.action!r} is none of {', '.join(ACTIONS)}")
    needed = _NEEDS.get(record.action)
    if needed and not getattr(record, needed):
        raise _bad(rule_id, f"{record.action} needs {needed}")
    if record.action in ("include", "exclude", "boost", "bury") and not (
        record.match or record.items or record.price_min or record.price_max is not None
    ):
        raise _bad(rule_id, f"{record.action} needs match, items, price_min or price_max")
    for label in _several(record.match):
        if not all(label.partition("=")):
            raise _bad(rule_id, f"match {label!r} is not name=value, such as brand=Acme")
    factor = 1.0 if record.factor is None else record.factor
    if not 0.0 <= factor <= 100.0:
        raise _bad(rule_id, f"factor {factor!r} is not between 0 and 100")
    if (record.action == "boost" and factor < 1.0) or (record.action == "bury" and factor > 1.0):
        raise _bad(rule_id, f"{record.action} by {factor!r}: use the other word")
    if record.action == "cap" and record.by not in ("brand", "category"):
        raise _bad(rule_id, f"by {record.by!r} is neither brand nor category")
    if record.place < 1 or (len(_several(record.items)) > PINS_MAX and record.action == "pin"):
        raise _bad(rule_id, f"place counts from 1, and {PINS_MAX} items are the most to pin")
    for name, given, known in (("lists", record.lists, LISTS), ("steps", record.steps, steps)):
        wrong = [one for one in _several(given) if one not in known]
        if wrong:
            raise _bad(rule_id, f"{name} {', '.join(wrong)}: choose of {', '.join(known)}")
    if _seconds(record.starts, 0.0) >= _seconds(record.ends, math.inf):
        raise _bad(rule_id, "it ends before it starts")


def author_of(headers: Headers, fields: Mapping[str, Any]) -> str:
    r"""Who sent a record: its header, else what the rule itself says; printable, perhaps empty.

    >>> author_of([("author", b"anna")], {"author": "bert"}), author_of([], {"author": "b\nc"})
    ('anna', 'b?c')
    """
    said = dict(headers).get(AUTHOR_HEADER)
    author = str(fields.get("author") or "") if said is None else said.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in author[:AUTHOR_CHARS_MAX])


def said_of(rule: Rule | None) -> str:
    """A rule for a log line: what it says besides its id, as JSON; ``nothing`` for none.

    >>> said_of(Rule("r", "cap", by="brand", most=2)), said_of(None)
    ('{"action":"cap","by":"brand","most":2}', 'nothing')
    """
    if rule is None:
        return "nothing"
    every = {field.name: (getattr(rule, field.name), field.default) for field in fields_of(rule)}
    said = {name: value for name, (value, usual) in every.items() if value != usual}
    return orjson.dumps({k: v for k, v in said.items() if k != "rule_id"}).decode()


def rules_in(path: Path, steps: Sequence[str], *, named: str = "") -> dict[str, dict[str, Any]]:
    """The ``[[rule]]`` tables of a file by their ids, each checked; ``named`` begins the errors.

    Raises :class:`~stream_app.errors.ConfigurationError` naming file, rule and cure.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("rule", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigurationError(f"{named}{path}: {exc}") from exc
    if not isinstance(found, list):
        raise ConfigurationError(f"{named}{path}: rules are tables that begin with [[rule]]")
    rules: dict[str, dict[str, Any]] = {}
    for number, fields in enumerate(found, 1):
        rule_id = str(fields.get("id", "")) if isinstance(fields, dict) else ""
        if not rule_id or rule_id in rules:
            raise ConfigurationError(f"{named}{path}: rule {number} needs an id of its own")
        try:
            rule_of(rule_id, fields, steps)
        except EventRejected as exc:
            raise ConfigurationError(f"{named}{path}: {exc.detail}") from exc
        rules[rule_id] = fields
    if len(rules) > RULES_MAX:
        raise ConfigurationError(f"{named}{path}: more than {RULES_MAX} rules")
    return rules


def read_rules(path: Path | None, steps: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of the file that the settings name; none without a file.

    Raises :class:`~stream_app.errors.ConfigurationError` naming file, rule and cure.
    """
    if path is None:
        return ()
    found = rules_in(path, steps, named="STREAM_APP_RULES_FILE=")
    return tuple(rule_of(rule_id, fields, steps) for rule_id, fields in found.items())


def _several(value: Texts) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _seconds(value: Moment | None, default: float) -> float:
    """Unix seconds; a time without a zone is UTC."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return default if value is None else value


def _midnight(value: Any) -> Any:
    """A day of a TOML file as its first moment."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


def _bad(rule_id: str, problem: str) -> EventRejected:
    return EventRejected("bad_rule", f"rule {rule_id!r}: {problem}")
