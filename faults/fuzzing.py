"""Any bytes into everything that reads bytes: only errors on purpose may come out.

``python -m faults.fuzzing TARGET [SECONDS]`` is coverage-guided and needs atheris (``pip install
atheris``; it has no wheels for every Python). ``tests/core/test_fuzzing.py`` does the same by
property, without it.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from stream_app.codec import decode_outbox, decode_transitions
from stream_app.errors import ConfigurationError, EventFileError, EventRejected, SchemaUnknown
from stream_app.events import EventDecoder
from stream_app.offline.eventfile import read_events
from stream_app.ports import RawBatch
from stream_app.sales import decode_sales
from stream_app.settings import Settings, load_settings

READERS = (
    *("stream_app.codec", "stream_app.sales", "stream_app.events", "stream_app.settings"),
    *("stream_app.offline.eventfile", "stream_app.offline.eventformats"),
)


def transitions(data: bytes) -> None:
    """A record of the co-occurrence topic."""
    with suppress(EventRejected):
        decode_transitions(data)


def sales(data: bytes) -> None:
    """A record of the sales topic."""
    with suppress(EventRejected):
        decode_sales(data)


def outbox(data: bytes) -> None:
    """What a partition was to publish."""
    with suppress(SchemaUnknown):
        decode_outbox(data)


@cache
def _decoder() -> EventDecoder:
    return EventDecoder(load_settings({}))


def events(data: bytes) -> None:
    """Records of the clickstream, one a line: each is an event or has a reason not to be."""
    values = data.split(b"\n")
    n = len(values)
    nothing: Sequence[None] = [None] * n
    raw = RawBatch("clickstream", 0, n, range(n), nothing, values, [-1] * n, [()] * n)
    found = _decoder().decode(raw)
    accounted = {int(offset) for offset in found.events["offset"]}
    accounted |= {reject.row for reject in found.rejects}
    assert accounted == set(range(n)), "a record is neither an event nor rejected"


def settings(data: bytes) -> None:
    """Values of settings, one a line, in the order of their fields."""
    words = data.decode("utf-8", "replace").split("\n")
    names = [f"STREAM_APP_{name.upper()}" for name in Settings.model_fields]
    with suppress(ConfigurationError):
        load_settings(dict(zip(names, words, strict=False)))


def _file(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"events{suffix}"
        path.write_bytes(data)
        with suppress(EventFileError):
            read_events(path)


def csv(data: bytes) -> None:
    """An event file."""
    _file(data, ".csv")


def jsonl(data: bytes) -> None:
    """An event file."""
    _file(data, ".jsonl")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (transitions, sales, outbox, events, settings, csv, jsonl)
}


def main(arguments: Sequence[str]) -> None:
    """Fuzz one target for a while; exits non-zero with the input that did it."""
    import atheris

    for name in READERS:
        sys.modules.pop(name, None)  # once more, with their branches counted
    with atheris.instrument_imports(include=list(READERS)):
        targets = import_module("faults.fuzzing").TARGETS
    target, seconds = targets[arguments[0]], arguments[1] if len(arguments) > 1 else "60"
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096"], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
