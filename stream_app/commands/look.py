"""``recommend``, ``similar`` and ``profile``: what a storefront would read, for people."""

import time
from typing import Any

import click
import numpy as np
import orjson
from rich.table import Column, Table

from stream_app.absence import why_not as answer_why_not
from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.redis_store import RedisStore
from stream_app.commands.console import command, console, plain
from stream_app.commands.stages import looking, partition_meta
from stream_app.commands.why import print_answer, when
from stream_app.composition import Stages
from stream_app.core.aggregates import oddity
from stream_app.core.audience import Audience
from stream_app.core.catalog import Catalog
from stream_app.core.ranking import LISTS
from stream_app.core.state import decode_partition, decode_users
from stream_app.digests import Digests
from stream_app.errors import StreamAppError
from stream_app.hashing import customer_id, public_name
from stream_app.journeys import load_journey
from stream_app.ports import USERS
from stream_app.profiles import FROM_TOPICS, Profiles
from stream_app.pseudonyms import load_pseudonyms, names_of
from stream_app.reasons import Explainer
from stream_app.settings import Settings
from stream_app.worker import redis_store


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def recommend(user: str, name: str | None, why: bool, why_not: str | None) -> None:
        """Show the lists of USER (a user id, or an anonymous session id) as they stand in Redis."""
        store = redis_store(settings)
        try:
            if why_not is not None:
                async with looking(settings, store) as stages:
                    of = await _explainer(store, settings, stages, user)
                    now = time.time()
                    answer = await answer_why_not(stages, of, why_not, name or "home", now=now)
                print_answer(user, why_not, answer)
                return
            found = await _found(store, settings, user)
            lists, explainer = await _lists(store, settings, user, found, name, why)
        finally:
            await store.close()
        _print_head(user, found)
        for key in sorted(lists) if name is None else [name]:
            _print_list(key, lists[key], explainer)

    async def similar(item: str) -> None:
        """Show the items most similar to ITEM."""
        store = redis_store(settings)
        try:
            found = await store.get(f"similar:{item}")
        finally:
            await store.close()
        if not isinstance(found, bytes):
            raise StreamAppError(f"item {item!r} has no neighbours: no session had it with another")
        _print_list(f"similar to {item}", orjson.loads(found), None)

    async def profile(user: str) -> None:
        """Show what is known of USER now, and what they like as last published, as JSON."""
        store = redis_store(settings)
        try:
            plain(await _profile(store, settings, user))
        finally:
            await store.close()

    app.command(
        click.argument("user"),
        click.option(
            "--list",
            "name",
            type=click.Choice(LISTS),
            default=None,
            help="Only this list; one that the customer's step does not have is made now.",
        ),
        click.option(
            "--why",
            is_flag=True,
            help="Say what gave each item how much of its score.",
        ),
        click.option(
            "--why-not",
            default=None,
            help="Say what keeps this item out of --list (home), or how far it is.",
        ),
    )(command(recommend))
    app.command(click.argument("item"))(command(similar))
    app.command(click.argument("user"))(command(profile))


def _names(settings: Settings, user: str) -> list[str]:
    """What USER may be called in keys: the id is a user's, or an anonymous session's."""
    pseudonyms = load_pseudonyms(settings.pseudonym_key_file)
    return [
        name
        for anonymous in (False, True)
        for name in names_of(pseudonyms, public_name(user, anonymous=anonymous))
    ]


async def _found(store: RedisStore, settings: Settings, user: str) -> dict[bytes, bytes]:
    for name in _names(settings, user):
        found = await store.get(f"rec:{name}")
        if isinstance(found, dict):
            return found
    raise StreamAppError(
        f"there are no lists for customer {user!r}: no event of theirs was applied yet, or they"
        " expired; `profile` shows what is known, `check` whether events are applied"
    )


async def _lists(
    store: RedisStore,
    settings: Settings,
    user: str,
    found: dict[bytes, bytes],
    name: str | None,
    why: bool,
) -> tuple[dict[str, list[dict[str, Any]]], Explainer | None]:
    """The published lists, with list ``name`` even if it is not among them; what explains them."""
    lists = {
        key.decode(): orjson.loads(value) for key, value in found.items() if value.startswith(b"[")
    }
    missing = name if name not in lists else None
    if not (why or missing):
        return lists, None
    async with looking(settings, store) as stages:
        if missing:
            lists[missing] = await _made_now(store, settings, stages, user, missing)
        return lists, await _explainer(store, settings, stages, user) if why else None


