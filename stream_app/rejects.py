"""Dead-letter records that are no events: as they came, with where they came from and why."""

from collections.abc import Sequence

from stream_app.events import Reject
from stream_app.ports import Log, RawBatch, Record
from stream_app.retrying import retrying

WITHHELD = "(withheld: customers go by pseudonyms)"
_LENIENT = "utf-8", "backslashreplace"


async def dead_letter(
    log: Log,
    topic: str,
    batch: RawBatch,
    rejects: Sequence[Reject],
    *,
    partition: int | None = None,
    withheld: bool = False,
) -> None:
    """Send ``rejects`` of ``batch`` to the dead-letter topic before their offsets are committed.

    They go to the partition of the batch's number, or to ``partition``. A crash in between sends
    them again; (topic, partition, offset) in the headers tells them apart. ``withheld``: what the
    record says stays where it came from, as it may name a customer; the headers tell where.
    """
    if not rejects:
        return
    source = batch.topic.encode(), str(batch.partition).encode()
    records = [
        Record(
            None if withheld else batch.keys[reject.row],
            b"" if withheld else batch.values[reject.row],
            (
                *(() if withheld else batch.headers[reject.row]),
                ("topic", source[0]),
                ("partition", source[1]),
                ("offset", str(batch.offsets[reject.row]).encode()),
                ("reason", reject.reason.encode()),
                ("detail", (WITHHELD if withheld else reject.detail).encode(*_LENIENT)),
            ),
        )
        for reject in rejects
    ]
    target = batch.partition if partition is None else partition
    await retrying(lambda: log.send(topic, target, records), f"dead-lettering to {topic}")
