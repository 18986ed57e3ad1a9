"""Tables for people from ``bench-results/*.json``: ``python -m bench report``.

They go between the markers of ``docs/performance.md``, so that no figure there is typed by hand.
A section stays as it is where there is nothing to put there: no result on this machine, or only a
trial (below full scale, or of a tree that is not committed; ``REPORT_TRIALS=1`` takes those too).
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import sizing
from bench.results import NotReported, reported

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_MARKED = re.compile(r"(<!-- begin (\w+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)
_ABOUT_RUNS = re.compile(r"runs of |one run ")  # the last line says how many
_SHOWN = {
    "pipeline": (
        "contender",
        "events_per_second",
        "cpu_us_per_event.worker",
        "cpu_us_per_event.broker",
        "cpu_us_per_event.redis",
        "cpu_us_per_event.total",
        "pairs_per_event",
        "lists_per_event",
    ),
    "freshness": (
        "load",
        "events_per_second",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "p99_9_ms",
        "missing",
        "cpu_us_per_event.total",
    ),
    "scale": (
        "case",
        "events_per_second",
        "cpu_us_per_event.total",
        "lists_per_event",
        "lists_per_second",
        "customers",
        "items",
        "worker_mb",
        "redis_mb",
        "p50_ms",
        "p99_ms",
    ),
}


def table(record: Mapping[str, Any], columns: tuple[str, ...] | None = None) -> str:
    """A result's rows in Markdown."""
    rows = record["rows"]
    columns = columns or tuple(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_text(row.get(name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "/")


def _where(record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    runs = "one run" if record["runs"] == 1 else f"medians of {record['runs']} runs"
    small = "" if record["scale"] >= 1.0 else f", AT SCALE {record['scale']}: a trial"
    return (
        f"*{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, revision"
        f" {machine['revision']}, {record['at']}, {runs}, load before"
        f" {machine['load_average']}{small}.*"
    )


def scenario_section(record: Mapping[str, Any]) -> str:
    """What the number means, the table, notes, and what it was measured on."""
    notes = [f"- {note}" for note in record["notes"] if not _ABOUT_RUNS.match(note)]
    parts = [record["meaning"], table(record, _SHOWN.get(record["scenario"]))]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else []), _where(record)])


def bound_section(record: Mapping[str, Any]) -> str:
    """The arithmetic bounds of ``pipeline``, and what share of them was measured.

    Raises ``NotReported`` where the contender of that name failed.
    """
    cpu = record["summary"]["cpu_us_per_event_by_process"]
    measured = record["summary"]["events_per_second"]
    if not cpu or not measured:
        raise NotReported("the product did not run in `pipeline`")
    cores = record["machine"]["cores"]
    bounds = {
        f"{cores} cores, {cpu['total']:.3g} µs of all CPU per event": cores * 1e6 / cpu["total"],
        f"one worker, {cpu['worker']:.3g} µs of its own": 1e6 / cpu["worker"],
    }
    rows = [
        {"bound": text, "events_per_second": at_most, "measured": measured}
        | {"share": f"{measured / at_most:.0%}"}
        for text, at_most in bounds.items()
    ]
    return f"{table({'rows': rows})}\n\n{_where(record)}"


def budgets(before: str, *, trials: bool) -> str:
    """Each budget with what was measured last; a row of ``before`` where there is nothing newer."""
    lines = [line for line in before.splitlines() if line.startswith("| ")]
    kept = {line[2:].partition(" | ")[0]: line for line in lines[1:]}
    rows = ["| budget | measured | holds |", "|---|---|---|"]
    for text, scenario, find, holds in BUDGETS:
        try:
            found = find(reported(scenario, trials=trials)["summary"])
        except NotReported:
            found = None
        if found is None:
            rows.append(kept.get(text, f"| {text} | – | not measured |"))
        else:
            rows.append(f"| {text} | {_text(found)} | {'yes' if holds(found) else '**no**'} |")
    return "\n".join(rows)


def _ratio(name: str, of: str = "ratio") -> Callable[[Mapping[str, Any]], float | None]:
    return lambda summary: summary.get(of, {}).get(name)


