"""The contracts with other programs, from the code: ``python -m stream_app.contracts [--check]``.

Writes an AsyncAPI 3 document and JSON Schemas (2020-12) of all that is read and published to
``docs/contracts``; with ``--check`` exits 1 when what is there differs.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from stream_app.audience import UserRecord
from stream_app.catalog_wire import ItemRecord
from stream_app.core.merchandising import ACTIONS
from stream_app.core.model import INTERNAL, KINDS
from stream_app.reader import (
    Aggregates,
    DeadLetter,
    Demand,
    Entry,
    InventoryAlert,
    Profile,
    Recommendations,
    RuleChange,
    SupportAssist,
)
from stream_app.rule_records import RuleRecord
from stream_app.settings import Settings, load_settings
from stream_app.support_knowledge import EntryRecord
from stream_app.supporting import Label, Message
from stream_app.suppression import Erasure
from stream_app.wire import Event
from stream_app.worker import topic_specs

FOLDER = Path("docs/contracts")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
INTERNAL_KINDS = frozenset({"erase", *INTERNAL})  # of our own commands and timers
INTERNAL_FIELDS = ("sa_data",)
_NUMBER = {"type": "number", "minimum": 0, "maximum": 1e9}


def _schema(kind: Any, title: str, **more: Any) -> dict[str, Any]:
    """A schema on its own: the type's own definition at the top, the others beside it."""
    made = msgspec.json.schema(kind, schema_hook=lambda _any: {"description": "anything"})
    definitions: dict[str, Any] = made.pop("$defs", {})
    reference = made.pop("$ref", "").rpartition("/")[2]
    body = definitions.pop(reference) if reference else made
    body["title"] = title
    schema = {"$schema": DIALECT, **body, **more}
    return schema | ({"$defs": definitions} if definitions else {})


def event_schema(settings: Settings) -> dict[str, Any]:
    """What a producer may send: stricter than the decoder's types, as its checks are."""
    schema = _schema(Event, "Event", required=["event", "ts"])
    schema["anyOf"] = [{"required": ["user_id"]}, {"required": ["session_id"]}]
    said = schema["properties"]
    for name in INTERNAL_FIELDS:
        del said[name]
    said["event"] = {"enum": [kind for kind in KINDS if kind not in INTERNAL_KINDS]}
    said["ts"] = {"type": "number", "minimum": 946684800, "description": "unix seconds"}
    ids = {"type": "string", "minLength": 1, "maxLength": settings.id_chars_max}
    for name in ("user_id", "session_id", "item_id", "event_id"):
        said[name] = {"anyOf": [ids, {"type": "integer"}, {"type": "null"}]}
    for name in ("price", "quantity", "rating"):
        said[name] = {"anyOf": [_NUMBER, {"type": "null"}]}
    return schema


def rule_schema() -> dict[str, Any]:
    """A merchandising rule; what an action needs besides is checked by the worker."""
    schema = _schema(RuleRecord, "A merchandising rule")
    schema["properties"]["action"] = {"enum": list(ACTIONS)}
    return schema


def schemas(settings: Settings) -> dict[str, dict[str, Any]]:
    """File name (without ``.json``) → schema."""
    return {
        "event": event_schema(settings),
        "recommendations": _schema(Recommendations, "Recommendations"),
        "entries": _schema(list[Entry], "Items, best first: similar:, trending:, lists of rec:"),
        "profile": _schema(Profile, "Profile"),
        "dead-letter-headers": _schema(DeadLetter, "Headers of a dead letter"),
        "item": _schema(ItemRecord, "An item of the catalog"),
        "demand": _schema(Demand, "What an item will sell: demand:<item_id>"),
        "inventory-alert": _schema(InventoryAlert, "An item's state of stock"),
        "aggregates": _schema(Aggregates, "Counts with noise: aggregates:latest"),
        "support-message": _schema(Message, "A message to customer service"),
        "support-assist": _schema(SupportAssist, "What to know of a message"),
        "support-label": _schema(Label, "What a message was about"),
        "support-knowledge": _schema(EntryRecord, "A question with its answer"),
        "erasure": _schema(Erasure, "When a customer was erased last"),
        "rule": rule_schema(),
        "rule-change": _schema(RuleChange, "A change of a merchandising rule"),
        "user": _schema(UserRecord, "What is known of a customer beforehand"),
    }


class Channel(NamedTuple):
    """A topic as others see it: who sends what, keyed by what. ``topic`` names the setting."""

    topic: str
    title: str
    operations: tuple[tuple[str, str, str], ...]  # action, name, summary
    message: str
    says: str
    key: str
    payload: str | None


