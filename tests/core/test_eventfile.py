"""Event files: columns, order, aliases, dirt kept for the pipeline, errors that name the cure."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_app.errors import EventFileError
from stream_app.offline.eventfile import EVENT_TYPES, read_events

DATA = Path(__file__).parents[3] / "shared" / "data"


def write(path: Path, text: str) -> Path:
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz"])
def test_rows_are_ordered_by_time_and_ties_by_file_order(tmp_path: Path, name: str) -> None:
    text = "user_id,item_id,ts\nu1,late,9.5\nu2,tie1,3\nu3,tie2,3\nu4,first,1\n"
    table = read_events(write(tmp_path / name, text))
    assert table.item_id == ["first", "tie1", "tie2", "late"]
    assert table.ts.tolist() == [1.0, 3.0, 3.0, 9.5]
    assert table.line.tolist() == [5, 3, 4, 2]
    assert table.row(3) == {
        "event_id": f"{name}:2",
        "event": "view",
        "user_id": "u1",
        "item_id": "late",
        "ts": 9.5,
    }


def test_csv_and_jsonl_of_the_same_events_are_equal(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u1", "item_id": "a", "event": "cart", "ts": 1, "price": 2.5, "quantity": 3},
        {"session_id": "s", "item_id": "b", "ts": 2, "title": 'a "red", big\nshoe', "brand": "x"},
    ]
    jsonl = "\n".join(orjson.dumps(row).decode() for row in rows)
    csv = (
        "USER_ID,session_id,item_id, event ,ts,price,quantity,title,brand,unknown\n"
        'u1,,a,cart,1,2.5,3,,,7\n,s,b,,2,,,"a ""red"", big\nshoe",x,\n'
    )
    left = read_events(write(tmp_path / "x.jsonl", jsonl))
    right = read_events(write(tmp_path / "x.csv", csv))
    assert [left.row(i) | {"event_id": ""} for i in range(2)] == [
        right.row(i) | {"event_id": ""} for i in range(2)
    ]
    assert left.row(0)["event"] == "add_to_cart"
    assert left.row(0)["quantity"] == 3 and isinstance(left.row(0)["quantity"], int)
    assert right.row(1)["title"] == 'a "red", big\nshoe'
    assert left.key(0) == b"u1" and left.key(1) == b"s"


def test_line_numbers_survive_quoted_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    text = 'user_id,item_id,ts,title\nu,a,1,"x\ny"\n\nu,b,2,z\n'
    assert read_events(write(tmp_path / "e.csv", text)).line.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("written", "event"),
    [
        ("cart", "add_to_cart"),
        ("addtocart", "add_to_cart"),
        ("Add-To-Cart", "add_to_cart"),
        ("fav", "wishlist"),
        ("like", "wishlist"),
        ("transaction", "purchase"),
        ("buy", "purchase"),
        ("pageview", "view"),
        ("view_item", "view"),
        ("return", "refund"),
        ("", "view"),
        ("teleport", "teleport"),
    ],
)
def test_event_names_of_other_shops_are_understood(
    tmp_path: Path, written: str, event: str
) -> None:
    table = read_events(write(tmp_path / "e.csv", f"user_id,item_id,event,ts\nu,i,{written},1\n"))
    assert table.event == [event]
    assert table.problems.get("unknown_event", 0) == (event not in EVENT_TYPES)


def test_rows_that_are_no_events_are_counted_and_emitted_as_they_are(tmp_path: Path) -> None:
    text = (
        "user_id,session_id,item_id,event,ts,price,quantity\n"
        ",,a,view,1,,\nu,,,view,2,,\nu,,b,teleport,3,cheap,\nu,,c,view,4,nan,2\nu,,,search,5,,\nu\n"
    ).removesuffix("u\n")
    table = read_events(write(tmp_path / "e.csv", text))
    assert dict(table.problems) == {
        "no_user_or_session": 1,
        "no_item": 1,
        "unknown_event": 1,
        "not_a_number": 2,
    }
    events = [orjson.loads(line) for line in table.iter_json()]
    assert "user_id" not in events[0] and "session_id" not in events[0]
    assert "item_id" not in events[1]
    assert events[2]["price"] == "cheap"
    assert events[3]["price"] == "nan" and events[3]["quantity"] == 2
    assert np.isnan(table.numbers["price"]).all()


def test_json_numbers_are_ids_and_other_json_values_are_none(tmp_path: Path) -> None:
    text = '{"user_id": 7, "item_id": 3, "ts": 1}\n\n{"user_id": true, "item_id": ["x"], "ts": 2}\n'
    table = read_events(write(tmp_path / "e.jsonl.gz", text))
    assert table.user_id == ["7", None] and table.item_id == ["3", None]
    assert table.line.tolist() == [1, 3]


@pytest.mark.parametrize(
    "ts",
    [
        "1430623510.25",
        "1430623510250",
        "2015-05-03T03:25:10.250Z",
        "2015-05-03 03:25:10.250",
        "2015-05-03 03:25:10.250 UTC",
        "2015-05-03T05:25:10.25+02:00",
    ],
)
def test_times_are_understood_as_shops_write_them(tmp_path: Path, ts: str) -> None:
    table = read_events(write(tmp_path / "e.csv", f"user_id,item_id,ts\nu,a,{ts}\nu,b,7\n"))
    assert table.item_id == ["b", "a"]
    assert table.ts.tolist() == [7.0, 1430623510.25]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.csv", "", r"e.csv is empty; the first line must name the columns"),
        ("e.csv", "user_id,item_id,ts\n", r"e.csv has no events"),
        ("e.jsonl", "\n\n", r"e.jsonl has no events"),
        ("e.csv", "user_id,sku,ts\nu,i,1\n", r"line 1: no column item_id.*found: user_id, sku, ts"),
        ("e.csv", "item_id,ts\ni,1\n", r"line 1: no column user_id or session_id; rename"),
        ("e.csv", "user_id;item_id;ts\nu;i;1\n", r"columns are separated by commas"),
        ("e.csv", "user_id,item_id\nu,i\n", r"line 2: no ts column; write unix seconds"),
        ("e.csv", "user_id,item_id,ts\nu,i,1\nu,j,\n", r"line 3: ts '' is no time \(1 of 2 rows\)"),
        ("e.csv", "user_id,item_id,ts\nu,i,3.5.2015\n", r"line 2: ts '3.5.2015' is no time.*ISO"),
        ("e.csv", "user_id,item_id,ts\nu,i,inf\n", r"line 2: ts 'inf' is no time"),
        ("e.jsonl", '{"user_id": 1}\n{"user', r"line 2: not valid JSON"),
        ("e.jsonl", '{"user_id": 1}\n[1]', r"line 2: a JSON list where an object must be"),
        ("e.parquet", "x", r"e.parquet: cannot tell the format; name it one of \*.csv"),
    ],
)
def test_errors_name_file_line_and_cure(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(EventFileError, match=message):
        read_events(write(tmp_path / name, text))


def test_a_cut_or_false_gzip_file_is_one_clear_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"user_id,item_id,ts\n" + b"u,i,1\n" * 1000)
    for number, content in enumerate([whole[:-20], b"user_id,item_id,ts\nu,i,1\n"]):
        path = tmp_path / f"e{number}.csv.gz"
        path.write_bytes(content)
        with pytest.raises(EventFileError, match=r"not a whole gzip file .* copy it again"):
            read_events(path)


def test_other_encodings_and_absent_files_are_clear_errors(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(b"user_id,item_id,ts\nu,i,1\nu,caf\xe9,2\n")
    with pytest.raises(EventFileError, match=r"e.csv, line 3: not UTF-8; convert it"):
        read_events(path)
    with pytest.raises(EventFileError, match=r"cannot be read .*; check path and access"):
        read_events(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("name", "rows", "events"),
    [
        ("yoochoose_test", 13_568, {"view"}),
        ("retailrocket", 97_381, {"view", "add_to_cart", "purchase"}),
        ("online_retail", 541_909, {"purchase", "refund"}),
    ],
)
def test_recorded_shops_are_read_whole(name: str, rows: int, events: set[str]) -> None:
    path = DATA / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"recorded event data is not on this machine: shared/data/{path.name}")
    table = read_events(path)
    assert len(table) == rows
    assert set(table.event) == events
    assert not table.problems
    assert (np.diff(table.ts) >= 0).all()
    assert len(set(table.line.tolist())) == rows
    if name == "online_retail":
        returns = Counter(table.event)["refund"]
        assert returns == 10_624
        assert table.user_id.count(None) == 135_080
        assert table.texts["title"].count(None) == 1_454
        assert np.isfinite(table.numbers["price"]).all()
