"""``aggregates``: publish counts of customers with noise, so that they say little about any one."""

import hmac
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.adapters.generations import GenerationStore
from stream_app.broadcasts import Broadcasts
from stream_app.commands.console import command, plain
from stream_app.composition import compose
from stream_app.core.aggregates import (
    PER_CUSTOMER_MAX,
    Counts,
    customer_counts,
    epsilon_spent,
    private_counts,
)
from stream_app.core.catalog import Catalog
from stream_app.core.state import decode_partition, decode_users
from stream_app.errors import ConfigurationError, StreamAppError
from stream_app.journeys import load_journey
from stream_app.ports import ACCOUNTS_ID, USERS
from stream_app.settings import Settings
from stream_app.worker import kafka_log, redis_store, security

KEY = "aggregates:latest"
SECRET_CHARS_MIN = 32
DAY_S = 86_400.0
TOP = 50


def register(app: Any, settings: Settings) -> None:
    """Add the command to ``app``."""

    async def aggregates(epsilon: float, secret_file: str, every_days: float) -> None:
        """Publish the step funnel and top items with noise; once a period, whoever asks."""
        secret = _secret(Path(secret_file))
        store = redis_store(settings)
        try:
            text = await released(store, settings, secret, epsilon=epsilon, every_days=every_days)
        finally:
            await store.close()
        plain(text.decode())

    app.command(
        click.option(
            "--epsilon",
            type=click.FloatRange(min=0, min_open=True, max=100),
            required=True,
            help="Privacy loss of one release; smaller is noisier.",
        ),
        click.option(
            "--secret-file",
            required=True,
            help=f"File with at least {SECRET_CHARS_MIN} characters that nobody else knows.",
        ),
        click.option(
            "--every-days",
            type=click.FloatRange(min=0.01, max=366),
            default=1.0,
            show_default=True,
            help="Until so much later in the log the last release is shown again.",
        ),
    )(command(aggregates))


