"""What the stages tell an observer: a port of three verbs, and an observer that listens to nothing.

:mod:`stream_app.adapters.telemetry` implements it. Everything is told once per batch, never per
event; what can be read from state (accounts, cursors, sizes) is read when somebody asks.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Quality(NamedTuple):
    """Of a batch: records ``rejected`` by cause, those that there are, and events taken in late."""

    rejected: Mapping[str, int]
    late: int


class Telemetry(Protocol):
    """An observer of the batches under way."""

    def lap(self, part: str) -> None:
        """A part of the batch that the running task handles ends here."""
        ...

    def cache(self, name: str, *, asked: int, missing: int) -> None:
        """``missing`` of ``asked`` entries were not in cache ``name`` and are read."""
        ...

    def quality(self, found: Quality) -> None:
        """What was wrong with the records of a batch that has been committed."""
        ...


class Silent:
    """Listens to nothing: evaluation, tests, tools."""

    def lap(self, part: str) -> None:
        """Nothing."""

    def cache(self, name: str, *, asked: int, missing: int) -> None:
        """Nothing."""

    def quality(self, found: Quality) -> None:
        """Nothing."""


SILENT = Silent()
