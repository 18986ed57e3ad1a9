"""Values against the schemas of docs/contracts."""

import json
from pathlib import Path
from typing import Any

import jsonschema

from stream_app.contracts import FOLDER

ROOT = Path(__file__).parents[2]


def read(name: str) -> dict[str, Any]:
    """A document of docs/contracts."""
    found: dict[str, Any] = json.loads((ROOT / FOLDER / f"{name}.json").read_text())
    return found


def strict(schema: Any) -> Any:
    """The schema with every object closed: a field that it does not name is an error."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if "properties" in schema:
        closed["additionalProperties"] = False
    return closed


def faults(name: str, value: Any, *, closed: bool = True) -> list[str]:
    """What is wrong with ``value``; ``closed``: a field that the schema does not name is too."""
    schema = strict(read(name)) if closed else read(name)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    return [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(value)]
