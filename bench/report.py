"""Tables for people from ``bench-results/*.json``: ``python -m bench report``.

They go between the markers of ``docs/performance.md``, so that no figure there is typed by hand.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import sizing
from bench.results import load

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_MARKED = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
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
    "freshness": ("load", "events_per_second", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "missing"),
    "scale": (
        "case",
        "events_per_second",
        "cpu_us_per_event.total",
        "lists_per_event",
        "lists_per_second",
        "worker_mb",
        "redis_mb",
        "redis_keys",
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
    small = "" if record["scale"] == 1.0 else f", AT SCALE {record['scale']}: a trial"
    return (
        f"*{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, revision"
        f" {machine['revision']}, {record['at']}, medians of {record['runs']} runs, load before"
        f" {machine['load_average']}{small}.*"
    )


def _scenario(name: str) -> str:
    record = load(name)
    if record is None:
        return f"Not measured on this machine yet: `make bench SCENARIO={name}`."
    return f"{record['meaning']}\n\n{table(record, _SHOWN.get(name))}\n\n{_where(record)}"


def budgets() -> str:
    """Each budget with what was measured last."""
    rows = []
    for text, scenario, find, holds in BUDGETS:
        record = load(scenario)
        found = None if record is None else find(record["summary"])
        verdict = "not measured" if found is None else "yes" if holds(found) else "**no**"
        rows.append({"budget": text, "measured": found, "holds": verdict})
    return table({"rows": rows})


def _ratio(name: str, of: str = "ratio") -> Callable[[Mapping[str, Any]], float | None]:
    return lambda summary: summary.get(of, {}).get(name)


def _fresh(share: float, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    def find(summary: Mapping[str, Any]) -> float | None:
        return next((row[name] for row in summary["loads"] if row["load"] == share), None)

    return find


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
        "stock 0 → on no list in ≤ 1 s, under load",
        "withdraw",
        lambda summary: summary["states"][-1]["max_ms"],
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
    (
        "`soak`: worker grows ≤ 5 MB per hour",
        "soak",
        lambda summary: summary["worker_mb_per_hour"],
        lambda mb: mb <= 5,
    ),
    (
        "`soak`: Redis grows ≤ 5 MB per hour",
        "soak",
        lambda summary: summary["redis_mb_per_hour"],
        lambda mb: mb <= 5,
    ),
)


def section(name: str) -> str:
    """What belongs between the markers ``name``."""
    if name == "budgets":
        return budgets()
    if name == "sizing":
        return sizing.markdown()
    return _scenario(name)


def write() -> None:
    """Renew all tables of the page."""
    page = PAGE.read_text()
    renewed = _MARKED.sub(lambda m: f"{m[1]}{section(m[2])}\n{m[3]}", page)
    PAGE.write_text(renewed)
    print(f"{PAGE.name}: {len(_MARKED.findall(page))} tables written")
