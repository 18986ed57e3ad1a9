"""Several batches decoded side by side are taken apart into what each is by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.events import EventBatch, EventDecoder
from stream_app.group import Member, group_of, side_by_side
from stream_app.ports import Headers, RawBatch
from stream_app.settings import Settings

NOW_S = 1_700_000_000.0
OLD, NEW = "0123456789abcdef" * 2, "fedcba9876543210" * 2
SEGMENT: Headers = (("stream_app_format", b"segment"),)


def event(**changes: Any) -> bytes:
    good = {"event": "view", "ts": NOW_S, "user_id": "u1", "item_id": "i1"}
    return orjson.dumps(good | changes)


def ordered(items: int) -> bytes:
    """One record of another format: an order of so many items, or a call that is none of ours."""
    if not items:
        return orjson.dumps({"type": "page", "userId": "u2", "timestamp": "2023-11-14T22:13:20Z"})
    products = [{"product_id": f"p{k}", "price": 2.0, "quantity": 1} for k in range(items)]
    return orjson.dumps(
        {
            "type": "track",
            "event": "Order Completed",
            "userId": "u2",
            "messageId": f"m{items}",
            "timestamp": "2023-11-14T22:13:20Z",
            "properties": {"products": products},
        }
    )


OWN = [
    event(),
    event(user_id=None, session_id="s1", channel="app"),
    event(user_id="u9", event="purchase", price=3.0),
    event(event="erase", item_id=None),
    event(event="timeout", item_id=None, sa_data="x"),
    b"not json",
    None,
    event(ts=1),
    event(user_id=""),
]
FOREIGN = [*((ordered(n), SEGMENT) for n in range(4)), (b"{", SEGMENT), (b"", SEGMENT)]
records = st.one_of(st.sampled_from(OWN).map(lambda value: (value, ())), st.sampled_from(FOREIGN))
batches = st.lists(st.lists(records, max_size=6), min_size=1, max_size=5)


def raw(partition: int, some: Sequence[tuple[bytes | None, Headers]]) -> RawBatch:
    n, first = len(some), 10 * partition
    return RawBatch(
        "t",
        partition,
        first + n,
        range(first, first + n),
        [None] * n,
        [value for value, _ in some],
        [int(NOW_S * 1000)] * n,
        [headers for _, headers in some],
    )


def told(events: EventBatch) -> tuple[Any, ...]:
    """Everything of a decoded batch, to compare."""
    formers = events.aliases.former_ids()
    return (
        events.events.tobytes(),
        events.customers,
        events.items,
        events.rejects,
        events.record_ts.tolist(),
        events.data,
        list(events.given),
        events.ignored,
        None if formers is None else formers.tolist(),
        list(events.rows),
        [events.segments.get(int(key)) for key in events.events["segment"].ravel()],
    )


@pytest.fixture(scope="module", params=["plain", "pseudonyms"])
def decoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> EventDecoder:
    """With and without pseudonyms, whose key has been changed."""
    path = None
    if request.param == "pseudonyms":
        path = tmp_path_factory.mktemp("keys") / "keys"
        path.write_text(f"{NEW}\n{OLD}")
    return EventDecoder(Settings.model_validate({"pseudonym_key_file": path}))


@settings(deadline=None, max_examples=200)
@given(batches)
def test_each_share_is_what_its_batch_is_alone(
    decoder: EventDecoder, parts: list[list[tuple[bytes | None, Headers]]]
) -> None:
    alone = [raw(p, some) for p, some in enumerate(parts)]
    members = [Member(None, batch) for batch in alone]  # type: ignore[arg-type]  # nobody asks
    group = group_of(members, decoder.decode(side_by_side(alone)))
    for k, (share, batch) in enumerate(zip(group.shares, alone, strict=True)):
        assert told(share.events) == told(decoder.decode(batch))
        assert (group.homes[share.first : share.end] == k).all()
        assert np.shares_memory(share.events.events, group.events.events) or not share.events.items
    assert sum(share.end - share.first for share in group.shares) == len(group.events.events)


def test_the_records_of_another_format_are_understood_here(decoder: EventDecoder) -> None:
    """Else the property above would compare rejects alone."""
    found = decoder.decode(raw(0, FOREIGN))
    assert len(found.events) == 6 and found.ignored == 1 and len(found.rejects) == 2
