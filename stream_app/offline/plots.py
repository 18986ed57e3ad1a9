"""Pictures of an evaluation, for people who would rather look than read: PNG files and one page."""

import html
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stream_app.errors import ConfigurationError

_PARTS = {
    "by_source": "Each source alone",
    "by_ablation": "Without one source",
    "by_step": "By journey step",
    "by_event": "By event type",
}
_MEASURES = ("hit_rate", "mrr", "recall")  # the first two of them that were measured


def write_plots(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write charts and ``index.html`` into ``folder``; returns what was written.

    Raises :class:`~stream_app.errors.ConfigurationError` when it cannot be written to or
    matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigurationError(
            "--plots needs matplotlib: install the extra, pip install 'stream_app[plots]'"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            _bars(result, part, title, folder / f"{part}.png")
            for part, title in _PARTS.items()
            if result.get(part)
        ]
        if "rank_shares" in result:
            written.append(_ranks(result, folder / "ranks.png"))
        page = folder / "index.html"
        page.write_text(_page(result, [path.name for path in written]), encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(
            f"--plots {folder}: cannot be written ({exc.strerror}); name a folder of yours"
        ) from exc
    return [*written, page]


def _bars(result: dict[str, Any], part: str, title: str, path: Path) -> Path:
    from matplotlib.figure import Figure

    rows = {"all": result, **result[part]}
    figure = Figure(figsize=(8, 0.6 + 0.45 * len(rows)), layout="constrained")
    measures = [name for name in _MEASURES if name in result][:2]
    axes = figure.subplots(1, len(measures), sharey=True)
    for axis, measure in zip(axes, measures, strict=True):
        bars = axis.barh(list(rows), [row[measure] for row in rows.values()], color="#4477aa")
        axis.bar_label(bars, fmt="%.3f", padding=2, fontsize=8)
        axis.set_xlim(0, 1.15 * max(row[measure] for row in rows.values()) or 1)
        axis.set_xlabel(f"{measure} at {result['k']}")
    axes[0].invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    return path


def _ranks(result: dict[str, Any], path: Path) -> Path:
    """Where in the list what came next was found."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.subplots()
    places = range(1, result["k"] + 1)
    axis.bar(list(places), result["rank_shares"], color="#4477aa")
    axis.set_xlabel("place in the list")
    axis.set_ylabel("share of predictions")
    axis.set_title("Where the next item stood")
    figure.savefig(path, dpi=110)
    return path


def _page(result: dict[str, Any], images: list[str]) -> str:
    measures = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.4f}</td></tr>"
        for name, value in result.items()
        if isinstance(value, float)
    )
    pictures = "".join(f'<p><img src="{html.escape(name)}" alt="{name}"></p>' for name in images)
    head = f"{result['protocol']}, by {result['group']}, {result['n']:,} predictions"
    return (
        "<!doctype html><meta charset=utf-8><title>Evaluation</title>"
        "<style>body{font:15px sans-serif;margin:2em}td{padding:.1em 1em .1em 0}</style>"
        f"<h1>{html.escape(head)}</h1><table>{measures}</table>{pictures}"
    )
