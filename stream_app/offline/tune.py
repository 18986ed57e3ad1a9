"""Tune the model's few global parameters on a customer's own data: never on what is reported.

The Tree-structured Parzen Estimator of optuna (Bergstra et al. 2011; the extra ``tune``) proposes
parameters, the evaluation on the last part of the training file judges them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from stream_app.core.model import Model
from stream_app.errors import ConfigurationError
from stream_app.model_file import model_from
from stream_app.offline.evaluate import TARGETS, Question, evaluate, group_of, split_by_time
from stream_app.offline.eventfile import EventTable
from stream_app.settings import Settings

# Parameter → least, most, and whether the scale is logarithmic.
SPACE: Mapping[str, tuple[float, float, bool]] = {
    "context_decay": (0.3, 2.0, False),
    "mass_prior": (0.03, 3.0, True),
    "hub_power": (0.1, 0.8, False),
    "blend_share": (0.8, 4.0, True),
    "return_share": (0.0, 1.0, False),
    "weight_direct": (0.2, 20.0, True),
    "weight_two_hop": (1.0, 60.0, True),
    "weight_forward": (0.2, 20.0, True),
    "weight_popular": (0.2, 20.0, True),
    "pair_half_life_s": (86_400.0, 180 * 86_400.0, True),
    "pair_gap_s": (1.0, 86_400.0, True),
    "popularity_half_life_s": (3_600.0, 30 * 86_400.0, True),
}
TUNE_SEED = 1


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best parameters, what they reach on the validation part, and what the defaults reach."""

    parameters: dict[str, float]
    value: float
    default: float
    trials: int


async def tune_on(
    events: EventTable, settings: Settings, *, split: float, group: str | None, trials: int
) -> Tuned:
    """Maximise hit rate + MRR at 20 on the last part of ``events``; the defaults are tried first.

    Raises :class:`~stream_app.errors.ConfigurationError` when optuna is not installed.
    """
    try:
        import optuna
    except ImportError as exc:
        raise ConfigurationError(
            "tune needs optuna: install the extra, pip install 'stream_app[tune]'"
        ) from exc
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, test = split_by_time(events, split)
    question = Question("live", group_of(train, test, group), 20, TARGETS, exclude_seen=False)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=TUNE_SEED)
    )
    defaults = Model()._asdict()
    study.enqueue_trial({name: defaults[name] for name in SPACE})
    for _ in range(trials):
        trial = study.ask()
        found = {
            name: trial.suggest_float(name, low, high, log=log)
            for name, (low, high, log) in SPACE.items()
        }
        result = await evaluate(train, test, question, settings, model_from(found))
        study.tell(trial, result["hit_rate"] + result["mrr"])
    return Tuned(
        dict(study.best_params), float(study.best_value), float(study.trials[0].value or 0), trials
    )


def write_model(parameters: Mapping[str, float], path: Path) -> None:
    """Write a file for the setting ``model_file``."""
    path.write_bytes(orjson.dumps(dict(parameters), option=orjson.OPT_INDENT_2) + b"\n")
