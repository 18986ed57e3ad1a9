"""Jaccard of the recent items as a source: what it leaves out, what it shares with item lists.

That it equals the batch computation is in tests/core/test_prefixes.py.
"""

import numpy as np
import pytest

from stream_app.core.jaccard import new_desk
from stream_app.core.list_kinds import LAST
from stream_app.core.scoring_extra import Extra
from stream_app.core.similar import similar_items
from tests.core.scored import drawn_by_jaccard, world


def of_list(extra: Extra, i: int) -> dict[int, float]:
    """Values by node."""
    at = slice(extra.starts[i], extra.starts[i + 1])
    nodes = extra.nodes[at].tolist()
    assert len(set(nodes)) == len(nodes), "each once"
    return dict(zip(nodes, extra.values[at].tolist(), strict=True))


def test_of_one_item_it_is_what_the_item_list_says_in_its_jaccard_reading() -> None:
    w = world(41, events=3_000, items=40)
    extra, size, compared = drawn_by_jaccard(w, anchor=LAST), w.tables.model.neighbours_max, 0
    for i, user in enumerate(w.users):
        (node,) = w.tables.lookup(user["ring_item"][user["ring_n"] - 1 : user["ring_n"]])
        ts = float(user["last_ts"])
        near, scores, (n,) = similar_items(
            w.tables, np.array([node]), size=size, ts=ts, reading="jaccard"
        )
        found = of_list(extra, i)
        found.pop(int(node), None)  # an item list does not hold the item
        listed = dict(zip(near[0, :n].tolist(), scores[0, :n].tolist(), strict=True))
        assert found == pytest.approx(listed, rel=1e-6)
        compared += int(n)
    assert compared > 3 * len(w.users)


def test_candidates_whose_masses_were_not_read_are_left_out() -> None:
    w = world(42)
    before = of_list(drawn_by_jaccard(w), 0)
    hidden = max(before, key=before.__getitem__)
    w.tables.nodes["known"][hidden] = 0
    after = of_list(drawn_by_jaccard(w), 0)
    assert before.keys() - after.keys() == {hidden}


def test_a_desk_remembers_nothing_from_one_batch_to_the_next() -> None:
    w = world(43)
    every, n = np.arange(len(w.users)), len(w.users)
    desk = new_desk(w.tables.nodes_n, w.tables.model)
    fresh = drawn_by_jaccard(w)
    for rows in (every, every[::-1].copy(), every[3:4], np.repeat(every, 2), every[:0]):
        again = drawn_by_jaccard(w, rows, desk=desk)
        assert len(again.starts) == len(rows) + 1
        for i, row in enumerate(rows.tolist()):
            assert of_list(again, i) == of_list(fresh, row)
    assert all(of_list(fresh, i) for i in range(n))
