"""Records handled by their bytes are the records that numpy makes of them field by field."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app.core.learn import EVENT
from stream_app.core.raw import bytes_of, copied, picked, together, zeroed
from stream_app.core.state import USER


def users(n: int) -> NDArray[np.void]:
    """Records with something in every field."""
    filled = np.random.default_rng(3).integers(0, 100, n * USER.itemsize, dtype=np.uint8)
    return np.ndarray(n, USER, filled)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_new_records_are_zeros_that_can_be_written(n: int) -> None:
    for dtype in (USER, EVENT):
        made = zeroed(n, dtype)
        assert made.tobytes() == bytes(n * dtype.itemsize)
        assert made.flags.writeable
        assert made.flags.aligned
        assert made.dtype == dtype


@pytest.mark.parametrize("at", [np.array([], np.int64), np.array([4, 0, 4]), np.arange(5) % 2 == 0])
def test_picked_records_are_those_of_an_index_or_a_mask(at: NDArray[np.int64]) -> None:
    some = users(5)
    found = picked(some, at)
    for name in USER.names or ():
        assert found[name].tobytes() == some[name][at].tobytes(), name
    found["events"] = 7
    assert not (some["events"] == 7).all()


def test_a_copy_is_apart_and_parts_stand_together() -> None:
    some = users(3)
    other = copied(some)
    assert other.tobytes() == some.tobytes()
    other["id"] += 1
    assert (other["id"] != some["id"]).all()
    assert together([some, other]).tobytes() == some.tobytes() + other.tobytes()
    assert together([some]) is some
    assert bytes_of(some).tobytes() == some.tobytes()
    assert bytes_of(some).shape == (3, USER.itemsize)
