"""Measure the quality figures of docs/quality.md: ``make quality`` (needs the event data sets).

The data sets are not part of the project. QUALITY_DATA names the directory that holds them;
``QUALITY_ONLY=retailrocket make quality`` measures only commands with that text in them again.
As many commands run at a time as there are processors. bench/quality_page.py shows the results.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from bench.quality_page import (
    Result,
    basket_section,
    cold_start_section,
    diversity_section,
    regret_tables,
    section,
)

ONLY = os.environ.get("QUALITY_ONLY", "")
DATA = Path(os.environ.get("QUALITY_DATA", "../shared/data"))
PAGE, RANKING = Path("docs/quality.md"), Path("docs/ranking.md")
START, END = "<!-- figures: written by `make quality` -->\n", "<!-- /figures -->\n"
YOOCHOOSE = "evaluate --train yoochoose_train.csv.gz --test yoochoose_test.csv.gz"
RETAILROCKET = "evaluate --train retailrocket.csv.gz --group user_id --targets cart,purchase"
ONLINE_RETAIL = "evaluate --train online_retail.csv.gz --split 0.95 --group user_id"
COLD_START = (
    "evaluate-cold-start --file online_retail.csv.gz --split 0.5 --every 20 --group user_id"
)
DIVERSITY = (
    "evaluate-diversity --file online_retail.csv.gz --first 0.1 --split 0.9 --group user_id"
    " --kinds-from-titles"
)
BLEND = "evaluate-blend"
WITH_JACCARD = (
    "--sources co_occurrence,two_hop,next_item,popularity,repeat,return,content,segment,jaccard"
    " --ablate"
)
SECTIONS: dict[str, Callable[[str, Result], str]] = {
    f"{YOOCHOOSE} --protocol frozen": section,
    f"{YOOCHOOSE} --protocol live --compare --ablate": section,
    f"{YOOCHOOSE} --protocol live {WITH_JACCARD}": section,
    f"{RETAILROCKET} --compare --ablate": section,
    f"{RETAILROCKET} {WITH_JACCARD}": section,
    f"{RETAILROCKET} --compare --exclude-bought": section,
    f"{RETAILROCKET} --compare --exclude-seen": section,
    "evaluate --train taobao_cart_fav_buy.csv.gz --split 0.9 --group user_id": section,
    f"{ONLINE_RETAIL} --compare": section,
    f"{ONLINE_RETAIL} --basket --compare": basket_section,
    COLD_START: cold_start_section,
    DIVERSITY: diversity_section,
}


def run(command: str) -> Result:
    """The result of one command, with data files taken from DATA."""
    words = [
        str((DATA / word).resolve()) if word.endswith(".gz") else word
        for word in shlex.split(command)
    ]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "stream_app.app", *words, "--json"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(f"{time.monotonic() - begun:.0f} s: {command}", flush=True)
    result: dict[str, Any] = orjson.loads(done.stdout.strip().splitlines()[-1])
    return result


def measured_at() -> str:
    """Which revision is measured, and when."""
    git = "git", "--no-pager"
    revision = subprocess.run(
        [*git, "rev-parse", "--short=9", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "stream_app"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return f"{revision}{' with changes' if changed else ''}, {time.strftime('%Y-%m-%d')}"


def sections_of(text: str) -> dict[str, str]:
    r"""The sections of a page by their commands.

    >>> sections_of("`evaluate --a`\n\nx\n\n`evaluate --b`\n\ny\n")["evaluate --a"]
    '`evaluate --a`\n\nx\n'
    """
    parts = re.split(r"^(?=`evaluate)", text.strip("\n") + "\n", flags=re.MULTILINE)
    return {
        part[1 : part.index("`", 1)]: part.rstrip("\n") + "\n" for part in parts if part.strip()
    }


def rewritten(page: str, figures: Callable[[str], str]) -> str:
    r"""``page`` with what is between the marks made anew from what it was.

    >>> rewritten(f"a\n{START}old\n{END}b\n", str.upper) == f"a\n{START}OLD\n{END}b\n"
    True
    """
    before, rest = page.split(START)
    found, after = rest.split(END, 1)
    return before + START + figures(found) + END + after


def with_sections(new: dict[str, str]) -> Callable[[str], str]:
    """Makes the figures of a page: sections as measured now, else as they were; no others."""

    def figures(old: str) -> str:
        found = sections_of(old) | new
        return "\n" + "\n".join(found[command] for command in SECTIONS if command in found) + "\n"

    return figures


def main() -> None:
    """Run the commands that have ``QUALITY_ONLY`` in them, and write the pages."""
    if not DATA.is_dir():
        raise SystemExit(f"no data sets at {DATA}: set QUALITY_DATA to the directory that has them")
    stamp = measured_at()
    # Those of most predictions first, so that none is left to run alone in the end.
    wanted = [command for command in (COLD_START, *SECTIONS, BLEND) if ONLY in command]
    wanted = list(dict.fromkeys(wanted))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = dict(zip(wanted, pool.map(run, wanted), strict=True))
    if BLEND in results:
        tables = f"{regret_tables(results.pop(BLEND))}\n\nMeasured at {stamp}.\n"
        RANKING.write_text(rewritten(RANKING.read_text(), lambda _: tables))
    new = {
        command: f"{SECTIONS[command](command, result)}\nMeasured at {stamp}.\n"
        for command, result in results.items()
    }
    PAGE.write_text(rewritten(PAGE.read_text(), with_sections(new)))


if __name__ == "__main__":
    main()
