"""``digest``: a list of every customer who may be written to, whatever step they are in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

from stream_app.adapters.redis_store import RedisStore
from stream_app.commands.console import command, plain
from stream_app.commands.stages import looking, partition_meta
from stream_app.composition import Stages
from stream_app.core.audience import EMAIL
from stream_app.core.ranking import LISTS
from stream_app.digests import Digest, Digests
from stream_app.errors import StreamAppError
from stream_app.hashing import given_name
from stream_app.ports import ACCOUNTS_ID, USERS
from stream_app.settings import Settings
from stream_app.worker import redis_store

PAGE = 500  # customers ranked at once
_KEY_BYTES = 8  # of a customer


def register(app: Any, settings: Settings) -> None:
    """Add the command to ``app``."""

    async def digest(path: str, name: str) -> None:
        """Write a list of every customer who may be written to, as of now: JSON lines to FILE."""
        try:
            file = await asyncio.to_thread(Path(path).open, "wb")
        except OSError as exc:
            raise StreamAppError(f"{path} cannot be written: {exc.strerror}") from exc
        store, written = redis_store(settings), 0
        try:
            with file:
                async with looking(settings, store) as stages:
                    digests = Digests(stages, store, name)
                    async for some in _pages(settings, store, stages, digests):
                        file.writelines(map(_line, some))
                        written += len(some)
        finally:
            await store.close()
        plain(orjson.dumps({"list": name, "customers": written}).decode())

    app.command(
        click.argument("path", metavar="FILE"),
        click.option("--list", "name", type=click.Choice(LISTS), default="email"),
    )(command(digest))


async def _pages(
    settings: Settings, store: RedisStore, stages: Stages, digests: Digests
) -> AsyncIterator[list[Digest]]:
    """Of known customers who have not refused to be written to, each once."""
    for number in range(settings.clickstream_partitions):
        meta = await partition_meta(settings, store, number)
        keys: set[bytes] = set()
        async for page in store.scan(USERS, number):  # which may name a customer twice
            keys.update(key for key in page if len(key) == _KEY_BYTES and key != ACCOUNTS_ID)
        ids = np.frombuffer(b"".join(sorted(keys)), np.uint64)
        ids = ids[stages.audience.may(ids, EMAIL)]
        for start in range(0, len(ids), PAGE):
            some = await digests.of(
                number, meta, [key.tobytes() for key in ids[start : start + PAGE]]
            )
            yield [one for one in some if not given_name(one.customer)[1]]
            await asyncio.sleep(0)


def _line(digest: Digest) -> bytes:
    user_id, _ = given_name(digest.customer)
    said = {"user_id": user_id, "step": digest.step, "last_seen": digest.last_seen}
    return orjson.dumps({**said, "items": orjson.Fragment(digest.items)}) + b"\n"
