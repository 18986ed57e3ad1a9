"""What commands look with: the stages of a worker that owns nothing."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stream_app.adapters.redis_store import RedisStore
from stream_app.broadcasts import Broadcasts
from stream_app.composition import Stages, compose
from stream_app.settings import Settings
from stream_app.worker import kafka_log, security


@asynccontextmanager
async def looking(settings: Settings, store: RedisStore) -> AsyncIterator[Stages]:
    """Stages with catalog, customers, rules and erasures as their topics have them."""
    log = kafka_log(settings)
    stages = compose(settings, store=store, public=store, log=log, clock=time.time)
    broadcasts = Broadcasts(settings, stages, security(settings), stages.followers)
    try:
        await broadcasts.load()
        yield stages
    finally:
        await broadcasts.close()
        await log.stop()


async def partition_meta(settings: Settings, store: RedisStore, number: int) -> bytes:
    """The state of a clickstream partition itself; empty before its first event."""
    record = await store.get(f"{settings.redis_prefix}{{u{number}}}#cursor")
    return record.get(b"meta", b"") if isinstance(record, dict) else b""