async def _profile(store: RedisStore, settings: Settings, user: str) -> str:
    partition = partition_of(user.encode(), settings.clickstream_partitions)
    steps = load_journey(settings.journey_file).names
    for name in _names(settings, user):
        ids = np.array([customer_id(name)], np.uint64)
        (blob,) = await store.load(USERS, [partition], [ids[0].tobytes()])
        if blob:
            users = decode_users(ids, [blob])
            nothing = Catalog(items_max=1), Audience(customers_max=1)
            found = orjson.loads(Profiles(*nothing, steps).json(users, [name])[0])
            published = await store.get(f"profile:{name}")
            if isinstance(published, bytes):
                found |= {k: v for k, v in orjson.loads(published).items() if k in FROM_TOPICS}
            found["oddity"] = round(float(oddity(users)[0]), 4)
            return orjson.dumps(found).decode()
    raise StreamAppError(f"customer {user!r} is not known: none of their events was applied yet")


def _print_head(user: str, found: dict[bytes, bytes]) -> None:
    text = {key.decode(): value.decode() for key, value in found.items()}
    console.print(
        f"{user}: step {text['step']} (before: {text['previous_step']}, likely next:"
        f" {text['next_step']}), version {text['version']}",
        markup=False,
    )


async def _made_now(
    store: RedisStore, settings: Settings, stages: Stages, user: str, name: str
) -> list[dict[str, Any]]:
    """A list that the customer's step does not publish."""
    number = partition_of(user.encode(), settings.clickstream_partitions)
    meta = await partition_meta(settings, store, number)
    keys = [
        np.uint64(customer_id(called)).tobytes()
        for called in _names(settings, user)
        if await store.get(f"rec:{called}") is not None
    ]
    for found in await Digests(stages, store, name).of(number, meta, keys):
        items: list[dict[str, Any]] = orjson.loads(found.items)
        return items
    raise StreamAppError(
        f"customer {user!r} has no list {name!r}: they gave no reason for one (docs/journey.md)"
    )


async def _explainer(store: RedisStore, settings: Settings, stages: Stages, user: str) -> Explainer:
    """One that knows the customer."""
    number = partition_of(user.encode(), settings.clickstream_partitions)
    meta = await partition_meta(settings, store, number)
    explainer = Explainer(stages, store, number, decode_partition(meta))
    for name in _names(settings, user):
        blob = np.uint64(customer_id(name)).tobytes()
        if any(await store.load(USERS, [number], [blob])):
            await explainer.load(name)
            return explainer
    raise StreamAppError(f"customer {user!r} is not known: none of their events was applied yet")


def _print_list(name: str, items: list[dict[str, Any]], explainer: Explainer | None) -> None:
    if explainer is None:
        table = Table("item_id", "score", title=name)
        for item in items:
            table.add_row(item["item_id"], f"{item['score']:.4f}")
        console.print(table)
        return
    found = explainer.explain(name, [item["item_id"] for item in items])
    because_of = Column("because of", no_wrap=True)
    columns = ("item_id", "score", "source", because_of, "its event", "made of")
    table = Table(*columns, title=name)
    for item in items:
        reason, now = item["reason"], found.items[item["item_id"]]
        because = reason.get("because", "-")
        parts = (
            f"{source} {part / max(now.score, 1e-300):.0%} (share {now.shares[source]:.4f})"
            for source, part in now.parts.items()
        )
        score = f"{item['score']:.4f}"
        event = explainer.event_with(because)
        seen = f"{event[0]} {when(event[1])}" if event else "-"
        table.add_row(item["item_id"], score, reason["source"], because, seen, ", ".join(parts))
    console.print(table)
    weights = (f"{source} {weight:.3f}" for source, weight in found.weights.items() if weight > 0)
    console.print(f"{name}: blend weights in this step: {', '.join(weights)}", markup=False)
