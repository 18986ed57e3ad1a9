"""The contracts with other programs, from the code: ``python -m stream_app.contracts [--check]``.

Writes an AsyncAPI 3 document and JSON Schemas (2020-12) of all that is read and published to
``docs/contracts``; with ``--check`` exits 1 when what is there differs.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson

from stream_app.audience import UserRecord
from stream_app.catalog_wire import ItemRecord
from stream_app.core.model import INTERNAL, KINDS
from stream_app.reader import DeadLetter, Entry, Profile, Recommendations
from stream_app.settings import Settings, load_settings
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


def schemas(settings: Settings) -> dict[str, dict[str, Any]]:
    """File name (without ``.json``) → schema."""
    return {
        "event": event_schema(settings),
        "recommendations": _schema(Recommendations, "Recommendations"),
        "entries": _schema(list[Entry], "Items, best first: similar:, trending:, lists of rec:"),
        "profile": _schema(Profile, "Profile"),
        "dead-letter-headers": _schema(DeadLetter, "Headers of a dead letter"),
        "item": _schema(ItemRecord, "An item of the catalog"),
        "user": _schema(UserRecord, "What is known of a customer beforehand"),
    }


def _channel(settings: Settings, topic: str, title: str, message: str) -> dict[str, Any]:
    (spec,) = (spec for spec in topic_specs(settings) if spec.name == topic)
    configs = {
        name: int(value) if value.isdigit() else [value] if name == "cleanup.policy" else value
        for name, value in spec.config.items()
    }
    return {
        "address": topic,
        "title": title,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
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


def asyncapi(settings: Settings) -> dict[str, Any]:
    """The AsyncAPI 3 document, from the application's point of view, with default topic names."""

    def message(title: str, key: str, payload: str | None, **more: Any) -> dict[str, Any]:
        bound = {
            "kafka": {"key": {"type": "string", "description": key}, "bindingVersion": "0.5.0"}
        }
        made: dict[str, Any] = {
            "title": title,
            "contentType": "application/json",
            "bindings": bound,
        }
        if payload:
            made["payload"] = {"$ref": f"./{payload}.json"}
        return made | more

    def operation(action: str, channel: str, text: str) -> dict[str, Any]:
        return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": text}

    letter = message("A record that is no event, as it came", "as it came", None)
    letter |= {"headers": {"$ref": "./dead-letter-headers.json"}, "contentType": "*/*"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "stream_app",
            "version": "1.0.0",
            "description": "Events in, recommendations out. Topic names are the defaults.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "clickstream": _channel(
                settings, settings.clickstream_topic, "What customers do", "event"
            ),
            "catalog": _channel(
                settings, settings.catalog_topic, "Items; compacted, no value: deleted", "item"
            ),
            "users": _channel(
                settings, settings.users_topic, "Customers; compacted, no value: deleted", "user"
            ),
            "recommendations": _channel(
                settings,
                settings.recommendations_topic,
                "Refreshed lists; compacted, drop records whose version is older",
                "recommendations",
            ),
            "deadLetters": _channel(
                settings, settings.dead_letter_topic, "What is no event", "deadLetter"
            ),
        },
        "operations": {
            "receiveEvents": operation("receive", "clickstream", "Learn from an event"),
            "receiveItems": operation("receive", "catalog", "Know, change or withdraw an item"),
            "receiveUsers": operation("receive", "users", "Know a customer beforehand"),
            "sendRecommendations": operation("send", "recommendations", "Publish fresh lists"),
            "sendDeadLetters": operation("send", "deadLetters", "Set aside what is no event"),
        },
        "components": {
            "messages": {
                "event": message("An event", "user_id, else session_id", "event"),
                "item": message("An item, completely", "item_id", "item"),
                "user": message("A customer, completely", "user_id", "user"),
                "recommendations": message(
                    "A customer's lists",
                    "user_id or session_id; no value: erased",
                    "recommendations",
                ),
                "deadLetter": letter,
            }
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
