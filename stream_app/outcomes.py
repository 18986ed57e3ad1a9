"""What came of our own lists and of the experiments, in the partitions that a worker owns.

Read from their state when somebody asks: ``/metrics`` and the console. Costs the stages nothing.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.experiments import results
from stream_app.core.feedback import feedback_report
from stream_app.core.ranking import LISTS
from stream_app.core.scoring import SOURCES
from stream_app.decisions import Decisions
from stream_app.pipeline import Learn

OUTCOMES = ("impressions", "clicks", "carts", "purchases")


class Outcome(NamedTuple):
    """How often something came of a ``list`` of ours, or of a ``variant``'s lists."""

    block: str  # "list" or "variant"
    name: str
    partition: int
    outcome: str
    times: int


def outcomes(learn: Learn) -> Iterator[Outcome]:
    """Counts since the first event, per partition: a counter stays whole when it changes hands."""
    for partition, owned in learn.owned.items():
        found = _report(owned.partition["insight"][0]["feedback"], learn)
        for block in ("list", "variant"):
            for name, row in found[block].items():
                for outcome in OUTCOMES:
                    yield Outcome(block, name, partition, outcome, row[outcome])


def feedback(learn: Learn) -> dict[str, dict[str, dict[str, Any]]]:
    """CTR and conversion per list, step, source, segment and variant, all partitions here."""
    return _report(_added(learn, "feedback"), learn)


def experiments(learn: Learn) -> list[dict[str, Any]]:
    """Results of every experiment over the partitions here."""
    configured = learn.decisions.experiments
    if not configured or not learn.owned:
        return []
    sums = _added(learn, "experiments")
    return [_defined(results(one, sums[e])) for e, one in enumerate(configured)]


def _defined(value: Any) -> Any:
    """``None`` where a number is not finite yet: JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _defined(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(one) for one in value]
    return None if isinstance(value, float | np.floating) and not np.isfinite(value) else value


def _added(learn: Learn, name: str) -> NDArray[np.float64]:
    minds = [owned.partition["insight"][0][name] for owned in learn.owned.values()]
    total: NDArray[np.float64] = np.sum(minds, axis=0)
    return total


def _report(counts: NDArray[np.float64], learn: Learn) -> dict[str, dict[str, dict[str, Any]]]:
    if not np.ndim(counts):  # no partition is owned
        return {block: {} for block in ("list", "step", "source", "segment", "variant")}
    return feedback_report(counts, LISTS, learn.journey.names, SOURCES, variants(learn.decisions))


def variants(decisions: Decisions) -> dict[str, tuple[str, ...]]:
    """Names of the variants of each experiment."""
    return {one.name: one.variants for one in decisions.experiments}
