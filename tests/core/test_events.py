"""Bytes to events: what is no event is set aside with its reason, and nothing raises."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_app.codec import Merge, encode_merge
from stream_app.core.model import KIND, KINDS
from stream_app.core.state import encode_users, new_users
from stream_app.events import REASONS, EventBatch, EventDecoder
from stream_app.hashing import short_hash, stable_hash
from stream_app.ports import RawBatch
from stream_app.settings import load_settings

NOW_S = 1_700_000_000.0
SETTINGS = load_settings({})
GOOD: dict[str, Any] = {"event": "view", "ts": NOW_S, "user_id": "u1", "item_id": "i1"}


def decoded(*values: bytes | None, at_s: float = NOW_S) -> EventBatch:
    """A batch of ``values`` whose records were written at ``at_s``."""
    n = len(values)
    times = [int(at_s * 1000)] * n
    return EventDecoder(SETTINGS).decode(
        RawBatch("t", 0, 7 + n, range(7, 7 + n), [None] * n, values, times, [()] * n)
    )


def event(**changes: Any) -> bytes:
    """A good event with changes; ``None`` leaves a field out."""
    return orjson.dumps({k: v for k, v in (GOOD | changes).items() if v is not None})


def raw(fields: str) -> bytes:
    """A good event, with JSON text added."""
    return event()[:-1] + b"," + fields.encode() + b"}"


SEVEN = np.array([7], np.uint64)
EXAMPLES: list[tuple[str, bytes | None]] = [
    ("empty", None),
    ("empty", b""),
    ("oversize", event(query="x" * SETTINGS.event_bytes_max)),
    ("not_utf8", b'{"event":"\xff\xfe"}'),
    ("not_utf8", event()[:-1] + b',"colour":"\xff"}'),  # in a field that is not read
    ("not_utf8", "{}".encode("utf-16")),
    ("malformed_json", b"not json"),
    ("malformed_json", event()[:-1]),
    ("malformed_json", event() + b"x"),
    ("malformed_json", raw('"ts":NaN')),
    ("malformed_json", raw('"ts":Infinity')),
    ("malformed_json", b"\xef\xbb\xbf" + event()),
    ("malformed_json", raw('"item_id":"\\ud800"')),  # half a surrogate pair
    ("malformed_json", raw('"x":' + "[" * 30_000 + "]" * 30_000)),
    ("malformed_json", b'{"x":' * 10_000),
    ("malformed_json", b"\0"),
    ("wrong_type", b"[]"),
    ("wrong_type", b"null"),
    ("wrong_type", b"17"),
    ("wrong_type", event(ts="yesterday")),
    ("wrong_type", event(user_id=1.5)),
    ("wrong_type", event(user_id=["u1"])),
    ("wrong_type", event(price=True)),
    ("wrong_type", raw('"user_id":' + "[" * 30_000)),
    ("wrong_type", raw('"ts":1e999')),
    ("wrong_type", raw('"position":' + "9" * 60_000)),
    ("missing_field", b"{}"),
    ("missing_field", event(ts=None)),
    ("missing_field", event(event=None)),
    ("unknown_event", event(event="teleport")),
    ("unknown_event", event(event="")),
    ("unknown_event", event(event="View")),
    ("missing_customer", event(user_id=None)),
    ("missing_item", event(item_id=None)),
    ("missing_item", event(item_id=None, event="purchase")),
    ("bad_id", event(user_id="")),
    ("bad_id", event(item_id="")),
    ("bad_id", event(session_id="")),
    ("bad_id", event(event_id="")),
    ("bad_id", event(user_id="x" * (SETTINGS.id_chars_max + 1))),
    ("bad_id", event(item_id="a\nb")),
    ("bad_id", event(item_id="a\0b")),
    ("bad_id", event(item_id="a\u202eb")),  # would turn around what is shown after it
    ("bad_id", raw('"user_id":' + "9" * 4_000)),
    ("absurd_time", event(ts=0)),
    ("absurd_time", event(ts=-NOW_S)),
    ("absurd_time", event(ts=NOW_S * 1000)),
    ("absurd_time", event(ts=NOW_S + SETTINGS.future_tolerance_s + 1)),
    ("absurd_time", raw('"ts":5')),  # of two, the last one counts
    ("bad_number", event(price=-0.01)),
    ("bad_number", event(quantity=-1)),
    ("bad_number", event(rating=1e10)),
    ("bad_number", event(price=1e300)),
    ("bad_internal", event(event="timeout", ts=NOW_S + 2)),  # made before its time
    ("bad_internal", event(event="link", user_id=None, session_id="s")),
    ("bad_internal", event(event="link", sa_data="u1")),
    ("bad_internal", event(event="merge", sa_data="")),
    ("bad_internal", event(event="merge", user_id=None, session_id="s", sa_data="AA==")),
]


@pytest.mark.parametrize(("reason", "value"), EXAMPLES)
def test_what_is_no_event_is_set_aside_with_its_reason(reason: str, value: bytes | None) -> None:
    alone = decoded(value)
    assert [reject.reason for reject in alone.rejects] == [reason]
    assert len(alone.events) == 0
    among = decoded(event(), value, event(item_id="i2"))
    assert [(reject.row, reject.reason) for reject in among.rejects] == [(1, reason)]
    assert among.items == ["i1", "i2"]
    assert among.events["offset"].tolist() == [7, 9]
    assert len(among.rejects[0].detail) <= 300


def test_every_reason_has_an_example_and_a_text() -> None:
    assert {reason for reason, _ in EXAMPLES} == REASONS.keys()
    assert all(REASONS.values())


def test_many_bad_records_keep_their_places() -> None:
    values = [value for _, value in EXAMPLES]
    batch = decoded(*values)
    assert [(r.row, r.reason) for r in batch.rejects] == [
        (row, reason) for row, (reason, _) in enumerate(EXAMPLES)
    ]


def test_milliseconds_are_recognised() -> None:
    (reject,) = decoded(event(ts=NOW_S * 1000)).rejects
    assert reject.detail.endswith("(milliseconds?)")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_event_is_read(kind: str) -> None:
    extra: dict[str, dict[str, Any]] = {
        "link": {"user_id": None, "session_id": "s", "sa_data": "u1"},
        "merge": {"sa_data": encode_merge(Merge(0, 0, encode_users(new_users(SEVEN))[0]))},
    }
    batch = decoded(event(event=kind, **extra.get(kind, {})))
    assert batch.events["kind"].tolist() == [KIND[kind]]
    assert batch.events["item"].tolist() == [stable_hash("i1")]


def test_ids_may_be_numbers_and_are_the_same_as_their_texts() -> None:
    batch = decoded(event(user_id=17, item_id=-5), event(user_id="17", item_id="-5"))
    assert batch.events["customer"][0] == batch.events["customer"][1] == stable_hash("17")
    assert batch.events["item"][0] == batch.events["item"][1] == stable_hash("-5")


def test_a_session_stands_for_an_unknown_customer_and_is_nobody_else() -> None:
    batch = decoded(event(user_id=None, session_id="s"), event(user_id="s", session_id="s"))
    assert batch.events["customer"].tolist() == [stable_hash("s", 1), stable_hash("s")]
    assert batch.events["anonymous"].tolist() == [1, 0]
    assert batch.events["session"].tolist() == [short_hash("s")] * 2


def test_what_was_paid_is_price_times_quantity() -> None:
    batch = decoded(
        event(price=2.5, quantity=4), event(price=2.5), event(quantity=3), event(price=-0.0)
    )
    assert batch.events["value"].tolist() == [10.0, 2.5, 0.0, 0.0]


def test_unknown_fields_are_ignored() -> None:
    assert not decoded(event(colour="hellgrün")).rejects
    assert not decoded(event(colour="red", nested={"a": [1, {"b": None}]})).rejects


def test_an_event_may_lie_a_little_in_the_future_of_its_record() -> None:
    assert not decoded(event(ts=NOW_S + SETTINGS.future_tolerance_s)).rejects
    assert not decoded(event(ts=NOW_S - 10 * 365 * 86_400)).rejects
    assert not decoded(event(ts=4e9), at_s=-1.0).rejects, "a record without a time"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
almost = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(usual, json_values)
        for name, usual in {
            "event": st.sampled_from(KINDS),
            "ts": st.floats(9e8, 2e9),
            "user_id": st.text(min_size=1, max_size=5),
            "session_id": st.text(min_size=1, max_size=5),
            "item_id": st.text(min_size=1, max_size=5),
            "event_id": st.integers(0, 9),
            "price": st.floats(0, 100),
            "quantity": st.integers(0, 9),
            "rating": st.integers(0, 5),
            "position": st.integers(0, 9),
        }.items()
    },
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.none()
        | st.binary(max_size=60)
        | almost.map(lambda fields: orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS))
        | st.tuples(almost, st.integers(0, 200), st.integers(0, 255)).map(
            lambda drawn: _with_byte(orjson.dumps(drawn[0]), drawn[1], drawn[2])
        ),
        max_size=6,
    )
)
@example([])
@example([b'{"event":"view","ts":1e308,"user_id":1,"item_id":2}'])
def test_no_input_raises_and_each_is_an_event_or_a_reject(values: list[bytes | None]) -> None:
    batch = decoded(*values)
    assert len(batch.events) + len(batch.rejects) == len(values)
    assert len(batch.customers) == len(batch.items) == len(batch.events)
    rows = [reject.row for reject in batch.rejects]
    assert rows == sorted(set(rows))
    assert {reject.reason for reject in batch.rejects} <= REASONS.keys()
    offsets = batch.events["offset"].tolist()
    assert sorted(offsets + [7 + row for row in rows]) == list(range(7, 7 + len(values)))
    assert np.isfinite(batch.events["ts"]).all()
    assert np.isfinite(batch.events["value"].astype(np.float32)).all()
    assert batch.events["customer"].all()
    for text in (*batch.customers, *batch.items):
        text.encode()  # could be published


def _with_byte(value: bytes, at: int, byte: int) -> bytes:
    at = min(at, len(value))
    return value[:at] + bytes([byte]) + value[at + 1 :]


def test_a_batch_says_the_same_however_it_is_cut() -> None:
    values = [
        value
        for pair in zip((v for _, v in EXAMPLES), [event()] * 99, strict=False)
        for value in pair
    ]
    whole = decoded(*values)
    one_by_one = [decoded(value) for value in values]
    assert [r.reason for r in whole.rejects] == [r.reason for b in one_by_one for r in b.rejects]
    assert whole.customers == [text for batch in one_by_one for text in batch.customers]
