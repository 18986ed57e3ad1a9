"""``evaluate``, ``fit-intent`` and ``fit-support``: measure models on files; no server needed."""

from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Column, Table

from stream_app.commands.console import command, console, plain
from stream_app.model_file import load_model
from stream_app.offline import evaluate as evaluation
from stream_app.offline.evaluate_baskets import evaluate_baskets
from stream_app.offline.eventfile import read_events
from stream_app.offline.plots import write_plots
from stream_app.settings import Settings

_SHOWN = (
    "n",
    "basket_items",
    "hit_rate",
    "mrr",
    "ndcg",
    "average_precision",
    "precision",
    "recall",
    "f1",
    "coverage",
    "diversity",
    "popularity_percentile",
    "novelty_bits",
    "gini",
    "predictions_per_second",
)
_FILE = click.Path(dir_okay=False)
_JSON = click.option("--json", "json_only", is_flag=True, help="Print only the JSON object.")


_EVALUATE = (
    click.option("--train", type=_FILE, required=True, help="File to learn from."),
    click.option("--test", type=_FILE, help="File to measure on; default: --split TRAIN."),
    click.option(
        "--split",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.8,
        show_default=True,
        help="Without --test: the share of TRAIN, by time, to learn from.",
    ),
    click.option("--protocol", type=click.Choice(evaluation.PROTOCOLS), default="live"),
    click.option("--group", default=None, help="session_id or user_id; default: what is there."),
    click.option("--k", type=click.IntRange(1, 100), default=20, show_default=True),
    click.option("--targets", default=None, help="Event types to predict, comma-separated."),
    click.option(
        "--sources",
        default=None,
        help="Blend these sources, comma-separated, or all; default: those that the worker blends.",
    ),
    click.option("--compare", is_flag=True, help="Also measure every source alone."),
    click.option("--ablate", is_flag=True, help="Also measure all sources but each one."),
    click.option(
        "--basket",
        is_flag=True,
        help="One list before each new session_id of a user; all its items are the targets.",
    ),
    click.option("--exclude-seen", is_flag=True, help="Recommend no item seen recently."),
    click.option("--exclude-bought", is_flag=True, help="Recommend no item bought already."),
    click.option(
        "--diversity",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="Weight of unlikeness in a list, by the file's category and brand columns.",
    ),
    click.option("--plots", type=click.Path(file_okay=False), help="Write charts there."),
    _JSON,
)


def register(app: Any, settings: Settings) -> None:
    """Add the commands of this module to ``app``."""

    async def evaluate(
        train: str,
        test: str | None,
        split: float,
        protocol: str,
        group: str | None,
        k: int,
        targets: str | None,
        sources: str | None,
        compare: bool,
        ablate: bool,
        basket: bool,
        exclude_seen: bool,
        exclude_bought: bool,
        diversity: float,
        plots: str | None,
        json_only: bool,
    ) -> None:
        """Replay TRAIN then TEST through the pipeline and rank what customers did next."""
        learned = read_events(Path(train))
        if test is None:
            tables = evaluation.split_by_time(learned, split)
        else:
            tables = learned, read_events(Path(test))
        question = evaluation.Question(
            protocol,
            evaluation.group_of(*tables, group),
            k,
            evaluation.targets_of(targets),
            exclude_seen,
            evaluation.sources_of(sources),
            compare,
            ablate,
            exclude_bought,
            diversity,
        )
        model = load_model(settings.model_file)
        measure = evaluate_baskets if basket else evaluation.evaluate
        result = await measure(*tables, question, settings, model)
        if not json_only:
            _print(result)
        for path in write_plots(result, Path(plots)) if plots else ():
            if not json_only:
                console.print(f"wrote {path}", markup=False)
        plain(orjson.dumps(result).decode())

    app.command(*_EVALUATE)(command(evaluate))
    _register_tune(app, settings)
    _register_fits(app)
    _register_demand(app)
    _register_cold_start(app, settings)
    _register_lists(app, settings)
    _register_diversity(app, settings)


def _register_tune(app: Any, settings: Settings) -> None:
    async def tune(train: str, split: float, group: str | None, trials: int, out: str) -> None:
        """Tune the model on the last part of TRAIN; OUT is a file for STREAM_APP_MODEL_FILE."""
        from stream_app.offline.tune import tune_on, write_model

        found = await tune_on(
            read_events(Path(train)), settings, split=split, group=group, trials=trials
        )
        write_model(found.parameters, Path(out))
        plain(orjson.dumps(found).decode())

    app.command(
        click.option("--train", type=_FILE, required=True, help="Events; never those you report."),
        click.option(
            "--split",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=0.9,
            show_default=True,
            help="The share to learn from, by time; the rest judges.",
        ),
        click.option("--group", default=None, help="session_id or user_id."),
        click.option("--trials", type=click.IntRange(1, 10_000), default=40, show_default=True),
        click.option("--out", type=click.Path(dir_okay=False), required=True, help="Where to."),
    )(command(tune))


