"""Customers go by pseudonyms: no byte of an id is kept or sent, and all the rest works."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis

from stream_app.adapters.memory import MemoryLog
from stream_app.adapters.partitioning import partition_of
from stream_app.composition import Stages, compose
from stream_app.embedded import ValkeyServer
from stream_app.errors import ConfigurationError
from stream_app.hashing import customer_id, stable_hash
from stream_app.ports import RawBatch, Record
from stream_app.pseudonyms import Pseudonyms, load_pseudonyms
from stream_app.reader import Reader
from stream_app.settings import Settings
from tests.contract.stores import Stores, opened

NOW, PARTITIONS = 1_700_000_000.0, 4
OLD, NEW = "0123456789abcdef" * 2, "fedcba9876543210" * 2
ADA, GUEST = "ada-lovelace", "guest-session-77"


def event(kind: str, ts: float, item: str | None = "mug", **who: str) -> dict[str, Any]:
    return {"event": kind, "item_id": item, "ts": NOW + ts} | (who or {"user_id": ADA})


class Shop:
    """Workers over one log and one pair of stores; each has the keys that it was started with."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        self.stores = stores
        self.log = MemoryLog()
        self.sent: dict[str, list[Record]] = defaultdict(list)  # by topic, all that was drained
        self._folder = folder
        self._started = 0

    def start(self, *keys: str) -> Stages:
        """A worker whose key file has these keys."""
        self._started += 1
        path = self._folder / f"keys-{self._started}"
        path.write_text("\n".join(keys))
        self.settings = Settings.model_validate(
            {
                "clickstream_partitions": PARTITIONS,
                "cooccurrence_partitions": PARTITIONS,
                "pseudonym_key_file": path if keys else None,
            }
        )
        self.stages = compose(
            self.settings,
            store=self.stores.state,
            public=self.stores.public,
            log=self.log,
            clock=lambda: NOW,
        )
        return self.stages

    async def claim(self) -> None:
        for p in range(PARTITIONS):
            await self.stages.learn.assign(p)
            await self.stages.relate.assign(p)
            await self.stages.stock.assign(p)

    async def happens(self, *events: dict[str, Any] | bytes) -> None:
        """Events come in, keyed by the ids that producers know, and all that follows is done."""
        for said in events:
            key = said if isinstance(said, bytes) else said.get("user_id", said.get("session_id"))
            raw = str(key).encode() if isinstance(said, dict) else ADA.encode()
            value = said if isinstance(said, bytes) else orjson.dumps(said)
            p = partition_of(raw, PARTITIONS)
            await self.log.send(self.settings.clickstream_topic, p, [Record(raw, value)])
        while await self._round():
            pass

    async def _round(self) -> bool:
        settings, stages = self.settings, self.stages
        busy = False
        for topic, stage in (
            (settings.clickstream_topic, stages.learn),
            (settings.cooccurrence_topic, stages.relate),
            (settings.sales_topic, stages.stock),
        ):
            for p in range(PARTITIONS):
                batch = self._drained(topic, p)
                if len(batch):
                    busy = True
                    await stage.process(batch)
        for topic in (
            settings.recommendations_topic,
            settings.dead_letter_topic,
            settings.erasures_topic,
            settings.inventory_topic,
        ):
            for p in range(PARTITIONS):
                self._drained(topic, p)
        return busy

    def _drained(self, topic: str, partition: int) -> RawBatch:
        batch = self.log.drain(topic, partition)
        self.sent[topic] += [
            Record(k, v, h) for k, v, h in zip(batch.keys, batch.values, batch.headers, strict=True)
        ]
        return batch

    def ours(self) -> Iterable[bytes]:
        """Every byte that workers have sent; not the events as they came in."""
        for topic, records in self.sent.items():
            for record in records:
                said = _json(record.value)
                internal = isinstance(said, dict) and "sa_data" in said
                if topic == self.settings.clickstream_topic and not internal:
                    continue
                yield b"".join(
                    (
                        record.key or b"",
                        record.value or b"",
                        *(value for _, value in record.headers),
                    )
                )


def _json(value: bytes | None) -> Any:
    try:
        return orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None


