"""Log lines as JSON, one object a line, for what collects them. Chosen by the composition root."""

import logging
from datetime import UTC, datetime
from typing import Any

import orjson

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}


class JsonFormatter(logging.Formatter):
    """``{"ts", "level", "logger", "message"}``, ``exception`` and the record's extra fields.

    >>> record = logging.makeLogRecord({"name": "a", "levelname": "INFO", "msg": "%d", "args": 1,
    ...                                 "created": 0.5})
    >>> JsonFormatter().format(record)
    '{"ts":"1970-01-01T00:00:00.500Z","level":"INFO","logger":"a","message":"1"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line |= {name: value for name, value in vars(record).items() if name not in _KNOWN}
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode(
            errors="replace"
        )


def logging_config(level: str = "INFO") -> dict[str, Any]:
    """The ``logging.config`` dictionary with :class:`JsonFormatter` on standard output."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {
            "default": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.__stdout__",
            }
        },
        "root": {"level": level, "handlers": ["default"]},
    }
