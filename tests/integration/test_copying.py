"""Vendors' topics of real brokers, copied by real workers, become lists of the same customers."""

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis

from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import StoredRecord, check_there, committed_offset, consume
from stream_app.embedded import ValkeyServer
from stream_app.errors import ConfigurationError
from stream_app.formats import FORMAT_HEADER, ORIGIN_HEADER
from stream_app.ports import ACCOUNTS_ID, USERS, Record
from tests.conftest import NewTopicFactory, UniqueName
from tests.integration.test_worker import Shopfront, without_timeouts
from tests.servers import Kafka, create_topic

GOLDEN = Path(__file__).parents[1] / "golden"
SHOPPERS, ITEMS, EACH = 60, 12, 40
AT_S = 1_767_600_000
WEB, APP = 3, 5  # partitions, as the vendors have them
NOBODYS = [b'{"event_timestamp":1,"event_name":"view_item","items":[{"item_id":"1"}]}', b"no json"]


class Copied:
    """A shop whose customers come by two vendors' topics, neither keyed by customer."""

    def __init__(self, shop: Shopfront, web: str, app: str) -> None:
        self.shop, self.partitions = shop, {web: WEB, app: APP}
        self.web, self.app = web, app

    async def send(self, topic: str, values: Sequence[bytes]) -> None:
        """Append round robin, as producers without a key do."""
        parts: dict[int, list[Record]] = defaultdict(list)
        for row, value in enumerate(values):
            parts[row % self.partitions[topic]].append(Record(None, value))
        for number, part in parts.items():
            await self.shop.log.send(topic, number, part)

    async def accounts(self) -> Counter[str]:
        """Of all source partitions together."""
        found: Counter[str] = Counter()
        for topic, n in self.partitions.items():
            space = f"copy-{topic}:"
            for blob in await self.shop.store.load(space, range(n), [ACCOUNTS_ID] * n):
                found.update(orjson.loads(blob or b"{}"))
        return found

    async def clicks(self) -> list[StoredRecord]:
        """What was copied, as it lies in the clickstream."""
        clicks = await self.shop.clicks()
        return [record for record in clicks if ORIGIN_HEADER in dict(record.headers)]

    async def listed(self, names: set[str]) -> bool:
        """Whether all of them have a list."""
        hashes = await self.shop.store.get_hashes([f"rec:{name}" for name in sorted(names)])
        return all(any(text.startswith(b"[{") for text in found.values()) for found in hashes)


@pytest.fixture
async def copied(
    kafka: Kafka,
    valkey: ValkeyServer,
    unique: UniqueName,
    new_topic: NewTopicFactory,
    tmp_path: Path,
) -> AsyncIterator[Copied]:
    web, app = await new_topic("web", partitions=WEB), await new_topic("app", partitions=APP)
    given = {"STREAM_APP_SOURCE_TOPICS": f"{web}=ga4,{app}=segment"}
    shop = Shopfront(kafka, valkey, unique, tmp_path, **given, **without_timeouts(tmp_path))
    async with shop.opened():
        yield Copied(shop, web, app)


def page_views() -> list[bytes]:
    """Views of the shoppers as GA4 exports them."""
    return [
        orjson.dumps(
            {
                "event_timestamp": (AT_S + k) * 1_000_000,
                "event_name": "view_item",
                "user_id": f"shopper-{k % SHOPPERS}",
                "user_pseudo_id": f"browser-{k % SHOPPERS}",
                "items": [{"item_id": f"p{(k + k // SHOPPERS) % ITEMS}"}],
            }
        )
        for k in range(SHOPPERS * EACH)
    ]


def app_views() -> list[bytes]:
    """The same people in the app, as Segment tells of them."""
    return [
        orjson.dumps(
            {
                "type": "track",
                "event": "Product Viewed",
                "userId": f"shopper-{k % SHOPPERS}",
                "messageId": f"m-{k}",
                "timestamp": f"2026-01-05T0{9 + k // 3600}:{k // 60 % 60:02}:{k % 60:02}Z"[:20],
                "properties": {"product_id": f"p{(k + k // SHOPPERS) % ITEMS}"},
            }
        )
        for k in range(SHOPPERS * EACH)
    ]


def places(clicks: Sequence[StoredRecord]) -> Counter[str]:
    """How often the clickstream has each record of the sources."""
    return Counter(dict(record.headers)[ORIGIN_HEADER].decode() for record in clicks)


