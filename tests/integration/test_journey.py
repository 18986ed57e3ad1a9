"""One customer on real Kafka: discovery, login, cart, purchase, return, silence and win-back."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import stream_app
from stream_app.adapters.topics import consume
from stream_app.core.list_kinds import LISTS
from stream_app.embedded import ValkeyServer
from stream_app.ports import Record
from tests.conftest import UniqueName
from tests.integration.test_worker import Shopfront
from tests.servers import Kafka

SHORT = {
    "1 hour": "2 seconds",
    "7 days": "3 seconds",
    "28 days": "6 seconds",
    "30 days": "8 seconds",
}
USER, SESSION = "anna", "s1"


@pytest.fixture
async def shop(
    kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, tmp_path: Path
) -> AsyncIterator[Shopfront]:
    """A worker whose journey takes seconds, not days."""
    text = (Path(stream_app.__file__).parent / "journey.toml").read_text()
    for long, short in SHORT.items():
        text = text.replace(f'"{long}"', f'"{short}"')
    table = tmp_path / "journey.toml"
    table.write_text(text)
    shop = Shopfront(kafka, valkey, unique, tmp_path, STREAM_APP_JOURNEY_FILE=str(table))
    async with shop.opened():
        yield shop


class Customer:
    """What one person does, and what the shop then shows of them."""

    def __init__(self, shop: Shopfront) -> None:
        self.shop = shop
        self.latencies_ms: dict[str, float] = {}

    async def does(self, kind: str, item: str | None, step: str, *, known: bool) -> dict[str, str]:
        """Send an event; wait until the lists show ``step``."""
        now = time.time()
        event = {"event": kind, "session_id": SESSION, "item_id": item, "ts": now}
        event |= {"user_id": USER} if known else {}
        name = USER if known else f"~{SESSION}"
        key = (USER if known else SESSION).encode()
        before = int((await self.shown(name)).get("version", 0))
        await self.shop.send([Record(key, orjson.dumps(event))])

        async def seen() -> bool:
            found = await self.shown(name)
            return found.get("step") == step and int(found["version"]) > before

        await self.shop.until(seen)
        found = await self.shown(name)
        label = f"{kind} ({'known' if known else 'anonymous'}) to {step}"
        self.latencies_ms[label] = 1000.0 * (float(found["generated_at"]) - now)
        return found

    async def waits_for(self, step: str) -> dict[str, str]:
        """Do nothing until the lists show ``step``."""

        async def seen() -> bool:
            return (await self.shown(USER)).get("step") == step

        await self.shop.until(seen)
        return await self.shown(USER)

    async def shown(self, name: str) -> dict[str, str]:
        """The public lists of a customer."""
        found = await self.shop.store.get(f"rec:{name}")
        return {k.decode(): v.decode() for k, v in found.items()} if isinstance(found, dict) else {}


def lists_of(found: dict[str, str]) -> list[str]:
    """Names of the lists in a public hash."""
    return [name for name in LISTS if name in found]


async def published(shop: Shopfront) -> dict[str, list[dict[str, Any] | None]]:
    """What the topic said of each customer; ``None`` is a tombstone."""
    said: dict[str, list[dict[str, Any] | None]] = {}
    topic, brokers = shop.settings.recommendations_topic, [shop.settings.bootstrap]
    async for record in consume(topic, brokers=brokers):
        value = orjson.loads(record.value) if record.value else None
        said.setdefault((record.key or b"").decode(), []).append(value)
    return said


async def timeouts(shop: Shopfront) -> list[tuple[float, float]]:
    """Deadline and time of the time-outs in the clickstream, seconds."""
    found = []
    topic, brokers = shop.settings.clickstream_topic, [shop.settings.bootstrap]
    async for record in consume(topic, brokers=brokers):
        event = orjson.loads(record.value or b"{}")
        if event["event"] == "timeout":
            found.append((float(event["ts"]), record.timestamp_ms / 1000.0))
    return found


async def test_one_customer_from_discovery_to_win_back(
    shop: Shopfront, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.worker()
    anna = Customer(shop)
    await anna.does("search", None, "discover", known=False)
    found = await anna.does("view", "shoe", "browse", known=False)
    assert lists_of(found) == ["home"]
    await anna.does("view", "hat", "browse", known=False)
    found = await anna.does("view", "shoe", "consider", known=False)
    assert lists_of(found) == ["home", "product_similar", "product_complementary"]
    found = await anna.does("add_to_cart", "shoe", "cart", known=False)
    assert lists_of(found) == ["home", "cart", "cart_items"]
    assert [entry["item_id"] for entry in orjson.loads(found["cart_items"])] == ["shoe"]
    # The login: the cart that the session filled is the customer's, whatever they look at.
    await anna.does("view", "scarf", "cart", known=True)
    assert await anna.shown(f"~{SESSION}") == {}

    async def reminded() -> bool:
        return len(await timeouts(shop)) > 0

    await shop.until(reminded)
    left = await anna.shown(USER)
    assert left["step"] == "cart"
    assert orjson.loads(left["next_best_action"])["reason"]
    found = await anna.does("begin_checkout", None, "checkout", known=True)
    assert lists_of(found) == ["cart", "checkout"]
    found = await anna.does("purchase", "shoe", "post_purchase", known=True)
    assert lists_of(found) == ["home", "post_purchase"]
    bought = [entry["item_id"] for entry in orjson.loads(found["post_purchase"])]
    assert "shoe" not in bought
    await anna.does("refund", "shoe", "post_purchase", known=True)
    asleep = await anna.waits_for("dormant")
    assert lists_of(asleep) == ["home", "email"] and orjson.loads(asleep["home"])
    await anna.does("view", "glove", "browse", known=True)
    said = await published(shop)
    assert said[f"~{SESSION}"][-1] is None, "the session's lists are retired"
    steps = [record["step"] for record in said[USER] if record]
    walked = [step for k, step in enumerate(steps) if k == 0 or steps[k - 1] != step]
    assert walked[-5:] == ["cart", "checkout", "post_purchase", "dormant", "browse"]
    versions = [record["version"] for record in said[USER] if record]
    assert versions == sorted(set(versions))
    code, out, err = await shop.run("verify")
    assert code == 0, out + err
    late_ms = [1000.0 * (made - deadline) for deadline, made in await timeouts(shop)]
    with capsys.disabled():
        for label, value in anna.latencies_ms.items():
            print(f"\n{label:<42} published after {value:7.1f} ms", end="")
        print(f"\n{len(late_ms)} time-outs, announced after at most {max(late_ms):.0f} ms")
