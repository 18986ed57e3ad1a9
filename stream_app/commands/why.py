"""``recommend --why-not`` and ``weights``: what keeps an item out, and what sources weigh."""

import time
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.table import Table

from stream_app.adapters.partitioning import partition_of
from stream_app.commands.console import command, console, plain
from stream_app.core.cycles import LEAST, cycle_of, decode_cycles
from stream_app.core.hybrid import BLENDED, decode_blend, new_blend, trust
from stream_app.core.list_kinds import HOME
from stream_app.core.model import Model
from stream_app.core.ranking import Ranker
from stream_app.core.rules import BARS, Rules, bar, bought_at, cycle_s
from stream_app.core.scoring import SOURCES
from stream_app.core.shaping import EMPTY_CATALOG
from stream_app.core.state import decode_users, new_partition
from stream_app.core.tables import ItemTables
from stream_app.errors import StreamAppError
from stream_app.hashing import customer_id, public_name, stable_hash
from stream_app.items import ItemReader
from stream_app.journeys import load_journey
from stream_app.offers import rules_of
from stream_app.owning import BLEND_ID, CYCLES_ID
from stream_app.ports import USERS, StateStore
from stream_app.pseudonyms import load_pseudonyms, names_of
from stream_app.settings import Settings
from stream_app.worker import redis_store

_DAY_S = 86_400.0
RANKED_MAX = 1_000  # beyond this place an item is simply far behind


@dataclass(frozen=True, slots=True)
class Answer:
    """Why an item is, or is not, in a customer's home list."""

    place: int  # among all candidates, 0: none of the sources here named it
    score: float
    barred: str  # the rule that keeps it out, empty when none does
    shares: dict[str, float]  # of each source's values for this customer; absent: it had none
    bought: dict[str, float | str]  # when, how long it stays out and why so long; empty: it was not


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def weights(json_only: bool) -> None:
        """Show the sources' weights by journey step, as each partition has learned them."""
        store = redis_store(settings)
        try:
            found = await learned_weights(store, settings)
        finally:
            await store.close()
        if not json_only:
            _print_weights(found, settings)
        plain(orjson.dumps(found).decode())

    app.command(
        click.option("--json", "json_only", is_flag=True, help="Print only the JSON object.")
    )(command(weights))


async def learned_weights(store: StateStore, settings: Settings) -> dict[str, Any]:
    """``{"published": {source: weight}, "partitions": {number: {step: {...}}}}``."""
    model = Model()
    numbers = range(settings.clickstream_partitions)
    blobs = await store.load(USERS, list(numbers), [BLEND_ID] * len(numbers))
    steps = load_journey(settings.journey_file).names
    published = new_blend(model)["weights"][0, 0]
    partitions: dict[str, Any] = {}
    for number, blob in zip(numbers, blobs, strict=True):
        if blob:
            record = decode_blend(blob, model)
            blend, used = record[0], trust(record)
            partitions[str(number)] = {
                name: {
                    "version": int(blend["observed"][step]),
                    "loss": float(blend["loss"][step]),
                    "published_loss": float(blend["published_loss"][step]),
                    "used": round(float(used[step]), 4),
                    "weights": _by_source(blend["weights"][step]),
                }
                for step, name in enumerate(steps)
                if blend["observed"][step]
            }
    return {
        "use": settings.blend_weights,
        "published": _by_source(published),
        "partitions": partitions,
    }


def _by_source(weights: NDArray[np.float64]) -> dict[str, float]:
    return {SOURCES[s]: round(float(weights[s]), 4) for s in BLENDED.tolist()}


def _print_weights(found: dict[str, Any], settings: Settings) -> None:
    names = list(found["published"])
    table = Table("partition", "step", "observed", "log loss", "published", "used", *names)
    table.add_row(
        "-", "published", "", "", "", "", *(f"{w:.3f}" for w in found["published"].values())
    )
    for number, steps in found["partitions"].items():
        for step, row in steps.items():
            losses = (f"{row[name]:.3f}" for name in ("loss", "published_loss", "used"))
            shown = (f"{row['weights'][name]:.3f}" for name in names)
            table.add_row(number, step, str(row["version"]), *losses, *shown)
    console.print(table)
    if settings.blend_weights == "published":
        console.print("lists are ranked with the published weights: STREAM_APP_BLEND_WEIGHTS")


