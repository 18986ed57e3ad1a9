"""Bounds and times of a worker's consumer. Read by :mod:`.transport`, filled from the settings."""

from dataclasses import dataclass, fields
from typing import Any

from stream_app.errors import ConfigurationError

# Under way in all partitions of a worker together. With 8, a worker of 24 partitions fell from
# 58,800 to 43,900 events/s: most had nothing when their turn came.
BUFFER_BATCHES = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a worker fetches ahead and how long it may take.

    Memory per partition: ``buffer_batches_max`` + 2 fetches of ``fetch_partition_bytes_max`` (as
    compressed), or three batches of ``batch_records_max`` and two fetches, whichever comes first.
    Once ``BUFFER_BATCHES`` batches are under way, two fetches of each that has any.
    ``fetch_wait_ms`` is how long the broker holds an empty answer. It delays no record, but a
    partition of which a batch waits already is asked for again when the answer for others is there.
    ``drain_timeout_s`` is what a handler call gets to finish when its partition is taken away or
    the worker stops; ``poll_interval_max_s`` how long the main loop may hang before the worker
    leaves the group.
    """

    batch_records_max: int = 10_000
    buffer_batches_max: int = 16
    fetch_bytes_max: int = 16_777_216
    fetch_partition_bytes_max: int = 1_048_576
    fetch_wait_ms: int = 100
    session_timeout_s: float = 10.0
    heartbeat_interval_s: float = 2.0
    rebalance_timeout_s: float = 60.0
    poll_interval_max_s: float = 300.0
    request_timeout_s: float = 30.0
    commit_interval_s: float = 1.0
    drain_timeout_s: float = 20.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ConfigurationError(f"{field.name}={value} must be above 0")
        for less, more in (
            ("heartbeat_interval_s", "session_timeout_s"),
            ("session_timeout_s", "request_timeout_s"),
            ("drain_timeout_s", "rebalance_timeout_s"),
        ):
            if getattr(self, less) >= getattr(self, more):
                raise ConfigurationError(
                    f"{less}={getattr(self, less)} must be below {more}={getattr(self, more)}"
                )

    @property
    def buffer_records_max(self) -> int:
        """Records under way from which on only partitions without any get more."""
        return BUFFER_BATCHES * self.batch_records_max

    @property
    def stop_timeout_s(self) -> float:
        """What a worker gets to stop in: the handler calls, the last commit, the connections."""
        return self.drain_timeout_s + self.session_timeout_s + self.request_timeout_s


def faust_settings(limits: Limits, *, web_host: str, web_port: int) -> dict[str, Any]:
    """Return Faust's settings that lose nothing, create nothing and show nothing to the network."""
    return {
        "processing_guarantee": "at_least_once",  # the store makes it exactly once
        "topic_allow_declare": False,  # topics are created by the topics command
        "topic_disable_leader": True,  # its topic cannot be created on managed clusters
        "stream_buffer_maxsize": limits.buffer_batches_max,
        "stream_wait_empty": True,
        "broker_commit_interval": limits.commit_interval_s,
        "broker_session_timeout": limits.session_timeout_s,
        "broker_heartbeat_interval": limits.heartbeat_interval_s,
        "broker_rebalance_timeout": limits.rebalance_timeout_s,
        "broker_request_timeout": limits.request_timeout_s,
        "producer_acks": -1,
        "producer_request_timeout": limits.request_timeout_s,
        "key_serializer": "raw",
        "value_serializer": "raw",
        "web_host": web_host,
        "web_bind": web_host,  # web_host alone is only what Faust calls itself
        "web_port": web_port,
        "web_router_enabled": False,
        "web_tables_enabled": False,
        "web_graph_enabled": False,
        "web_stats_enabled": False,
    }
