"""Records of the ``catalog`` topic (JSON, key ``item_id``) to items of the catalog.

Also rows of catalog files, which are sent to the topic in the same shape. Every record describes
its item completely: compaction keeps the last one only.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import msgspec

from stream_app.core.catalog import CatalogItem
from stream_app.errors import EventRejected

CATALOG_REASONS = {
    "no_key": "the record has no key: compaction needs the item_id there",
    "key_mismatch": "item_id is not the record's key",
    "bad_id": "an id is empty, too long, or has control characters",
    "malformed_json": "the record is not JSON in UTF-8",
    "wrong_type": "a field has the wrong type",
    "bad_number": "a number is negative, not finite, or out of range",
    "bad_embedding": "an embedding has another dimension than the first one",
    "no_room": "the catalog has STREAM_APP_ITEMS_MAX items",
}
NUMBER_MAX = 1e12
Scalar = str | int | float | bool | None


class ItemRecord(msgspec.Struct):
    """One item on the wire. Unknown fields are ignored, absent ones are unknown."""

    item_id: str | int | None = None
    title: str | None = None
    category: str | list[str] | None = None  # a path: "Men/Shoes", "Men > Shoes" or a list
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    tags: str | list[str] | None = None
    attributes: dict[str, Scalar | list[Scalar]] | None = None
    available: bool | None = None
    hidden: bool | None = None
    stock: float | None = None
    margin: float | None = None
    embedding: list[float] | None = None
    added_at: float | datetime | None = None  # unix seconds or RFC 3339
    deleted: bool | None = None  # as good as a record without a value


_decode = msgspec.json.Decoder(ItemRecord).decode


def key_text(key: bytes | None, *, chars_max: int) -> str:
    """The id in a record's key; raises :class:`~stream_app.errors.EventRejected`."""
    if key is None:
        raise EventRejected("no_key", CATALOG_REASONS["no_key"])
    try:
        text = key.decode()
    except UnicodeDecodeError as exc:
        raise EventRejected("bad_id", str(exc)) from exc
    if not 0 < len(text) <= chars_max or not text.isprintable():
        raise EventRejected("bad_id", repr(text[:50]))
    return text


class Keyed(Protocol):
    """A record of a compacted topic; it may delete what its key names."""

    @property
    def deleted(self) -> bool | None: ...


KeyedRecord = TypeVar("KeyedRecord", bound=Keyed)


def decode_keyed(
    decode: Callable[[bytes], KeyedRecord],
    field: str,
    key: bytes | None,
    value: bytes | None,
    *,
    chars_max: int,
) -> tuple[str, KeyedRecord | None]:
    """The id in the key, which ``field`` must repeat if it is there, and the record.

    ``None`` for a record that deletes. Raises :class:`~stream_app.errors.EventRejected`.
    """
    name = key_text(key, chars_max=chars_max)
    if not value:
        return name, None
    try:
        record = decode(value)
    except msgspec.ValidationError as exc:
        raise EventRejected("wrong_type", str(exc)[:200]) from exc
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise EventRejected("malformed_json", str(exc)[:200]) from exc
    said = getattr(record, field)
    if said is not None and str(said) != name:
        raise EventRejected("key_mismatch", f"key {name!r}, {field} {said!r}")
    return name, None if record.deleted else record


def decode_item(
    key: bytes | None, value: bytes | None, *, ts: float, chars_max: int
) -> tuple[str, CatalogItem | None]:
    """Id and item of a record, ``None`` for one that deletes; ``ts`` is when it was said.

    Raises :class:`~stream_app.errors.EventRejected` with one of :data:`CATALOG_REASONS`.

    >>> _, item = decode_item(b"7", b'{"category":"Men > Shoes","stock":2}', ts=0.0, chars_max=9)
    >>> item.category, item.stock, decode_item(b"7", None, ts=0.0, chars_max=9)
    (('Men', 'Shoes'), 2.0, ('7', None))
    """
    item_id, record = decode_keyed(_decode, "item_id", key, value, chars_max=chars_max)
    return item_id, None if record is None else item_of(item_id, record, ts)


def item_of(item_id: str, record: ItemRecord, ts: float) -> CatalogItem:
    """The item that ``record`` describes; raises ``EventRejected`` for a number that is none."""
    for name in ("price", "stock", "margin"):
        number = getattr(record, name)
        # A margin may be a loss.
        if number is not None and not (-NUMBER_MAX * (name == "margin") <= number <= NUMBER_MAX):
            raise EventRejected("bad_number", f"{name}={number!r}")
    return CatalogItem(
        item_id,
        title=record.title or "",
        category=category_path(record.category),
        brand=(record.brand or "").strip(),
        price=record.price,
        currency=record.currency or "",
        tags=texts(record.tags, ","),
        attributes=attribute_texts(record.attributes or {}),
        available=record.available is not False,
        hidden=bool(record.hidden),
        stock=record.stock,
        margin=record.margin,
        embedding=None if record.embedding is None else tuple(record.embedding),
        added_ts=unix_seconds(record.added_at),
        ts=ts,
    )


