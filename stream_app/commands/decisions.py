"""Learned: ``experiments``, ``insights``, ``evaluate-intent``, ``-decisions`` and ``-blend``."""

import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.table import Table

from stream_app.commands.console import command, console, plain
from stream_app.core.decide import CHOSEN, INVERSE, RESOLVED, REWARD, WEIGHTED
from stream_app.core.experiments import results
from stream_app.core.feedback import feedback_report
from stream_app.core.insight_fields import GAUGED
from stream_app.core.model import Model
from stream_app.core.prequential import report
from stream_app.core.ranking import LISTS
from stream_app.core.scoring import SOURCES
from stream_app.core.segments import segment_report
from stream_app.core.state import decode_partition
from stream_app.decisions import Decisions, load_decisions
from stream_app.errors import StreamAppError
from stream_app.journeys import load_journey
from stream_app.offline.blending import SHOPS
from stream_app.offline.blending import regret as regret_of_blends
from stream_app.offline.eventfile import read_events
from stream_app.offline.foretell import foretell
from stream_app.offline.regret import regret
from stream_app.outcomes import variants
from stream_app.settings import Settings
from stream_app.simulator.customers import make_customers
from stream_app.worker import redis_store

_JSON = click.option("--json", "json_only", is_flag=True, help="Print only the JSON object.")
_MEASURES = ("labels", "n", "positive_rate", "auc", "log_loss", "base_log_loss", "mse")
_DECISION = ("calibration_error", "accuracy", "precision", "recall", "f1")


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def experiments(json_only: bool) -> None:
        """Show the results of every experiment; look as often as you like."""
        decisions = _configured(settings)
        if not decisions.experiments:
            raise StreamAppError(
                "no experiments: describe them in a file and name it with"
                " STREAM_APP_EXPERIMENTS_FILE (docs/decisions.md)"
            )
        minds = await _minds(settings)
        sums = _added(minds, "experiments")
        found = [results(one, sums[e]) for e, one in enumerate(decisions.experiments)]
        if not json_only:
            for row in found:
                _print_experiment(row)
        plain(_json(found))

    async def insights(json_only: bool) -> None:
        """Show what the workers have learned: predictions, segments, actions, our own lists."""
        found = summary(await _minds(settings), _configured(settings), settings)
        if not json_only:
            _print_gauges("live, all partitions", found["predictions"])
            _print_rows("actions", found["actions"])
            for block, rows in found["feedback"].items():
                _print_rows(block, rows)
        plain(_json(found))

    async def evaluate_intent(file: str, json_only: bool) -> None:
        """Predict every event of FILE before learning it; compare with what happened."""
        found = foretell(read_events(Path(file)))
        if not json_only:
            _print_gauges("after every event, labels from the file", found["exact"])
            _print_gauges("as the model counts it itself, sampled", found["live"])
            _print_rows("steps", {k: {"moves": v} for k, v in found["funnel"]["moves"].items()})
        plain(_json(found))

    async def evaluate_decisions(customers: int, seed: int, json_only: bool) -> None:
        """Play the bandit against fixed decisions in a simulated shop whose truth is known."""
        shop = make_customers(np.random.default_rng(seed), customers, growth_s=1.0)
        found = regret(shop.price_sensitivity, seed=seed)
        if not json_only:
            _print_regret(found)
        plain(_json(found))

    app.command(_JSON)(command(experiments))
    app.command(_JSON)(command(insights))
    app.command(click.argument("file", type=click.Path(dir_okay=False)), _JSON)(
        command(evaluate_intent)
    )
    app.command(
        click.option("--customers", type=click.IntRange(100, 1_000_000), default=20_000),
        click.option("--seed", type=int, default=0, show_default=True),
        _JSON,
    )(command(evaluate_decisions))
    _register_blend(app, settings)


def _register_blend(app: Any, settings: Settings) -> None:
    async def evaluate_blend(moves: int, k: int, seed: int, json_only: bool) -> None:
        """Play the learned blend against fixed ones in shops whose truth is known."""
        found = {}
        for name, shop in SHOPS.items():
            found[name] = await regret_of_blends(shop, settings, moves=moves, k=k, seed=seed)
            if not json_only:
                _print_blends(name, found[name])
        plain(_json(found))

    app.command(
        click.option("--moves", type=click.IntRange(1_000, 10_000_000), default=20_000),
        click.option("--k", type=click.IntRange(1, 100), default=10, show_default=True),
        click.option("--seed", type=int, default=0, show_default=True),
        _JSON,
    )(command(evaluate_blend))


