"""The reader on a real server: Python, blocking and not, and the examples in other languages."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from stream_app.adapters.topics import consume
from stream_app.reader import (
    AsyncReader,
    Newest,
    Reader,
    Recommendations,
    UnreadableRecord,
    decode_entries,
    decode_recommendations,
)
from tests.operations.live import LiveShop

EXAMPLES = Path(__file__).parents[2] / "examples" / "readers"


@pytest.fixture(params=[False, True], ids=["bytes", "str"])
def reader(live: LiveShop, request: pytest.FixtureRequest) -> Any:
    client = Redis.from_url(live.redis_url, protocol=2, decode_responses=request.param)
    yield Reader(client)
    client.close()


def test_a_known_customer_gets_their_own_list(reader: Reader) -> None:
    answer = reader.recommend("c2", "cart", limit=3)
    assert answer.origin == "customer" and 0 < len(answer.entries) <= 3
    assert answer.entries[0].reason is not None
    customer = reader.customer("c2")
    assert customer is not None
    assert (customer.user_id, customer.step) == ("c2", "cart")
    assert customer.lists["cart"][: len(answer.entries)] == answer.entries
    assert customer.version == customer.source.offset + 1
    profile = reader.profile("c1")
    assert profile is not None and profile.purchases == 1


def test_what_an_item_will_sell_is_told_of_those_that_sold(reader: Reader, live: LiveShop) -> None:
    live.wait_for("demand:p2")
    demand = reader.demand("p2")
    assert demand is not None and demand.item_id == "p2" and len(demand.daily) == 7
    assert demand.forecast_7d == pytest.approx(sum(demand.daily), abs=0.05)
    assert demand.forecast_7d <= demand.upper_7d and demand.stock is None
    assert reader.demand("nothing") is None and reader.aggregates() is None


def test_an_unknown_customer_gets_what_fits_best(reader: Reader) -> None:
    assert reader.recommend("nobody", session_id="s9", item_id="p1").origin == "session"
    assert reader.recommend("nobody", item_id="p1").origin == "similar"
    assert reader.recommend(None, item_id="nothing").origin == "trending"
    assert reader.recommend(None, limit=1).entries == reader.trending(limit=1)
    session = reader.customer("s9", anonymous=True)
    assert session is not None and session.user_id == "~s9"
    assert reader.customer("nobody") is None and reader.profile("nobody") is None
    assert reader.similar("nothing") == [] and reader.trending("mars") == []


def test_before_the_first_event_the_channel_answers_before_all(live: LiveShop) -> None:
    live.wait_for("trending:kiosk")
    with Redis.from_url(live.redis_url, protocol=2) as client:
        reader = Reader(client)
        kiosk = reader.recommend("nobody", segments=["mars", "kiosk"])
        assert kiosk.origin == "trending" and [e.item_id for e in kiosk.entries] == ["p3"]
        assert len(reader.trending()) > 1, "everywhere there is more than that"
        anywhere = reader.recommend("nobody", segments=["mars"], limit=50)
        assert anywhere.entries == reader.trending()


async def test_the_asynchronous_reader_answers_the_same(live: LiveShop) -> None:
    with Redis.from_url(live.redis_url, protocol=2) as blocking:
        expected = Reader(blocking)
        async with AsyncRedis.from_url(live.redis_url, protocol=2) as client:
            reader = AsyncReader(client)
            assert await reader.recommend("c2") == expected.recommend("c2")
            assert await reader.customer("c2") == expected.customer("c2")
            assert await reader.similar("p2") == expected.similar("p2")
            assert await reader.profile("c1") == expected.profile("c1")
            assert await reader.demand("p2") == expected.demand("p2")
            assert await reader.aggregates() == expected.aggregates()
            for segments in ((), ("web",)):
                found = await reader.recommend("nobody", segments=segments)
                assert found == expected.recommend("nobody", segments=segments)


async def test_a_follower_of_the_topic_ends_with_what_is_in_redis(live: LiveShop) -> None:
    newest = Newest()
    held: dict[str, Recommendations] = {}
    topic, brokers = live.settings.recommendations_topic, [live.settings.bootstrap]
    for _ in range(2):  # the second pass is one long repetition
        async for sent in consume(topic, brokers=brokers):
            if newest.erased(sent.value):
                held.pop((sent.key or b"").decode(), None)
            if news := newest.accept(sent.key or b"", sent.value):
                held[news.user_id] = news
    with Redis.from_url(live.redis_url, protocol=2) as client:
        for user, record in held.items():
            anonymous = user.startswith("~")
            stored = Reader(client).customer(user.removeprefix("~"), anonymous=anonymous)
            assert stored is not None
            assert stored == record
    assert newest.accept(b"c2", msgspec.json.encode(held["c2"])) is None
    assert newest.erased(None) and newest.accept(b"c2", None) is None
    assert newest.accept(b"c2", msgspec.json.encode(held["c2"])) == held["c2"]


def test_what_is_no_record_is_said_to_be_none() -> None:
    for broken in (b"{", b'[{"item":1}]'):
        with pytest.raises(UnreadableRecord):
            decode_entries(broken)
    for hash_ in ({b"version": b"x"}, {b"home": b"[1"}, {"step": "browse"}):
        with pytest.raises(UnreadableRecord):
            decode_recommendations(hash_, "a")


@pytest.mark.parametrize(
    ("runtime", "command"),
    [("node", ["node", "recommend.mjs"]), ("go", ["go", "run", "recommend.go"])],
)
def test_the_examples_in_other_languages_answer_the_same(
    live: LiveShop, runtime: str, command: list[str]
) -> None:
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    address = live.redis_url.removeprefix("redis://").partition("/")[0]
    with Redis.from_url(live.redis_url, protocol=2) as client:
        reader = Reader(client)
        for user, name, item in (("c2", "cart", ""), ("nobody", "home", "p2"), ("nobody", "", "")):
            done = subprocess.run(
                [*command, address, user, name or "home", item],
                cwd=EXAMPLES,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            expected = reader.recommend(user, name or "home", item_id=item, limit=100)
            assert json.loads(done.stdout) == {
                "origin": expected.origin,
                "items": [entry.item_id for entry in expected.entries],
            }
