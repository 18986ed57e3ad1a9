"""Packed customers: any record comes back to the bit, and any bytes are read without harm."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.core.model import KINDS, STEPS_MAX
from stream_app.core.state import (
    USER,
    USER_SCHEMA,
    customer_name,
    decode_users,
    encode_users,
    fits,
    layout,
    new_users,
)
from stream_app.errors import SchemaUnknown

HEADER, ARRAYS = layout(USER)
FIELDS: Mapping[str, Any] = USER.fields or {}
ROOMS = {
    count: min(
        FIELDS[name][0].shape[0]
        for name in USER.names or ()
        if FIELDS[name][0].shape and (ARRAYS[ARRAYS[:, 0] == FIELDS[name][1], 2] == at).any()
    )
    for count, (_, at, *_) in FIELDS.items()
    if at in ARRAYS[:, 2]
}
ITEMS = [name for name in FIELDS if name.endswith("_item")]
NOBODY = np.zeros(1, np.uint64)


def trimmed(users: NDArray[np.void]) -> NDArray[np.void]:
    """The records with zeros where their arrays are not filled."""
    full = np.frombuffer(bytearray(users.tobytes()), np.uint8).reshape(len(users), -1)
    kept = np.zeros_like(full)
    kept[:, :HEADER] = full[:, :HEADER]
    for row in range(len(users)):
        for start, size, count in ARRAYS.tolist():
            end = start + size * int(full[row, count])
            kept[row, start:end] = full[row, start:end]
    return kept.reshape(-1).view(USER)


@st.composite
def customers(draw: st.DrawFn) -> NDArray[np.void]:
    """One record: any bytes, also where its arrays are not filled; any counts there is room for.

    How many bytes are zeros, and how many different items there are, is drawn too.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(0, 256, USER.itemsize, np.uint8)
    values[rng.random(USER.itemsize) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))] = 0
    user = values.view(USER)
    different = draw(st.sampled_from([1, 5, 40, 10_000]))
    for name in ITEMS:
        ids = rng.integers(0, different, user[name].shape, np.uint64)
        user[name] = ids * np.uint64(draw(st.sampled_from([1, 512, 2**61 - 1])))
    for count, room in ROOMS.items():
        user[count] = draw(st.sampled_from([0, room]) | st.integers(0, room))
    user["ring_kind"] = rng.integers(0, len(KINDS), user["ring_kind"].shape) | 0x80
    user["session_n"] = draw(st.integers(0, int(user["ring_n"][0])))
    user["schema"] = USER_SCHEMA
    for step in ("step", "previous_step"):
        user[step] = draw(st.integers(0, STEPS_MAX - 1))
    return user


def test_every_array_has_a_count_and_room() -> None:
    assert {"ring_n", "bought_n", "credit_n", "ripe_on", "query_n"} < ROOMS.keys()
    assert len(ITEMS) == 5 and ROOMS["bought_n"] == 200


@settings(max_examples=200, deadline=None)
@given(st.lists(customers(), min_size=1, max_size=4), st.binary(max_size=9))
def test_any_customer_comes_back_to_the_bit(some: list[NDArray[np.void]], name: bytes) -> None:
    users = np.concatenate([one.view(np.uint8) for one in some]).view(USER)
    before = users.tobytes()
    blobs = encode_users(users, [name] * len(users))
    assert users.tobytes() == before, "what is in memory stays as it is"
    read = decode_users(np.zeros(len(users), np.uint64), blobs)
    assert read.tobytes() == trimmed(users).tobytes()
    assert encode_users(read, [name] * len(users)) == blobs, "the same record, the same bytes"
    assert [customer_name(blob) for blob in blobs] == [name] * len(users)
    assert [encode_users(one, [name])[0] for one in some] == blobs, "whoever is beside"
    assert all(map(fits, encode_users(users)))
    assert [fits(blob) for blob in blobs] == [not name] * len(users)


