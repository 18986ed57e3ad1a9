"""Stores with replicas that fail over: a primary behind Sentinel, and a cluster."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from stream_app.embedded import ValkeyServer, valkey_server
from tests.servers import Sentinel

SLOTS = 16_384
NODES = 3  # primaries of the cluster
WAIT_S = 90.0
POLL_S = 0.05
RETURNS_AFTER_S = 1.0  # from the promotion of its replica until a primary is back


def ask(server: ValkeyServer, *command: str | int) -> Any:
    """One command to one server; raises ``RedisError``."""
    with Redis.from_url(server.url, protocol=2, socket_timeout=2.0) as client:
        return client.execute_command(*command)


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Return when ``true()`` holds; a server in between may not answer, or refuse to."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except (RedisError, OSError):
            pass  # it is restarting or taking over: ask again
        time.sleep(POLL_S)
    raise TimeoutError(f"waited {WAIT_S:g} s for {what}")


class Replicated(ABC):
    """Servers of which some replicate others; looks like one server to the suite."""

    def __init__(self, folder: Path, n: int, options: dict[str, str]) -> None:
        self.servers: Sequence[ValkeyServer] = [
            valkey_server(
                data_dir=folder / f"valkey-{number}",
                options={"repl-diskless-sync-delay": "0", **options},
            )
            for number in range(n)
        ]

    @property
    @abstractmethod
    def url(self) -> str:
        """What STREAM_APP_REDIS_URL says."""

    @abstractmethod
    def _form(self) -> None:
        """Make of the started servers what they are to be."""

    def start(self) -> None:
        """Start everything; returns when every replica is in step."""
        for server in self.servers:
            server.start()
        self._form()

    def primaries(self) -> list[ValkeyServer]:
        """Those that take writes now, in an order of their own."""
        return [server for server in self.servers if _role(server) == "master"]

    def fail_over(self, primary: ValkeyServer, how: str, behind_s: float) -> None:
        """The primary ends, its replica is promoted, and the primary comes back as a replica.

        ``kill`` is kill -9. ``behind`` too, but the replica got nothing for ``behind_s`` before:
        what was acknowledged meanwhile is lost. ``pause`` stops the primary instead, so that it
        comes back alive, with its connections, and takes itself for the primary for a moment.
        """
        replica = next(s for s in self.servers if _port_of_primary(s) == primary.port)
        if how == "behind":
            ask(primary, "ACL", "SETUSER", "default", "-psync", "-sync")  # until its restart
            ask(primary, "CLIENT", "KILL", "TYPE", "replica")
            time.sleep(behind_s)
        (primary.pause if how == "pause" else primary.kill)()
        wait_until(lambda: _role(replica) == "master", "the replica's promotion")
        time.sleep(RETURNS_AFTER_S)
        (primary.resume if how == "pause" else primary.start)()
        wait_until(lambda: _is_in_step(primary), "the old primary to follow the new one")

    def kill(self) -> None:
        """End all at once."""
        for server in self.servers:
            server.kill()

    def close(self) -> None:
        """End all in order."""
        for server in self.servers:
            server.close()


class BehindSentinel(Replicated):
    """Two servers and a sentinel."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 2, {})
        self._sentinel = Sentinel(self.servers[0])

    @property
    def url(self) -> str:
        """Of the sentinel."""
        return f"redis+sentinel://127.0.0.1:{self._sentinel.port}/shop/0"

    def _form(self) -> None:
        ask(self.servers[1], "REPLICAOF", "127.0.0.1", self.servers[0].port)
        wait_until(lambda: _is_in_step(self.servers[1]), "the replica")
        self._sentinel.start()
        with Redis.from_url(self._sentinel.url, protocol=2) as watcher:
            known = lambda: watcher.sentinel_master("shop")["num-slaves"] == 1  # noqa: E731
            wait_until(known, "the sentinel")

    def kill(self) -> None:
        """The sentinel first."""
        self._sentinel.kill()
        super().kill()

    def close(self) -> None:
        """The sentinel first."""
        self._sentinel.close()
        super().close()


class InCluster(Replicated):
    """Three primaries with a replica each."""

    def __init__(self, folder: Path) -> None:
        options = {"cluster-enabled": "yes", "cluster-node-timeout": "4000"}
        super().__init__(folder, 2 * NODES, options)

    @property
    def url(self) -> str:
        """Two of the nodes."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[-2:])
        return f"redis+cluster://{hosts}"

    def _form(self) -> None:
        for number, server in enumerate(self.servers):
            ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            ask(self.servers[0], "CLUSTER", "MEET", "127.0.0.1", server.port)
        for number, server in enumerate(self.servers[:NODES]):
            first, end = SLOTS * number // NODES, SLOTS * (number + 1) // NODES
            ask(server, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        wait_until(lambda: all(map(self._sees_all, self.servers)), "the cluster to form")
        for primary, replica in zip(self.servers[:NODES], self.servers[NODES:], strict=True):
            ask(replica, "CLUSTER", "REPLICATE", ask(primary, "CLUSTER", "MYID").decode())
        wait_until(lambda: all(map(_is_in_step, self.servers[NODES:])), "the replicas")
        wait_until(lambda: all(map(self._sees_all, self.servers)), "the cluster to be whole")

    def _sees_all(self, server: ValkeyServer) -> bool:
        info = bytes(ask(server, "CLUSTER", "INFO"))
        return b"cluster_state:ok" in info and b"known_nodes:%d\r" % len(self.servers) in info


STORES: dict[str, Callable[[Path], Replicated]] = {"sentinel": BehindSentinel, "cluster": InCluster}


def _replication(server: ValkeyServer) -> dict[str, Any]:
    with Redis.from_url(server.url, protocol=2, socket_timeout=2.0) as client:
        return dict(client.info("replication"))


def _role(server: ValkeyServer) -> str:
    return str(_replication(server)["role"])


def _port_of_primary(server: ValkeyServer) -> int:
    return int(_replication(server).get("master_port", 0))


def _is_in_step(server: ValkeyServer) -> bool:
    said = _replication(server)
    return bool(said["role"] == "slave" and said["master_link_status"] == "up")
