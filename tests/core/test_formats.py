"""Events as other systems send them: golden files, and what a record of several events means."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from stream_app.core.learn import APPLIED, DUPLICATE, learn
from stream_app.core.model import Model
from stream_app.core.state import new_partition, new_users
from stream_app.errors import EventRejected
from stream_app.events import REASONS, EventDecoder
from stream_app.formats import FORMAT_HEADER, NAMES_MAX, ORIGIN_HEADER, OTHER, Formats
from stream_app.formats.snowplow import _ACTION
from stream_app.journeys import load_journey
from stream_app.ports import Headers, RawBatch
from stream_app.settings import load_settings
from stream_app.wire import Event

GOLDEN = Path(__file__).parents[1] / "golden"
RECORD_MS = 1_767_600_100_000  # when the records were made
STRUCTURED: Headers = (("Content-Type", b"application/cloudevents+json; charset=utf-8"),)
FAMILIES: dict[str, tuple[str, Headers]] = {
    "ga4_export.jsonl": ("ga4", ()),
    "ga4_protocol.jsonl": ("ga4", ()),
    "segment.jsonl": ("segment", ()),
    "snowplow.jsonl": ("snowplow", ()),
    "snowplow.tsv": ("snowplow", ()),
    "retailrocket.csv": ("retailrocket", ()),
    "cloudevents.jsonl": ("own", STRUCTURED),
}


def said(event: Event) -> dict[str, Any]:
    fields = msgspec.structs.asdict(event)
    return {name: value for name, value in fields.items() if value is not None}


def batch(values: list[bytes], headers: Headers = (), record_ms: int = -1) -> RawBatch:
    n = len(values)
    times = [record_ms] * n
    return RawBatch("c", 0, n, range(n), [None] * n, values, times, [headers] * n)


def decoder(format_: str = "own") -> EventDecoder:
    return EventDecoder(load_settings({"STREAM_APP_EVENT_FORMAT": format_}))


@pytest.mark.parametrize("name", FAMILIES)
def test_records_of_each_family_become_the_events_of_its_golden_file(name: str) -> None:
    default, headers = FAMILIES[name]
    formats = Formats(default)
    lines = (GOLDEN / name).read_bytes().splitlines()
    found = [[said(event) for event in formats.events(line, headers, RECORD_MS)] for line in lines]
    assert found == json.loads((GOLDEN / f"{name}.expected.json").read_text())
    assert formats.ignored.total() == found.count([])


@pytest.mark.parametrize("name", FAMILIES)
def test_golden_records_pass_the_decoder_and_none_is_dead_lettered(name: str) -> None:
    default, headers = FAMILIES[name]
    lines = (GOLDEN / name).read_bytes().splitlines()
    events = decoder(default).decode(batch(lines, headers, RECORD_MS))
    expected = json.loads((GOLDEN / f"{name}.expected.json").read_text())
    assert events.rejects == []
    assert events.ignored == expected.count([])
    offsets = [row for row, found in enumerate(expected) for _ in found]
    assert events.events["offset"].tolist() == offsets


def test_a_record_names_its_format_in_a_header() -> None:
    line = (GOLDEN / "segment.jsonl").read_bytes().splitlines()[0]
    own = orjson.dumps({"event": "view", "ts": 1.7e9, "user_id": "a", "item_id": "1"})
    mixed = RawBatch(
        "c",
        0,
        2,
        [0, 1],
        [None] * 2,
        [line, own],
        [-1] * 2,
        [[("stream_app_format", b"segment")], ()],
    )
    events = decoder().decode(mixed)
    assert events.rejects == []
    assert events.items == ["507", "1"]
    (reject,) = decoder().decode(batch([own], [("stream_app_format", b"xml")])).rejects
    assert reject.reason == "wrong_type" and "'xml' is none of own, ga4" in reject.detail


def test_where_a_record_was_copied_from_is_the_id_of_events_that_have_none() -> None:
    copied = ((FORMAT_HEADER, b"own"), (ORIGIN_HEADER, b"till/3/12345"))
    event = {"event": "view", "ts": 1.7e9, "user_id": "a", "item_id": "1"}
    values = [orjson.dumps(event), orjson.dumps({**event, "event_id": "e1"})]
    formats = Formats("own")
    with_none, with_one = (formats.events(value, copied)[0].event_id for value in values)
    assert with_one == "e1"
    assert isinstance(with_none, str)
    assert 0 < len(with_none) <= 8  # the shortest limit of ids
    elsewhere = (copied[0], (ORIGIN_HEADER, b"till/3/12346"))
    assert formats.events(values[0], elsewhere)[0].event_id != with_none
    assert formats.events(values[0], ())[0].event_id is None


@pytest.mark.parametrize("format_", ["ga4", "segment", "snowplow", "retailrocket"])
def test_our_own_schema_is_understood_on_every_topic(format_: str) -> None:
    own = {"event": "view", "ts": 1.7e9, "user_id": "a", "item_id": "1"}
    refresh = {"event": "refresh", "ts": 1.7e9, "user_id": "a"}
    events = decoder(format_).decode(batch([orjson.dumps(own), orjson.dumps(refresh)]))
    assert events.rejects == []
    assert len(events.events) == 2


def test_cloudevents_in_binary_mode_take_their_attributes_from_headers() -> None:
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_type", b"com.example.add_to_cart"),
        ("ce_source", b"/web"),
        ("ce_id", b"c-1"),
        ("ce_time", b"2026-01-05T08:00:00Z"),
        ("ce_userid", b"anna"),
        ("content-type", b"application/json"),
    )
    (event,) = Formats("own").events(b'{"item_id":7}', headers)
    assert said(event) == {
        "event": "add_to_cart",
        "ts": 1_767_600_000.0,
        "user_id": "anna",
        "item_id": 7,
        "event_id": "/web#c-1",
    }


def test_a_cloudevent_may_carry_another_format() -> None:
    line = (GOLDEN / "segment.jsonl").read_bytes().splitlines()[0]
    headers = (("ce_specversion", b"1.0"), ("ce_type", b"track"), ("ce_id", b"1"))
    (event,) = Formats("segment").events(line, headers)
    assert (event.event, event.item_id, event.event_id) == ("view", "507", "m-1")
    with pytest.raises(EventRejected, match="specversion, id, source and type"):
        Formats("segment").events(line, headers[:1])


ORDER = orjson.dumps(
    {
        "type": "track",
        "event": "Order Completed",
        "userId": "anna",
        "messageId": "m",
        "timestamp": "2026-01-05T08:00:00Z",
        "properties": {
            "order_id": "o-1",
            "products": [{"product_id": str(k), "price": 2.0} for k in range(30)],
        },
    }
)


def test_all_products_of_an_order_count_and_an_order_sent_again_counts_nothing() -> None:
    events = decoder("segment").decode(batch([ORDER, ORDER])).events
    users, partition = new_users(np.unique(events["customer"])), new_partition()
    rows = np.zeros(len(events), np.int64)
    learned = learn(users, rows, events, partition, Model(), load_journey().plan)
    assert learned.status.tolist() == [APPLIED] * 30 + [DUPLICATE] * 30
    assert users["purchases"].tolist() == [30]
    # Accounts are of records, not of events.
    assert (partition["applied"].tolist(), partition["rejected"].tolist()) == ([1], [1])


def test_a_record_with_one_bad_product_is_refused_as_a_whole() -> None:
    bad = ORDER.replace(b'"product_id":"7","price":2.0', b'"product_id":"7","price":-2.0')
    events = decoder("segment").decode(batch([ORDER, bad, b"{}", b'{"event"']))
    assert events.events["offset"].tolist() == [0] * 30
    reasons = ["bad_number", "missing_field", "malformed_json"]
    assert [reject.reason for reject in events.rejects] == reasons


def test_names_that_mean_nothing_are_counted_but_not_without_bound() -> None:
    formats = Formats("segment")
    for k in range(2_000):
        said = {"type": "track", "event": f"Custom {k}", "userId": "a"}
        assert formats.events(orjson.dumps(said), ()) == []
    assert len(formats.ignored) == NAMES_MAX + 1
    assert formats.ignored[OTHER] == 2_000 - NAMES_MAX
    assert formats.ignored.total() == 2_000


UNTIMED: dict[str, tuple[str, Headers, bytes]] = {
    "ga4": ("ga4", (), b'{"client_id":"c","events":[{"name":"search"}]}'),
    "segment": ("segment", (), b'{"event":"Products Searched","userId":"a"}'),
    "snowplow": (
        "snowplow",
        (),
        orjson.dumps({"domain_userid": "d", _ACTION: {"type": "checkout_step"}}),
    ),
    "cloudevents": (
        "own",
        STRUCTURED,
        b'{"specversion":"1.0","type":"search","source":"/","id":"1","data":{"user_id":"a"}}',
    ),
}


@pytest.mark.parametrize("name", UNTIMED)
def test_an_event_that_names_no_time_has_that_of_its_record(name: str) -> None:
    format_, headers, value = UNTIMED[name]
    found = decoder(format_).decode(batch([value], headers, RECORD_MS))
    assert found.events["ts"].tolist() == [RECORD_MS / 1000.0]
    (reject,) = decoder(format_).decode(batch([value], headers)).rejects
    assert (reject.reason, reject.detail) == ("missing_field", "ts")


def test_our_own_events_name_their_time_themselves_whatever_they_are_read_with() -> None:
    own, call = b'{"event":"search","user_id":"a"}', UNTIMED["segment"][2]
    mixed = batch([own, call], record_ms=RECORD_MS)
    headers: list[Headers] = [(), ((FORMAT_HEADER, b"segment"),)]
    found = decoder().decode(replace(mixed, headers=headers))
    assert [(reject.row, reject.reason) for reject in found.rejects] == [(0, "missing_field")]
    assert found.events["offset"].tolist() == [1]


def test_a_time_that_is_none_is_refused_and_not_replaced() -> None:
    call = b'{"event":"Products Searched","userId":"a","timestamp":"yesterday"}'
    (reject,) = decoder("segment").decode(batch([call], record_ms=RECORD_MS)).rejects
    assert reject.reason == "wrong_type" and "'yesterday'" in reject.detail


@pytest.mark.parametrize(
    ("format_", "headers", "value"),
    [
        ("segment", (), b'{"event":"Promotion Viewed","properties":{"position":"top"}}'),
        ("ga4", (), b'{"client_id":"c","events":[{"name":"level_up","params":{"value":"x"}}]}'),
        ("own", STRUCTURED, b'{"specversion":"1.0","type":"paid","id":"1","data":{"price":"1 E"}}'),
        ("own", STRUCTURED, b'{"specversion":"1.0","type":"paid","id":"1","data":[1]}'),
    ],
)
def test_what_an_event_of_no_meaning_holds_is_not_judged(
    format_: str, headers: Headers, value: bytes
) -> None:
    found = decoder(format_).decode(batch([value], headers))
    assert (found.rejects, found.ignored) == ([], 1)
    meant = value.replace(b"Promotion Viewed", b"Product Viewed").replace(b"level_up", b"refund")
    meant = meant.replace(b"paid", b"purchase")
    (reject,) = decoder(format_).decode(batch([meant], headers)).rejects
    assert reject.reason == "wrong_type"


@pytest.mark.parametrize("name", FAMILIES)
def test_whatever_the_bytes_are_a_record_is_taken_ignored_or_refused_with_a_reason(
    name: str,
) -> None:
    default, headers = FAMILIES[name]
    lines = (GOLDEN / name).read_bytes().splitlines()
    random_ = random.Random(7)
    values = []
    for _ in range(300):
        value = bytearray(random_.choice(lines))
        for _ in range(random_.randint(1, 4)):
            at = random_.randrange(len(value))
            value[at : at + random_.randint(0, 3)] = random_.choice(
                [b"", b"\xff", b"null", b"[]", b'"', b"1e999", b"-1", b"{}", b"\t"]
            )
        values.append(bytes(value))
    events = decoder(default).decode(batch(values, headers))
    assert {reject.reason for reject in events.rejects} <= REASONS.keys()
    taken = len(set(events.events["offset"].tolist()))
    assert taken + len(events.rejects) + events.ignored == len(values)
