"""``exposure``: how the attention of customers is shared out among items and groups of items."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
import orjson
from rich.table import Table

from stream_app.adapters.topics import consume
from stream_app.commands.console import command, console, plain
from stream_app.commands.stages import looking
from stream_app.core.aggregates import exposure_report
from stream_app.core.catalog import Catalog
from stream_app.errors import StreamAppError
from stream_app.reader import UnreadableRecord, decode_recommendations
from stream_app.settings import Settings
from stream_app.worker import redis_store, security

UNKNOWN = "(unknown)"


def register(app: Any, settings: Settings) -> None:
    """Add the command to ``app``."""

    async def exposure(by: str, name: str) -> None:
        """Share of attention by group of items, over the lists that customers have now."""
        lists = await latest_lists(settings, name)
        groups = await groups_of(settings, by)
        found = exposed(lists, groups)
        table = Table(by, *next(iter(found["groups"].values())), title=f"list {name}")
        ranked = sorted(found["groups"].items(), key=lambda pair: (-pair[1]["share"], pair[0]))
        for group, row in ranked:
            table.add_row(group, *(f"{value:.4g}" for value in row.values()))
        console.print(table, markup=False)
        plain(orjson.dumps({"list": name, "customers": len(lists), **found}).decode())

    app.command(
        click.option("--by", type=click.Choice(("brand", "category")), default="brand"),
        click.option("--list", "name", default="home", show_default=True),
    )(command(exposure))


async def latest_lists(settings: Settings, name: str) -> list[list[str]]:
    """Items of the list ``name`` of every customer, as last published on the topic."""
    topic, brokers = settings.recommendations_topic, settings.bootstrap.split(",")
    found: dict[bytes, list[str]] = {}
    async for record in consume(topic, brokers=brokers, security=security(settings)):
        key = record.key or b""
        found.pop(key, None)
        if record.value:
            try:
                said = decode_recommendations(record.value)
            except UnreadableRecord:
                continue  # not ours
            found[key] = [entry.item_id for entry in said.lists.get(name, ())]
    return [items for items in found.values() if items]


async def groups_of(settings: Settings, by: str) -> dict[str, str]:
    """Brand, or top of the category path, of every item of the catalog that may be listed."""
    store = redis_store(settings)
    try:
        async with looking(settings, store) as stages:
            return grouped(stages.catalog, by)
    finally:
        await store.close()


def grouped(catalog: Catalog, by: str) -> dict[str, str]:
    """The same of a catalog in memory."""
    n = catalog.rows_n
    rows = np.flatnonzero(catalog.listed(catalog.ids[:n]) & (catalog.ids[:n] != 0))
    found = {}
    for row in rows.tolist():
        texts = catalog.texts(row)
        group = texts.brand if by == "brand" else next(iter(texts.category), "")
        found[texts.item_id] = group or UNKNOWN
    return found


def exposed(lists: Sequence[Sequence[str]], groups: Mapping[str, str]) -> dict[str, Any]:
    """Gini coefficient of items' exposure, and share and ratio of each group.

    ``lists`` are item ids, best first; items without a group are unknown. Raises
    ``StreamAppError`` when there is no list.

    >>> found = exposed([["a", "b"], ["a"]], {"a": "x", "b": "y", "c": "y"})
    >>> round(found["groups"]["x"]["share"], 2), found["groups"]["y"]["unseen"]
    (0.76, 0.5)
    """
    if not lists:
        raise StreamAppError("there are no such lists: no event was applied yet, or they expired")
    items = sorted({*groups, *(item for entries in lists for item in entries)})
    names = sorted({UNKNOWN, *groups.values()})
    place = {item: k for k, item in enumerate(items)}
    number = {name: k for k, name in enumerate(names)}
    width = max(map(len, lists))
    table = np.full((len(lists), width), -1, np.int64)
    for row, entries in enumerate(lists):
        table[row, : len(entries)] = [place[item] for item in entries]
    of = np.array([number[groups.get(item, UNKNOWN)] for item in items], np.int64)
    return exposure_report(table, of, names=tuple(names))