def summary(
    minds: list[NDArray[np.void]], decisions: Decisions, settings: Settings
) -> dict[str, Any]:
    """What all partitions have learned, added up where it adds up."""
    journey = load_journey(settings.journey_file)
    gauges, buckets = _added(minds, "gauges"), _added(minds, "buckets")
    arms, feedback = _added(minds, "arms"), _added(minds, "feedback")
    return {
        "predictions": {name: report(gauges[row], buckets[row]) for row, name in enumerate(GAUGED)},
        "segments": [segment_report(mind, Model().segments_n) for mind in minds],
        "actions": {
            arm.promotion or arm.action: _arm(arms[a])
            for a, arm in enumerate(decisions.actions.arms)
        },
        "feedback": feedback_report(feedback, LISTS, journey.names, SOURCES, variants(decisions)),
    }


def _added(minds: list[NDArray[np.void]], name: str) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sum([mind[name] for mind in minds], axis=0)
    return total


def _arm(row: NDArray[np.float64]) -> dict[str, float | None]:
    resolved = float(row[RESOLVED])
    return {
        "chosen": float(row[CHOSEN]),
        "resolved": resolved,
        "reward": float(row[REWARD]) / resolved if resolved else None,
        "reward_snips": float(row[WEIGHTED] / row[INVERSE]) if resolved else None,
    }


def _configured(settings: Settings) -> Decisions:
    return load_decisions(
        settings.actions_file,
        settings.experiments_file,
        load_journey(settings.journey_file).names,
        settings.clickstream_partitions,
    )


async def _minds(settings: Settings) -> list[NDArray[np.void]]:
    """The partitions' insight as the store has it; raises when there is none at all."""
    store = redis_store(settings)
    try:
        found = [
            await store.get(f"{settings.redis_prefix}{{u{p}}}#cursor")
            for p in range(settings.clickstream_partitions)
        ]
    finally:
        await store.close()
    metas = [record.get(b"meta", b"") for record in found if isinstance(record, dict)]
    minds = [decode_partition(meta)["insight"][0] for meta in metas if meta]
    if not minds:
        raise StreamAppError(
            "nothing was learned yet: no event was applied; `check` shows the accounts"
        )
    return minds


def _json(found: Any) -> str:
    return orjson.dumps(_defined(found), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _defined(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: _defined(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(one) for one in value]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " … ".join(_shown(one) for one in value)
    return f"{value:.4f}" if isinstance(value, float | np.floating) else str(value)


def _print_gauges(title: str, gauges: dict[str, dict[str, Any]]) -> None:
    names = [name for name in _MEASURES + _DECISION if any(name in row for row in gauges.values())]
    table = Table("prediction", *names, title=title)
    for name, row in gauges.items():
        table.add_row(name, *(_shown(row.get(measure)) for measure in names))
    console.print(table)


def _print_rows(title: str, rows: dict[str, dict[str, Any]]) -> None:
    if not rows:
        return
    names = list(next(iter(rows.values())))
    table = Table("", *names, title=title)
    for name, row in rows.items():
        table.add_row(name, *(_shown(row[column]) for column in names))
    console.print(table)


def _print_experiment(found: dict[str, Any]) -> None:
    mismatch = "; shares differ from what was assigned" if found["sample_ratio_mismatch"] else ""
    names = ["customers", "conversion_rate", "value_per_customer", "bounce_rate"]
    names += ["difference", "interval", "p_value", "verdict"]
    table = Table("variant", *names, title=f"{found['experiment']}{mismatch}")
    for row in found["variants"]:
        table.add_row(row["variant"], *(_shown(row.get(name)) for name in names))
    console.print(table)


def _print_regret(found: dict[str, Any]) -> None:
    head = [str(n) for n in found["decisions"]]
    table = Table("policy", *head, "late value", title="regret after so many decisions")
    for name, row in found["regret"].items():
        table.add_row(name, *(f"{x:.1f}" for x in row), f"{found['late_value'][name]:.4f}")
    console.print(table)
    console.print(f"best possible value per decision: {found['best_possible']:.4f}")
    _print_rows("value of always the same, true and from the bandit's log", found["estimates"])


def _print_blends(shop: str, found: dict[str, Any]) -> None:
    head = [f"{n:,}" for n in found["moves"][1::2]]  # the others are in the JSON object
    table = Table("blend", *head, "late hits", title=f"{shop}: regret after so many moves")
    table.columns[0].no_wrap = True
    for name, row in found["regret"].items():
        table.add_row(name, *(f"{x:.0f}" for x in row[1::2]), f"{found['late'][name]:.4f}")
    console.print(table)
    low, high = found["gain_interval"]
    console.print(
        f"best possible hit rate {found['late']['best possible']:.4f}; learned, less published"
        f" {found['gain']:+.4f} ({low:+.4f} … {high:+.4f})"
    )
