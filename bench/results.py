"""What a scenario found: shown as a table, drawn as a chart, kept as JSON in ``bench-results/``."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.options import SEED, Options

RESULTS = Path(__file__).parents[1] / "bench-results"
SCHEMA = 2  # 1: the load was that after the scenario, the runs those that were asked for

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """``summary`` is the contract's JSON, ``rows`` the table.

    ``chart`` names columns: those that label a bar together, last the one of its length. A row has
    the medians of ``runs`` measurements; ``versions`` are those of what ran beside the product.
    """

    summary: Mapping[str, Any]
    rows: Sequence[Row]
    chart: tuple[str, ...] | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    runs: int = 1
    versions: Mapping[str, Any] = field(default_factory=dict)


def median_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each number's median over runs of the same shape, nested ones too.

    >>> median_of([{"a": 1.0, "b": {"c": 3}}, {"a": 2.0, "b": {"c": 4}}, {"a": 9.0, "b": {"c": 5}}])
    {'a': 2.0, 'b': {'c': 4}}
    """
    found: dict[str, Any] = {}
    for name, first in runs[0].items():
        values = [run[name] for run in runs]
        if isinstance(first, Mapping):
            found[name] = median_of(values)
        else:
            found[name] = statistics.median(values) if isinstance(first, int | float) else first
    return found


def flat(run: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level of names, for a table.

    >>> flat({"a": 1, "cpu": {"worker": 2}})
    {'a': 1, 'cpu.worker': 2}
    """
    found: dict[str, Any] = {}
    for name, value in run.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def show(console: Console, scenario: str, meaning: str, result: Result) -> None:
    """Print the table with what its numbers mean, and the notes."""
    columns = list(dict.fromkeys(name for row in result.rows for name in row))
    table = Table(*map(_heading, columns), title=scenario, caption=meaning)
    for row in result.rows:
        table.add_row(*(_text(row.get(name)) for name in columns))
    console.print(table)
    for note in result.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)


def _heading(name: str) -> str:
    """Shorter than the name in the JSON file, so that a table fits a terminal.

    >>> _heading("cpu_us_per_event.worker"), _heading("events_per_second")
    ('worker µs', 'events/s')
    """
    process = name.removeprefix("cpu_us_per_event.")
    if process != name:
        return f"{process} µs"
    return name.replace("_per_second", "/s").replace("_per_event", "/event")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def save(
    scenario: str, meaning: str, options: Options, result: Result, machine: Mapping[str, Any]
) -> Path:
    """Write ``bench-results/<scenario>.json`` and, with matplotlib, the chart beside it.

    ``machine`` is what :func:`bench.machine.describe` said before the scenario ran.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{scenario}.json"
    record = {
        "schema": SCHEMA,
        "scenario": scenario,
        "meaning": meaning,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runs": result.runs,
        "scale": options.scale,
        "seed": SEED,
        "machine": machine,
        "versions": result.versions,
        "summary": result.summary,
        "rows": result.rows,
        "notes": result.notes,
    }
    path.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    if result.chart is not None:
        draw(path.with_suffix(".png"), scenario, meaning, result)
    return path


def draw(path: Path, scenario: str, meaning: str, result: Result) -> bool:
    """Bars of the chart's columns; False without matplotlib (the extra ``plots``)."""
    assert result.chart is not None
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("agg")
    from matplotlib import pyplot

    *labels, value = result.chart
    rows = [row for row in result.rows if row.get(value) is not None]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.4 * len(rows)), layout="constrained")
    places = range(len(rows))  # not the labels: bars of the same label would lie on each other
    bars = axes.barh(places, [row[value] for row in rows])
    axes.set_yticks(places, [_label(row, labels) for row in rows])
    axes.bar_label(bars, labels=[_text(row[value]) for row in rows], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(value)
    axes.set_title(f"{scenario}: {meaning}", fontsize=9, wrap=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def _label(row: Row, columns: Sequence[str]) -> str:
    """What stands beside a bar.

    >>> _label({"worker": "loaded", "by": "price", "p99_ms": 409.0}, ["worker", "by"])
    'loaded, price'
    """
    return ", ".join(str(row[column]) for column in columns)


def load(scenario: str) -> dict[str, Any] | None:
    """The last result of a scenario on this machine; ``None`` without one of this schema."""
    path = RESULTS / f"{scenario}.json"
    if not path.exists():
        return None
    record: dict[str, Any] = orjson.loads(path.read_bytes())
    return record if record["schema"] == SCHEMA else None


class NotReported(Exception):
    """A scenario has no result that may stand on the page; the message says why and what to do."""


def reported(scenario: str, *, trials: bool) -> dict[str, Any]:
    """The last result if it may stand on the page: of full scale and a committed tree.

    With ``trials`` any result. Raises ``NotReported``.
    """
    record = load(scenario)
    if record is None:
        raise NotReported(
            f"no result on this machine, or of an older form: make bench SCENARIO={scenario}"
        )
    revision = record["machine"]["revision"] or "+"
    if not trials and record["scale"] < 1.0:
        raise NotReported(f"a trial at scale {record['scale']:g}: REPORT_TRIALS=1 shows it")
    if not trials and revision.endswith("+"):
        raise NotReported("measured on what is not committed: REPORT_TRIALS=1 shows it")
    return record
