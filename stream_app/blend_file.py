"""Weights of the sources by journey step in a file: what ``weights --out`` writes, lists rank with.

JSON: ``{"steps": {step: {source: weight}}, "observed": {step: number}}``. A step that is not named
has the published weights, a source that is not named has none. ``observed`` says what they are the
version of; nobody reads it but people.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core.hybrid import BLENDED, pinned_blend, prior_of, used_weights
from stream_app.core.model import STEPS_MAX, Model
from stream_app.core.scoring import POPULAR, SOURCES, SOURCES_N
from stream_app.errors import ConfigurationError
from stream_app.settings import Settings

_CURE = "`weights --out FILE` writes such a file; or say learned or published"
_NUMBERS = {SOURCES[s]: s for s in BLENDED.tolist()}


def blend_text(blends: NDArray[np.void], steps: Sequence[str], model: Model) -> bytes:
    """The file of what ``(p,) BLEND`` rank with now, for the steps that were observed."""
    used, observed = used_weights(blends, model), blends["observed"].sum(axis=0)
    rows = [k for k in range(len(steps)) if observed[k]]
    found = {
        "steps": {
            steps[k]: {name: float(used[k, s]) for name, s in _NUMBERS.items()} for k in rows
        },
        "observed": {steps[k]: int(observed[k]) for k in rows},
    }
    return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def load_blend(settings: Settings, steps: Sequence[str], model: Model) -> NDArray[np.void] | None:
    """The ``(1,) BLEND`` of the file that ``blend_weights`` names, ``None`` where it names none.

    Raises :class:`~stream_app.errors.ConfigurationError` for what cannot be read or used.
    """
    if settings.blend_weights in ("learned", "published"):
        return None
    where = f"STREAM_APP_BLEND_WEIGHTS={settings.blend_weights}"
    try:
        said = orjson.loads(Path(settings.blend_weights).read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{where}: cannot be read ({exc}); {_CURE}") from exc
    given = said.get("steps") if isinstance(said, dict) else None
    if not isinstance(given, dict):
        raise ConfigurationError(f'{where}: must hold {{"steps": {{...}}}}; {_CURE}')
    weights = np.tile(prior_of(model), (STEPS_MAX, 1))
    for step, row in given.items():
        if step not in steps or not step:
            names = ", ".join(name for name in dict.fromkeys(steps) if name)
            raise ConfigurationError(f"{where}: {step!r} is none of the journey's steps: {names}")
        weights[[k for k, name in enumerate(steps) if name == step]] = _row(row, where, step)
    return pinned_blend(weights, model)


def _row(given: Any, where: str, step: str) -> NDArray[np.float64]:
    """``(SOURCES_N,)`` of one step."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{where}: {step} must hold weights by source; {_CURE}")
    row = np.zeros(SOURCES_N)
    for source, weight in given.items():
        if source not in _NUMBERS:
            raise ConfigurationError(
                f"{where}: {step}.{source} is none of {', '.join(sorted(_NUMBERS))}"
            )
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise ConfigurationError(
                f"{where}: {step}.{source}={weight!r} must be a number of at least 0"
            )
        row[_NUMBERS[source]] = weight
    if row[: POPULAR + 1].sum() <= 0:
        tables = ", ".join(SOURCES[: POPULAR + 1])
        raise ConfigurationError(f"{where}: {step} must give weight to one of {tables}")
    return row
