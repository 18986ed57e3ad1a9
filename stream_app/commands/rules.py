"""``rules``: check a file of merchandising rules, make rules live, rehearse them on a customer."""

import asyncio
import time
import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table

from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import consume
from stream_app.commands.console import command, console, plain
from stream_app.commands.stages import looking
from stream_app.errors import ConfigurationError
from stream_app.hashing import given_name, public_name
from stream_app.journeys import load_journey
from stream_app.ports import Record
from stream_app.pseudonyms import load_pseudonyms, names_of
from stream_app.rehearsal import rehearse
from stream_app.rule_records import read_rules
from stream_app.settings import Settings
from stream_app.worker import kafka_log, redis_store, security

ACTIONS = ("check", "put", "drop", "list", "dry-run")


def register(app: Any, settings: Settings) -> None:
    """Add the command to ``app``."""

    async def rules(action: str, argument: str, session: bool, author: str) -> None:
        """Merchandising rules: check FILE, put FILE, drop RULE, list, dry-run USER."""
        if not argument and action != "list":
            raise ConfigurationError(f"rules {action} needs an argument: see rules --help")
        if action == "check":
            steps = load_journey(settings.journey_file).names
            plain(orjson.dumps({"rules": len(read_rules(Path(argument), steps))}).decode())
        elif action == "put":
            await _put(settings, Path(argument), author)
        elif action == "drop":
            await _send(settings, [Record(argument.encode(), None)])
        elif action == "list":
            await _list(settings)
        else:
            await _dry_run(settings, public_name(argument, anonymous=session))

    app.command(
        click.argument("action", type=click.Choice(ACTIONS)),
        click.argument("argument", default=""),
        click.option("--session", is_flag=True, help="USER is an anonymous session id."),
        click.option("--author", default="", help="Who makes the rules live, for the log."),
    )(command(rules))


async def _put(settings: Settings, path: Path, author: str) -> None:
    """Make the rules of a file live; what is already live under other ids stays."""
    steps = load_journey(settings.journey_file).names
    read_rules(path, steps)  # all of them are right, or none is sent
    text = await asyncio.to_thread(path.read_text)
    records = []
    for fields in tomllib.loads(text)["rule"]:
        said = {name: _plain(value) for name, value in fields.items() if name != "id"}
        if author:
            said["author"] = author
        records.append(Record(str(fields["id"]).encode(), orjson.dumps(said)))
    await _send(settings, records)


def _plain(value: Any) -> Any:
    """Days as their first moment: JSON has no days."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return f"{value.isoformat()}T00:00:00Z"
    return value


async def _send(settings: Settings, records: list[Record]) -> None:
    log = kafka_log(settings)
    try:
        await log.send(settings.rules_topic, 0, records)
    finally:
        await log.stop()
    plain(orjson.dumps({"sent": len(records)}).decode())


async def _list(settings: Settings) -> None:
    """Live rules, who changed them last and when."""
    live: dict[str, tuple[int, dict[str, Any]]] = {}
    topic, brokers = settings.rules_topic, settings.bootstrap.split(",")
    async for record in consume(topic, brokers=brokers, security=security(settings)):
        key = (record.key or b"").decode("utf-8", "replace")
        live.pop(key, None)
        if record.value:
            live[key] = record.timestamp_ms, orjson.loads(record.value)
    table = Table("rule", "action", "by", "changed", "says")
    for key, (ms, said) in sorted(live.items()):
        when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(ms / 1000))
        rest = {k: v for k, v in said.items() if k not in ("action", "author", "comment")}
        row = (key, said.get("action", "?"), said.get("author", ""), when)
        table.add_row(*map(str, row), orjson.dumps(rest).decode())
    console.print(table, markup=False)


async def _dry_run(settings: Settings, customer: str) -> None:
    """Print what each rule does to the customer's lists; nothing is written."""
    store = redis_store(settings)
    key = given_name(customer)[0].encode("utf-8", "surrogatepass")
    partition = partition_of(key, settings.clickstream_partitions)
    names = names_of(load_pseudonyms(settings.pseudonym_key_file), customer)
    try:
        async with looking(settings, store) as stages:
            lists, changes = await rehearse(stages, store, names, partition)
    finally:
        await store.close()
    table = Table("rule", "action", "list", "before", "after")
    for change in changes:
        before, after = " ".join(change.before), " ".join(change.after)
        table.add_row(change.rule_id, change.action, change.list_name, before, after)
    console.print(table, markup=False)
    plain(orjson.dumps({"lists": lists, "changes": len(changes)}).decode())
