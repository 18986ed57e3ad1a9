"""``rules``: check a file of merchandising rules, make rules live, rehearse them on a customer."""

import time
from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table

from stream_app.adapters.partitioning import partition_of
from stream_app.commands.console import command, console, plain
from stream_app.commands.rule_changes import drop, given_rules, put, show_history, show_live
from stream_app.commands.stages import looking
from stream_app.core.merchandising import Rule
from stream_app.errors import ConfigurationError
from stream_app.hashing import given_name, public_name
from stream_app.journeys import load_journey
from stream_app.pseudonyms import load_pseudonyms, names_of
from stream_app.rehearsal import rehearse
from stream_app.rule_records import rule_of, rules_in
from stream_app.settings import Settings
from stream_app.worker import redis_store

ACTIONS = ("check", "put", "drop", "list", "history", "dry-run")
ALONE = ("list", "history")  # what needs no argument


def register(app: Any, settings: Settings) -> None:
    """Add the command to ``app``."""

    async def rules(
        action: str, argument: str, session: bool, author: str, file: Path | None
    ) -> None:
        """Merchandising rules.

        check FILE, put FILE, drop RULE, list, history [RULE], dry-run USER [--file FILE].
        """
        if not argument and action not in ALONE:
            raise ConfigurationError(f"rules {action} needs an argument: see rules --help")
        if action == "check":
            found = rules_in(Path(argument), load_journey(settings.journey_file).names)
            plain(orjson.dumps({"rules": len(found)}).decode())
        elif action == "put":
            await put(settings, Path(argument), author)
        elif action == "drop":
            await drop(settings, argument, author)
        elif action == "list":
            await show_live(settings)
        elif action == "history":
            await show_history(settings, argument)
        else:
            await _dry_run(settings, public_name(argument, anonymous=session), file)

    app.command(
        click.argument("action", type=click.Choice(ACTIONS)),
        click.argument("argument", default=""),
        click.option("--session", is_flag=True, help="USER is an anonymous session id."),
        click.option("--author", default="", help="Who changes the rules, for the audit."),
        click.option(
            "--file",
            type=click.Path(path_type=Path),
            default=None,
            help="dry-run: as if the rules of this file had been put.",
        ),
    )(command(rules))


async def _dry_run(settings: Settings, customer: str, path: Path | None) -> None:
    """Print what each rule does to the customer's lists; nothing is written."""
    steps = load_journey(settings.journey_file).names
    given = {} if path is None else given_rules(settings, path)
    instead = {rule_id: rule_of(rule_id, fields, steps) for rule_id, fields in given.items()}
    store = redis_store(settings)
    key = given_name(customer)[0].encode("utf-8", "surrogatepass")
    partition = partition_of(key, settings.clickstream_partitions)
    names = names_of(load_pseudonyms(settings.pseudonym_key_file), customer)
    try:
        async with looking(settings, store) as stages:
            rules: dict[str, Rule] = {rule.rule_id: rule for rule in stages.merchandise.rules}
            rehearsed = list((rules | instead).values())
            lists, changes = await rehearse(
                stages, store, names, partition, rules=rehearsed, now=time.time()
            )
    finally:
        await store.close()
    table = Table("rule", "action", "list", "before", "after")
    for change in changes:
        before, after = " ".join(change.before), " ".join(change.after)
        table.add_row(change.rule_id, change.action, change.list_name, before, after)
    console.print(table, markup=False)
    plain(orjson.dumps({"lists": lists, "changes": len(changes)}).decode())
