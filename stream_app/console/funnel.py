"""How customers go from step to step, and how many of those who came to a step go on."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.journey import Journey
from stream_app.core.model import KIND


class Stage(NamedTuple):
    """A step of the funnel. ``on`` and ``bought`` are None where nothing is left to go on to."""

    step: str
    came: int
    on: int | None
    bought: int | None


def defined(journey: Journey, counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """``counts (STEPS_MAX, STEPS_MAX)`` of moves, those between the steps of the file alone.

    In the order of the file, as :attr:`Journey.defined`.
    """
    order = np.array(journey.defined)
    moves: NDArray[np.int64] = counts[np.ix_(order, order)].round().astype(np.int64)
    return moves


def funnel(names: Sequence[str], moves: NDArray[np.int64], goal: int | None) -> list[Stage]:
    """By step, how many came, how many of them went on to a later one, how many bought there.

    ``moves (n, n)`` are those between the steps ``names``, which are in the order in which
    customers come through them; ``goal`` is the row of the step that a purchase leads to, if one
    does. Who begins at a step, or is brought there by time, has come once they leave it.

    >>> funnel(["look", "cart", "bought"], np.array([[0, 6, 2], [3, 0, 1], [4, 0, 0]]), 2)[1]
    Stage(step='cart', came=6, on=1, bought=1)
    """
    came = np.maximum(moves.sum(axis=0), moves.sum(axis=1)).tolist()
    on = np.triu(moves, 1).sum(axis=1).tolist()
    if goal is None:
        return [Stage(name, came[k], on[k], None) for k, name in enumerate(names)]
    bought = moves[:, goal].tolist()
    ahead = [Stage(name, came[k], on[k], bought[k]) for k, name in enumerate(names[:goal])]
    return ahead + [Stage(name, came[goal + k], None, None) for k, name in enumerate(names[goal:])]


def goal_of(journey: Journey) -> int | None:
    """The place in :attr:`Journey.defined` of the step that purchases lead to, from most steps."""
    leads = journey.plan.moves[KIND["purchase"]].tolist()
    goals = Counter(leads[step] for step in journey.defined if leads[step] != step)
    return journey.defined.index(goals.most_common(1)[0][0]) if goals else None