async def why_not(store: StateStore, settings: Settings, user: str, item: str) -> Answer:
    """What the tables say of ``item`` for ``user`` now; the catalog's flags are not asked.

    Raises :class:`~stream_app.errors.StreamAppError` for a customer who is not known.
    """
    users = await _customer(store, settings, user)
    tables = ItemTables(Model(), rows_max=10_000, nodes_max=1_000_000)
    reader = ItemReader(
        store,
        tables,
        partitions=settings.cooccurrence_partitions,
        cache_age_s=3600.0,
        refresh_s=3600.0,
        clock=time.monotonic,
    )
    key = np.array([stable_hash(item)], np.uint64)
    for _ in range(3):  # the masses of neighbours are read along with the next batch
        await reader.load(np.concatenate((users["ring_item"].ravel(), key)))
    partition = partition_of(user.encode(), settings.clickstream_partitions)
    blob, cycles = await store.load(USERS, [partition] * 2, [BLEND_ID, CYCLES_ID])
    ts = users["last_ts"].copy()
    tables.advance(float(ts[0]))
    tables.ensure(key)
    ranker = Ranker(tables, list_size=RANKED_MAX)
    learned = decode_blend(blob, tables.model) if settings.blend_weights == "learned" else None
    lists = ranker.rank(
        users,
        np.zeros(1, np.int64),
        np.full(1, HOME, np.uint8),
        ts,
        new_partition(),
        reader.popular(),
        blend=learned,
    )
    ids = tables.nodes["id"][lists.nodes[0, : lists.counts[0]]]
    at = np.flatnonzero(ids == key[0])
    given = ranker.probe(users, key, ts, reader.popular())[0]
    rules = rules_of(settings)._replace(learned=decode_cycles(cycles))
    customer = users.view(np.recarray)[0]
    reason = bar(rules, EMPTY_CATALOG, customer, HOME, ts[0], key[0])
    return Answer(
        int(at[0]) + 1 if len(at) else 0,
        float(lists.scores[0, at[0]]) if len(at) else 0.0,
        BARS[reason],
        {SOURCES[s]: float(given[s]) for s in BLENDED.tolist() if given[s] >= 0.0},
        _bought(rules, customer, int(key[0])) if BARS[reason] == "bought" else {},
    )


def _bought(rules: Rules, customer: Any, item: int) -> dict[str, float | str]:
    at, stays_s = bought_at(customer, item), float(cycle_s(rules, EMPTY_CATALOG, item))
    n, usual_s = cycle_of(rules.learned.view(np.recarray)[0], np.uint64(item))
    known = n >= LEAST and rules.learned_share > 0.0
    return {
        "at": at,
        "until": at + stays_s,
        "because": f"customers buy it again after {usual_s / _DAY_S:.1f} days, seen {n:.0f} times,"
        f" and it stays out for {rules.learned_share:g} of that"
        if known
        else "set by STREAM_APP_EXCLUDE_BOUGHT_DAYS, nothing else is known of this item",
    }


async def _customer(store: StateStore, settings: Settings, user: str) -> NDArray[np.void]:
    partition = partition_of(user.encode(), settings.clickstream_partitions)
    pseudonyms = load_pseudonyms(settings.pseudonym_key_file)
    given = [public_name(user, anonymous=anonymous) for anonymous in (False, True)]
    for name in (name for one in given for name in names_of(pseudonyms, one)):
        ids = np.array([customer_id(name)], np.uint64)
        (blob,) = await store.load(USERS, [partition], [ids[0].tobytes()])
        if blob:
            return decode_users(ids, [blob])
    raise StreamAppError(f"customer {user!r} is not known: none of their events was applied yet")


def when(ts: Any) -> str:
    """Unix seconds for people."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(float(ts)))


def print_answer(user: str, item: str, answer: Answer, list_size: int) -> None:
    """The answer, for people."""
    if answer.barred:
        console.print(f"{item} is kept out of {user}'s list by a rule: {answer.barred}")
    if answer.bought:
        console.print(
            f"bought {when(answer.bought['at'])}, out until {when(answer.bought['until'])}:"
            f" {answer.bought['because']}"
        )
    if not answer.place:
        console.print(f"no source of the item tables names {item} for {user} now")
    else:
        inside = "is in" if answer.place <= list_size and not answer.barred else "would be at"
        console.print(
            f"{item} {inside} place {answer.place} of {user}'s home list, score {answer.score:.6f}"
        )
    table = Table("source", "its share of the source", title="what each source gives it")
    for name, share in answer.shares.items():
        table.add_row(name, f"{share:.6f}")
    if answer.shares:
        console.print(table)
    else:
        console.print(f"{item} is one of {user}'s own recent items: their chance to come again")