CHANNELS = {
    "clickstream": Channel(
        "clickstream_topic",
        "What customers do",
        (("receive", "receiveEvents", "Learn from an event"),),
        "event",
        "An event",
        "user_id, else session_id",
        "event",
    ),
    "catalog": Channel(
        "catalog_topic",
        "Items; compacted, no value: deleted",
        (("receive", "receiveItems", "Know, change or withdraw an item"),),
        "item",
        "An item, completely",
        "item_id",
        "item",
    ),
    "users": Channel(
        "users_topic",
        "Customers; compacted, no value: deleted",
        (("receive", "receiveUsers", "Know a customer beforehand"),),
        "user",
        "A customer, completely",
        "user_id",
        "user",
    ),
    "rules": Channel(
        "rules_topic",
        "Merchandising rules; compacted, no value: dropped",
        (("receive", "receiveRules", "Follow a rule from now on"),),
        "rule",
        "A rule, completely",
        "the rule's id",
        "rule",
    ),
    "rulesAudit": Channel(
        "rules_audit_topic",
        "Changes of merchandising rules",
        (("send", "sendRuleChanges", "Keep who changed a rule"),),
        "ruleChange",
        "What a rule said before and after",
        "the rule's id",
        "rule-change",
    ),
    "recommendations": Channel(
        "recommendations_topic",
        "Refreshed lists; compacted, drop records whose version is older",
        (("send", "sendRecommendations", "Publish fresh lists"),),
        "recommendations",
        "A customer's lists",
        "user_id or session_id; no value: erased",
        "recommendations",
    ),
    "inventoryAlerts": Channel(
        "inventory_topic",
        "Stock that may not last, or is too much",
        (("send", "sendInventoryAlerts", "Say that an item's stock came into another state"),),
        "inventoryAlert",
        "An item's state of stock, with its forecast",
        "item_id",
        "inventory-alert",
    ),
    "support": Channel(
        "support_topic",
        "Messages to customer service",
        (("receive", "receiveMessages", "Judge a message"),),
        "supportMessage",
        "A message",
        "user_id, else session_id",
        "support-message",
    ),
    "supportAssist": Channel(
        "support_assist_topic",
        "Suggestions for who answers a message; drop a message_id that comes again",
        (("send", "sendAssists", "Suggest intent, queue and answers"),),
        "supportAssist",
        "What to know of a message",
        "as the message had it, or the customer's pseudonym",
        "support-assist",
    ),
    "supportLabels": Channel(
        "support_labels_topic",
        "What messages were about, by those who answered them",
        (("receive", "receiveLabels", "Learn an intent"),),
        "supportLabel",
        "A message's intent",
        "any",
        "support-label",
    ),
    "supportKnowledge": Channel(
        "support_knowledge_topic",
        "Questions with their answers; compacted, no value: withdrawn",
        (("receive", "receiveKnowledge", "Suggest an answer from now on"),),
        "supportKnowledge",
        "A question with its answer",
        "the entry's id",
        "support-knowledge",
    ),
    "erasures": Channel(
        "erasures_topic",
        "Who was erased; compacted, no value: may be taken in again",
        (
            ("send", "sendErasures", "Say that a customer was erased"),
            ("receive", "receiveErasures", "Refuse what they did before"),
        ),
        "erasure",
        "When a customer was erased last",
        "64-bit hash of the customer, 16 hexadecimal digits",
        "erasure",
    ),
    "deadLetters": Channel(
        "dead_letter_topic",
        "What could not be taken",
        (("send", "sendDeadLetters", "Set aside what cannot be taken"),),
        "deadLetter",
        "A record as it came",
        "as it came",
        None,
    ),
}


def _channel(channel: Channel, settings: Settings) -> dict[str, Any]:
    topic = getattr(settings, channel.topic)
    (spec,) = (spec for spec in topic_specs(settings) if spec.name == topic)
    configs = {
        name: int(value) if value.isdigit() else [value] if name == "cleanup.policy" else value
        for name, value in spec.config.items()
    }
    return {
        "address": topic,
        "title": channel.title,
        "messages": {channel.message: {"$ref": f"#/components/messages/{channel.message}"}},
        "bindings": {
            "kafka": {
                "topic": topic,
                "partitions": spec.partitions,
                "replicas": spec.replication,
                "topicConfiguration": configs,
                "bindingVersion": "0.5.0",
            }
        },
    }


def _message(channel: Channel) -> dict[str, Any]:
    bound = {
        "kafka": {
            "key": {"type": "string", "description": channel.key},
            "bindingVersion": "0.5.0",
        }
    }
    made = {"title": channel.says, "contentType": "application/json", "bindings": bound}
    if channel.payload is None:
        headers = {"$ref": "./dead-letter-headers.json"}
        return made | {"contentType": "*/*", "headers": headers}
    return made | {"payload": {"$ref": f"./{channel.payload}.json"}}


def asyncapi(settings: Settings) -> dict[str, Any]:
    """The AsyncAPI 3 document, from the application's point of view, with default topic names."""
    # Its topics are there with a file to learn from only, which nothing here reads.
    served = settings.model_copy(update={"support_train_file": Path("messages.csv")})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "stream_app",
            "version": "1.0.0",
            "description": "Events in, recommendations out. Topic names are the defaults.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(channel, served) for name, channel in CHANNELS.items()},
        "operations": {
            name: {
                "action": action,
                "channel": {"$ref": f"#/channels/{at}"},
                "summary": summary,
            }
            for at, channel in CHANNELS.items()
            for action, name, summary in channel.operations
        },
        "components": {
            "messages": {channel.message: _message(channel) for channel in CHANNELS.values()}
        },
    }


def documents(settings: Settings) -> dict[str, bytes]:
    """File name → content of everything in the folder."""
    made = {"asyncapi": asyncapi(settings), **schemas(settings)}
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {
        f"{name}.json": orjson.dumps(document, option=option) for name, document in made.items()
    }


def main(arguments: list[str]) -> int:
    """Write the folder, or with ``--check`` compare it."""
    made = documents(load_settings({}))
    if "--check" not in arguments:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            (FOLDER / name).write_bytes(content)
        return 0
    there = {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
    stale = sorted({n for n in made.keys() | there.keys() if made.get(n) != there.get(n)})
    if stale:
        print(f"docs/contracts is stale ({', '.join(stale)}): run python -m stream_app.contracts")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
