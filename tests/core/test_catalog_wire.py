"""Records and files of items and customers: what is understood, and what is refused with why."""

import gzip
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_app.audience import AudienceStage, decode_user
from stream_app.catalog_wire import CATALOG_REASONS, decode_item, item_fields
from stream_app.cataloging import Cataloging
from stream_app.core.audience import ALL_CONSENT, EMAIL, PERSONALISE, Audience, Customer
from stream_app.core.catalog import Catalog, CatalogItem
from stream_app.core.merchandising import Merchandise
from stream_app.errors import EventFileError, EventRejected
from stream_app.hashing import stable_hash
from stream_app.offline.tablefile import rows
from stream_app.ports import RawBatch
from stream_app.settings import load_settings

SETTINGS = load_settings({})


def batch(*records: tuple[bytes | None, object]) -> RawBatch:
    n = len(records)
    values = [
        v if isinstance(v, bytes | None) else orjson.dumps(v, option=orjson.OPT_NON_STR_KEYS)
        for _, v in records
    ]
    keys = [key for key, _ in records]
    return RawBatch("catalog", 0, n, range(n), keys, values, [1_000] * n, [()] * n)


def ids(*names: str) -> np.ndarray:
    return np.array([stable_hash(name) for name in names], np.uint64)


def test_every_field_of_an_item_is_understood() -> None:
    said = {
        "item_id": 7,
        "title": "Shoe",
        "category": ["Men", "Shoes"],
        "brand": " Acme ",
        "price": 9.5,
        "currency": "EUR",
        "tags": "new, red",
        "attributes": {"size": [41, 42], "vegan": True, "weight": 0.5, "none": None},
        "available": True,
        "hidden": False,
        "stock": 3,
        "margin": -0.1,
        "embedding": [1, 0.5],
        "added_at": "2026-01-01T00:00:00Z",
        "something": {"else": 1},
    }
    _, item = decode_item(b"7", orjson.dumps(said), ts=5.0, chars_max=10)
    assert item == CatalogItem(
        "7",
        title="Shoe",
        category=("Men", "Shoes"),
        brand="Acme",
        price=9.5,
        currency="EUR",
        tags=("new", "red"),
        attributes={"size": ("41", "42"), "vegan": "true", "weight": "0.5"},
        stock=3.0,
        margin=-0.1,
        embedding=(1.0, 0.5),
        added_ts=1_767_225_600.0,
        ts=5.0,
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, b"{}", "no_key"),
        (b"", b"{}", "bad_id"),
        (b"\xff", b"{}", "bad_id"),
        (b"x" * 200, b"{}", "bad_id"),
        (b"a", b"nonsense", "malformed_json"),
        (b"a", b'{"title":"\xff"}', "malformed_json"),
        (b"a", b'{"price":"9.99"}', "wrong_type"),
        (b"a", b'{"price":-1}', "bad_number"),
        (b"a", b'{"stock":1e300}', "bad_number"),
        (b"a", b'{"item_id":"b"}', "key_mismatch"),
    ],
)
def test_a_record_that_is_no_item_is_refused_with_a_reason(
    key: bytes | None, value: bytes, reason: str
) -> None:
    assert reason in CATALOG_REASONS
    with pytest.raises(EventRejected) as caught:
        decode_item(key, value, ts=0.0, chars_max=128)
    assert caught.value.reason == reason


def test_items_that_may_no_longer_be_listed_are_told_once() -> None:
    gone: list[int] = []
    catalog = Catalog(items_max=100)
    stage = Cataloging(
        Merchandise(catalog), SETTINGS, on_changed=lambda found: gone.extend(found.tolist())
    )
    stage.apply(batch((b"a", {}), (b"b", {"stock": 2}), (b"c", {})))
    assert gone == []
    stage.apply(batch((b"a", {"stock": 0}), (b"b", {"stock": 1}), (b"c", None)))
    assert sorted(gone) == sorted(ids("a", "c").tolist())
    stage.apply(batch((b"a", {"hidden": True}), (b"c", None), (b"never-heard-of", None)))
    assert gone[2:] == ids("never-heard-of").tolist()
    assert catalog.listed(ids("a", "b", "c")).tolist() == [False, True, False]


