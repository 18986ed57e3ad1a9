"""Customers and partitions as blobs: they round-trip, trimmed, and unknown schemas are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from stream_app.core.state import (
    PARTITION,
    USER,
    decode_partition,
    decode_users,
    encode_users,
    new_partition,
    new_users,
)
from stream_app.errors import SchemaUnknown
from stream_app.user_cache import UserCache
from tests.core.logs import Stream, logs


@settings(max_examples=40, deadline=None)
@given(logs())
def test_customers_round_trip(log: NDArray[np.void]) -> None:
    stream = Stream()
    stream.learn(log)
    ids = np.array(list(stream.blobs), np.uint64)
    users = decode_users(ids, list(stream.blobs.values()))
    assert encode_users(users) == list(stream.blobs.values())
    assert users["id"].tolist() == ids.tolist()


@settings(max_examples=30, deadline=None)
@given(logs())
def test_partitions_round_trip(log: NDArray[np.void]) -> None:
    stream = Stream()
    stream.learn(log)
    again = decode_partition(stream.partition.tobytes())
    assert again.tobytes() == stream.partition.tobytes()
    again["applied"] += 1  # it is a copy that may be written to
    assert decode_partition(b"").tobytes() == new_partition().tobytes()


def test_a_full_customer_takes_all_its_bytes_and_a_new_one_few() -> None:
    user = new_users(np.array([1], np.uint64))
    assert len(encode_users(user)[0]) < 100
    for name in ("ring_n", "seen_n", "vector_n", "cart_n", "bought_n"):
        user[name] = user[name.replace("_n", "_item") if name != "seen_n" else "seen"].shape[1]
    assert len(encode_users(user)[0]) <= USER.itemsize <= 700


def test_no_customers_are_no_blobs() -> None:
    nobody = np.zeros(0, np.uint64)
    assert encode_users(decode_users(nobody, [])) == []


def test_an_unknown_schema_stops_the_worker() -> None:
    (blob,) = encode_users(new_users(np.array([1], np.uint64)))
    with pytest.raises(SchemaUnknown, match="customer state has schema 9, this release reads 1"):
        decode_users(np.array([1], np.uint64), [b"\x09" + blob[1:]])
    for partition in (b"\x09" + bytes(PARTITION.itemsize - 1), b"\x01 too short"):
        with pytest.raises(
            SchemaUnknown, match=r"partition state has schema . and \d+ bytes.*: run the release"
        ):
            decode_partition(partition)


def test_a_cache_of_customers_forgets_those_written_longest_ago() -> None:
    cache = UserCache(2)
    cache.put([(b"a", b"1"), (b"b", b"1")])
    cache.put([(b"a", b"2"), (b"c", b"1")])
    assert cache.get([b"a", b"b", b"c"]) == [b"2", None, b"1"]
    none = UserCache(0)
    none.put([(b"a", b"1")])
    assert none.get([b"a"]) == [None]
