"""What customers do with our own lists: shown, clicked, carted, bought. Called by LEARN.

An impression or click that names its list (and, if it can, the source of the item) counts once for
the list, the customer's step and segment, the source, and the variant of each experiment. An item
clicked on a list is remembered; when it is put into the cart or bought, the list has earned it.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.experiments import Trials, variant_of
from stream_app.core.insight_fields import (
    CREDITS_MAX,
    EXPERIMENTS_MAX,
    SEGMENTS_MAX,
    VARIANTS_MAX,
)
from stream_app.core.jit import kernel, signed
from stream_app.core.model import KIND

Row = Any

LISTS_MAX, STEPS_MAX, SOURCES_MAX = 12, 16, 16
IMPRESSIONS, CLICKS, CARTS, PURCHASES = range(4)
_STEPS = LISTS_MAX
_SOURCES = _STEPS + STEPS_MAX
_SEGMENTS = _SOURCES + SOURCES_MAX
_VARIANTS = _SEGMENTS + SEGMENTS_MAX + 1
ROWS_N = _VARIANTS + EXPERIMENTS_MAX * VARIANTS_MAX
_IMPRESSION, _CLICK = KIND["impression"], KIND["click"]
_ADD, _PURCHASE = KIND["add_to_cart"], KIND["purchase"]


@kernel
def _count(
    user: Row, mind: Row, shown_in: int, source: int, column: int, ts: float, trials: Trials
) -> None:
    table = mind.feedback
    table[min(shown_in - 1, LISTS_MAX - 1), column] += 1.0
    table[_STEPS + min(signed(user.step), STEPS_MAX - 1), column] += 1.0
    if source > 0:
        table[_SOURCES + min(source - 1, SOURCES_MAX - 1), column] += 1.0
    table[_SEGMENTS + min(signed(user.segment), SEGMENTS_MAX), column] += 1.0
    for e in range(trials.n):
        if trials.begin[e] <= ts < trials.end[e]:
            v = variant_of(user.id, trials, e)
            table[_VARIANTS + e * VARIANTS_MAX + v, column] += 1.0


@kernel
def _credit(user: Row, item: int, shown_in: int, source: int) -> None:
    """Remember the click; the oldest of ``CREDITS_MAX`` goes."""
    n = signed(user.credit_n)
    if n == CREDITS_MAX:
        for k in range(CREDITS_MAX - 1):
            user.credit_item[k] = user.credit_item[k + 1]
            user.credit_list[k] = user.credit_list[k + 1]
            user.credit_source[k] = user.credit_source[k + 1]
        n = CREDITS_MAX - 1
    user.credit_item[n] = item
    user.credit_list[n] = shown_in
    user.credit_source[n] = source
    user.credit_n = n + 1


@kernel
def count_feedback(user: Row, mind: Row, event: Row, trials: Trials) -> None:
    """Count one event, before it moves the customer: lists are judged in the step they were for."""
    shown_in, source = signed(event.list), signed(event.source)
    if shown_in > 0 and event.kind == _IMPRESSION:
        _count(user, mind, shown_in, source, IMPRESSIONS, event.ts, trials)
    elif shown_in > 0 and event.kind == _CLICK:
        _count(user, mind, shown_in, source, CLICKS, event.ts, trials)
        if event.item != 0:
            _credit(user, event.item, shown_in, source)
    elif (event.kind == _ADD or event.kind == _PURCHASE) and event.item != 0:
        column = CARTS if event.kind == _ADD else PURCHASES
        for k in range(signed(user.credit_n) - 1, -1, -1):
            if user.credit_item[k] == event.item:
                shown_in, source = signed(user.credit_list[k]), signed(user.credit_source[k])
                _count(user, mind, shown_in, source, column, event.ts, trials)
                break


def wilson(successes: float, trials: float, *, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (Wilson 1927); (0, 1) when nothing was tried.

    >>> [round(x, 4) for x in wilson(10, 100)]
    [0.0552, 0.1744]
    """
    if trials <= 0:
        return 0.0, 1.0
    share = min(successes / trials, 1.0)
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max((centre - spread) / scale, 0.0), min((centre + spread) / scale, 1.0)


def feedback_report(
    counts: NDArray[np.float64],
    lists: tuple[str, ...],
    steps: tuple[str, ...],
    sources: tuple[str, ...],
    variants: dict[str, tuple[str, ...]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """CTR and conversion with intervals, per list, step, source, segment and variant.

    ``counts (ROWS_MAX, 4)`` are added up over partitions; rows without any count are left out.
    Conversion is purchases per click.
    """
    segments = ["none", *(f"s{k}" for k in range(SEGMENTS_MAX))]
    blocks: dict[str, list[tuple[str, int]]] = {
        "list": [(name, k) for k, name in enumerate(lists[:LISTS_MAX])],
        "step": [(name, _STEPS + k) for k, name in enumerate(steps[:STEPS_MAX])],
        "source": [(name, _SOURCES + k) for k, name in enumerate(sources[:SOURCES_MAX])],
        "segment": [(name, _SEGMENTS + k) for k, name in enumerate(segments)],
        "variant": [
            (f"{experiment}: {name}", _VARIANTS + e * VARIANTS_MAX + v)
            for e, (experiment, names) in enumerate(variants.items())
            for v, name in enumerate(names)
        ],
    }
    return {
        block: {name: _rates(counts[row]) for name, row in rows if counts[row].any()}
        for block, rows in blocks.items()
    }


def _rates(row: NDArray[np.float64]) -> dict[str, Any]:
    shown, clicked, carted, bought = row.tolist()
    return {
        "impressions": int(shown),
        "clicks": int(clicked),
        "carts": int(carted),
        "purchases": int(bought),
        "ctr": clicked / shown if shown else None,
        "ctr_interval": list(wilson(clicked, shown)),
        "conversion": bought / clicked if clicked else None,
        "conversion_interval": list(wilson(bought, clicked)),
    }