def _register_fits(app: Any) -> None:
    async def fit_intent(train: str, test: str, label: str, json_only: bool) -> None:
        """Train and test the purchase-intent model on tables of sessions."""
        from stream_app.offline.fit import run_fit_intent

        run_fit_intent(train, test, label, json_only)

    async def fit_support(
        train: str, test: str, text: str, label: str, json_only: bool, embedding: str
    ) -> None:
        """Train and test the support-intent model on tables of messages."""
        from stream_app.offline.fit import run_fit_support

        run_fit_support(train, test, text, label, json_only, embedding)

    files = (
        click.option("--train", type=_FILE, required=True, help="File to learn from."),
        click.option("--test", type=_FILE, required=True, help="File to measure on."),
    )
    label = click.option("--label", required=True, help="Column to predict.")
    app.command(*files, label, _JSON)(command(fit_intent))
    text = click.option("--text", required=True, help="Column with the message.")
    embedding = click.option("--embedding", default="", help="As STREAM_APP_SUPPORT_EMBEDDING.")
    app.command(*files, text, label, embedding, _JSON)(command(fit_support))


def _print(result: dict[str, Any]) -> None:
    table = Table("measure", "value", title=f"{result['protocol']}, by {result['group']}")
    for name in _SHOWN:
        if name not in result:
            continue
        value = result[name]
        interval = result.get(f"{name}_interval")
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        if interval:
            shown += f"  (95 %: {interval[0]:.4f} … {interval[1]:.4f})"
        table.add_row(name, shown)
    console.print(table)
    for name, value in result.get("ratings", {}).items():
        console.print(f"ratings: {name} {value:.4f}")
    for part in ("by_step", "by_event", "by_source", "by_ablation"):
        if rows := result.get(part):
            names = [name for name in _SHOWN if name in next(iter(rows.values()))][:4]
            split = Table(Column(part.removeprefix("by_"), no_wrap=True), *names)
            for label, row in rows.items():
                split.add_row(label, f"{row['n']:,}", *(f"{row[name]:.4f}" for name in names[1:]))
            console.print(split)
    if result["gain"]:
        columns = "event", "measure", "source", "gain", "95 %"
        ahead = Table(*columns, title="the blend beside the best source alone")
        for event, measures in result["gain"].items():
            for name, row in measures.items():
                low, high = row["interval"]
                cells = f"{row['gain']:+.4f}", f"{low:+.4f} … {high:+.4f}"
                ahead.add_row(event, name, row["source"], *cells)
        console.print(ahead)


def _register_demand(app: Any) -> None:
    async def evaluate_demand(
        file: str, horizon: int, warm: int, step: int, service_level: float, json_only: bool
    ) -> None:
        """Forecast the demand of FILE's items day by day, beside naive forecasts."""
        from stream_app.offline.demand import run_evaluate_demand

        run_evaluate_demand(
            file,
            horizon_days=horizon,
            warm_days=warm,
            step_days=step,
            service_level=service_level,
            json_only=json_only,
        )

    app.command(
        click.option("--file", type=_FILE, required=True, help="Event file with purchases."),
        click.option(
            "--horizon", type=click.IntRange(1, 56), default=7, show_default=True, help="Days."
        ),
        click.option(
            "--warm",
            type=click.IntRange(7, 3650),
            default=63,
            show_default=True,
            help="Days that are only learned.",
        ),
        click.option(
            "--step",
            type=click.IntRange(1, 365),
            default=7,
            show_default=True,
            help="Days between two forecasts.",
        ),
        click.option("--service-level", type=click.FloatRange(0.5, 0.999), default=0.95),
        _JSON,
    )(command(evaluate_demand))


