"""Merchandising rules: what each does to lists, how it is written, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from stream_app.core.catalog import Catalog, CatalogItem
from stream_app.core.merchandising import Merchandise, Rule
from stream_app.core.model import Model
from stream_app.core.ranking import Lists
from stream_app.core.tables import ItemTables
from stream_app.errors import ConfigurationError, EventRejected
from stream_app.hashing import stable_hash
from stream_app.ports import RawBatch
from stream_app.rule_records import read_rules, rule_of
from stream_app.ruling import Ruling
from stream_app.settings import load_settings

STEPS = ["browse", "cart"]
ITEMS = [
    CatalogItem("a", brand="Acme", category=("Men", "Shoes"), price=10.0),
    CatalogItem("b", brand="Acme", category=("Men", "Shoes"), price=20.0, tags=("new",)),
    CatalogItem("c", brand="Bolt", category=("Men",), price=30.0),
    CatalogItem("d", brand="Acme", category=("Women",)),
    CatalogItem("sold-out", stock=0.0),
]
NAMES = [*"abcde", "sold-out"]  # nothing is known of e


def applied(
    *rules: Rule, names: str = "abcde", place: tuple[str, str] = ("home", "browse"), ts: float = 5.0
) -> list[str]:
    """The list ``names``, best first, after the rules, cut to 5."""
    catalog = Catalog(items_max=100)
    catalog.upsert(ITEMS)
    tables = ItemTables(Model(), rows_max=10, nodes_max=100)
    ids = np.array([stable_hash(name) for name in NAMES], np.uint64)
    tables.set_names(ids, NAMES)
    nodes = tables.lookup(np.array([stable_hash(name) for name in names], np.uint64))
    wide = 15
    lists = Lists(
        np.array([len(names), 0]),
        np.full((2, wide), -1),
        np.zeros((2, wide)),
        np.zeros((2, wide), np.uint8),
        np.full((2, wide), -1),
    )
    lists.nodes[0, : len(names)] = nodes
    lists.scores[0, : len(names)] = np.linspace(1.0, 0.2, len(names))
    merchandise = Merchandise(catalog)
    merchandise.set_rules(rules)
    out = merchandise.apply(lists, tables, [place, place], np.array([ts, ts]), size=5)
    assert out.nodes.shape[1] == 5
    scores = out.scores[0, : out.counts[0]]
    assert (np.diff(scores) <= 0.0).all()
    return [tables.names[node] for node in out.nodes[0, : out.counts[0]].tolist()]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("r", "boost", ("brand=Bolt",), factor=3.0), "cabde"),
        (Rule("r", "bury", ("brand=Acme",), factor=0.1), "ceabd"),
        (Rule("r", "exclude", ("brand=Acme",)), "ce"),
        (Rule("r", "exclude", ("brand=Acme", "category=Men/Shoes")), "cde"),
        (Rule("r", "exclude", ("brand=Acme", "brand=Bolt")), "e"),
        (Rule("r", "exclude", items=("a", "e")), "bcd"),  # e is not in the catalog
        (Rule("r", "exclude", ("brand=Acme",), items=("a", "c")), "bcde"),
        (Rule("r", "exclude", price_min=15.0), "ade"),  # no price is no reason
        (Rule("r", "include", ("category=Men",)), "abc"),
        (Rule("r", "include", ("tag=new",)), "b"),
        (Rule("r", "cap", by="brand", most=1), "ace"),
        (Rule("r", "cap", by="category", most=1), "acde"),
        (Rule("r", "pin", items=("d",)), "dabce"),
        (Rule("r", "pin", items=("e", "d"), place=1), "aedbc"),
        (Rule("r", "pin", items=("sold-out",)), "abcde"),
    ],
)
def test_each_rule_does_to_a_list_what_it_says(rule: Rule, expected: str) -> None:
    assert "".join(applied(rule)) == expected


@pytest.mark.parametrize(
    ("place", "ts", "holds"),
    [
        (("home", "browse"), 5.0, True),
        (("cart", "browse"), 5.0, False),
        (("home", "cart"), 5.0, False),
        (("home", "browse"), 2.0, False),
        (("home", "browse"), 9.0, False),
    ],
)
def test_a_rule_holds_for_its_lists_steps_and_time_only(
    place: tuple[str, str], ts: float, holds: bool
) -> None:
    rule = Rule(
        "r", "exclude", items=("a",), lists=("home",), steps=("browse",), starts=3.0, ends=9.0
    )
    assert (applied(rule, place=place, ts=ts)[0] == "b") == holds


def test_rules_work_together_pins_after_caps_after_weights() -> None:
    rules = [
        Rule("1", "boost", ("brand=Bolt",), factor=9.0),
        Rule("2", "cap", by="brand", most=1),
        Rule("3", "pin", items=("b",), place=1),
    ]
    assert "".join(applied(*rules)) == "cbae"


def test_without_rules_lists_are_only_cut() -> None:
    assert "".join(applied(names="edcba")) == "edcba"
    assert applied(Rule("r", "pin", items=("a",)), names="") == ["a"]


def test_a_rules_file_is_read_with_days_and_times(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        """
        [[rule]]
        id = "summer"
        action = "boost"
        match = ["brand=Acme", "category=Men/Shoes"]
        factor = 1.5
        lists = "home"
        starts = 2026-06-01
        ends = 2026-09-01T00:00:00Z
        author = "anna"

        [[rule]]
        id = "new-first"
        action = "pin"
        items = ["a"]
        place = 2
        """
    )
    first, second = read_rules(path, STEPS)
    assert (first.starts, first.ends) == (1_780_272_000.0, 1_788_220_800.0)
    assert first.lists == ("home",)
    assert (second.place, second.items) == (1, ("a",))
    assert read_rules(None, STEPS) == ()


@pytest.mark.parametrize(
    ("fields", "cure"),
    [
        ({"action": "hide"}, "none of pin, boost"),
        ({}, "missing required field `action`"),
        ({"action": "pin"}, "pin needs items"),
        ({"action": "boost", "match": "brand=x"}, "boost needs factor"),
        ({"action": "boost", "match": "brand=x", "factor": 0.5}, "use the other word"),
        ({"action": "bury", "match": "brand=x", "factor": -1.0}, "between 0 and 100"),
        ({"action": "exclude"}, "needs match, items"),
        ({"action": "exclude", "match": "brand"}, "not name=value"),
        ({"action": "cap", "most": 1, "by": "colour"}, "neither brand nor category"),
        ({"action": "exclude", "items": "a", "lists": "homepage"}, "choose of home, cart"),
        ({"action": "exclude", "items": "a", "steps": ["x"]}, "choose of browse, cart"),
        ({"action": "exclude", "items": "a", "starts": 5, "ends": 4}, "ends before it starts"),
        ({"action": "exclude", "items": "a", "starts": "summer"}, "RFC3339"),
        ({"action": "pin", "items": "a", "place": 0}, "counts from 1"),
        ({"action": "exclude", "item": "a"}, "unknown field `item`"),
    ],
)
def test_a_wrong_rule_says_what_would_be_right(fields: dict[str, Any], cure: str) -> None:
    with pytest.raises(EventRejected) as caught:
        rule_of("r", fields, STEPS)
    assert cure in caught.value.detail
    assert "rule 'r'" in caught.value.detail


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("[[rule]]\naction='pin'", "needs an id of its own"),
        ("[[rule]]\nid='a'\naction='pin'", "rule 'a': pin needs items"),
        ("nonsense", "STREAM_APP_RULES_FILE="),
        ("rule=5", "tables that begin with"),
    ],
)
def test_a_wrong_rules_file_stops_the_start(tmp_path: Path, text: str, cure: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=cure):
        read_rules(path, STEPS)


def test_a_change_is_logged_with_its_author_and_what_was_before_but_not_what_a_start_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "stream_app.ruling")
    filed = [Rule("r", "pin", items=("a",))]
    ruling = Ruling(
        Merchandise(Catalog(items_max=9)), load_settings({}), filed, STEPS, lambda _: None
    )

    def said(value: object, *headers: tuple[str, bytes], key: bytes = b"r") -> list[str]:
        caplog.clear()
        text = None if value is None else orjson.dumps(value)
        batch = RawBatch("rules", 0, 1, range(1), [key], [text], [0], [headers])
        assert ruling.apply(batch) == []
        return [record.getMessage() for record in caplog.records]

    assert said({"action": "exclude", "items": "a", "author": "anna"}) == []
    ruling.loaded()
    assert caplog.records[-1].getMessage() == "1 rules, 1 of them live"
    assert said({"action": "exclude", "items": ["b"], "author": "anna"}, ("author", b"bert")) == [
        'rule r: put by bert, was {"action":"exclude","items":["a"]},'
        ' is {"action":"exclude","items":["b"]}'
    ]
    assert said(None, ("author", b"carl\n")) == [
        'rule r: dropped by carl?, was {"action":"exclude","items":["b"]},'
        ' is {"action":"pin","items":["a"]}'
    ]
    assert said({"action": "bury", "items": "c", "factor": 0.5, "ends": 9}, key=b"s") == [
        "rule s: put by (nobody), was nothing,"
        ' is {"action":"bury","items":["c"],"factor":0.5,"ends":9.0}'
    ]


def test_live_rules_stand_in_for_the_files_and_exclusions_take_effect_on_published_lists() -> None:
    catalog = Catalog(items_max=100)
    catalog.upsert(ITEMS)
    gone: list[int] = []
    filed = [Rule("r", "pin", items=("a",))]
    ruling = Ruling(
        Merchandise(catalog), load_settings({}), filed, STEPS, lambda ids: gone.extend(ids.tolist())
    )

    def said(*records: tuple[bytes, object]) -> list[str]:
        n = len(records)
        values = [None if v is None else orjson.dumps(v) for _, v in records]
        keys = [key for key, _ in records]
        batch = RawBatch("rules", 0, n, range(n), keys, values, [0] * n, [()] * n)
        return [reject.reason for reject in ruling.apply(batch)]

    assert ruling.merchandise.rules == tuple(filed)
    exclude = {"action": "exclude", "match": "brand=Bolt", "author": "anna"}
    assert said((b"r", exclude), (b"s", {"action": "no"}), (b"t", [1])) == [
        "bad_rule",
        "wrong_type",
    ]
    assert [rule.action for rule in ruling.merchandise.rules] == ["exclude"]
    assert gone == [stable_hash("c")]
    assert said((b"r", exclude)) == []
    assert len(gone) == 1  # said again, nothing new
    assert said((b"r", None)) == []
    assert ruling.merchandise.rules == tuple(filed)
