"""The brokers that the tests run on. Apache Kafka, as a child process, wherever Java and Maven are.

    STREAM_APP_TEST_KAFKA=host:port ─► that broker
    else Java + Maven               ─► Apache Kafka, its jars from tests/kafka/pom.xml in .cache/
    else Docker                     ─► Apache Kafka in a container
    else                            ─► embedded Tansu (with CI=true: an error)

``python -m tests.servers`` fetches the jars beforehand.
"""

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from stream_app.embedded import (
    EmbeddedServerError,
    ServerProcess,
    ValkeyServer,
    free_port,
    tansu_broker,
)
from stream_app.embedded.probes import kafka_answers

pom = Path(__file__).parent / "kafka" / "pom.xml"
jars_dir = pom.parents[2] / ".cache" / "kafka-jars"
maven_timeout_s = 600
format_timeout_s = 60
heap_max = "512m"


class KafkaUnavailable(Exception):
    """This way of getting a broker does not work here; the message says why."""


@dataclass(frozen=True, slots=True)
class Kafka:
    """The broker of a test session: where it is and what it is."""

    bootstrap: str
    kind: str
    is_apache: bool


def kafka_jars() -> Path:
    """Return the directory with Kafka's jars, fetched with Maven when the pom is new."""
    stamp = jars_dir / pom.name
    if stamp.exists() and stamp.read_bytes() == pom.read_bytes():
        return jars_dir
    partial = jars_dir.with_name(f"{jars_dir.name}-{os.getpid()}")
    goal = [
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={partial}",
    ]
    command = ["mvn", "-q", "-B", "--strict-checksums", "-f", str(pom), *goal]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=maven_timeout_s)
        if done.returncode != 0:
            raise KafkaUnavailable(f"Maven cannot fetch Kafka's jars: {done.stdout[-2000:]}")
        shutil.copy(pom, partial)
        shutil.rmtree(jars_dir, ignore_errors=True)
        partial.rename(jars_dir)  # at once, so that a broken download is never taken for the jars
    except subprocess.TimeoutExpired as exc:
        raise KafkaUnavailable(f"Maven did not fetch Kafka's jars in {exc.timeout:g} s") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return jars_dir


@dataclass(frozen=True, slots=True)
class Listener:
    """One more listener of a broker: clients that come to ``port`` are sent to ``advertised``."""

    name: str
    port: int
    advertised: int  # the port of a proxy, or the same
    protocol: str = "PLAINTEXT"


