"""What the user can set: ``DEMO_SECONDS``, ``DEMO_RATE``, ``DEMO_FILE``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stream_app.errors import ConfigurationError

seconds_max, rate_max = 86_400.0, 20_000.0


@dataclass(frozen=True, slots=True)
class Options:
    """How long events are fed (seconds), how many per second, and from where (None: the shop)."""

    seconds: float = 60.0
    rate: float = 400.0
    file: Path | None = None


def read_options(environment: Mapping[str, str]) -> Options:
    """Options from ``DEMO_*`` variables; an empty one counts as not set.

    Raises ``ConfigurationError`` naming variable, value and what would be right.

    >>> read_options({"DEMO_SECONDS": "15", "DEMO_FILE": ""})
    Options(seconds=15.0, rate=400.0, file=None)
    """
    file = environment.get("DEMO_FILE")
    return Options(
        _number(environment, "DEMO_SECONDS", 60.0, seconds_max),
        _number(environment, "DEMO_RATE", 400.0, rate_max),
        Path(file) if file else None,
    )


def _number(environment: Mapping[str, str], name: str, default: float, highest: float) -> float:
    text = environment.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= highest:
        raise ConfigurationError(f"{name}={text!r}: must be a number above 0, up to {highest:g}")
    return number
