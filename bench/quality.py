"""Measure the quality figures of docs/quality.md: ``make quality`` (needs the event data sets).

The data sets are not part of the project. QUALITY_DATA names the directory that holds them;
``QUALITY_ONLY=retailrocket make quality`` measures only commands with that text in them again.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

ONLY = os.environ.get("QUALITY_ONLY", "")
DATA = Path(os.environ.get("QUALITY_DATA", "../shared/data"))
PAGE = Path("docs/quality.md")
START, END = "<!-- figures: written by `make quality` -->\n", "<!-- /figures -->\n"
YOOCHOOSE = "evaluate --train yoochoose_train.csv.gz --test yoochoose_test.csv.gz"
RETAILROCKET = "evaluate --train retailrocket.csv.gz --group user_id --targets cart,purchase"
COMMANDS = (
    f"{YOOCHOOSE} --protocol frozen",
    f"{YOOCHOOSE} --protocol live --compare",
    f"{RETAILROCKET} --compare",
    f"{RETAILROCKET} --compare --exclude-bought",
    f"{RETAILROCKET} --compare --exclude-seen",
    "evaluate --train taobao_cart_fav_buy.csv.gz --split 0.9 --group user_id",
    "evaluate --train online_retail.csv.gz --split 0.95 --group user_id",
)
DIVERSITY = (
    "evaluate-diversity --file online_retail.csv.gz --first 0.1 --split 0.9 --group user_id"
    " --kinds-from-titles"
)
COLD_START = "evaluate-cold-start --file online_retail.csv.gz --split 0.95 --group user_id"


def run(command: str) -> dict[str, Any]:
    """The result of one command, with data files taken from DATA."""
    words = [
        str((DATA / word).resolve()) if word.endswith(".gz") else word
        for word in shlex.split(command)
    ]
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "stream_app.app", *words, "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, Any] = orjson.loads(done.stdout.strip().splitlines()[-1])
    return result


def section(command: str, result: dict[str, Any]) -> str:
    """Markdown of one measurement."""
    low, high = result["hit_rate_interval"]
    head = ("n", "hit rate", "95 % interval", "MRR", "NDCG", "coverage", "popularity percentile")
    row = (
        f"{result['n']:,}",
        f"{result['hit_rate']:.4f}",
        f"{low:.4f} … {high:.4f}",
        f"{result['mrr']:.4f}",
        f"{result['ndcg']:.4f}",
        f"{result['coverage']:.3f}",
        f"{result['popularity_percentile']:.3f}",
    )
    lines = [f"`{command}`", "", _row(head), _row(["---"] * len(head)), _row(row), ""]
    for title, key in (("source alone", "by_source"), ("step", "by_step"), ("event", "by_event")):
        if len(result[key]) > 1:
            lines += [_row((title, "n", "hit rate", "MRR")), _row(["---"] * 4)]
            for name, part in result[key].items():
                n = f"{part.get('n', result['n']):,}"
                lines.append(_row((name, n, f"{part['hit_rate']:.4f}", f"{part['mrr']:.4f}")))
            lines.append("")
    if len(result["by_source"]) > 1:
        lines += [beyond_the_best(result), ""]
    return "\n".join(lines)


def beyond_the_best(result: dict[str, Any]) -> str:
    """How far the blend of all sources is ahead of the best single one, measure by measure."""
    ahead = []
    for name, shown in (("hit_rate", "hit rate"), ("mrr", "MRR"), ("ndcg", "NDCG")):
        best = max(result["by_source"], key=lambda source: result["by_source"][source][name])
        by = result[name] - result["by_source"][best][name]
        ahead.append(f"{shown} {by:+.4f} ({best})")
    return f"The blend beside the best source alone: {', '.join(ahead)}."


def cold_start_section(result: dict[str, Any]) -> str:
    """Markdown of what becomes of new items."""
    head = ("", "new items", "recommended while new", "hit rate of new items", "n")
    lines = [f"`{COLD_START}`", "", _row(head), _row(["---"] * len(head))]
    for name, part in result["variants"].items():
        shown = f"{part['recommended']:.3f}", f"{part['hit_rate']:.4f}"
        n = f"{result['predictions_of_new_items']:,}"
        lines.append(_row((name, f"{result['new_items']:,}", *shown, n)))
    return "\n".join([*lines, ""])


def diversity_section(result: dict[str, Any]) -> str:
    """Markdown of what diversity costs."""
    head = ("weight", "n", "hit rate", "MRR", "categories in a list", "pairs unlike", "1 - cosine")
    lines = [f"`{DIVERSITY}`", "", _row(head), _row(["---"] * len(head))]
    for weight, part in result["by_weight"].items():
        shown = f"{part['hit_rate']:.4f}", f"{part['mrr']:.4f}", f"{part['categories']:.1f}"
        rest = f"{part['unlike']:.3f}", f"{part['diversity']:.3f}"
        lines.append(_row((weight, f"{result['n']:,}", *shown, *rest)))
    return "\n".join([*lines, ""])


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def sections_of(text: str) -> dict[str, str]:
    r"""The sections of a page by their commands.

    >>> sections_of("`evaluate --a`\n\nx\n\n`evaluate --b`\n\ny\n")["evaluate --a"]
    '`evaluate --a`\n\nx\n'
    """
    parts = re.split(r"^(?=`evaluate)", text.strip("\n") + "\n", flags=re.MULTILINE)
    return {
        part[1 : part.index("`", 1)]: part.rstrip("\n") + "\n" for part in parts if part.strip()
    }


def main() -> None:
    """Run the commands that have ``QUALITY_ONLY`` in them, and write the page."""
    if not DATA.is_dir():
        raise SystemExit(f"no data sets at {DATA}: set QUALITY_DATA to the directory that has them")
    shown: dict[str, Callable[[dict[str, Any]], str]] = {
        command: partial(section, command) for command in COMMANDS
    }
    shown |= {COLD_START: cold_start_section, DIVERSITY: diversity_section}
    before, rest = PAGE.read_text().split(START)
    figures, after = rest.split(END, 1)
    found = sections_of(figures)
    for command, write in shown.items():
        if ONLY in command:
            print(command, flush=True)
            found[command] = write(run(command))
    text = "\n".join(found[command] for command in shown if command in found)
    PAGE.write_text(before + START + "\n" + text + "\n" + END + after)


if __name__ == "__main__":
    main()
