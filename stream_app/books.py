"""What stages other than LEARN keep about a partition: its own state and its accounts."""

from collections.abc import Callable
from typing import ClassVar, Self, TypeVar

import msgspec
import orjson

from stream_app.errors import EventRejected, SchemaUnknown
from stream_app.events import Reject
from stream_app.ports import RawBatch

SCHEMA = 1

Message = TypeVar("Message")


class Books(msgspec.Struct):
    """Counters of records. Stages add fields of their own; the name of each is stored.

    ``repeated`` records were seen before, ``skipped`` offsets hold no record (transaction markers,
    compaction).
    """

    what: ClassVar[str] = "partition"

    schema: int = SCHEMA
    applied: int = 0
    repeated: int = 0
    dead_lettered: int = 0
    skipped: int = 0

    @classmethod
    def decode(cls, blob: bytes) -> Self:
        """From the bytes of :meth:`encode`; none at all are a new partition.

        Raises ``SchemaUnknown`` for what another release wrote.
        """
        if not blob:
            return cls()
        try:
            books = msgspec.msgpack.decode(blob, type=cls)
        except msgspec.MsgspecError as exc:
            raise SchemaUnknown(f"{cls.what} state: {exc}: run the release that wrote it") from exc
        if books.schema != SCHEMA:
            raise SchemaUnknown(
                f"{cls.what} state has schema {books.schema}, this release reads {SCHEMA}"
            )
        return books

    def encode(self) -> bytes:
        """As stored with every commit."""
        return msgspec.msgpack.encode(self)

    def outcomes(self) -> dict[str, int]:
        """What became of the records; adds up to the cursor."""
        return {
            "applied": self.applied,
            "rejected": self.repeated,
            "dead_lettered": self.dead_lettered,
            "skipped": self.skipped,
        }

    def accounts(self, cursor: int, **more: int) -> bytes:
        """What ``check`` and ``verify`` read."""
        return orjson.dumps({"cursor": cursor, **self.outcomes(), **more})


def decoded(
    batch: RawBatch, decode: Callable[[bytes | None], Message]
) -> tuple[list[Message], list[Reject]]:
    """The messages of ``batch``, and what ``decode`` refused with ``EventRejected``."""
    messages, rejects = [], []
    for row, value in enumerate(batch.values):
        try:
            messages.append(decode(value))
        except EventRejected as exc:
            rejects.append(Reject(row, exc.reason, exc.detail))
    return messages, rejects