def _secret(path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as exc:
        raise ConfigurationError(f"--secret-file {path}: cannot be read ({exc.strerror})") from exc
    if len(secret) < SECRET_CHARS_MIN:
        raise ConfigurationError(
            f"--secret-file {path}: needs at least {SECRET_CHARS_MIN} characters, such as of"
            " `openssl rand -hex 32`: who can guess them can take the noise away"
        )
    return secret


class _Position(NamedTuple):
    """Where the log is: records applied, and the event time they have reached."""

    records: int
    at: float


async def released(
    store: GenerationStore,
    settings: Settings,
    secret: bytes,
    *,
    epsilon: float,
    every_days: float = 1.0,
    catalog: Catalog | None = None,
) -> bytes:
    """The release in force, made now if the last one is a period old; JSON.

    Its noise is a function of ``secret`` and the position of the log alone. ``catalog`` are the
    items to count, by default those of the catalog topic: which items there are must not depend on
    customers. Raises ``StreamAppError`` before the first event.
    """
    position = await _position(store, settings)
    stored = await store.get(KEY)
    last = orjson.loads(stored) if isinstance(stored, bytes) else None
    if last is not None and position.at < last["as_of"] + every_days * DAY_S:
        assert isinstance(stored, bytes)
        return stored
    if catalog is None:
        catalog = await _catalog(store, settings)
    names = load_journey(settings.journey_file).names
    n = catalog.rows_n
    rows = np.flatnonzero(catalog.listed(catalog.ids[:n]) & (catalog.ids[:n] != 0))
    rows = rows[np.argsort(catalog.ids[rows])]
    counts = await _counted(store, settings, catalog.ids[rows], len(names))
    noisy = _noisy(counts, secret, epsilon, position.records)
    text = orjson.dumps(
        {
            "release": 1 if last is None else last["release"] + 1,
            "records": position.records,
            "as_of": position.at,
            "published_at": round(time.time(), 3),
            "epsilon": epsilon,
            "epsilon_spent": epsilon_spent([epsilon, last["epsilon_spent"] if last else 0.0]),
            "per_customer_max": PER_CUSTOMER_MAX,
            "noise_scale": PER_CUSTOMER_MAX / epsilon,
            **_published(noisy, names, catalog, rows),
        }
    )
    await store.put_values([(KEY, text)])
    return text


async def _position(store: GenerationStore, settings: Settings) -> _Position:
    numbers = range(settings.clickstream_partitions)
    blobs = await store.load(USERS, list(numbers), [ACCOUNTS_ID] * len(numbers))
    records = sum(orjson.loads(blob)["cursor"] for blob in blobs if blob)
    keys = [f"{settings.redis_prefix}{{u{p}}}#cursor" for p in numbers]
    metas = [
        found.get(b"meta", b"") for key in keys if isinstance(found := await store.get(key), dict)
    ]
    times = [float(decode_partition(meta)["watermark"][0]) for meta in metas if meta]
    if not records or not times:
        raise StreamAppError("there is nothing to publish: no event was applied yet")
    return _Position(records, max(times))


async def _catalog(store: GenerationStore, settings: Settings) -> Catalog:
    log = kafka_log(settings)
    stages = compose(settings, store=store, public=store, log=log, clock=time.time)
    broadcasts = Broadcasts(settings, stages, security(settings), stages.followers)
    try:
        await broadcasts.load()
    finally:
        await broadcasts.close()
        await log.stop()
    return stages.catalog


async def _counted(
    store: GenerationStore, settings: Settings, items: NDArray[np.uint64], steps_n: int
) -> Counts:
    """Counts over the states of all customers, as they are."""
    total = Counts(np.zeros(steps_n), np.zeros((steps_n, steps_n)), np.zeros(len(items)))
    for partition in range(settings.clickstream_partitions):
        seen: set[bytes] = set()  # a page may repeat a key: no customer may count twice
        async for page in store.scan(USERS, partition):
            keys = [key for key in dict.fromkeys(page) if len(key) == 8 and key not in seen]
            keys = [key for key in keys if key != ACCOUNTS_ID]
            seen.update(keys)
            if not keys:
                continue
            blobs = await store.load(USERS, [partition] * len(keys), keys)
            ids = np.frombuffer(b"".join(keys), np.uint64)
            found = customer_counts(decode_users(ids, blobs), items, steps_n)
            total = Counts(*(a + b for a, b in zip(total, found, strict=True)))
    return total


def _noisy(counts: Counts, secret: bytes, epsilon: float, release: int) -> Counts:
    """Whole numbers, none below 0: what is done to noisy counts costs no privacy."""
    drawn = hmac.digest(secret, b"aggregates:%d" % release, "sha256")
    flat = np.concatenate([part.ravel() for part in counts])
    noisy = private_counts(
        flat,
        epsilon=epsilon,
        per_customer_max=PER_CUSTOMER_MAX,
        secret=int.from_bytes(drawn[:8]) >> 1,
        release=release,
    )
    ends = np.cumsum([part.size for part in counts])[:-1]
    parts = np.split(np.maximum(np.rint(noisy), 0.0), ends)
    return Counts(*(new.reshape(old.shape) for new, old in zip(parts, counts, strict=True)))


def _published(
    noisy: Counts, names: tuple[str, ...], catalog: Catalog, rows: NDArray[np.int64]
) -> dict[str, Any]:
    ids = [catalog.texts(row).item_id for row in rows.tolist()]
    best = sorted(range(len(ids)), key=lambda k: (-noisy.items[k], ids[k]))[:TOP]
    known = [k for k, name in enumerate(names) if name]
    return {
        "customers_by_step": {names[k]: int(noisy.steps[k]) for k in known},
        "last_moves": {
            f"{names[a]} > {names[b]}": int(noisy.moves[a, b])
            for a in known
            for b in known
            if a != b
        },
        "top_items": [{"item_id": ids[k], "customers": int(noisy.items[k])} for k in best],
    }
