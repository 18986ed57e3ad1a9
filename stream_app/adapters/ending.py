"""A worker that was told to stop is gone in time. Called by :mod:`.transport`.

Threads cannot be cancelled: one that compiles kernels, or hangs in a library, would keep the
process alive until a supervisor kills it, and nobody would know why.
"""

import faulthandler
import logging
import os
import sys
import threading
from typing import Any

log = logging.getLogger(__name__)

EXIT_S = 2.0  # from the end of the event loop to that of the process


def end_within(seconds: float, *, code: int, why: str = "") -> None:
    """End this process with ``code`` if it is still there after ``seconds``.

    With a ``why`` that is an error: it is logged, and where every thread stands with it.
    """

    def end() -> None:
        if why:
            log.critical("the process ends itself after %g s: %s", seconds, why)
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def ends_in_time(worker: Any, stop_timeout_s: float) -> Any:
    """A subclass of Faust's ``worker`` that stops in good order, unless that hangs."""

    class EndsInTime(worker):  # type: ignore[misc]
        """See :func:`ends_in_time`."""

        def _setup_spinner_handler(self, *_: Any) -> None:
            # Nobody sees it turn, and for it Faust has every library make its debug records.
            self.spinner = None

        async def stop(self) -> None:
            """In good order, up to ``stop_timeout_s``."""
            end_within(stop_timeout_s, code=1, why="it was told to stop, and something hangs")
            await super().stop()

        def _shutdown_loop(self) -> None:
            try:
                super()._shutdown_loop()
            finally:
                end_within(EXIT_S, code=1 if self.crash_reason else 0)

    return EndsInTime
