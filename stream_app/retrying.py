"""Retry infrastructure errors without end and with back-off: the stream waits, it loses nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stream_app.errors import LogUnavailable, StoreUnavailable

Result = TypeVar("Result")

log = logging.getLogger(__name__)
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 5.0


async def retrying(operation: Callable[[], Awaitable[Result]], what: str) -> Result:
    """The result of ``operation``, called again while the store or the log is unavailable."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await operation()
        except (StoreUnavailable, LogUnavailable) as exc:
            log.warning("%s: %s; trying again in %.2g s", what, exc, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