def valid(user: np.void) -> bool:
    """Whether kernels can work with the record."""
    return all(user[count] <= room for count, room in ROOMS.items()) and (
        user["session_n"] <= user["ring_n"] and max(user["step"], user["previous_step"]) < STEPS_MAX
    )


@settings(max_examples=300, deadline=None)
@given(
    customers(),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1) | st.none(),
)
def test_changed_bytes_do_not_fit_or_give_a_customer_with_counts_that_can_be(
    user: NDArray[np.void], changes: list[tuple[float, int]], cut: float | None
) -> None:
    blob = bytearray(encode_users(user)[0])
    for at, value in changes:
        blob[1 + int(at * (len(blob) - 1))] = value
    blob = blob[: int(cut * len(blob))] if cut is not None else blob
    if fits(bytes(blob)):
        (read,) = decode_users(NOBODY, [bytes(blob)])
        assert valid(read)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_harm(rest: bytes) -> None:
    blob = bytes([USER_SCHEMA]) + rest
    beside = encode_users(new_users(np.array([5, 6], np.uint64)))
    if fits(blob):
        assert valid(decode_users(NOBODY, [blob])[0])
    try:
        users = decode_users(np.zeros(3, np.uint64), [beside[0], blob, beside[1]])
    except SchemaUnknown:
        assert not fits(blob)
    else:
        assert users["id"][[0, 2]].tolist() == [5, 6]
        assert all(users[count][1] <= room for count, room in ROOMS.items())


@settings(max_examples=60, deadline=None)
@given(customers())
def test_a_customer_cut_short_stops_the_worker(user: NDArray[np.void]) -> None:
    (blob,) = encode_users(user)
    for end in range(1, len(blob), max(len(blob) // 50, 1)):
        assert not fits(blob[:end])
        with pytest.raises(SchemaUnknown, match="not whole"):
            decode_users(NOBODY, [blob[:end]])


@pytest.mark.parametrize("count", list(ROOMS))
def test_a_count_beyond_the_room_does_not_fit(count: str) -> None:
    user = new_users(NOBODY)
    user[count] = ROOMS[count]
    assert fits(encode_users(user)[0])
    user[count] += 1
    assert not fits(encode_users(user)[0])


def test_an_item_is_one_that_was_there_or_the_next_new_one() -> None:
    user = new_users(NOBODY)
    user["cart_n"], user["cart_item"][0, :2] = 2, (3, 4)
    (blob,) = encode_users(user)
    assert blob.endswith(bytes([0, 1, 3, *bytes(7), 4, *bytes(7)]))
    first = len(blob) - 18
    for number in range(1, 256):
        assert not fits(blob[:first] + bytes([number]) + blob[first + 1 :])
        changed = blob[: first + 1] + bytes([number]) + blob[first + 2 :]
        assert fits(changed) == (number == 1)
    twice = blob[: first + 1] + bytes(1) + blob[first + 2 : -8]
    assert fits(twice) and decode_users(NOBODY, [twice])["cart_item"][0, :2].tolist() == [3, 3]
    assert not any(fits(blob[:end]) for end in range(len(blob)))


def test_items_that_share_slots_are_told_apart() -> None:
    user = new_users(NOBODY)
    for name, count in (("bought_item", "bought_n"), ("ring_item", "ring_n")):
        user[count] = ROOMS[count]
        user[name] = (np.arange(ROOMS[count], dtype=np.uint64) % 150) << np.uint64(40)
    (blob,) = encode_users(user)
    assert decode_users(NOBODY, [blob]).tobytes() == user.tobytes()
    assert len(blob) < 150 * 8 + 216 * 2 + 100, "each id once"


@pytest.mark.slow
@pytest.mark.skipif("NUMBA_DISABLE_JIT" in os.environ, reason="is that run")
def test_in_plain_python_where_an_index_beyond_an_array_is_an_error_it_is_the_same() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    plain = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
