"""Erasure and consent on both stores: what is gone stays gone, what is denied is not done."""

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
from redis import Redis

from stream_app.adapters.memory import MemoryLog
from stream_app.composition import Stages, compose
from stream_app.core.audience import ANALYSE, EMAIL, PERSONALISE, Customer
from stream_app.core.catalog import CatalogItem
from stream_app.core.support import SupportModel
from stream_app.embedded import ValkeyServer
from stream_app.hashing import stable_hash
from stream_app.ports import ACCOUNTS_ID, USERS, RawBatch, StateStore
from stream_app.reader import Affinity, PriceAffinity, Profile, decode_profile
from stream_app.settings import Settings
from stream_app.support_files import read_rules
from stream_app.support_knowledge import KnowledgeBase
from stream_app.supporting import Judge, Support
from stream_app.suppression import erasure_record
from tests.contract.stores import Stores, opened

SETTINGS = Settings.model_validate({"clickstream_partitions": 1, "cooccurrence_partitions": 1})
NOW = 1_700_000_000.0


def event(kind: str, ts: float, item: str | None = "mug", user: str = "ada-lovelace") -> bytes:
    return orjson.dumps({"event": kind, "user_id": user, "item_id": item, "ts": NOW + ts})


class Shop:
    """A worker with its adapters; the log of one partition."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.log = MemoryLog()
        self.state: StateStore = stores.state
        self.offset = 0
        self.stages = self.worker()

    def worker(self) -> Stages:
        return compose(
            SETTINGS,
            store=self.state,
            public=self.stores.public,
            log=self.log,
            clock=lambda: NOW,
        )

    async def open(self) -> None:
        await self.stages.learn.assign(0)
        await self.stages.relate.assign(0)

    async def learn(self, values: Sequence[bytes]) -> None:
        first, n = self.offset, len(values)
        self.offset += n
        await self.stages.learn.process(
            RawBatch(
                SETTINGS.clickstream_topic, 0, first + n, range(first, first + n),
                [None] * n, values, [-1] * n, [()] * n,
            )
        )  # fmt: skip

    async def accounts(self) -> dict[str, int]:
        (blob,) = await self.state.load(USERS, [0], [ACCOUNTS_ID])
        found: dict[str, int] = orjson.loads(blob or b"{}")
        return found

    async def home(self, user: str = "ada-lovelace") -> list[dict[str, object]] | None:
        record = await self.stores.public.get(f"rec:{user}")
        if not isinstance(record, dict):
            return None
        found: list[dict[str, object]] = orjson.loads(record[b"home"])
        return found


@pytest.fixture(params=["memory", "valkey"])
async def shop(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Shop]:
    async with opened(request.param, valkey.url) as found:
        shop = Shop(found)
        await shop.open()
        yield shop


PAST = [event("view", 1), event("view", 2, "cup"), event("purchase", 3, "cup")]


async def test_after_an_erasure_the_public_keys_are_gone_and_the_topic_has_a_tombstone(
    shop: Shop,
) -> None:
    await shop.learn(PAST)
    shop.log.drain(SETTINGS.recommendations_topic, 0)
    await shop.learn([event("erase", 10, None)])
    assert await shop.home() is None
    assert await shop.stores.public.get("profile:ada-lovelace") is None
    said = shop.log.drain(SETTINGS.recommendations_topic, 0)
    assert (said.keys[-1], said.values[-1]) == (b"ada-lovelace", None)


async def asked(shop: Shop) -> None:
    """The customer has written to customer service, by id and by name."""
    model = SupportModel.fit(["my parcel", "my money"] * 2, ["track_order", "get_refund"] * 2)
    judge = Judge(model, read_rules(None, ()), KnowledgeBase(SETTINGS), lambda _: 0.0)
    stage = Support(SETTINGS, shop.state, shop.stores.public, shop.log, judge)
    await stage.assign(0)
    text = "where is my parcel? Ada Lovelace, ada-lovelace"
    message = {"message_id": "ada-lovelace-1", "user_id": "ada-lovelace", "text": text}
    await stage.process(
        RawBatch(
            SETTINGS.support_topic, 0, 1, [0], [b"ada-lovelace"], [orjson.dumps(message)],
            [-1], [()],
        )
    )  # fmt: skip
    (answer,) = shop.log.drain(SETTINGS.support_assist_topic, 0).values
    told = orjson.loads(answer or b"")
    assert (told["user_id"], told["journey"]["step"]) == ("ada-lovelace", "post_purchase")


async def test_no_byte_of_the_id_is_left_in_the_server(valkey: ValkeyServer) -> None:
    async with opened("valkey", valkey.url) as found:
        shop = Shop(found)
        await shop.open()
        await shop.learn([*PAST, event("view", 4, user="bob"), event("view", 5, user="bob")])
        await asked(shop)
        await shop.learn([event("erase", 10, None)])
        key = stable_hash("ada-lovelace").to_bytes(8, "little")
        with Redis.from_url(valkey.url, protocol=2) as client:
            for name in client.scan_iter():
                kept = name + (client.dump(name) or b"")
                assert b"lovelace" not in kept, name
                assert key not in kept, name


async def test_events_from_before_an_erasure_are_refused_wherever_they_stand_in_the_log(
    shop: Shop,
) -> None:
    await shop.learn([*PAST, event("erase", 10, None), event("view", 9)])
    await shop.learn([event("view", 8), event("view", 7)])
    assert await shop.home() is None
    accounts = await shop.accounts()
    assert (accounts["applied"], accounts["rejected"]) == (4, 3)


async def test_a_replay_of_the_log_does_not_bring_an_erased_customer_back(shop: Shop) -> None:
    await shop.learn([*PAST, event("erase", 10, None)])
    told = shop.log.drain(SETTINGS.erasures_topic, 0)
    assert b"ada" not in (told.keys[0] or b"") + (told.values[0] or b"")
    async with opened("memory", "") as found:
        rebuilt = Shop(found)
        assert not rebuilt.stages.learn.admission.suppression.apply(told)
        await rebuilt.open()
        await rebuilt.learn(PAST)
        assert await rebuilt.home() is None
        assert (await rebuilt.accounts())["rejected"] == len(PAST)


async def test_who_comes_back_after_an_erasure_starts_anew(shop: Shop) -> None:
    await shop.learn([*PAST, event("erase", 10, None), event("view", 11, "pen")])
    assert await shop.home() is not None
    profile = await shop.stores.public.get("profile:ada-lovelace")
    assert isinstance(profile, bytes)
    assert b"cup" not in profile


async def test_a_successor_refuses_what_its_predecessor_would(shop: Shop) -> None:
    """Also one that died before the erasure was published: the outbox tells."""
    await shop.learn([*PAST, event("erase", 10, None)])
    shop.stages = shop.worker()
    shop.stages.learn.admission.suppression.apply(shop.log.drain(SETTINGS.erasures_topic, 0))
    await shop.open()
    await shop.learn([event("view", 9)])
    assert await shop.home() is None


async def test_who_denied_analytics_leaves_no_trace_but_a_count(shop: Shop) -> None:
    shop.stages.audience.upsert([Customer("ada-lovelace", consent=PERSONALISE | EMAIL)])
    await shop.learn(PAST)
    assert await shop.home() is None
    assert (await shop.accounts())["rejected"] == 3
    assert not shop.log.drain(SETTINGS.cooccurrence_topic, 0).values


async def test_who_denied_personalisation_gets_what_is_popular(shop: Shop) -> None:
    await shop.learn([event("view", 1, "tea", "bob"), event("view", 2, "pot", "bob")])
    await shop.stages.relate.process(shop.log.drain(SETTINGS.cooccurrence_topic, 0))
    shop.stages.audience.upsert([Customer("ada-lovelace", consent=ANALYSE)])
    await shop.learn([event("view", 3, "tea")])
    listed = await shop.home()
    assert listed
    assert {str(entry["reason"]["source"]) for entry in listed} == {"popularity"}  # type: ignore[index]


async def test_a_profile_tells_likings_until_they_are_denied_or_the_customer_is_erased(
    shop: Shop,
) -> None:
    async def profile() -> Profile:
        found = await shop.stores.public.get("profile:ada-lovelace")
        assert isinstance(found, bytes)
        return decode_profile(found)

    mug = CatalogItem("mug", category=("Kitchen", "Mugs"), brand="Acme", price=9.5)
    shop.stages.catalog.upsert([mug, CatalogItem("cup", brand="Bolt")])
    shop.stages.audience.upsert([Customer("ada-lovelace", described=b'"tags":["vip"]')])
    await shop.learn(PAST)
    found = await profile()
    assert found.category_affinities == [Affinity("Kitchen/Mugs", 1.0)]
    assert [liked.name for liked in found.brand_affinities] == ["Bolt", "Acme"]
    assert found.price_affinity == PriceAffinity(9.5, 0.5, "middle")
    assert (found.tags, found.last_purchase) == (["vip"], NOW + 3)
    shop.stages.audience.upsert([Customer("ada-lovelace", consent=ANALYSE)])
    await shop.learn([event("purchase", 4)])
    found = await profile()
    assert (found.purchases, found.tags) == (2, [])
    assert (found.category_affinities, found.brand_affinities) == ([], [])
    assert found.price_affinity is None
    await shop.learn([event("erase", 10, None)])
    assert await shop.stores.public.get("profile:ada-lovelace") is None


def test_a_suppression_record_is_refused_unless_it_is_one() -> None:
    stages = compose(SETTINGS, store=None, public=None, log=None, clock=lambda: NOW)  # type: ignore[arg-type]
    good = erasure_record(7, 5.0)
    values = [good.value, b"{", b"{}"]
    batch = RawBatch("erasures", 0, 4, range(4), [good.key, b"7", b"zz", b"7"],
                     [*values, None], [-1] * 4, [()] * 4)  # fmt: skip
    suppression = stages.learn.admission.suppression
    assert [reject.reason for reject in suppression.apply(batch)] == ["malformed", "bad_id"]
    assert len(suppression) == 0  # the last one is a tombstone: the shop takes it back
