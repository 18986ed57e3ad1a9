"""State is spoilt, rebuilt from the log beside itself, and changed over to under traffic."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from stream_app.embedded import ValkeyServer
from stream_app.ports import Record
from stream_app.simulator import LIVE, Shop
from tests.conftest import UniqueName
from tests.integration.test_worker import Shopfront
from tests.integration.test_worker import shop as opened
from tests.servers import Kafka

BEFORE, DURING, AT_A_TIME = 3_000, 1_500, 100
__all__ = ["opened"]


@pytest.fixture
async def shop(
    kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, tmp_path: Path
) -> AsyncIterator[Shopfront]:
    async for one in opened.__wrapped__(kafka, valkey, unique, tmp_path):  # type: ignore[attr-defined]
        yield one


@pytest.mark.slow
async def test_a_recompute_cures_spoilt_state_while_serving_goes_on(
    shop: Shopfront, valkey: ValkeyServer
) -> None:
    simulated = Shop(seed=9, n_items=200, n_customers=150, rate=20.0, pace=LIVE)
    shop.worker()
    await shop.send([Record(key, value) for key, value in simulated.events(BEFORE)])
    await until_applied(shop)
    with Redis.from_url(valkey.url, protocol=2) as admin:
        spoilt = list(admin.scan_iter(b"sa1:{u?}:????????", count=1_000))[:20]
        assert admin.delete(*spoilt) == len(spoilt) > 0
        page = await a_page(admin)
        recomputed = asyncio.create_task(shop.run("recompute"))
        for _ in range(DURING // AT_A_TIME):
            events = simulated.events(AT_A_TIME)
            await shop.send([Record(key, value) for key, value in events])
            assert admin.hlen(page) > 0, "pages are served all the while"
            await asyncio.sleep(0.3)
        code, out, err = await recomputed
        assert code == 0, out + err
        said = json.loads(out.splitlines()[-1])
        assert (said["old"], said["new"], said["taken_over"]) == (1, 2, True)
        assert said["dropped"] > 100
        await until_applied(shop)
        assert admin.get("sa1:generation") == b"2"
        assert not list(admin.scan_iter(b"sa1:{*"))
        assert list(admin.scan_iter(b"sa1:g2:{*"))
    await asyncio.sleep(1.0)  # item partitions lag behind a little
    code, out, err = await shop.run("verify")
    assert code == 0, out + err


async def a_page(admin: Redis) -> bytes:
    """A customer's lists, which are published a little later than state is stored."""
    deadline = time.monotonic() + 30.0
    while not (keys := admin.keys("rec:*")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    page = keys[0]
    assert isinstance(page, bytes)
    return page


async def until_applied(shop: Shopfront) -> None:
    deadline = time.monotonic() + 90.0

    async def applied() -> bool:
        await shop.store.follow()
        return await shop.applied()

    while not await applied():
        assert time.monotonic() < deadline, [log.read_text()[-3_000:] for log in shop._logs]
        await asyncio.sleep(0.2)
