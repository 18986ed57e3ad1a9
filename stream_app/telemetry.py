"""What the stages tell an observer: a port of two verbs, and an observer that listens to nothing.

:mod:`stream_app.adapters.telemetry` implements it. Everything is told once per batch, never per
event; what can be read from state (accounts, cursors, sizes) is read when somebody asks.
"""

from typing import Protocol


class Telemetry(Protocol):
    """An observer of the batches under way."""

    def lap(self, part: str) -> None:
        """A part of the batch that the running task handles ends here."""
        ...

    def cache(self, name: str, *, asked: int, missing: int) -> None:
        """``missing`` of ``asked`` entries were not in cache ``name`` and are read."""
        ...


class Silent:
    """Listens to nothing: evaluation, tests, tools."""

    def lap(self, part: str) -> None:
        """Nothing."""

    def cache(self, name: str, *, asked: int, missing: int) -> None:
        """Nothing."""


SILENT = Silent()
