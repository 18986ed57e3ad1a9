"""Other people's topics, which are copied: whether they are there, and how far they were read."""

import asyncio

from stream_app.adapters.kafka import Security
from stream_app.adapters.topics import check_there, committed_offset
from stream_app.copying import Committed
from stream_app.settings import Settings

ASKED_AT_A_TIME = 8


async def check_sources(settings: Settings, security: Security) -> None:
    """Raise ``ConfigurationError`` where one is missing: it is not ours to make."""
    await check_there(
        list(settings.source_formats()),
        setting="STREAM_APP_SOURCE_TOPICS",
        brokers=settings.bootstrap.split(","),
        security=security,
    )


def committed_by_group(settings: Settings, security: Security) -> Committed:
    """What asks how far the workers' group has committed a partition."""
    turn = asyncio.Semaphore(ASKED_AT_A_TIME)  # a connection each: vendors may have many partitions

    async def committed(topic: str, partition: int) -> int | None:
        brokers = settings.bootstrap.split(",")
        async with turn:
            return await committed_offset(
                settings.app_id, topic, partition, brokers=brokers, security=security
            )

    return committed
