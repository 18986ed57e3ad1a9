"""Speak with the function library ``stream_app.lua``: build its calls, understand its answers."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files

from stream_app.ports import PublicHash

Argument = bytes | str | int
Command = tuple[Argument, ...]

_SOURCE = files("stream_app.adapters").joinpath("stream_app.lua").read_text()
# A digest in the name is the version check: the wrong version is simply "not found", and workers of
# two releases can share a server during a rolling update.
LIBRARY = "stream_app_" + hashlib.sha256(_SOURCE.encode()).hexdigest()[:12]
CODE = f"#!lua name={LIBRARY}\n" + _SOURCE.replace("@LIBRARY@", LIBRARY)

INTEGER_END = 2**53  # Lua numbers are doubles
_FIELDS_END = 2_000  # of one hash: Lua's stack takes fewer than 8,000 words
_RESERVED = {b"version", b"epoch"}  # fields of a public hash that the function itself writes


def function_call(name: str, keys: Sequence[bytes], arguments: Command) -> Command:
    """Return the command that calls one function of this release's library."""
    return ("FCALL", f"{LIBRARY}_{name}", len(keys), *keys, *arguments)


def hashes_call(name: str, records: Sequence[PublicHash], *, ttl_ms: int | None) -> Command:
    """Return the call of ``put_hashes`` or another function with its arguments.

    Each set of field names once, then the values.
    """
    shapes: dict[tuple[bytes, ...], int] = {}
    values: list[Argument] = []
    for record in records:
        shape = shapes.get(record.names)
        if shape is None:
            assert len(record.names) < _FIELDS_END
            assert not set(record.names) & _RESERVED, record.key
            shape = shapes[record.names] = len(shapes) + 1
        assert len(record.values) == len(record.names), record.key
        assert record.version < INTEGER_END and record.epoch < INTEGER_END
        values += (shape, record.version, record.epoch, *record.values)
    named: list[Argument] = []
    for names in shapes:
        named += (len(names), *names)
    keys = [record.key.encode() for record in records]
    return function_call(name, keys, (ttl_ms or b"", len(shapes), *named, *values))
