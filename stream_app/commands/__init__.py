"""The commands of ``faust -A stream_app.app``, besides Faust's own."""

from typing import Any

from stream_app.commands import (
    aggregates,
    dead_letters,
    decisions,
    digest,
    exposure,
    load,
    look,
    offline,
    operate,
    replay,
    rules,
    verify,
    why,
)
from stream_app.settings import Settings


def register(app: Any, settings: Settings) -> None:
    """Add every command to the Faust ``app``."""
    for module in (
        operate,
        replay,
        load,
        rules,
        look,
        aggregates,
        dead_letters,
        decisions,
        digest,
        exposure,
        offline,
        verify,
        why,
    ):
        module.register(app, settings)
