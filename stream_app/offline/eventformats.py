"""Decode CSV and JSONL files into raw columns, naming file, line and cure of what is wrong.

Called by :mod:`stream_app.offline.eventfile`, which gives the columns their meaning.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from stream_app.errors import EventFileError

file_bytes_max = 4 * 2**30  # decompressed; also stops a gzip bomb
csv_field_chars_max = 2**20
block_rows = 4096

ID_COLUMNS = ("user_id", "session_id", "item_id")
TEXT_COLUMNS = ("category", "brand", "title", "channel", "region", "query")
_OTHER_NAMES = {"country": "region"}
NUMBER_COLUMNS = ("price", "quantity", "rating")
COLUMNS = (*ID_COLUMNS, "event", "ts", *TEXT_COLUMNS, *NUMBER_COLUMNS, *_OTHER_NAMES)
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

Column = Sequence[Any]


def read_columns(path: Path) -> tuple[dict[str, Column], list[int]]:
    """The file's known columns, values as written, and each row's line number.

    CSV values are strings, JSONL values anything. Rows follow the file. Raises ``EventFileError``.
    """
    decode = _csv_columns if _kind(path) == "csv" else _jsonl_columns
    columns, lines = decode(path.name, file_content(path))
    if not lines:
        raise EventFileError(f"{path.name} has no events; check that its export finished")
    for other, name in _OTHER_NAMES.items():
        if other in columns:
            columns.setdefault(name, columns.pop(other))
    return columns, lines


def _kind(path: Path) -> str:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES:
        raise EventFileError(
            f"{path.name}: cannot tell the format; name it one of *{', *'.join(SUFFIXES)},"
            " optionally with .gz"
        )
    return SUFFIXES[suffix]


def file_content(path: Path) -> bytes:
    """The decompressed bytes, without byte-order mark."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b" or path.suffix == ".gz"
        with gzip.open(path) if zipped else path.open("rb") as file:
            data = file.read(file_bytes_max + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise EventFileError(
            f"{path.name} is not a whole gzip file ({exc}); compress or copy it again"
        ) from exc
    except OSError as exc:
        raise EventFileError(
            f"{path} cannot be read ({exc.strerror}); check path and access"
        ) from exc
    if len(data) > file_bytes_max:
        raise EventFileError(f"{path.name} is larger than {file_bytes_max} bytes; split it by time")
    return data.removeprefix(b"\xef\xbb\xbf")


def _csv_columns(name: str, data: bytes) -> tuple[dict[str, Column], list[int]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise EventFileError(
            f"{name}, line {line}: not UTF-8; convert it, e.g. with iconv -f latin1 -t utf-8"
        ) from exc
    csv.field_size_limit(csv_field_chars_max)
    reader = csv.reader(io.StringIO(text, newline=""))
    lines: list[int] = []
    try:
        header = [field.strip().lower() for field in next(reader, [])]
        _check_header(name, header)
        columns: dict[str, list[str]] = {field: [] for field in COLUMNS if field in header}
        line = reader.line_num + 1
        # By blocks: half a million row lists alive at once cost more than all the parsing.
        while block := list(islice(reader, block_rows)):
            lines += _line_numbers(block, line, reader.line_num)
            line = reader.line_num + 1
            whole = _even(block, len(header))
            for field, column in columns.items():
                column += whole[header.index(field)] if whole else ()
    except csv.Error as exc:
        raise EventFileError(
            f"{name}, line {reader.line_num}: not valid CSV ({exc}); check its quotes"
        ) from exc
    return dict(columns), lines


def _line_numbers(block: Sequence[Sequence[str]], first: int, last: int) -> list[int]:
    """The first line of each row that is not blank; quoted fields may hold line breaks."""
    if last - first + 1 == len(block) and all(block):
        return list(range(first, last + 1))
    numbers = []
    for row in block:
        if row:
            numbers.append(first)
        first += 1 + sum(field.count("\n") for field in row)
    return numbers


def _even(block: Sequence[list[str]], width: int) -> list[tuple[str, ...]]:
    """The columns of ``block`` without blank rows, short rows padded, long ones cut."""
    if any(len(row) != width for row in block):
        block = [(row + [""] * width)[:width] for row in block if row]
    return list(zip(*block, strict=True))


def _check_header(name: str, header: Sequence[str]) -> None:
    if not any(header):
        raise EventFileError(f"{name} is empty; the first line must name the columns")
    need = []
    if "item_id" not in header:
        need.append("item_id")
    if "user_id" not in header and "session_id" not in header:
        need.append("user_id or session_id")
    if need:
        found = ", ".join(header)[:200]
        raise EventFileError(
            f"{name}, line 1: no column {' and no column '.join(need)}; rename yours"
            f" (found: {found}; columns are separated by commas)"
        )


def _jsonl_columns(name: str, data: bytes) -> tuple[dict[str, Column], list[int]]:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line or line.isspace():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            raise EventFileError(
                f"{name}, line {number}: not valid JSON ({exc}); each line must be one object"
            ) from exc
        if not isinstance(row, dict):
            raise EventFileError(
                f"{name}, line {number}: a JSON {type(row).__name__} where an object must be;"
                ' write {"user_id": ..., "item_id": ..., "ts": ...}'
            )
        rows.append(row)
        lines.append(number)
    columns: dict[str, Column] = {field: [row.get(field) for row in rows] for field in COLUMNS}
    return {f: c for f, c in columns.items() if any(v is not None for v in c)}, lines