def test_one_bad_item_does_not_keep_the_others_of_its_batch_out() -> None:
    catalog = Catalog(items_max=3)
    stage = Cataloging(Merchandise(catalog), SETTINGS, on_changed=lambda _: None)
    rejects = stage.apply(
        batch(
            (b"a", {"embedding": [1, 2]}),
            (b"b", {"embedding": [1]}),
            (b"c", b"[]"),
            (b"d", {}),
            (b"e", {}),
            (b"f", {}),
        )
    )
    assert [(r.row, r.reason) for r in rejects] == [
        (1, "bad_embedding"),
        (2, "wrong_type"),
        (5, "no_room"),
    ]
    assert "'b'" in rejects[0].detail and "'f'" in rejects[2].detail
    assert len(catalog) == 3


def test_customers_come_go_and_deny_consent() -> None:
    audience = Audience(customers_max=2)
    stage = AudienceStage(audience, SETTINGS)
    denied = {"consent": {"personalization": False, "carrier pigeons": False}, "tags": ["vip"]}
    assert stage.apply(batch((b"anna", denied), (b"bert", {"region": "de"}))) == []
    assert audience.may(ids("anna", "bert"), PERSONALISE).tolist() == [False, True]
    assert audience.may(ids("anna", "bert"), EMAIL).tolist() == [True, True]
    (reject,) = stage.apply(batch((b"carl", {})))
    assert reject.reason == "no_room" and "'carl'" in reject.detail
    assert audience.refused == 1
    stage.apply(batch((b"anna", None), (b"carl", {})))
    assert audience.rows(ids("anna", "carl")).tolist() == [-1, 0]
    assert len(audience) == 2


def test_a_customer_record_without_consent_allows_everything() -> None:
    expected = Customer("anna", language="de", consent=ALL_CONSENT, described=b'"language":"de"')
    said = b'{"language":"de","attributes":{"tier":"gold"}}'
    assert decode_user(b"anna", said, chars_max=9) == ("anna", expected)


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ("", b""),
        ("tier, sizes", b',"attributes":{"tier":"gold","sizes":["41"]}'),
        ("*", b',"attributes":{"tier":"gold","sizes":["41"],"religion":"none"}'),
    ],
)
def test_only_attributes_that_are_switched_on_are_kept(setting: str, kept: bytes) -> None:
    audience = Audience(customers_max=2)
    settings = SETTINGS.model_copy(update={"profile_attributes": setting})
    attributes = {"tier": "gold", "sizes": [41], "religion": "none"}
    AudienceStage(audience, settings).apply(
        batch((b"anna", {"tags": "vip, b2b", "attributes": attributes}))
    )
    assert audience.described(ids("anna", "bert")) == [b'"tags":["vip","b2b"]' + kept, b""]


def test_what_is_too_long_for_a_profile_is_left_out_of_it() -> None:
    said = orjson.dumps({"region": "de", "tags": ["x" * 5_000], "language": "fr"})
    _, customer = decode_user(b"anna", said, chars_max=9)
    assert customer is not None and customer.described == b'"region":"de","language":"fr"'


def test_rows_of_csv_and_jsonl_files_read_alike_also_compressed(tmp_path: Path) -> None:
    table = 'item_id,title,price,available,colour\n1,"A, b",2.5,no,\n2,,x,yes,red\n3,short\n'
    lines = (
        b'{"item_id":"1","title":"A, b","price":2.5,"available":false}\n\n'
        b'{"item_id":"2","price":"x","available":true,"colour":"red"}\n[1]\n{"item_id"\n'
    )
    (tmp_path / "a.csv").write_text(table)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    for name, problems in (("a.csv", [4]), ("b.jsonl.gz", [4, 5])):
        found = list(rows(tmp_path / name))
        good = [item_fields(row.fields) for row in found if row.fields is not None]
        assert good == [
            {"item_id": "1", "title": "A, b", "price": 2.5, "available": False},
            {"item_id": "2", "price": "x", "available": True, "attributes": {"colour": "red"}},
        ]
        assert [row.line for row in found if row.problem] == problems


@pytest.mark.parametrize(
    ("name", "content", "cure"),
    [
        ("a.txt", b"", "name it one of"),
        ("a.csv", b"item_id,title\n1,\xff\n", "not UTF-8"),
        ("a.csv.gz", b"\x1f\x8bnonsense", "copy it again"),
        ("missing.csv", None, "check path and access"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, cure: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EventFileError, match=cure):
        list(rows(tmp_path / name))
