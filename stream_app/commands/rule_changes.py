"""What ``rules put``, ``drop``, ``list`` and ``history`` do: live rules, and who changed them.

Every change is written to the audit topic first, then made: one that is not there did not happen.
"""

import time
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.table import Table

from stream_app.adapters.topics import StoredRecord, check_partitions, consume
from stream_app.catalog_wire import key_text
from stream_app.commands.console import console, plain
from stream_app.errors import ConfigurationError
from stream_app.journeys import load_journey
from stream_app.ports import Record
from stream_app.rule_records import AUTHOR_CHARS_MAX, AUTHOR_HEADER, RULES_MAX, author_of, rules_in
from stream_app.settings import Settings
from stream_app.worker import kafka_log, security, topic_specs

TOPICS_WAIT_MS = 5_000
Fields = dict[str, Any]


class Live(NamedTuple):
    """A live rule: when it was put (unix milliseconds), by whom, and what it says."""

    ms: int
    author: str
    fields: Fields


def given_rules(settings: Settings, path: Path) -> dict[str, Fields]:
    """The rules of a file by id; raises ``ConfigurationError`` for a wrong one, or none at all."""
    rules = rules_in(path, load_journey(settings.journey_file).names)
    if not rules:
        raise ConfigurationError(f"{path} has no rules: each is a [[rule]] table with an id")
    return rules


async def put(settings: Settings, path: Path, author: str) -> None:
    """Make the rules of a file live; what is already live under other ids stays."""
    given = given_rules(settings, path)
    for rule_id in given:
        key_text(rule_id.encode(), chars_max=settings.id_chars_max)
    live = await live_rules(settings)
    if len(live.keys() | given.keys()) > RULES_MAX:
        raise ConfigurationError(f"with {path} there would be more than {RULES_MAX} live rules")
    after: dict[str, Fields | None] = {}
    for rule_id, fields in given.items():
        said = {name: _plain(value) for name, value in fields.items() if name != "id"}
        after[rule_id] = said | ({"author": author} if author else {})
    await _change(settings, live, after, author)


async def drop(settings: Settings, rule_id: str, author: str) -> None:
    """Withdraw a live rule; one of the file with the same id holds again."""
    live = await live_rules(settings)
    if rule_id not in live:
        raise ConfigurationError(f"rule {rule_id!r} is not live: `rules list` shows those that are")
    await _change(settings, live, {rule_id: None}, author)


async def _change(
    settings: Settings, live: Mapping[str, Live], after: Mapping[str, Fields | None], author: str
) -> None:
    if len(author) > AUTHOR_CHARS_MAX or not author.isprintable():
        raise ConfigurationError(f"--author is a name of at most {AUTHOR_CHARS_MAX} characters")
    now, audit, changes = time.time(), [], []
    for rule_id, fields in after.items():
        who = author or author_of((), fields or {})
        before = live[rule_id].fields if rule_id in live else None
        entry = {"rule_id": rule_id, "author": who, "ts": now, "before": before, "after": fields}
        key, headers = rule_id.encode(), ((AUTHOR_HEADER, who.encode()),) if who else ()
        audit.append(Record(key, orjson.dumps(entry), headers))
        changes.append(Record(key, None if fields is None else orjson.dumps(fields), headers))
    log = kafka_log(settings)
    try:
        await log.send(settings.rules_audit_topic, 0, audit)
        await log.send(settings.rules_topic, 0, changes)
    finally:
        await log.stop()
    plain(orjson.dumps({"sent": len(changes)}).decode())


def _plain(value: Any) -> Any:
    """Days as their first moment: JSON has no days."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return f"{value.isoformat()}T00:00:00Z"
    return value


async def live_rules(settings: Settings) -> dict[str, Live]:
    """What the topic says now, by rule id."""
    await _topics_there(settings)
    live: dict[str, Live] = {}
    brokers = settings.bootstrap.split(",")
    async for record in consume(settings.rules_topic, brokers=brokers, security=security(settings)):
        key = _key(record)
        live.pop(key, None)
        if record.value:
            fields = _object(record.value)
            live[key] = Live(record.timestamp_ms, author_of(record.headers, fields), fields)
    return live


async def _topics_there(settings: Settings) -> None:
    """Raise, naming the cure, unless both topics exist: nothing is changed without its audit."""
    wanted = (settings.rules_topic, settings.rules_audit_topic)
    await check_partitions(
        [spec for spec in topic_specs(settings) if spec.name in wanted],
        brokers=settings.bootstrap.split(","),
        security=security(settings),
        timeout_ms=TOPICS_WAIT_MS,
    )


async def show_live(settings: Settings) -> None:
    """Print live rules, who changed them last and when."""
    table = Table("rule", "action", "by", "changed", "says")
    for key, (ms, author, said) in sorted((await live_rules(settings)).items()):
        rest = {k: v for k, v in said.items() if k not in ("action", "author", "comment")}
        table.add_row(key, str(said.get("action", "?")), author, _when(ms), _text(rest))
    console.print(table, markup=False)


async def show_history(settings: Settings, rule_id: str) -> None:
    """Print the changes of a rule, or of all, oldest first: what it said before and after."""
    await _topics_there(settings)
    table = Table("changed", "rule", "by", "before", "after")
    topic, brokers = settings.rules_audit_topic, settings.bootstrap.split(",")
    changes = 0
    async for record in consume(topic, brokers=brokers, security=security(settings)):
        key = _key(record)
        if rule_id in ("", key):
            entry = _object(record.value or b"")
            at = round(float(entry.get("ts", record.timestamp_ms / 1000)) * 1000)
            author = author_of(record.headers, entry)
            table.add_row(_when(at), key, author, _text(entry.get("before")), _text(_after(entry)))
            changes += 1
    console.print(table, markup=False)
    plain(orjson.dumps({"changes": changes}).decode())


def _after(entry: Fields) -> object:
    return entry.get("after", entry.get("unreadable"))


def _key(record: StoredRecord) -> str:
    return (record.key or b"").decode("utf-8", "replace")


def _object(value: bytes) -> Fields:
    """A record's JSON object; what others have written there may be none."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": value.decode("utf-8", "replace")}


def _text(said: object) -> str:
    return "-" if said is None else orjson.dumps(said).decode()


def _when(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(ms / 1000))
