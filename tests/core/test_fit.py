"""The fit commands' functions: tables read, figures printed, wrong files named with their cure."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream_app.core import intent_trees
from stream_app.errors import EventFileError
from stream_app.offline import tables
from stream_app.offline.crossval import fold_tables, main, means
from stream_app.offline.fit import fit_intent, run_fit_intent, run_fit_support
from stream_app.offline.tables import Table, read_table

INTENT_MEASURES = {"auc", "log_loss", "accuracy", "precision", "recall", "f1"}


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tables need no more, and growing is what the tests' time goes into."""
    monkeypatch.setattr(intent_trees, "trees_max", 30)


def sessions(path: Path, n: int, seed: int) -> str:
    random = np.random.default_rng(seed)
    pages, spent = random.integers(1, 20, n), random.exponential(size=n)
    bought = random.random(n) < 1 / (1 + np.exp(4 - 0.3 * pages - spent))
    rows = [
        f'{page},"{second:.2f}","web, ""main""",{buy}'
        for page, second, buy in zip(pages, spent, bought, strict=True)
    ]
    text = "\ufeffpages,seconds,channel,Revenue\r\n" + "\r\n".join(rows) + "\r\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def test_fit_intent_prints_a_report_and_one_json_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = sessions(tmp_path / "a.csv", 400, 1), sessions(tmp_path / "b.csv.gz", 300, 2)
    run_fit_intent(train, test, "Revenue", False)
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert len(lines) > 5 and result.keys() >= INTENT_MEASURES
    assert result["auc"] > 0.75 and result["n_test"] == 300
    run_fit_intent(train, test, "Revenue", True)
    only = capsys.readouterr().out.splitlines()
    assert len(only) == 1
    measured = {name: v for name, v in json.loads(only[0]).items() if name != "fit_seconds"}
    assert measured.items() <= result.items()


def test_fit_support_prints_accuracy_macro_f1_n_and_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.csv"
    path.write_text("text,intent\n" + 'where is it?,track\n"stop it, now",cancel\n' * 10)
    run_fit_support(str(path), str(path), "text", "intent", True)
    result = json.loads(capsys.readouterr().out)
    assert (result["n"], result["classes"]) == (20, 2)
    assert (result["accuracy"], result["macro_f1"]) == (1.0, 1.0)


def test_a_test_table_of_one_class_leaves_the_auc_undefined(tmp_path: Path) -> None:
    train = read_table(sessions(tmp_path / "a.csv", 300, 1))
    bought = [row for row, text in enumerate(train.column("Revenue")) if text == "True"]
    result = fit_intent(train, train.take(bought), "Revenue")
    assert result["auc"] is None and result["recall"] is not None


def test_columns_may_stand_in_another_order_and_labels_in_another_case() -> None:
    columns = {"x": [str(row % 7) for row in range(60)], "z": ["a"] * 60}
    label = ["Yes" if row % 7 > 3 else "no" for row in range(60)]
    train = Table("a.csv", {**columns, "y": label}, list(range(2, 62)))
    turned = {"y": [text.upper() for text in label], "z": columns["z"], "x": columns["x"]}
    assert fit_intent(train, Table("b.csv", turned, train.lines), "y")["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; the first line must name the columns"),
        (b"a,b\n", "has a header but no rows"),
        (b"a,b\n1,2\n\n1,2,3\n", "line 4: 3 fields where the header has 2; quote"),
        (b"a,b,a\n1,2,3\n", "column 'a' stands there twice"),
        (b"a,b\n\xff,2\n", "is not UTF-8"),
        (b"a,y\n1,0\n2,0\n", "has 1 values .* must hold both true and false"),
        (b"a,y\n1,0\n2,1\n3,maybe\n", "has 3 values"),
        (b"a,y\n1,0\n2,1\n3,\n", "line 4: y is ''.*label the row or remove it"),
        (b"a,b\n1,2\n", "has no column 'y'; its columns are: a, b"),
        (b"y\n0\n1\n", "has no column but 'y'; add features"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_named_with_its_cure(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(EventFileError, match=rf"t\.csv.*{message}"):
        run_fit_intent(str(path), str(path), "y", True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,y\nhello,a\nworld,a\n", "has 1 values; a classifier needs 2 to"),
        ("text,y\n,a\n ,b\n", "column 'text' has no text"),
        ("text,y\nhello,a\nworld,\n", "line 3: no y; label the row or remove it"),
        ("words,y\nhello,a\n", "has no column 'text'"),
    ],
)
def test_messages_that_cannot_be_fitted_are_named_with_their_cure(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(EventFileError, match=rf"t\.csv.*{message}"):
        run_fit_support(str(path), str(path), "text", "y", True)


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(gzip.compress(b"a,b\n1,2\n" * 99)[:-9]), Path.mkdir],
    ids=["cut gzip", "directory"],
)
def test_a_file_that_cannot_be_read_is_named_with_its_cure(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path = tmp_path / "t.csv.gz"
    spoil(path)
    with pytest.raises(EventFileError, match=r"t\.csv\.gz.*; (compress|check)"):
        read_table(path)
    with pytest.raises(EventFileError, match="check path and access"):
        read_table(tmp_path / "missing.csv")


def test_a_table_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "rows_max", 3)
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n2\n3\n4\n")
    with pytest.raises(EventFileError, match="more than 3 rows; train on a sample"):
        read_table(path)


def test_folds_hold_every_row_once_and_every_class_evenly(tmp_path: Path) -> None:
    table = read_table(sessions(tmp_path / "a.csv", 203, 3))
    share = np.mean([text == "True" for text in table.column("Revenue")])
    seen: list[int] = []
    for train, test in fold_tables(table, "Revenue"):
        assert not set(train.lines) & set(test.lines)
        assert abs(np.mean([t == "True" for t in test.column("Revenue")]) - share) < 0.03
        seen += test.lines
    assert sorted(seen) == table.lines


def test_cross_validation_averages_and_keeps_undefined_measures_undefined() -> None:
    table = Table("t.csv", {"y": ["a", "b"] * 4}, list(range(8)))
    values = iter([1.0, 2.0, 3.0, 4.0])
    folds = fold_tables(table, "y", folds=4)
    found = means(folds, lambda *_: {"m": next(values), "u": None})
    assert found == {"m": 2.5, "u": None}


def test_the_cross_validation_command_prints_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.csv"
    path.write_text("text,intent\n" + "where is it?,track\nstop it,cancel\n" * 10)
    main(["support", str(path), "intent", "text", "--folds", "2"])
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1.0
    main(["support", str(path), "intent", "text", "--few", "3"])
    few = json.loads(capsys.readouterr().out)
    assert (few["n_train"], few["n"], few["accuracy"]) == (6, 14, 1.0)
    with pytest.raises(SystemExit):
        main(["support", str(path), "intent"])