@pytest.fixture(params=["memory", "valkey"])
async def shop(
    request: pytest.FixtureRequest, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[Shop]:
    async with opened(request.param, valkey.url) as found:
        yield Shop(found, tmp_path)


def name(key: str, user: str = ADA) -> str:
    return Pseudonyms([key.encode()]).of(user, anonymous=False)


def guest(key: str) -> str:
    return "~" + Pseudonyms([key.encode()]).of(GUEST, anonymous=True)


async def profile(shop: Shop, called: str) -> dict[str, Any]:
    found = await shop.stores.public.get(f"profile:{called}")
    return orjson.loads(found) if isinstance(found, bytes) else {}


PAST = [event("view", 1), event("view", 2, "cup"), event("purchase", 3, "cup")]


async def test_no_byte_of_an_id_is_kept_in_redis_or_sent_to_a_topic(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    async with opened("valkey", valkey.url) as found:
        shop = Shop(found, tmp_path)
        shop.start(OLD)
        await shop.claim()
        await shop.happens(
            event("view", 0, session_id=GUEST), event("view", 0, "cup", session_id=GUEST)
        )
        login = event("view", 1, user_id=ADA, session_id=GUEST)
        bad = orjson.dumps({"event": "dance", "user_id": ADA, "ts": NOW, "session_id": GUEST})
        await shop.happens(
            *PAST, login, b'{"user_id":"ada-lovelace"', bad, event("search", 5, None)
        )
        key = stable_hash(ADA).to_bytes(8, "little"), stable_hash(GUEST, 1).to_bytes(8, "little")
        ids = (ADA.encode(), GUEST.encode(), b"lovelace", *key)
        with Redis.from_url(valkey.url, protocol=2) as client:
            kept = [one + (client.dump(one) or b"") for one in client.scan_iter()]
            # A storefront asks by the ids that it knows.
            reader = Reader(client, pseudonyms=Pseudonyms([OLD.encode()]))
            assert reader.recommend(ADA).origin == "customer"
            assert reader.customer(ADA) is not None
            assert reader.profile(ADA) is not None
            assert Reader(client).customer(ADA) is None
        sent = list(shop.ours())
        assert len(kept) > 10 and len(sent) > 10
        assert [one for one in (*kept, *sent) if any(id_ in one for id_ in ids)] == []
        # Not even the dead letters: they say where the records are.
        letters = shop.sent[shop.settings.dead_letter_topic]
        said = [dict(letter.headers) for letter in letters]
        assert [one["reason"] for one in said] == [b"malformed_json", b"unknown_event"]
        assert all({"topic", "partition", "offset"} <= one.keys() for one in said)


async def test_a_session_becomes_part_of_the_customer_across_partitions(shop: Shop) -> None:
    assert partition_of(ADA.encode(), PARTITIONS) != partition_of(GUEST.encode(), PARTITIONS)
    shop.start(OLD)
    await shop.claim()
    await shop.happens(*(event("view", k, f"m{k}", session_id=GUEST) for k in range(5)))
    assert await shop.stores.public.get(f"rec:{guest(OLD)}") is not None
    await shop.happens(event("view", 10, "cup", user_id=ADA, session_id=GUEST))
    assert await shop.stores.public.get(f"rec:{guest(OLD)}") is None
    await shop.happens(event("purchase", 11, "cup"))
    assert (await profile(shop, name(OLD)))["events"] == 7


async def test_after_a_change_of_keys_a_customer_keeps_their_history_under_the_new_name(
    shop: Shop,
) -> None:
    shop.start(OLD)
    await shop.claim()
    await shop.happens(*PAST)
    shop.start(NEW, OLD)
    await shop.claim()
    await shop.happens(event("purchase", 10, "pen"))
    assert (await profile(shop, name(NEW)))["purchases"] == 2
    assert await shop.stores.public.get(f"rec:{name(NEW)}") is not None
    for kind in ("rec", "profile"):
        assert await shop.stores.public.get(f"{kind}:{name(OLD)}") is None
    tombstones = [r.key for r in shop.sent[shop.settings.recommendations_topic] if r.value is None]
    assert name(OLD).encode() in tombstones
    # Also for the owner after this one, and once only.
    shop.start(NEW, OLD)
    await shop.claim()
    await shop.happens(event("purchase", 11, "pen"))
    assert (await profile(shop, name(NEW)))["purchases"] == 3


async def test_an_erasure_holds_under_both_keys_also_against_a_replay(shop: Shop) -> None:
    shop.start(OLD)
    await shop.claim()
    await shop.happens(*PAST)
    shop.start(NEW, OLD)
    await shop.claim()
    await shop.happens(event("erase", 20, None))
    for key in (OLD, NEW):
        assert await shop.stores.public.get(f"rec:{name(key)}") is None
        assert await shop.stores.public.get(f"profile:{name(key)}") is None
    erased = shop.sent[shop.settings.erasures_topic]
    hashes = {f"{customer_id(name(key)):016x}".encode() for key in (OLD, NEW)}
    assert {record.key for record in erased} == hashes
    # Erased while the old key was in use; the log is read again under the new one.
    async with opened("memory", "") as found:
        for keys, known in (((NEW, OLD), OLD), ((NEW,), NEW)):
            again = Shop(found, shop._folder)
            stages = again.start(*keys)
            stages.learn.admission.suppression.add(customer_id(name(known)), NOW + 20)
            await again.claim()
            await again.happens(*PAST)
            assert await again.stores.public.get(f"rec:{name(NEW)}") is None


async def test_consent_that_names_the_customer_by_their_id_counts(shop: Shop) -> None:
    stages = shop.start(OLD)
    await shop.claim()
    record = orjson.dumps({"user_id": ADA, "consent": {"analytics": False}})
    users = RawBatch("users", 0, 1, [0], [ADA.encode()], [record], [-1], [()])
    apply = {follower.topic: follower for follower in stages.followers}
    await apply[shop.settings.users_topic].process(users)
    await shop.happens(*PAST)
    assert await shop.stores.public.get(f"rec:{name(OLD)}") is None


def test_a_pseudonym_can_be_made_in_any_language() -> None:
    digest = hmac.new(OLD.encode(), b"u:ada", hashlib.sha256).digest()[:16]
    expected = urlsafe_b64encode(digest).decode().rstrip("=")
    assert Pseudonyms([OLD.encode()]).of("ada", anonymous=False) == expected
    assert Pseudonyms([OLD.encode()]).of("ada", anonymous=True) != expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "0 keys"),
        (f"{OLD}\n{NEW}\n{OLD[::-1]}", "3 keys"),
        ("too-short", "at least 32"),
        (f"{OLD}\n{OLD}", "different keys"),
    ],
)
def test_a_key_file_that_is_none_stops_the_start(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        load_pseudonyms(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_pseudonyms(tmp_path / "missing")
