"""Model parameters from a file, as ``tune`` writes it: JSON, names of Model to numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from stream_app.core.model import Model
from stream_app.errors import ConfigurationError


def model_from(parameters: Mapping[str, Any], *, name: str = "model parameters") -> Model:
    """A model with these parameters, the rest as published.

    Raises :class:`~stream_app.errors.ConfigurationError` for what is no parameter or no number.
    Table sizes cannot be set: state that is stored depends on them.

    >>> model_from({"hub_power": 0.4}).hub_power
    0.4
    """
    free = {field for field, value in Model()._asdict().items() if isinstance(value, float)}
    for field, value in parameters.items():
        if field not in free:
            raise ConfigurationError(f"{name}: {field!r} is none of {', '.join(sorted(free))}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise ConfigurationError(f"{name}: {field}={value!r} must be a number of at least 0")
    values: dict[str, Any] = {field: float(value) for field, value in parameters.items()}
    model = Model()._replace(**values)
    weights = (
        model.weight_direct,
        model.weight_two_hop,
        model.weight_forward,
        model.weight_popular,
    )
    halves = (
        model.pair_half_life_s,
        model.popularity_half_life_s,
        model.vector_half_life_s,
        model.trend_short_s,
        model.trend_long_s,
    )
    if sum(weights) <= 0 or min(*halves, model.pair_gap_s) <= 0:
        raise ConfigurationError(
            f"{name}: half-lives, pair_gap_s and the sum of weights must be above 0"
        )
    return model


def load_model(path: Path | None) -> Model:
    """The model of a file, ``None`` for the published one."""
    if path is None:
        return Model()
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise ConfigurationError(
            f"STREAM_APP_MODEL_FILE={path}: cannot be read ({exc}); `tune` writes such a file"
        ) from exc
    if not isinstance(found, dict):
        raise ConfigurationError(f"STREAM_APP_MODEL_FILE={path}: must hold one JSON object")
    return model_from(found, name=f"STREAM_APP_MODEL_FILE={path}")
