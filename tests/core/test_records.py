"""Public records as text: the topic's JSON and the hash's fields say the same."""

import math

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.core.ranking import LISTS
from stream_app.core.records import Texts, chosen, numbers, render_records, texts
from stream_app.core.render import listed

NAMES = np.frombuffer(b'"a""b"', np.uint8)


def texts_of(found: Texts) -> list[bytes]:
    """One by one."""
    return [bytes(found.bytes[a:b]) for a, b in zip(found.starts, found.ends, strict=True)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(2**53), 2**53), max_size=5), st.integers(0, 6))
def test_numbers_are_what_python_prints(values: list[int], decimals: int) -> None:
    found = texts_of(numbers(np.array(values, np.int64), decimals=decimals, before=b"<"))
    assert [int(text[1:].replace(b".", b"")) for text in found] == values
    for text in found:
        assert text[:1] == b"<"
        assert math.isfinite(float(text[1:]))
        assert len(text.partition(b".")[2]) == decimals


def test_a_record_has_every_field_and_list_and_the_hash_the_same_values() -> None:
    owners, kinds = np.array([0, 0, 2]), np.array([0, 1, 0], np.uint8)
    counts, nodes = np.array([2, 0, 1]), np.array([[0, 1], [0, 0], [1, 0]])
    lists = listed(
        NAMES,
        np.array([0, 3]),
        np.array([3, 3], np.int32),
        nodes,
        counts,
        np.full(nodes.shape, 0.25),
        np.zeros(nodes.shape, np.uint8),
        np.full(nodes.shape, -1),
    )
    columns = [
        (("user_id",), texts([b'"u\\"1"', b'"2"', b'"3"'])),
        (("version",), numbers(np.array([7, 8, 9]))),
        (
            ("step", "previous_step"),
            chosen([b'"cart"', b'"browse"'], np.array([[1, 0, 1], [0, 0, 1]])),
        ),
        (("next_best_action",), texts([b'"wait"', b"null", b'{"offer":5}'])),
    ]
    rendered = render_records(columns, lists, owners, kinds, LISTS, 3)
    ends = rendered.ends.tolist()
    records = [orjson.loads(rendered.text[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    assert [record["user_id"] for record in records] == ['u"1', "2", "3"]
    assert [record["version"] for record in records] == [7, 8, 9]
    assert [record["next_best_action"] for record in records] == ["wait", None, {"offer": 5}]
    assert [list(record["lists"]) for record in records] == [["home", "cart"], [], ["home"]]
    assert [entry["item_id"] for entry in records[0]["lists"]["home"]] == ["a", "b"]
    fields = [[rendered.text[a:b] for a, b in row] for row in rendered.fields.tolist()]
    assert fields[0][2:] == [b"browse", b"cart", b"wait"]
    assert fields[2][2:] == [b"browse", b"browse", b'{"offer":5}']
    assert rendered.last.tolist() == [2, 2, 3]
    places = [orjson.loads(rendered.text[a:b]) for a, b in rendered.lists.tolist()]
    assert places == [*records[0]["lists"].values(), *records[2]["lists"].values()]
