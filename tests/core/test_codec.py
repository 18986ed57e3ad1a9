"""Our own wire formats: what is encoded is decoded, anything else is refused by name."""

import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.codec import (
    ListsBlock,
    Outbox,
    Transitions,
    decode_outbox,
    decode_transitions,
    encode_outbox,
    encode_transitions,
)
from stream_app.core.learn import TRANSITION
from stream_app.core.neighbourhood import SNAPSHOT
from stream_app.errors import EventRejected, SchemaUnknown
from stream_app.relating import Meta


def _rows(raw: bytes, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)


names = st.lists(st.text(st.characters(codec="utf-8"), max_size=200), max_size=8)
small = st.integers(0, 2**31 - 1)
messages = st.builds(
    lambda source, raw, told, texts, segments: Transitions(
        source, _rows(raw, TRANSITION), texts, _rows(told, SNAPSHOT), segments
    ),
    small,
    st.binary(max_size=TRANSITION.itemsize * 6),
    st.binary(max_size=SNAPSHOT.itemsize * 3),
    names,
    names,
)


@settings(max_examples=100, deadline=None)
@given(messages)
def test_transitions_round_trip(message: Transitions) -> None:
    again = decode_transitions(encode_transitions(message))
    assert again.source_partition == message.source_partition
    assert again.rows.tobytes() == message.rows.tobytes()
    assert again.names == message.names
    assert again.snapshots.tobytes() == message.snapshots.tobytes()
    assert again.segments == message.segments


def test_a_record_of_the_release_before_reads_as_one_without_segments_and_snapshots() -> None:
    raw = struct.pack("<4sIII", b"SAT1", 3, 1, 1)
    raw += struct.pack("<4Qdqd", 5, 6, 7, 0, 1e9, 41, 2.0) + struct.pack("<H", 2) + b"s1"
    message = decode_transitions(raw)
    assert (message.source_partition, message.names) == (3, ["s1"])
    row = message.rows[0]
    assert (row["item"], row["previous"].tolist(), row["ts"]) == (5, [6, 7, 0], 1e9)
    assert (row["offset"], row["weight"], row["segment"].tolist()) == (41, 2.0, [0, 0])
    assert not len(message.snapshots)
    with pytest.raises(EventRejected):
        decode_transitions(raw[:40])


def test_a_record_without_gaps_reads_as_one_with_none() -> None:
    raw = struct.pack("<4sIIIII", b"SAT2", 3, 1, 1, 1, 1)
    raw += struct.pack("<4Qdqd2I", 5, 6, 7, 0, 1e9, 41, 2.0, 8, 9)
    told = np.zeros(1, SNAPSHOT)
    told["customer"] = 12
    raw += told.tobytes() + struct.pack("<2H", 2, 3) + b"s1web"
    message = decode_transitions(raw)
    assert (message.source_partition, message.names, message.segments) == (3, ["s1"], ["web"])
    row = message.rows[0]
    assert (row["item"], row["previous"].tolist(), row["ts"]) == (5, [6, 7, 0], 1e9)
    assert (row["offset"], row["weight"], row["segment"].tolist()) == (41, 2.0, [8, 9])
    assert row["gap_s"].tolist() == [0, 0, 0]
    assert message.snapshots["customer"].tolist() == [12]
    with pytest.raises(EventRejected):
        decode_transitions(raw[:40])
    with pytest.raises(EventRejected):
        decode_transitions(raw[:20])


@settings(max_examples=100, deadline=None)
@given(messages, st.data())
def test_a_damaged_record_of_transitions_is_rejected(
    message: Transitions, data: st.DataObject
) -> None:
    value = encode_transitions(message)
    cut = data.draw(st.integers(0, len(value) - 1))
    for damaged in (value[:cut], value + b"\0", b"XXXX" + value[4:], None, b""):
        with pytest.raises(EventRejected) as caught:
            decode_transitions(damaged)
        assert caught.value.reason == "malformed"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"SAT1", b"SAT2", b"SAT3"]), st.binary(max_size=200))
def test_whatever_claims_to_be_transitions_is_decoded_or_rejected(
    magic: bytes, tail: bytes
) -> None:
    try:
        decode_transitions(magic + tail)
    except EventRejected as exc:
        assert exc.reason == "malformed"


blocks = st.builds(
    ListsBlock,
    customers=names,
    versions=st.lists(st.integers(0, 2**62), max_size=4),
    steps=st.lists(st.tuples(small, small, small), max_size=4),
    entered_at=st.lists(st.floats(allow_nan=False), max_size=4),
    generated_at=st.floats(allow_nan=False),
    **{
        name: st.binary(max_size=40)
        for name in ("list_owner", "list_kind", "counts", "items", "because", "scores", "sources")
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(small, st.binary(max_size=50)), max_size=5), st.none() | blocks)
def test_outboxes_round_trip(
    transitions: list[tuple[int, bytes]], lists: ListsBlock | None
) -> None:
    outbox = Outbox(transitions=transitions, lists=lists)
    assert decode_outbox(encode_outbox(outbox)) == outbox


def test_an_unknown_schema_stops_the_worker() -> None:
    assert decode_outbox(b"") == Outbox()
    with pytest.raises(SchemaUnknown, match="the outbox has schema 9, this release reads 2"):
        decode_outbox(encode_outbox(Outbox(schema=9)))
    with pytest.raises(SchemaUnknown, match="the outbox cannot be read"):
        decode_outbox(b"\xff\xff")
    with pytest.raises(SchemaUnknown, match="item partition state has schema 9"):
        Meta.decode(msgspec.msgpack.encode(Meta(schema=9)))
    with pytest.raises(SchemaUnknown, match="item partition state"):
        Meta.decode(b"\xff\xff")
