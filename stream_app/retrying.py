"""Retry infrastructure errors without end and with back-off: the stream waits, it loses nothing."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stream_app.errors import LogUnavailable, StoreUnavailable

Result = TypeVar("Result")

log = logging.getLogger(__name__)
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 5.0
_waiting: Counter[str] = Counter()


async def retrying(operation: Callable[[], Awaitable[Result]], what: str) -> Result:
    """The result of ``operation``, called again while the store or the log is unavailable."""
    wait_s, counted = FIRST_WAIT_S, False
    try:
        while True:
            try:
                return await operation()
            except (StoreUnavailable, LogUnavailable) as exc:
                log.warning("%s: %s; trying again in %.2g s", what, exc, wait_s)
                _waiting[what] += not counted
                counted = True
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    finally:
        _waiting[what] -= counted


def waiting() -> list[str]:
    """What is being tried again at present: the outside world is at fault, not this process."""
    return sorted(what for what, n in _waiting.items() if n > 0)
