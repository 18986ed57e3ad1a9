"""The learned blend in shops whose truth is known."""

import numpy as np

from stream_app.offline.blending import ITEMS, LEARNED, PUBLISHED, SHOPS, regret, truth
from stream_app.settings import load_settings

MOVES = 12_000


async def test_the_learned_blend_beats_fixed_ones_where_the_truth_is_known() -> None:
    found = await regret(SHOPS["mixed"], load_settings({}), moves=MOVES)
    late, curves = found["late"], found["regret"]
    assert found["gain_interval"][0] > 0.0, "more hits than with the published weights"
    fixed = {name: value for name, value in late.items() if name not in (LEARNED, "best possible")}
    assert late[LEARNED] > max(fixed.values()) and len(fixed) == 6
    assert late[LEARNED] < late["best possible"] < 1.0
    assert found["moves"][-1] == MOVES and curves.keys() == {LEARNED, *fixed}
    assert all((np.diff(curve) > 0.0).all() for curve in curves.values()), "regret only grows"
    assert curves[LEARNED][-1] == min(curve[-1] for curve in curves.values())
    start, published = curves[LEARNED][0], curves[PUBLISHED][0]
    assert abs(start - published) < 0.01 * published, "the same until something has been learned"
    weights = found["weights"]
    assert max(weights, key=weights.__getitem__) == "next_item", "it is what the shop is most like"
    assert abs(sum(weights.values()) - 1.0) < 1e-9 and found["observations"] > MOVES / 40


def test_the_truth_is_a_chance_for_every_item() -> None:
    first, following = truth(SHOPS["likes"], np.random.default_rng(3))
    assert first.shape == (ITEMS,) and following.shape == (ITEMS, ITEMS)
    assert np.allclose(following.sum(axis=1), 1.0) and (following > 0.0).all()
    strongest = np.sort(following, axis=1)[:, -7:].sum(axis=1)
    assert (strongest > 0.7).all(), "most goes to the seven that are like the current one"
