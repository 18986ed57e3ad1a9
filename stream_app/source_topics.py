"""Other people's topics, which are copied: whether they are there, and how far they were read."""

from stream_app.adapters.kafka import Security
from stream_app.adapters.topics import check_there, committed_offset
from stream_app.copying import Committed
from stream_app.settings import Settings


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

    async def committed(topic: str, partition: int) -> int | None:
        brokers = settings.bootstrap.split(",")
        return await committed_offset(
            settings.app_id, topic, partition, brokers=brokers, security=security
        )

    return committed