async def test_two_vendors_topics_become_lists_of_the_same_customers_across_a_crash(
    copied: Copied,
) -> None:
    shop = copied.shop
    web = [*page_views(), *NOBODYS, b'{"event_timestamp":1,"event_name":"page_view"}']
    app, half = app_views(), len(web) // 2
    golden = (GOLDEN / "ga4_export.jsonl").read_bytes().splitlines()
    first = shop.worker()
    await copied.send(copied.web, web[:half])
    await copied.send(copied.app, app[:half])

    async def some() -> bool:
        return (await copied.accounts())["applied"] > 0

    await shop.until(some)
    first.send_signal(signal.SIGKILL)
    await copied.send(copied.web, [*web[half:], *golden])
    await copied.send(copied.app, app[half:])
    shop.worker()
    total = len(web) + len(app) + len(golden)

    async def all_of_it() -> bool:
        return (await copied.accounts())["cursor"] == total

    await shop.until(all_of_it)
    await shop.until(shop.applied)
    done = await copied.accounts()
    clicks = await copied.clicks()
    assert len(places(clicks)) == done["applied"]  # nothing is lost
    assert done["dead_lettered"] == len(NOBODYS)
    assert done["applied"] + done["rejected"] + done["dead_lettered"] == total
    for record in clicks:
        partitions = shop.settings.clickstream_partitions
        assert partition_of(record.key, partitions) == record.partition
        topic = dict(record.headers)[ORIGIN_HEADER].decode().partition("/")[0]
        format_ = {copied.web: b"ga4", copied.app: b"segment"}[topic]
        assert dict(record.headers)[FORMAT_HEADER] == format_
    assert {record.value for record in clicks} >= {*app, *page_views()}
    assert await shop.accounts(USERS, "dead_lettered") == 0
    names = {f"shopper-{k}" for k in range(SHOPPERS)} | {"anna"}
    await shop.until(lambda: copied.listed(names), shows=names)
    await letters_tell_why(copied)
    await the_state_is_that_of_the_clickstream(shop)
    await what_is_copied_is_committed(copied)


async def letters_tell_why(copied: Copied) -> None:
    """Dead letters of a source have its place, and come back by ``dlq replay``."""
    shop = copied.shop
    topic, brokers = shop.settings.dead_letter_topic, [shop.settings.bootstrap]
    letters = {}
    async for record in consume(topic, brokers=brokers):
        said = {name: value.decode() for name, value in record.headers}
        assert said["topic"] == copied.web
        letters[record.value] = said["reason"]
    assert letters == dict(zip(NOBODYS, ("missing_customer", "malformed_json"), strict=True))
    before = (await copied.accounts())["cursor"]
    code, out, err = await shop.run("dlq", "replay", "--reason", "missing_customer")
    assert code == 0, out + err

    async def again() -> bool:
        done = await copied.accounts()
        return done["cursor"] > before and done["dead_lettered"] == len(NOBODYS) + 1

    await shop.until(again)


async def the_state_is_that_of_the_clickstream(shop: Shopfront) -> None:
    """Also where a record was copied twice: ``verify`` reads the same ids from the headers."""
    verdict: dict[str, Any] = {}

    async def verified() -> bool:
        _code, out, err = await shop.run("verify")
        verdict.update(orjson.loads(out.strip().splitlines()[-1]), text=out + err)
        return bool(verdict["passed"])

    await shop.until(verified, shows=verdict)
    assert (verdict["lost"], verdict["doubled"], verdict["divergent_customers"]) == (0, 0, 0)


async def what_is_copied_is_committed(copied: Copied) -> None:
    """A new generation of state, or an empty store, begins where the group was."""
    shop, topic = copied.shop, copied.app

    async def committed() -> bool:
        asked = (
            committed_offset(shop.settings.app_id, topic, p, brokers=[shop.settings.bootstrap])
            for p in range(APP)
        )
        offsets = await asyncio.gather(*asked)
        return sum(offset or 0 for offset in offsets) == SHOPPERS * EACH

    await shop.until(committed)
    before = places(await copied.clicks())
    code, out, err = await shop.run("recompute")
    assert code == 0, out + err
    await copied.send(topic, [app_views()[0].replace(b"shopper-0", b"after")])
    await shop.until(lambda: copied.listed({"after"}))
    assert (places(await copied.clicks()) - before).total() == 1  # nothing was copied again
    with Redis.from_url(shop.settings.redis_url, protocol=2) as client:
        assert not client.keys("sa1:{copy-*")  # of the old generation
        assert len(client.keys("sa1:g2:{copy-*#cursor")) == WEB + APP


async def test_a_missing_source_topic_stops_the_start_and_is_not_made(
    kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, tmp_path: Path
) -> None:
    missing = unique("nowhere")
    shop = Shopfront(kafka, valkey, unique, tmp_path, STREAM_APP_SOURCE_TOPICS=f"{missing}=own")
    async with shop.opened(topics=False):
        code, out, err = await shop.run("topics")
        assert code == 1
        said = " ".join((out + err).split())
        assert f"STREAM_APP_SOURCE_TOPICS: no topic {missing} is there" in said
        assert "it is not ours to make" in said
        worker = shop.worker()
        assert await asyncio.to_thread(worker.wait, 120) != 0
        with pytest.raises(ConfigurationError, match=missing):
            await check_there([missing], setting="X", brokers=[kafka.bootstrap])


@pytest.mark.parametrize("broker", ["kafka", "tansu"])
async def test_of_what_no_group_has_committed_nothing_is_known(
    broker: str, unique: UniqueName, request: pytest.FixtureRequest
) -> None:
    at: str = request.getfixturevalue(broker).bootstrap
    topic = unique("fresh")
    await create_topic(at, topic)
    await check_there([topic], setting="X", brokers=[at])
    assert await committed_offset(unique("nobody"), topic, 0, brokers=[at]) is None
