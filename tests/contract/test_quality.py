"""What was wrong with records is told by cause, once they are committed, and adds up."""

from collections.abc import Sequence

import orjson
import pytest

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.adapters.telemetry import Metrics
from stream_app.composition import Stages, compose
from stream_app.errors import Fenced
from stream_app.ports import ACCOUNTS_ID, USERS, Headers, RawBatch
from stream_app.settings import Settings

SETTINGS = Settings.model_validate(
    {"clickstream_partitions": 1, "cooccurrence_partitions": 1, "minute_events_max": 3}
)
NOW = 1_700_000_000.0
SEGMENT: Headers = (("stream_app_format", b"segment"),)


def event(user: str, ts: float, kind: str = "view", **more: object) -> bytes:
    return orjson.dumps({"event": kind, "user_id": user, "item_id": "mug", "ts": NOW + ts, **more})


def batch(first: int, records: Sequence[tuple[bytes, Headers]]) -> RawBatch:
    """All of them made now."""
    n = len(records)
    return RawBatch(
        SETTINGS.clickstream_topic, 0, first + n, range(first, first + n),
        [None] * n, [value for value, _ in records], [int(NOW * 1000)] * n,
        [headers for _, headers in records],
    )  # fmt: skip


def two_products(user: str, message: str) -> tuple[bytes, Headers]:
    """One record of two events."""
    call = {
        "type": "track", "event": "Order Completed", "userId": user, "messageId": message,
        "timestamp": "2023-11-14T22:13:20Z",
        "properties": {"products": [{"product_id": "a"}, {"product_id": "b"}]},
    }  # fmt: skip
    return orjson.dumps(call), SEGMENT


RECORDS: list[tuple[bytes, Headers]] = [
    (event("ann", -30, event_id="x"), ()),
    (event("ann", -30, event_id="x"), ()),
    two_products("joe", "m"),
    two_products("joe", "m"),  # both events again: one record
    *((event("bot", k / 10), ()) for k in range(-5, 0)),  # three a minute are allowed
    (event("bob", -20), ()),
    (event("bob", -10, "erase"), ()),
    (event("bob", -15), ()),  # from before the erasure
    (event("old", -61), ()),  # late, and taken in
    (event("old", -3600), ()),
    (event("ann", -1, "timeout"), ()),  # of no deadline that the state has
    (orjson.dumps({"type": "identify", "userId": "ann"}), SEGMENT),
    (b"no event", ()),
]


async def started() -> tuple[Metrics, MemoryStore, Stages]:
    """A worker that has its partition."""
    metrics, store = Metrics(), MemoryStore()
    stages = compose(
        SETTINGS, store=store, public=MemoryPublic(), log=MemoryLog(),
        clock=lambda: NOW, telemetry=metrics,
    )  # fmt: skip
    await stages.learn.assign(0)
    return metrics, store, stages


@pytest.mark.parametrize("size", [1, 4, len(RECORDS)])
async def test_rejected_records_are_told_by_cause_however_the_log_is_cut(size: int) -> None:
    metrics, store, stages = await started()
    for first in range(0, len(RECORDS), size):
        await stages.learn.process(batch(first, RECORDS[first : first + size]))
    causes = ("duplicate", "bot", "refused", "overtaken", "ignored")
    told = {cause: metrics.rejected.value((cause,)) for cause in causes}
    assert told == {"duplicate": 2, "bot": 2, "refused": 1, "overtaken": 1, "ignored": 1}
    assert metrics.late.value() == 2
    (blob,) = await store.load(USERS, [0], [ACCOUNTS_ID])
    accounts = orjson.loads(blob or b"{}")
    assert accounts["rejected"] == sum(told.values())
    assert accounts["dead_lettered"] == 1


async def test_a_batch_that_was_not_committed_is_not_told() -> None:
    metrics, store, stages = await started()
    await store.claim(USERS, 0)  # another worker
    with pytest.raises(Fenced):
        await stages.learn.process(batch(0, RECORDS))
    assert metrics.rejected.value(("duplicate",)) == 0
    assert metrics.late.value() == 0
