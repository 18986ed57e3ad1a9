"""One line a while instead of hundreds a second, from libraries that report every failed attempt.

While a broker is away aiokafka says so for every connection it tries, dozens of times a second.
"""

import logging
import time
from collections.abc import Callable

EVERY_S = 10.0
KINDS_MAX = 1_000  # messages told apart; beyond that they share one


class FloodFilter(logging.Filter):
    """Lets the first record of a kind through, then one every ``every_s``, with how many were not.

    A kind is a level and a message before its values are filled in.

    >>> now = [0.0]
    >>> flood = FloodFilter(clock=lambda: now[0])
    >>> record = lambda: logging.LogRecord("kafka", logging.ERROR, "", 1, "lost %s", ("n1",), None)
    >>> [flood.filter(record()) for _ in range(3)]
    [True, False, False]
    >>> now[0] = EVERY_S
    >>> last = record()
    >>> flood.filter(last), last.getMessage()
    (True, 'lost n1 (2 more like it)')
    """

    def __init__(
        self, *, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._kinds: dict[tuple[int, str], tuple[float, int]] = {}  # when last shown, hidden since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        kind = (record.levelno, str(record.msg)[:200])
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            kind = (record.levelno, "")
        now = self._clock()
        shown, hidden = self._kinds.get(kind, (-self._every_s, 0))
        if now - shown < self._every_s:
            self._kinds[kind] = shown, hidden + 1
            return False
        self._kinds[kind] = now, 0
        if hidden:
            record.msg = f"{record.getMessage()} ({hidden} more like it)"
            record.args = ()
        return True


def hold_back(library: str) -> None:
    """Filter what the loggers of ``library`` that exist now say."""
    flood = FloodFilter()
    for name in (library, *logging.root.manager.loggerDict):
        if name == library or name.startswith(f"{library}."):
            logging.getLogger(name).addFilter(flood)
