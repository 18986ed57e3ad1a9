"""Rows of catalog and customer files (CSV, JSONL, gzip) one by one, with their line numbers.

Called by ``load-catalog`` and ``load-users``; files are read as a stream, whatever their size.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from stream_app.errors import EventFileError

LINE_BYTES_MAX = 1_000_000
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class TableRow(NamedTuple):
    """One row: its line, its fields, and how many bytes of the file were read so far."""

    line: int
    fields: dict[str, Any] | None  # None: not a row; ``problem`` says why
    position: int
    problem: str = ""


def size_of(path: Path) -> int:
    """Bytes of the file as it lies there; 0 when it does not."""
    return path.stat().st_size if path.is_file() else 0


def rows(path: Path) -> Iterator[TableRow]:
    """Rows in file order; CSV values are texts, JSONL values anything.

    A line that is no row is yielded with its problem. Raises ``EventFileError`` for a file that
    cannot be read.
    """
    kind = KINDS.get(Path(path.name.removesuffix(".gz")).suffix.lower())
    if kind is None:
        raise EventFileError(f"{path.name}: name it one of *{', *'.join(KINDS)}, also with .gz")
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            data: Any = gzip.GzipFile(fileobj=file) if zipped else file
            yield from (_csv_rows if kind == "csv" else _json_rows)(path.name, data, file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise EventFileError(
            f"{path.name} is not a whole gzip file ({exc}): copy it again"
        ) from exc
    except OSError as exc:
        raise EventFileError(
            f"{path} cannot be read ({exc.strerror}): check path and access"
        ) from exc


def _json_rows(name: str, data: BinaryIO, file: BinaryIO) -> Iterator[TableRow]:
    number = 0
    while line := data.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise EventFileError(f"{name}, line {number}: more than {LINE_BYTES_MAX} bytes")
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except orjson.JSONDecodeError as exc:
            yield TableRow(number, None, file.tell(), f"not JSON: {exc}")
            continue
        if isinstance(fields, dict):
            yield TableRow(number, fields, file.tell())
        else:
            yield TableRow(number, None, file.tell(), "not a JSON object")


def _csv_rows(name: str, data: BinaryIO, file: BinaryIO) -> Iterator[TableRow]:
    text = io.TextIOWrapper(data, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text)
    try:
        for row in reader:
            if None in row or None in row.values():
                problem = (
                    f"{len(reader.fieldnames or ())} columns are named in the header, not so many"
                )
                yield TableRow(reader.line_num, None, file.tell(), problem)
            else:
                fields = {key.strip().lower(): value for key, value in row.items() if value != ""}
                yield TableRow(reader.line_num, fields, file.tell())
    except UnicodeDecodeError as exc:
        raise EventFileError(
            f"{name}, after line {reader.line_num}: not UTF-8; convert it, e.g. with iconv"
        ) from exc
    except csv.Error as exc:
        raise EventFileError(f"{name}, line {reader.line_num}: not valid CSV ({exc})") from exc
    finally:
        text.detach()  # who opened the file closes it
