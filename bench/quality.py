"""Measure the quality figures of docs/quality.md: ``make quality`` (needs the event data sets).

The data sets are not part of the project. QUALITY_DATA names the directory that holds them.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

DATA = Path(os.environ.get("QUALITY_DATA", "../shared/data"))
PAGE = Path("docs/quality.md")
START, END = "<!-- figures: written by `make quality` -->\n", "<!-- /figures -->\n"
YOOCHOOSE = "evaluate --train yoochoose_train.csv.gz --test yoochoose_test.csv.gz"
RETAILROCKET = "evaluate --train retailrocket.csv.gz --group user_id --targets cart,purchase"
COMMANDS = (
    f"{YOOCHOOSE} --protocol frozen",
    f"{YOOCHOOSE} --protocol live --compare",
    f"{RETAILROCKET} --compare",
    f"{RETAILROCKET} --compare --exclude-seen",
    "evaluate --train taobao_cart_fav_buy.csv.gz --split 0.9 --group user_id",
    "evaluate --train online_retail.csv.gz --split 0.95 --group user_id",
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
    return "\n".join(lines)


def cold_start_section(result: dict[str, Any]) -> str:
    """Markdown of what becomes of new items."""
    head = ("", "new items", "recommended while new", "hit rate of new items", "n")
    lines = [f"`{COLD_START}`", "", _row(head), _row(["---"] * len(head))]
    for name, part in result["variants"].items():
        shown = f"{part['recommended']:.3f}", f"{part['hit_rate']:.4f}"
        n = f"{result['predictions_of_new_items']:,}"
        lines.append(_row((name, f"{result['new_items']:,}", *shown, n)))
    return "\n".join([*lines, ""])


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run all commands and write the page."""
    if not DATA.is_dir():
        raise SystemExit(f"no data sets at {DATA}: set QUALITY_DATA to the directory that has them")
    sections = []
    for command in COMMANDS:
        print(command, flush=True)
        sections.append(section(command, run(command)))
    print(COLD_START, flush=True)
    sections.append(cold_start_section(run(COLD_START)))
    before, rest = PAGE.read_text().split(START)
    text = "\n".join(sections)
    PAGE.write_text(before + START + "\n" + text + "\n" + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    main()