def category_path(value: str | list[str] | None) -> tuple[str, ...]:
    """The parts of a category path, however it is written.

    >>> category_path("Home > Kitchen"), category_path("Home/Kitchen"), category_path(["A/B", "C"])
    (('Home', 'Kitchen'), ('Home', 'Kitchen'), ('A/B', 'C'))
    """
    if isinstance(value, str):
        return texts(value, ">" if ">" in value else "/")
    return texts(value, ",")


def texts(value: str | list[str] | None, separator: str) -> tuple[str, ...]:
    """The parts of a list or of a separated text, without empty ones."""
    parts = value.split(separator) if isinstance(value, str) else value or []
    return tuple(part.strip() for part in parts if part.strip())


def attribute_texts(
    values: Mapping[str, Scalar | list[Scalar]],
) -> dict[str, str | tuple[str, ...]]:
    """Attribute values as texts.

    >>> attribute_texts({"size": [41, 42.5], "vegan": True, "gone": None})
    {'size': ('41', '42.5'), 'vegan': 'true'}
    """
    found: dict[str, str | tuple[str, ...]] = {}
    for name, value in values.items():
        if isinstance(value, list):
            found[name] = tuple(_text(part) for part in value if part is not None)
        elif value is not None:
            found[name] = _text(value)
    return found


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def unix_seconds(value: float | datetime | None) -> float | None:
    """Unix seconds of a point in time; one without a zone is UTC.

    >>> unix_seconds(datetime(2001, 9, 9, 1, 46, 40)), unix_seconds(5.0), unix_seconds(None)
    (1000000000.0, 5.0, None)
    """
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return value


_ITEM_NUMBERS = ("price", "stock", "margin", "added_at")
_FLAGS = ("available", "hidden", "deleted")
_ITEM_FIELDS = frozenset(ItemRecord.__struct_fields__)
_USER_FIELDS = frozenset("user_id region channel language tags attributes consent deleted".split())
_TRUTH = {
    **dict.fromkeys(("true", "yes", "y", "1", "in stock", "in_stock"), True),
    **dict.fromkeys(("false", "no", "n", "0", "out of stock", "out_of_stock"), False),
}


def item_fields(row: dict[str, object]) -> dict[str, object]:
    """A row of a catalog file in the shape of a record; unknown columns become attributes.

    >>> row = {"item_id": "7", "price": "9.5", "available": "no", "colour": "red"}
    >>> item_fields(row) == {
    ...     "item_id": "7", "price": 9.5, "available": False, "attributes": {"colour": "red"}
    ... }
    True
    """
    fields: dict[str, object] = {}
    for name, value in row.items():
        if name in _ITEM_NUMBERS:
            fields[name] = _number(value)
        elif name in _FLAGS:
            fields[name] = _truth(value)
        elif name == "embedding" and isinstance(value, str):
            fields[name] = [_number(part) for part in value.strip("[]").replace(",", " ").split()]
        elif name in _ITEM_FIELDS:
            fields[name] = value
    return _with_attributes(fields, row, _ITEM_FIELDS)


def user_fields(row: dict[str, object]) -> dict[str, object]:
    """A row of a customer file in the shape of a record; ``consent_email`` is a consent.

    >>> user_fields({"user_id": 7, "consent_email": "no", "tier": "gold"})
    {'user_id': 7, 'consent': {'email': False}, 'attributes': {'tier': 'gold'}}
    """
    fields: dict[str, object] = {k: v for k, v in row.items() if k in _USER_FIELDS}
    consent = {
        name.removeprefix("consent_"): _truth(value)
        for name, value in row.items()
        if name.startswith("consent_")
    }
    if consent:
        fields["consent"] = consent
    known = _USER_FIELDS | {name for name in row if name.startswith("consent_")}
    return _with_attributes(fields, row, known)


def _with_attributes(
    fields: dict[str, object], row: dict[str, object], known: frozenset[str]
) -> dict[str, object]:
    others = {k: v for k, v in row.items() if k not in known and not isinstance(v, dict)}
    given = row.get("attributes")
    if others:
        fields["attributes"] = {**others, **(given if isinstance(given, dict) else {})}
    return fields


def _number(value: object) -> object:
    """A text as number; what is none stays, and is refused with its line."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _truth(value: object) -> object:
    return _TRUTH.get(value.strip().lower(), value) if isinstance(value, str) else value