def _fresh(share: float, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    def find(summary: Mapping[str, Any]) -> float | None:
        return next((row[name] for row in summary["loads"] if row["load"] == share), None)

    return find


def _barred(summary: Mapping[str, Any]) -> float | None:
    """The worst of a loaded worker, whatever the item was barred by."""
    worst = (row["max_ms"] for row in summary["states"] if row["worker"] == "loaded")
    return max(worst, default=None)


def _of_data(data: str, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    """A number of ``model`` for one of the files that it measures."""
    return lambda summary: next(
        (row[name] for row in summary["data"] if row["events_of"] == data), None
    )


Budget = tuple[str, str, Callable[[Mapping[str, Any]], Any], Callable[[Any], bool]]
BUDGETS: tuple[Budget, ...] = (
    ("`pipeline` ≥ 80 × `naive`", "pipeline", _ratio("naive"), lambda r: r >= 80),
    ("≥ 3 × the best Python peer", "pipeline", _ratio("best_python_peer"), lambda r: r >= 3),
    *(
        (f"the same with one list per customer, as {who} makes", "pipeline", find, holds)
        for who, find, holds in (
            ("`naive`", _ratio("naive", "ratio_one_list"), lambda r: r >= 80),
            ("the peer", _ratio("best_python_peer", "ratio_one_list"), lambda r: r >= 3),
        )
    ),
    ("≥ Kafka Streams", "pipeline", _ratio("kafka_streams"), lambda r: r >= 1),
    ("≥ 0.5 × `floor`", "pipeline", _ratio("floor"), lambda r: r >= 0.5),
    (
        "worker + broker + Redis ≤ 35 µs CPU per event",
        "pipeline",
        lambda summary: summary["cpu_us_per_event"],
        lambda us: us <= 35,
    ),
    ("p50 ≤ 15 ms at 50 % load", "freshness", _fresh(0.5, "p50_ms"), lambda ms: ms <= 15),
    ("p99 ≤ 100 ms at 50 % load", "freshness", _fresh(0.5, "p99_ms"), lambda ms: ms <= 100),
    ("p99 ≤ 500 ms at 90 % load", "freshness", _fresh(0.9, "p99_ms"), lambda ms: ms <= 500),
    (
        "stock 0 or a barred price → on no list in ≤ 1 s, under load",
        "withdraw",
        _barred,
        lambda ms: ms <= 1_000,
    ),
    (
        "rate at 10⁶ items and customers ≥ 0.9 × that at 10⁴",
        "scale",
        lambda summary: summary["from_1e4_to_1e6"],
        lambda ratio: ratio >= 0.9,
    ),
    (
        "the same in lists, of which a large shop has more per event",
        "scale",
        lambda summary: summary["lists_from_1e4_to_1e6"],
        lambda ratio: ratio >= 0.9,
    ),
    (
        "public lists ≤ 2,048 bytes per customer",
        "model",
        lambda summary: summary["public_lists_bytes"],
        lambda size: size <= 2_048,
    ),
    *(
        (f"{text}, `model` by {data}", "model", find, holds)
        for data in ("simulated shop", "yoochoose_train.csv.gz")
        for text, find, holds in (
            (
                "state ≤ 1,400 bytes per item",
                _of_data(data, "item_state_bytes"),
                lambda size: size <= 1_400,
            ),
            (
                "internal state ≤ 512 bytes per customer",
                _of_data(data, "customer_state_bytes"),
                lambda size: size <= 512,
            ),
        )
    ),
    (
        "`soak`: worker grows ≤ 5 MB per hour",
        "soak",
        lambda summary: summary["worker_mb_per_hour"],
        lambda mb: mb <= 5,
    ),
    (
        "`soak`: Redis's resident memory grows ≤ 5 MB per hour",
        "soak",
        lambda summary: summary["redis_rss_mb_per_hour"],
        lambda mb: mb <= 5,
    ),
    (
        "`soak`: of it, what Redis uses grows ≤ 5 MB per hour",
        "soak",
        lambda summary: summary["redis_mb_per_hour"],
        lambda mb: mb <= 5,
    ),
    (
        "`soak`: last minute's rate ≥ 0.95 × the first's after the warm-up",
        "soak",
        lambda summary: summary["rate_last_to_first"],
        lambda ratio: ratio >= 0.95,
    ),
)


def section(name: str, before: str, *, trials: bool) -> str:
    """What belongs between the markers ``name``, where ``before`` is. Raises ``NotReported``."""
    if name == "budgets":
        return budgets(before, trials=trials)
    if name == "sizing":
        return sizing.markdown(trials=trials)
    if name == "bound":
        return bound_section(reported("pipeline", trials=trials))
    return scenario_section(reported(name, trials=trials))


def write(*, trials: bool = False) -> None:
    """Renew the sections of the page for which there are results; say which stay and why."""
    stays: dict[str, str] = {}

    def renewed(marked: re.Match[str]) -> str:
        begin, name, before, end = marked.groups()
        try:
            return f"{begin}{section(name, before, trials=trials)}\n{end}"
        except NotReported as exc:
            stays[name] = str(exc)
            return marked[0]

    page, count = _MARKED.subn(renewed, PAGE.read_text())
    PAGE.write_text(page)
    for name, why in stays.items():
        print(f"{name} stays as it was: {why}")
    print(f"{PAGE.name}: {count - len(stays)} of {count} sections written")
