"""``recommend --why-not`` and ``weights``: what keeps an item out, and what sources weigh."""

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.table import Table

from stream_app.absence import Answer
from stream_app.blend_file import blend_text
from stream_app.commands.console import command, console, plain
from stream_app.core.hybrid import BLENDED, decode_blend, new_blend, trust
from stream_app.core.scoring import SOURCES
from stream_app.errors import StreamAppError
from stream_app.journeys import load_journey
from stream_app.model_file import load_model
from stream_app.owning import BLEND_ID
from stream_app.ports import USERS, StateStore
from stream_app.settings import Settings
from stream_app.worker import redis_store

REASONS = {
    "deleted": "the catalog has deleted it",
    "not_available": "the catalog says that it is not available, or that there are none",
    "hidden": "the catalog says so",
    "excluded": "STREAM_APP_EXCLUDED_ITEMS names it",
    "price": "its price is beyond STREAM_APP_PRICE_MIN or STREAM_APP_PRICE_MAX",
    "in_cart": "it is in the customer's cart",
    "bought": "the customer has bought it",
    "seen": "the customer has seen it: STREAM_APP_EXCLUDE_SEEN",
    "rule": "merchandising: {rules}",
    "category_full": "others of its category come first: STREAM_APP_CATEGORY_MAX",
    "brand_full": "others of its brand come first: STREAM_APP_BRAND_MAX",
    "diversity": "it gives way to less similar ones: STREAM_APP_DIVERSITY",
    "exploration": "a new item has its place: STREAM_APP_EXPLORATION_SHARE",
    "kind": "such a list does not take it, docs/journey.md#lists",
    "no_list": "the customer gave no reason for one yet, docs/journey.md#lists",
    "no_candidate": "no source names it for this customer",
    "behind": "others have a higher score",
}


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def weights(json_only: bool, out: Path | None) -> None:
        """Show the sources' weights by journey step, as each partition has learned them."""
        store = redis_store(settings)
        try:
            found = await learned_weights(store, settings)
            pinned = await weights_file(store, settings)
        finally:
            await store.close()
        if out:
            _write(out, pinned)
        if not json_only:
            _print_weights(found, settings)
        plain(orjson.dumps(found).decode())

    app.command(
        click.option("--json", "json_only", is_flag=True, help="Print only the JSON object."),
        click.option(
            "--out",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write what lists rank with now to a file for STREAM_APP_BLEND_WEIGHTS.",
        ),
    )(command(weights))


async def learned_weights(store: StateStore, settings: Settings) -> dict[str, Any]:
    """``{"published": {source: weight}, "partitions": {number: {step: {...}}}}``."""
    model = load_model(settings.model_file)
    steps = load_journey(settings.journey_file).names
    published = new_blend(model)["weights"][0, 0]
    partitions: dict[str, Any] = {}
    for number, blob in enumerate(await _blobs(store, settings)):
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


def _write(path: Path, text: bytes) -> None:
    try:
        path.write_bytes(text)
    except OSError as exc:
        raise StreamAppError(f"{path} cannot be written ({exc}): name another file") from exc


async def weights_file(store: StateStore, settings: Settings) -> bytes:
    """What all partitions together rank with now, for the setting ``blend_weights``."""
    model = load_model(settings.model_file)
    blends = [decode_blend(blob, model) for blob in await _blobs(store, settings)]
    steps = load_journey(settings.journey_file).names
    return blend_text(np.concatenate(blends), steps, model)


async def _blobs(store: StateStore, settings: Settings) -> list[bytes | None]:
    numbers = list(range(settings.clickstream_partitions))
    return await store.load(USERS, numbers, [BLEND_ID] * len(numbers))


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
    if settings.blend_weights != "learned":
        said = f"STREAM_APP_BLEND_WEIGHTS={settings.blend_weights}"
        console.print(f"lists are ranked with other weights: {said}", markup=False)


def when(ts: Any) -> str:
    """Unix seconds for people."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(float(ts)))


def print_answer(user: str, item: str, answer: Answer) -> None:
    """The answer, for people."""
    where = f"{user}'s list {answer.list_name!r}"
    if answer.place:
        said = f"{item} is in place {answer.place} of {where}, by {answer.source}"
    else:
        detail = REASONS[answer.reason].format(rules=", ".join(answer.rules))
        said = f"{item} is not in {where}: {answer.reason} ({detail})"
    console.print(said, markup=False)
    if answer.bought:
        console.print(
            f"bought {when(answer.bought['at'])}, out until {when(answer.bought['until'])}:"
            f" {answer.bought['because']}"
        )
    if answer.rank:
        console.print(
            f"by its score, {answer.score:.6f}, it has place {answer.rank} among all that the"
            " settings allow"
        )
    if answer.shares:
        table = Table("source", "part of its score", "share of the source", title="made of")
        for name, share in answer.shares.items():
            part = answer.parts[name] / max(answer.score, 1e-300)
            table.add_row(name, f"{part:.0%}", f"{share:.6f}")
        console.print(table)
