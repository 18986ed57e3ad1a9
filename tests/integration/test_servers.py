"""The servers that demo and tests stand on: real protocols, and gone when nobody needs them."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis import Redis

from stream_app.embedded import (
    EmbeddedServerError,
    TansuBroker,
    ValkeyServer,
    free_port,
    valkey_server,
)
from stream_app.embedded.probes import kafka_answers, redis_answers
from tests.servers import ApacheKafka, Kafka, create_topic


async def append(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def first(bootstrap: str, topic: str, n: int) -> list[bytes]:
    """Return the first ``n`` values of partition 0; ends by itself once they are there."""
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    async with consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return [(await consumer.getone()).value for _ in range(n)]


async def test_what_kafka_takes_it_gives_back(
    kafka: Kafka, new_topic: Callable[..., Awaitable[str]]
) -> None:
    topic = await new_topic("servers", partitions=2)
    await append(kafka.bootstrap, topic, [b"a", b"b"])
    assert await first(kafka.bootstrap, topic, 2) == [b"a", b"b"]


@pytest.mark.kafka_process
async def test_a_killed_kafka_comes_back_with_its_log_and_port(kafka_process: ApacheKafka) -> None:
    address = kafka_process.bootstrap
    await create_topic(address, "kept")
    await append(address, "kept", [b"before"])
    kafka_process.kill()
    assert not kafka_answers(kafka_process.port)
    kafka_process.start()
    assert kafka_process.bootstrap == address
    await append(address, "kept", [b"after"])
    assert await first(address, "kept", 2) == [b"before", b"after"]


def test_the_embedded_broker_speaks_kafka(tansu: TansuBroker) -> None:
    assert kafka_answers(tansu.port)


def test_valkey_is_empty_and_never_evicts(valkey: ValkeyServer) -> None:
    with Redis.from_url(valkey.url, protocol=2) as client:
        assert client.dbsize() == 0
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.set("left", "behind")  # the next test shows that it is gone


def test_valkey_is_empty_again(valkey: ValkeyServer) -> None:
    with Redis.from_url(valkey.url, protocol=2) as client:
        assert client.dbsize() == 0


def test_valkey_with_a_directory_keeps_acknowledged_writes_over_a_kill(tmp_path: Path) -> None:
    with valkey_server(data_dir=tmp_path, appendfsync="always") as server:
        with Redis.from_url(server.url, protocol=2) as client:
            client.set("cursor", "41")
        server.kill()
        assert not redis_answers(server.port)
        server.start()
        with Redis.from_url(server.url, protocol=2) as client:
            assert client.get("cursor") == b"41"
    assert tmp_path.exists(), "a directory that was given is not removed"


def test_a_paused_valkey_is_silent_and_then_goes_on() -> None:
    with valkey_server() as server:
        server.pause()
        assert not redis_answers(server.port)
        assert server.running
        server.resume()
        assert redis_answers(server.port)
        server.pause()
    assert not server.running, "a paused server is stopped too"


def test_a_server_is_stopped_when_the_block_fails() -> None:
    server = valkey_server()
    with pytest.raises(ZeroDivisionError), server:
        _ = 1 / 0
    assert not server.running
    assert not server.dir.exists()


def test_a_server_that_cannot_start_shows_its_log() -> None:
    with (
        pytest.raises(EmbeddedServerError, match=r"(?s)exit code 1.*no-such-option"),
        valkey_server(options={"no-such-option": "1"}),
    ):
        pass


def test_a_server_dies_with_a_killed_parent() -> None:
    port = free_port()
    code = (
        "import os, signal\n"
        "from stream_app.embedded import valkey_server\n"
        f"server = valkey_server(port={port})\n"
        "server.start()\n"
        "print(server.dir, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left_behind = Path(done.stdout.strip())
    deadline = time.monotonic() + 30
    while redis_answers(port) and time.monotonic() < deadline:
        time.sleep(0.02)  # the kernel's signal is on its way
    assert not redis_answers(port)
    shutil.rmtree(left_behind)
