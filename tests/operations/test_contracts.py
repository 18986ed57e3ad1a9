"""Contracts are those of the code, valid, and what a running worker publishes keeps to them."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from redis import Redis
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from stream_app.adapters.topics import consume
from stream_app.contracts import CHANNELS, FOLDER, INTERNAL_FIELDS, documents, main, schemas
from stream_app.core.list_kinds import LISTS
from stream_app.settings import Settings, load_settings
from stream_app.wire import Event
from tests.operations.live import LiveShop
from tests.operations.schemas import faults, read
from tests.operations.tools import ASYNCAPI_SPECS, fetched

INTERNAL_TOPICS = {"cooccurrence_topic", "sales_topic"}
SCHEMAS = sorted(schemas(load_settings({})))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])


def test_the_documents_are_those_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--check"]) == 0, "run: python -m stream_app.contracts"
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert set(documents(load_settings({}))) == {f"{name}.json" for name in ("asyncapi", *SCHEMAS)}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(read(name))


def test_the_asyncapi_document_keeps_to_its_specification() -> None:
    specification = json.loads((fetched(ASYNCAPI_SPECS) / "package/schemas/3.0.0.json").read_text())
    validator = jsonschema.Draft7Validator(specification)
    document = read("asyncapi")
    assert [error.message for error in validator.iter_errors(document)] == []
    document["operations"]["receiveEvents"]["action"] = "eat"
    assert not validator.is_valid(document)


def test_references_lead_somewhere() -> None:
    document = read("asyncapi")
    registry: Registry[Any] = Registry().with_resource(
        "asyncapi.json", Resource.from_contents(document, default_specification=DRAFT202012)
    )

    def follow(part: Any) -> int:
        if isinstance(part, list):
            return sum(map(follow, part))
        if not isinstance(part, dict):
            return 0
        if reference := part.get("$ref"):
            if reference.startswith("./"):
                assert (FOLDER / reference).is_file(), reference
            else:
                registry.resolver("asyncapi.json").lookup(reference)
            return 1
        return sum(map(follow, part.values()))

    assert follow(document) >= 3 * len(CHANNELS)


@pytest.mark.parametrize(
    ("event", "fine"),
    [
        ({"event": "view", "ts": 1.7e9, "user_id": "a", "item_id": "b", "colour": "red"}, True),
        ({"event": "view", "ts": 1.7e9, "session_id": 7, "item_id": 8}, True),
        ({"event": "view", "ts": 1.7e9, "item_id": "b"}, False),
        ({"event": "dance", "ts": 1.7e9, "user_id": "a"}, False),
        ({"event": "view", "ts": 17, "user_id": "a"}, False),
        ({"event": "view", "ts": 1.7e9, "user_id": "a", "price": -1}, False),
    ],
)
def test_the_event_schema_knows_good_from_bad(event: dict[str, Any], fine: bool) -> None:
    assert (faults("event", event, closed=False) == []) == fine


def test_the_event_schema_names_every_field_of_the_decoder() -> None:
    assert set(read("event")["properties"]) | set(INTERNAL_FIELDS) == set(Event.__struct_fields__)


def test_every_topic_but_those_between_our_stages_is_a_channel() -> None:
    topics = {name for name in Settings.model_fields if name.endswith("_topic")}
    assert topics - {channel.topic for channel in CHANNELS.values()} == INTERNAL_TOPICS
    sent = {channel.payload for channel in CHANNELS.values()} - {None}
    keys = {"aggregates", "demand", "entries", "profile"}
    assert sent | keys | {"dead-letter-headers"} == set(SCHEMAS)


@pytest.mark.parametrize(
    ("rule", "fine"),
    [
        ({"action": "boost", "match": "brand=Acme", "factor": 2, "starts": "2026-06-01"}, True),
        ({"action": "pin", "items": ["a"], "place": 1, "ends": 1.8e9, "author": "anna"}, True),
        ({"action": "hide", "items": ["a"]}, False),
        ({"action": "pin", "item": ["a"]}, False),
        ({"items": ["a"]}, False),
    ],
)
def test_the_rule_schema_knows_good_from_bad(rule: dict[str, Any], fine: bool) -> None:
    assert (faults("rule", rule, closed=False) == []) == fine


async def test_what_a_worker_publishes_keeps_to_the_contract(live: LiveShop) -> None:
    settings = live.settings
    topics = settings.recommendations_topic, settings.dead_letter_topic
    lists, letters = [
        [record async for record in consume(topic, brokers=[settings.bootstrap])]
        for topic in topics
    ]
    published = [json.loads(record.value) for record in lists if record.value]  # or erased
    for record in published:
        assert faults("recommendations", record) == []
    assert len(published) >= 8
    reasons = set()
    for record in letters:
        headers = {name: value.decode() for name, value in record.headers}
        assert faults("dead-letter-headers", headers) == []
        reasons.add(headers["reason"])
    assert reasons == {"malformed_json", "missing_field", "unknown_event"}
    with Redis.from_url(live.redis_url, protocol=2, decode_responses=True) as client:
        for key in client.scan_iter("profile:*"):
            assert faults("profile", json.loads(client.get(key) or "")) == [], key
        for key in client.scan_iter("demand:*"):
            assert faults("demand", json.loads(client.get(key) or "")) == [], key
        for pattern in ("similar:*", "trending:*"):
            for key in client.scan_iter(pattern):
                assert faults("entries", json.loads(client.get(key) or "")) == [], key
        fields = client.hgetall("rec:c2")
        known = set(read("recommendations")["properties"]) - {"lists", "user_id"}
        assert set(fields) - known <= set(LISTS) and "cart_items" in fields
        assert faults("entries", json.loads(fields["cart"])) == []