def _register_lists(app: Any, settings: Settings) -> None:
    async def evaluate_lists(
        train: str,
        test: str | None,
        split: float,
        group: str | None,
        targets: str | None,
        fresh: bool,
        json_only: bool,
    ) -> None:
        """Measure the lists of each journey step beside home alone in as many places."""
        from stream_app.offline.steplists import evaluate_lists as measured

        learned = read_events(Path(train))
        if test is None:
            tables = evaluation.split_by_time(learned, split)
        else:
            tables = learned, read_events(Path(test))
        chosen = evaluation.group_of(*tables, group)
        wanted = evaluation.targets_of(targets)
        result = await measured(*tables, settings, group=chosen, targets=wanted, fresh=fresh)
        if not json_only:
            shown = Table("step: list", "n", "places", "hit_rate", "home alone", "95 % of the gain")
            for name, row in result["by_step"].items():
                low, high = row["gain_interval"]
                cells = f"{row['n']:,}", f"{row['places']:.1f}", f"{row['hit_rate']:.4f}"
                shown.add_row(
                    name, *cells, f"{row['home_hit_rate']:.4f}", f"{low:+.4f} … {high:+.4f}"
                )
            console.print(shown)
        plain(orjson.dumps(result).decode())

    app.command(
        *_EVALUATE[:3],
        click.option(
            "--group", default=None, help="session_id or user_id; default: what is there."
        ),
        click.option("--targets", default=None, help="Event types to predict, comma-separated."),
        click.option("--fresh", is_flag=True, help="Only items that the customer had not met."),
        _JSON,
    )(command(evaluate_lists))


def _register_cold_start(app: Any, settings: Settings) -> None:
    async def evaluate_cold_start(
        file: str, split: float, group: str | None, k: int, every: int, json_only: bool
    ) -> None:
        """Measure how new items of FILE fare in the lists, with and without content."""
        from stream_app.offline.coldstart import cold_start

        tables = evaluation.split_by_time(read_events(Path(file)), split)
        chosen = evaluation.group_of(*tables, group)
        result = await cold_start(*tables, settings, group=chosen, k=k, every=every)
        if not json_only:
            columns = "recommended", "hit rate, first event", "hit rate, events 2 … 10"
            table = Table("variant", *columns, title=f"{result['new_items']:,} new items")
            for name, row in result["variants"].items():
                rates = f"{row['first']['hit_rate']:.4f}", f"{row['later']['hit_rate']:.4f}"
                table.add_row(name, f"{row['recommended']:.4f}", *rates)
            console.print(table)
        plain(orjson.dumps(result).decode())

    app.command(
        click.option("--file", type=_FILE, required=True, help="Event file with titles."),
        click.option(
            "--split",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=0.8,
            show_default=True,
            help="The share of FILE, by time, to learn from.",
        ),
        click.option(
            "--group", default=None, help="session_id or user_id; default: what is there."
        ),
        click.option("--k", type=click.IntRange(1, 100), default=20, show_default=True),
        click.option(
            "--every",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Of events of items that are not new, make a list for one in so many.",
        ),
        _JSON,
    )(command(evaluate_cold_start))


def _register_diversity(app: Any, settings: Settings) -> None:
    async def evaluate_diversity(
        file: str,
        first: float,
        split: float,
        group: str | None,
        k: int,
        weights: str,
        kinds_from_titles: bool,
        json_only: bool,
    ) -> None:
        """Measure what STREAM_APP_DIVERSITY costs and gives on FILE, at several weights."""
        from stream_app.offline.diversity import diversity_cost, last_words

        events = read_events(Path(file))
        events, _ = evaluation.split_by_time(events, first)
        if kinds_from_titles:
            events = last_words(events)
        tables = evaluation.split_by_time(events, split)
        chosen = evaluation.group_of(*tables, group)
        result = await diversity_cost(
            *tables, settings, group=chosen, k=k, weights=evaluation.weights_of(weights)
        )
        if not json_only:
            names = ("hit_rate", "mrr", "categories", "unlike", "diversity")
            table = Table("weight", *names)
            for weight, row in result["by_weight"].items():
                table.add_row(weight, *(f"{row[name]:.4f}" for name in names))
            console.print(table)
        plain(orjson.dumps(result).decode())

    share = click.FloatRange(0, 1, min_open=True, max_open=True)
    app.command(
        click.option("--file", type=_FILE, required=True, help="Event file with categories."),
        click.option(
            "--first",
            type=click.FloatRange(0, 1, min_open=True),
            default=1.0,
            help="Use only this share of FILE, its first by time.",
        ),
        click.option(
            "--split", type=share, default=0.8, show_default=True, help="The share to learn from."
        ),
        click.option("--group", default=None, help="session_id or user_id."),
        click.option("--k", type=click.IntRange(1, 100), default=20, show_default=True),
        click.option("--weights", default="0,0.05,0.1,0.2,0.3,0.5", help="Comma-separated, 0 … 1."),
        click.option(
            "--kinds-from-titles", is_flag=True, help="The last word of a title is its category."
        ),
        _JSON,
    )(command(evaluate_diversity))
