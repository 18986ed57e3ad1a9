"""aiokafka asks for metadata again at once while a partition has no leader; here it rests between.

Otherwise a client whose brokers are gone, or whose partition waits for a leader, takes a core and
asks thousands of times a second.
"""

import asyncio
from typing import Any

APART_S = 0.1  # what aiokafka rests before it repeats anything else


def paced(client: Any) -> None:
    """Let ``client`` (an ``AIOKafkaClient``) begin an update ``APART_S`` after the last one."""
    update = client._metadata_update
    next_s = 0.0

    async def update_later(*args: Any) -> bool:
        nonlocal next_s
        loop = asyncio.get_running_loop()
        await asyncio.sleep(next_s - loop.time())
        try:
            updated: bool = await update(*args)
        finally:
            next_s = loop.time() + APART_S
        return updated

    client._metadata_update = update_later
