"""One error tree. An error is named for what the worker does next.

StreamAppError
├── ConfigurationError     stop at start, naming the setting and the cure
├── EventRejected          dead-letter the record and go on
├── StoreUnavailable       retry with back-off, without end
├── LogUnavailable         retry with back-off, without end
├── Fenced                 stop working on the partition: another worker owns it
├── RolledBack             rewind Kafka to the stored cursor and go on from there
├── WorkerStuck            stop with an error: a supervisor starts the worker again
├── SchemaUnknown          stop the worker: state was written by a newer release
└── EventFileError         tell the user which line of which file is wrong
"""


class StreamAppError(Exception):
    """Base class of every error this package raises on purpose."""


class ConfigurationError(StreamAppError):
    """A setting is wrong; the message names it, its value, and what would be right."""


class EventRejected(StreamAppError):
    """A record cannot be an event; ``reason`` is one of :data:`stream_app.events.REASONS`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class StoreUnavailable(StreamAppError):
    """The Redis-protocol server did not answer, is loading, read-only or out of memory."""


class LogUnavailable(StreamAppError):
    """Kafka did not take or give records in time."""


class Fenced(StreamAppError):
    """Another worker has claimed the partition since; nothing was written."""


class RolledBack(StreamAppError):
    """The store holds an older cursor than this worker committed; nothing was written."""

    def __init__(self, message: str, *, cursor: int | None) -> None:
        super().__init__(message)
        self.cursor = cursor


class WorkerStuck(StreamAppError):
    """Records wait, nothing is being retried, and nothing has moved for too long."""


class SchemaUnknown(StreamAppError):
    """A state blob carries a schema version this release does not know."""


class EventFileError(StreamAppError):
    """An event file cannot be read; the message names file, line and cure."""
