"""Read training tables, CSV or CSV.gz with a header, as columns of texts. Called by the fits."""

import csv
import gzip
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stream_app.errors import EventFileError

rows_max = 5_000_000
cells_max = 50_000_000  # 80 bytes each, 4 GB of texts: a larger table wants sampling first
csv_field_chars_max = 2**20


@dataclass(frozen=True, slots=True)
class Table:
    """``columns`` by name in the file's order, all of length n; ``lines`` the rows' last lines."""

    name: str
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> list[str]:
        """The column ``name``; raises ``EventFileError`` listing the names there are."""
        if name not in self.columns:
            there = ", ".join(self.columns)[:300]
            raise EventFileError(f"{self.name} has no column {name!r}; its columns are: {there}")
        return self.columns[name]

    def take(self, rows: Sequence[int]) -> "Table":
        """The table of these row numbers."""
        columns = {name: [texts[row] for row in rows] for name, texts in self.columns.items()}
        return Table(self.name, columns, [self.lines[row] for row in rows])


def read_table(path: str | Path) -> Table:
    """Read a table; blank lines are skipped. Raises ``EventFileError`` naming file, line, cure."""
    path = Path(path)
    csv.field_size_limit(csv_field_chars_max)
    try:
        with closing(_open(path)) as file:
            return _read(path.name, file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise EventFileError(
            f"{path.name} is not a whole gzip file ({exc}); compress or copy it again"
        ) from exc
    except OSError as exc:
        raise EventFileError(
            f"{path} cannot be read ({exc.strerror}); check path and access"
        ) from exc
    except UnicodeDecodeError as exc:
        raise EventFileError(
            f"{path.name} is not UTF-8 ({exc.reason}); convert it, e.g. iconv -f latin1 -t utf-8"
        ) from exc


def _open(path: Path) -> IO[str]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b" or path.suffix == ".gz"
    if zipped:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read(name: str, file: IO[str]) -> Table:
    reader = csv.reader(file)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = [field.strip() for field in next(reader, [])]
        _check_header(name, header)
        limit = min(rows_max, cells_max // len(header))
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise EventFileError(
                    f"{name}, line {reader.line_num}: {len(row)} fields where the header has"
                    f" {len(header)}; quote fields that contain commas"
                )
            if len(rows) == limit:
                raise EventFileError(f"{name} has more than {limit} rows; train on a sample of it")
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as exc:
        raise EventFileError(
            f"{name}, line {reader.line_num}: not valid CSV ({exc}); check its quotes"
        ) from exc
    if not rows:
        raise EventFileError(f"{name} has a header but no rows; check that its export finished")
    columns = (list(column) for column in zip(*rows, strict=True))
    return Table(name, dict(zip(header, columns, strict=True)), lines)


def _check_header(name: str, header: Sequence[str]) -> None:
    if not any(header):
        raise EventFileError(f"{name} is empty; the first line must name the columns")
    twice = sorted({field for field in header if header.count(field) > 1})
    if twice:
        raise EventFileError(
            f"{name}, line 1: column {', '.join(map(repr, twice))} stands there twice; rename one"
        )