class ApacheKafka(ServerProcess):
    """One Apache Kafka node, broker and controller; its data and port outlive restarts.

    ``scram`` are users and passwords that exist from the first start on.
    """

    def __init__(
        self,
        *,
        options: Mapping[str, str] | None = None,
        listeners: Sequence[Listener] = (),
        scram: Mapping[str, str] | None = None,
    ) -> None:
        missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
        if missing:
            raise KafkaUnavailable(f"{' and '.join(missing)} not found")
        self.jars = kafka_jars()
        super().__init__(
            "kafka", port=None, ready=kafka_answers, start_timeout_s=90, stop_timeout_s=15
        )
        self._properties = self.dir / "server.properties"
        self._write_properties(options or {}, listeners)
        try:
            self._format(scram or {})
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        return self.address

    def command(self) -> Sequence[str]:
        """Return the broker's command line."""
        return self._java("kafka.Kafka", str(self._properties))

    def _java(self, main: str, *arguments: str) -> list[str]:
        flags = [f"-Xmx{heap_max}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        logging = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *flags, logging, "-cp", f"{self.jars}/*", main, *arguments]

    def _write_properties(self, options: Mapping[str, str], listeners: Sequence[Listener]) -> None:
        listening = "".join(f",{one.name}://127.0.0.1:{one.port}" for one in listeners)
        advertised = "".join(f",{one.name}://127.0.0.1:{one.advertised}" for one in listeners)
        protocols = "".join(f",{one.name}:{one.protocol}" for one in listeners)
        controller = f"127.0.0.1:{free_port()}"
        one_node = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}{listening}",
            "advertised.listeners": f"PLAINTEXT://{self.address}{advertised}",
            "listener.security.protocol.map": (
                f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}"
            ),
            "log.dirs": str(self.dir / "data"),
            **{f"{topic}.replication.factor": "1" for topic in one_node},
            **{f"{topic}.num.partitions": "2" for topic in one_node},
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",  # lets a test lose a worker in a second
            # A killed broker is let in again only when its old session has run out.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "log.retention.ms": "-1",  # test events are years old by their own time stamps
            **options,
        }
        lines = (f"{key}={value}\n" for key, value in properties.items())
        self._properties.write_text("".join(lines))

    def _format(self, scram: Mapping[str, str]) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}")
        for user, password in scram.items():
            tool += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        done = subprocess.run(
            [*tool, "--config", str(self._properties)],
            capture_output=True,
            text=True,
            timeout=format_timeout_s,
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"Kafka cannot format its storage: {done.stderr[-2000:]}")


class Sentinel(ValkeyServer):
    """The server binary as a sentinel that watches one master under the name ``shop``."""

    def __init__(self, master: ValkeyServer) -> None:
        super().__init__()
        self._config = self.dir / "sentinel.conf"
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.dir}\n"
            f"sentinel monitor shop 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 5000\n"
        )

    def command(self) -> Sequence[str]:
        """Return the server's command line."""
        return [super().command()[0], str(self._config), "--sentinel"]


async def create_topic(
    bootstrap: str, name: str, *, partitions: int = 1, configs: Mapping[str, str] | None = None
) -> None:
    """Create a topic with one replica; raises aiokafka's error when that fails."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topic = NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))
        answer = await admin.create_topics([topic])
    finally:
        await admin.close()
    for _name, code, message in answer.topic_errors:  # aiokafka does not raise for these
        if code != 0:
            raise for_code(code)(f"cannot create topic {name}: {message}")


@contextmanager
def _given() -> Iterator[Kafka]:
    address = os.environ.get("STREAM_APP_TEST_KAFKA")
    if not address:
        raise KafkaUnavailable("STREAM_APP_TEST_KAFKA is not set")
    yield Kafka(address, f"the broker at {address} (STREAM_APP_TEST_KAFKA)", is_apache=True)


@contextmanager
def _from_maven() -> Iterator[Kafka]:
    with ApacheKafka() as broker:
        jar = next(broker.jars.glob("kafka_2.13-*.jar"))
        version = jar.stem.removeprefix("kafka_2.13-")
        yield Kafka(broker.bootstrap, f"Apache Kafka {version} (Java)", is_apache=True)


@contextmanager
def _from_docker() -> Iterator[Kafka]:
    if shutil.which("docker") is None:
        raise KafkaUnavailable("docker not found")
    if subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode != 0:
        raise KafkaUnavailable("no Docker engine answers")
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer().with_kraft() as container:  # the image that testcontainers is tested with
        address = container.get_bootstrap_server()
        yield Kafka(address, f"Apache Kafka in Docker ({container.image})", is_apache=True)


@contextmanager
def _embedded() -> Iterator[Kafka]:
    if os.environ.get("CI") == "true":
        raise KafkaUnavailable("not accepted with CI=true")
    with tansu_broker() as broker:
        yield Kafka(broker.bootstrap, "embedded Tansu, NOT Apache Kafka", is_apache=False)


_ways: tuple[tuple[str, Callable[[], AbstractContextManager[Kafka]]], ...] = (
    ("given", _given),
    ("Java + Maven", _from_maven),
    ("Docker", _from_docker),
    ("embedded", _embedded),
)


def start_kafka(stack: ExitStack, skipped: list[str]) -> Kafka:
    """Return the best broker to be had, stopped with ``stack``.

    Why a better one is not used goes to ``skipped``. Raises :class:`KafkaUnavailable` when there
    is none that may be used.
    """
    for name, way in _ways:
        try:
            return stack.enter_context(way())
        except (KafkaUnavailable, EmbeddedServerError) as exc:
            skipped.append(f"{name}: {exc}")
    raise KafkaUnavailable("no Kafka broker for the tests:\n  " + "\n  ".join(skipped))


if __name__ == "__main__":
    print(f"Apache Kafka's jars are in {kafka_jars()}")
