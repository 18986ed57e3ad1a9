"""An agenda misses no deadline, and holds one note of a customer however often they come."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.core import agenda as module
from stream_app.core.agenda import Agenda

steps = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 60), st.integers(0, 20)), min_size=1, max_size=200
)


@given(steps, st.sampled_from([1, 4, 4_096]))
def test_whoever_has_a_deadline_is_looked_at_when_it_passes(
    steps: list[tuple[int, int, int]], fresh_min: int
) -> None:
    """As its caller does: what is due is looked up, and noted again where it has moved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FRESH_MIN", fresh_min)
        held, truth, now = Agenda(1_000, until=np.inf), dict[int, float](), 0.0
        for customer, ahead, passes in steps:
            truth[customer] = now + ahead
            held.add(np.array([customer], np.uint64), np.array([now + ahead]))
            now += passes
            looked_at = held.due(now).tolist()
            assert looked_at == sorted(set(looked_at))
            passed = {one for one, due in truth.items() if due <= now}
            assert passed <= set(looked_at)
            for one in passed:
                del truth[one]
            moved = [one for one in looked_at if one in truth]
            held.add(np.array(moved, np.uint64), np.array([truth[one] for one in moved]))


def test_memory_follows_customers_and_not_their_events() -> None:
    held = Agenda(500_000, until=np.inf)
    chosen = np.random.default_rng(3)
    for batch in range(4_000):  # two million notes of ten thousand customers
        ids = chosen.integers(0, 10_000, 500).astype(np.uint64)
        held.add(ids, np.full(500, 1_800.0 + batch))
    assert len(held) < 21_000
    assert held.nbytes < 1_000_000
    assert len(held.due(np.inf)) == 10_000


def test_too_many_keeps_the_nearest_and_says_how_far_it_reaches() -> None:
    held = Agenda(module.FRESH_MIN, until=1e9)
    n = 3 * module.FRESH_MIN
    ids = np.arange(n, dtype=np.uint64)
    held.add(ids, ids.astype(np.float64))
    assert held.until == module.FRESH_MIN // 2 - 1
    assert held.due(np.inf).tolist() == list(range(module.FRESH_MIN // 2))
    held.add(ids, ids.astype(np.float64))
    assert len(held) == module.FRESH_MIN // 2 - 1, "what lies beyond is found in the states"
