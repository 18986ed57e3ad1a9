"""The broker of a scenario and the Redis server of a run, with the processes to account for."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from stream_app.embedded import tansu_broker, valkey_server
from tests.servers import ApacheKafka, KafkaUnavailable


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker: ``host:port``, what it is, its process."""

    bootstrap: str
    kind: str
    pid: int


@dataclass(frozen=True, slots=True)
class Servers:
    """The Redis servers of a run: the product's URL, their processes, a URL for each."""

    url: str
    pids: Sequence[int]
    nodes: Sequence[str]

    def get_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values of string keys, wherever they are."""
        if len(self.nodes) == 1:
            with redis.Redis.from_url(self.nodes[0], protocol=2) as client:
                return list(client.mget(keys))
        with redis.RedisCluster.from_url(self.nodes[0], protocol=2) as cluster:
            return list(cluster.mget_nonatomic(keys))


RedisKind = Callable[[], AbstractContextManager[Servers]]


@contextmanager
def one_redis() -> Iterator[Servers]:
    """One Valkey server, in memory."""
    with valkey_server() as server:
        assert server.pid is not None
        yield Servers(server.url, [server.pid], [server.url])


@contextmanager
def redis_cluster(nodes: int = 3) -> Iterator[Servers]:
    """A cluster of ``nodes`` primaries on loopback that serves every slot."""
    slots, wait_s = 16_384, 30.0
    with ExitStack() as stack:
        options = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
        servers = [stack.enter_context(valkey_server(options=options)) for _ in range(nodes)]
        admins = [stack.enter_context(redis.Redis.from_url(s.url, protocol=2)) for s in servers]
        for number, (admin, server) in enumerate(zip(admins, servers, strict=True)):
            first, end = slots * number // nodes, slots * (number + 1) // nodes
            _ask(admin, "CLUSTER ADDSLOTSRANGE", first, end - 1)
            _ask(admin, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            _ask(admins[0], "CLUSTER MEET", "127.0.0.1", server.port)
        deadline = time.monotonic() + wait_s
        while not all(_serves(admin, nodes) for admin in admins):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster of {nodes} did not form in {wait_s:g} s")
            time.sleep(0.05)
        hosts = ",".join(server.address for server in servers)
        pids = [server.pid for server in servers if server.pid is not None]
        yield Servers(f"redis+cluster://{hosts}", pids, [server.url for server in servers])


def _ask(admin: redis.Redis, *command: str | int) -> Any:
    return admin.execute_command(*command)  # type: ignore[no-untyped-call]


def _serves(admin: redis.Redis, nodes: int) -> bool:
    info = _ask(admin, "CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes)


class _Kafka(ApacheKafka):
    """With the optimising compiler, as in production; the tests switch it off to start faster."""

    def _java(self, main: str, *arguments: str) -> list[str]:
        command = super()._java(main, *arguments)
        return [part for part in command if part != "-XX:TieredStopAtLevel=1"]


def start_broker(stack: ExitStack) -> Broker:
    """Apache Kafka where Java and Maven are, else embedded Tansu; stopped with ``stack``."""
    try:
        kafka = stack.enter_context(_Kafka())
    except KafkaUnavailable as exc:
        tansu = stack.enter_context(tansu_broker())
        assert tansu.pid is not None
        return Broker(tansu.bootstrap, f"embedded Tansu, NOT Apache Kafka ({exc})", tansu.pid)
    jar = next(kafka.jars.glob("kafka_2.13-*.jar"))
    assert kafka.pid is not None
    version = jar.stem.removeprefix("kafka_2.13-")
    return Broker(kafka.bootstrap, f"Apache Kafka {version}", kafka.pid)
