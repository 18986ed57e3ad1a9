"""The demo on the terminal: a live screen, one plain line, or the closing summary."""

from collections.abc import Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream_app.core.journey import STEPS
from stream_app.demo.stats import Board, Followed

bar_width = 24
list_shown = 8
trending_shown = 5
title_width = 38

Titles = Mapping[str, str]


def screen(board: Board, titles: Titles, *, at_s: float, left_s: float) -> RenderableType:
    """The live screen at ``at_s`` (monotonic seconds) with ``left_s`` seconds to go."""
    return Group(
        Panel(_numbers(board, at_s), title=f"stream_app · {left_s:.0f} s to go", padding=(0, 1)),
        Columns([_funnel(board), _trending(board, titles)], padding=(0, 1)),
        _customer(board, titles),
    )


def line(board: Board, *, at_s: float, left_s: float) -> str:
    """The same in one plain line, for logs."""
    events_per_s, lists_per_s = board.mark(at_s)
    p50, p99 = board.freshness.quantiles_ms()
    steps = ", ".join(f"{step} {count}" for step, count in _by_step(board))
    return (
        f"{left_s:4.0f} s to go | in {events_per_s:.0f}/s, lists {lists_per_s:.0f}/s"
        f" | fresh p50 {p50:.0f} ms, p99 {p99:.0f} ms | {steps or 'no lists yet'}"
    )


def summary(board: Board) -> str:
    """What happened, as plain text."""
    p50, p99 = board.freshness.quantiles_ms()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(board.dead.items()))
    funnel = "\n".join(f"  {step:<16}{count:>7}" for step, count in _by_step(board))
    return (
        f"events sent        {board.sent}\n"
        f"events applied     {board.applied}\n"
        f"dead-lettered      {board.dead.total()}{f' ({reasons})' if reasons else ''}\n"
        f"lists published    {board.lists}\n"
        f"freshness          p50 {p50:.0f} ms, p99 {p99:.0f} ms"
        f" (from event sent to list read, {len(board.freshness.seconds)} lists after the start)\n"
        f"customers by step\n{funnel}"
    )


def _by_step(board: Board) -> list[tuple[str, int]]:
    """Steps in the journey's order, those we do not know last."""
    funnel = board.funnel()
    order = [step for step in STEPS if step in funnel]
    return [(step, funnel[step]) for step in [*order, *sorted(funnel.keys() - set(order))]]


def _numbers(board: Board, at_s: float) -> Table:
    events_per_s, lists_per_s = board.mark(at_s)
    p50, p99 = board.freshness.quantiles_ms()
    figures = {
        "events in": f"{events_per_s:.0f}/s",
        "lists out": f"{lists_per_s:.0f}/s",
        "fresh p50": f"{p50:.0f} ms",
        "fresh p99": f"{p99:.0f} ms",
        "applied": f"{board.applied}",
        "dead letters": f"{board.dead.total()}",
    }
    table = Table.grid(expand=True)
    for _ in figures:
        table.add_column(justify="center")
    table.add_row(*(Text(value, style="bold") for value in figures.values()))
    table.add_row(*(Text(name, style="dim") for name in figures))
    return table


def _funnel(board: Board) -> Panel:
    table = Table.grid(padding=(0, 1))
    steps = _by_step(board)
    most = max((count for _, count in steps), default=1)
    for step, count in steps:
        bar = "█" * max(1, round(bar_width * count / most))
        table.add_row(Text(step), Text(bar, style="cyan"), str(count))
    return Panel(table, title="customers by step")


def _trending(board: Board, titles: Titles) -> Panel:
    table = Table.grid(padding=(0, 1))
    for entry in board.trending[:trending_shown]:
        item = str(entry["item_id"])
        table.add_row(_title(item, titles), f"{float(entry['score']):.1f}")
    return Panel(table, title="trending")


def _customer(board: Board, titles: Titles) -> Panel:
    followed = board.followed
    if followed is None:
        return Panel("waiting for a customer with a few events", title="one customer")
    step = followed.step
    if followed.previous_step and followed.previous_step != step:
        step = f"{followed.previous_step} → {step}"
    events = Table.grid(padding=(0, 1))
    for event in board.recent.get(followed.user, ()):
        events.add_row(Text(str(event.get("event", ""))), _subject(event, titles))
    title = f"customer {followed.user} · {step} · {followed.list_name} list v{followed.version}"
    both = Table.grid(padding=(0, 3))
    both.add_row(Text("last events", style="dim"), Text("their list now", style="dim"))
    both.add_row(events, _list(followed, titles))
    return Panel(both, title=Text(title))


def _subject(event: Mapping[str, Any], titles: Titles) -> Text:
    if "item_id" in event:
        return _title(str(event["item_id"]), titles)
    return Text(str(event.get("query", ""))[:title_width])


def _title(item: str, titles: Titles) -> Text:
    return Text(titles.get(item, item)[:title_width])  # as Text: square brackets are no mark-up


def _list(followed: Followed, titles: Titles) -> Table:
    table = Table.grid(padding=(0, 1))
    for place, item in enumerate(followed.items[:list_shown]):
        table.add_row(_move(followed, place, item), _title(item, titles))
    return table


def _move(followed: Followed, place: int, item: str) -> Text:
    """How the item moved against the list before."""
    if not followed.before:
        return Text("·", style="dim")
    if item not in followed.before:
        return Text("new", style="bold green")
    was = followed.before.index(item)
    if was == place:
        return Text("=", style="dim")
    return Text(f"▲{was - place}" if was > place else f"▼{place - was}", style="yellow")
