"""A real worker turns sales into forecasts and alerts, and messages into suggestions.

All of it keeps to docs/contracts, with every field they do not name an error.
"""

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import consume
from stream_app.embedded import ValkeyServer
from stream_app.ports import Record
from stream_app.reader import decode_alert, decode_assist, decode_demand
from tests.conftest import UniqueName
from tests.integration.test_worker import PARTITIONS, Shopfront
from tests.operations.schemas import faults
from tests.servers import Kafka

DAY_S = 86_400
MESSAGES = """text,intent
where is my order,track_order
track my parcel,track_order
when will my package arrive,track_order
i want my money back,get_refund
refund my purchase please,get_refund
return this for a refund,get_refund
"""
RULES = """
[[rule]]
id = "summer"
action = "boost"
match = "brand=Acme"
factor = 1.5
starts = 2026-06-01

[[rule]]
id = "hero"
action = "pin"
items = ["mug"]
"""
ANSWERS = "question,answer\nWhere is my order?,Follow the link in our mail.\n"


@pytest.fixture
async def shop(
    kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, tmp_path: Path
) -> AsyncIterator[Shopfront]:
    """Topics created; customer service has its files."""
    (tmp_path / "messages.csv").write_text(MESSAGES)
    (tmp_path / "answers.csv").write_text(ANSWERS)
    shop = Shopfront(
        kafka,
        valkey,
        unique,
        tmp_path,
        STREAM_APP_SUPPORT_TRAIN_FILE=str(tmp_path / "messages.csv"),
        STREAM_APP_SUPPORT_KNOWLEDGE_FILE=str(tmp_path / "answers.csv"),
        STREAM_APP_REFRESH_S="0.2",
    )
    async with shop.opened():
        yield shop


async def produce(shop: Shopfront, topic: str, key: str, value: Mapping[str, object]) -> None:
    record = Record(key.encode(), orjson.dumps(value))
    await shop.log.send(topic, partition_of(record.key, PARTITIONS), [record])


async def values_of(shop: Shopfront, topic: str) -> list[dict[str, object]]:
    brokers = [shop.settings.bootstrap]
    return [
        orjson.loads(stored.value)
        async for stored in consume(topic, brokers=brokers)
        if stored.value
    ]


async def test_sales_and_messages_of_a_shop_reach_forecasts_alerts_and_suggestions(
    shop: Shopfront,
) -> None:
    today = int(time.time()) // DAY_S
    sales = [
        {"event": "purchase", "user_id": "ada", "item_id": "mug", "quantity": 3, "price": 2.0,
         "ts": (today - 21 + day) * DAY_S + 10.0}
        for day in range(22)
    ]  # fmt: skip
    await shop.send([Record(b"ada", orjson.dumps(sale)) for sale in sales])
    gifts = Record(b"gift", b'{"question":"Do you wrap gifts?","answer":"Yes."}')
    assert faults("support-knowledge", orjson.loads(gifts.value or b"")) == []
    await shop.log.send(shop.settings.support_knowledge_topic, 0, [gifts])
    shop.worker()

    async def forecast() -> object:
        stored = await shop.store.get("demand:mug")
        told = orjson.loads(stored) if isinstance(stored, bytes) else {}
        return told.get("forecast_7d", 0) == pytest.approx(21, abs=0.5)

    await shop.until(forecast)
    stored = await shop.store.get("demand:mug")
    assert isinstance(stored, bytes) and faults("demand", orjson.loads(stored)) == []
    assert sum(decode_demand(stored).daily) == pytest.approx(21, abs=0.5)
    item = {"item_id": "mug", "title": "A mug", "stock": 2}
    await produce(shop, shop.settings.catalog_topic, "mug", item)

    async def alerted() -> object:
        alerts = await values_of(shop, shop.settings.inventory_topic)
        return [(a["item_id"], a["alert"]) for a in alerts] == [("mug", "low_stock")]

    await shop.until(alerted)
    (alert,) = await values_of(shop, shop.settings.inventory_topic)
    assert faults("inventory-alert", alert) == []
    assert decode_alert(orjson.dumps(alert)).suggested_quantity > 0
    asked = {"message_id": "m1", "user_id": "ada", "text": "Were is my oder? Urgent!"}
    assert faults("support-message", asked) == []
    await produce(shop, shop.settings.support_topic, "ada", asked)

    async def answered() -> object:
        return await values_of(shop, shop.settings.support_assist_topic)

    await shop.until(answered)
    (assist,) = await values_of(shop, shop.settings.support_assist_topic)
    assert faults("support-assist", assist) == []
    assert decode_assist(orjson.dumps(assist)).answers[0].answer.startswith("Follow the link")
    assert assist["intent"] == "track_order"
    assert assist["queue"] == "delivery"
    answers: Any = assist["answers"]
    assert [answer["id"] for answer in answers] == ["2"]  # the line of the file
    journey = assist["journey"]
    assert isinstance(journey, dict)
    assert journey["step"] == "post_purchase"
    await suggested(shop, {"gift": "Yes."})
    gifts = Record(b"gift", b'{"question":"Do you wrap gifts?","answer":"Not any more."}')
    await shop.log.send(shop.settings.support_knowledge_topic, 0, [gifts])
    await suggested(shop, {"gift": "Not any more."})


async def suggested(shop: Shopfront, expected: dict[str, str]) -> None:
    """A customer asks for gift wrapping until ``expected`` is what they are told."""

    async def told() -> object:
        asked = {"message_id": "m2", "user_id": "ada", "text": "do you wrap a gift?"}
        await produce(shop, shop.settings.support_topic, "ada", asked)
        values = await values_of(shop, shop.settings.support_assist_topic)
        answers: Any = values[-1]["answers"]
        return {answer["id"]: answer["answer"] for answer in answers} == expected

    await shop.until(told)


async def test_rules_corrections_and_erasures_keep_to_the_contract(
    shop: Shopfront, tmp_path: Path
) -> None:
    shop.worker()
    (tmp_path / "rules.toml").write_text(RULES)
    code, out, err = await shop.run("rules", "put", str(tmp_path / "rules.toml"), "--author", "ann")
    assert code == 0, out + err
    rules = await values_of(shop, shop.settings.rules_topic)
    assert [rule["action"] for rule in rules] == ["boost", "pin"]
    assert [faults("rule", rule) for rule in rules] == [[], []]

    for k in range(30):
        label = {"text": f"do you sell gift cards number {k}", "intent": "gift_cards"}
        assert faults("support-label", label) == []
        await produce(shop, shop.settings.support_labels_topic, f"m{k}", label)
    asked = {"message_id": 9, "session_id": "s1", "text": "do you sell gift cards"}
    assert faults("support-message", asked) == []

    async def learned() -> object:  # a label counts from the next message on
        await produce(shop, shop.settings.support_topic, "s1", asked)
        told = await values_of(shop, shop.settings.support_assist_topic)
        assert [faults("support-assist", assist) for assist in told] == [[]] * len(told)
        return [assist for assist in told if assist["intent"] == "gift_cards"]

    await shop.until(learned)

    code, out, err = await shop.run("erase", "ada")
    assert code == 0, out + err

    async def erased() -> object:
        return await values_of(shop, shop.settings.erasures_topic)

    await shop.until(erased)
    (erasure,) = await values_of(shop, shop.settings.erasures_topic)
    assert faults("erasure", erasure) == []
