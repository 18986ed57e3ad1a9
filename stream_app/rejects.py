"""Dead-letter records that are no events: as they came, with where they came from and why."""

from collections.abc import Sequence

from stream_app.events import Reject
from stream_app.ports import Log, RawBatch, Record
from stream_app.retrying import retrying

WITHHELD = "(withheld: "  # how the detail of a letter begins that does not repeat the record
_OF_PSEUDONYMS = f"{WITHHELD}customers go by pseudonyms)"
LETTER_BYTES_MAX = 4_000_000  # what surely fits; other people's topics may have larger records
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
    record says stays where it came from, as it may name a customer; the headers tell where. So
    does what is too large to be sent.
    """
    if not rejects:
        return
    records = [_letter(batch, reject, withheld=withheld) for reject in rejects]
    target = batch.partition if partition is None else partition
    await retrying(lambda: log.send(topic, target, records), f"dead-lettering to {topic}")


def _letter(batch: RawBatch, reject: Reject, *, withheld: bool) -> Record:
    row = reject.row
    key, value, headers = batch.keys[row], batch.values[row], batch.headers[row]
    detail = _OF_PSEUDONYMS if withheld else reject.detail
    size = len(key or b"") + len(value or b"") + sum(len(n) + len(said) for n, said in headers)
    if size > LETTER_BYTES_MAX and not withheld:
        withheld, detail = True, f"{WITHHELD}{size} bytes are too many for this topic)"
    return Record(
        None if withheld else key,
        b"" if withheld else value,
        (
            *(() if withheld else headers),
            ("topic", batch.topic.encode()),
            ("partition", str(batch.partition).encode()),
            ("offset", str(batch.offsets[row]).encode()),
            ("reason", reject.reason.encode()),
            ("detail", detail.encode(*_LENIENT)),
        ),
    )
