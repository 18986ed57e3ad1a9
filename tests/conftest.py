"""Servers for the tests: one broker and one Valkey a session, names and data of a test's own."""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import count

import pytest
from redis import Redis

from stream_app.embedded import TansuBroker, ValkeyServer, tansu_broker, valkey_server
from tests.servers import ApacheKafka, Kafka, KafkaUnavailable, create_topic, start_kafka

UniqueName = Callable[[str], str]
NewTopicFactory = Callable[..., Awaitable[str]]

_numbers = count(1)
_report: list[str] = []  # for the terminal summary


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on which broker the Kafka tests ran, and why not on a better one."""
    for line in _report:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """Kafka of the session: ``.bootstrap``, ``.kind``, ``.is_apache``; CI accepts no other."""
    skipped: list[str] = []
    with ExitStack() as stack:
        try:
            broker = start_kafka(stack, skipped)
        except KafkaUnavailable as exc:
            pytest.fail(str(exc), pytrace=False)
        _report.append(f"Kafka tests ran on: {broker.kind}")
        if not broker.is_apache:
            _report.extend(f"  not used - {reason}" for reason in skipped)
        yield broker


@pytest.fixture
def kafka_process() -> Iterator[ApacheKafka]:
    """Apache Kafka of this test's own, which it may kill, pause and restart."""
    try:
        broker = ApacheKafka()
    except KafkaUnavailable as exc:
        reason = f"this test kills its broker, so it needs Java and Maven: {exc}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with broker:
        yield broker


@pytest.fixture(scope="session")
def tansu() -> Iterator[TansuBroker]:
    """Return the embedded broker of the session: ``.bootstrap``."""
    with tansu_broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def _session_valkey() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


@pytest.fixture
def valkey(_session_valkey: ValkeyServer) -> ValkeyServer:
    """Valkey of the session, running and empty: ``.url``, ``.pause()``, ``.kill()`` …"""
    _session_valkey.resume()  # a test may have left it paused or dead
    if not _session_valkey.running:
        _session_valkey.start()
    with Redis.from_url(_session_valkey.url, protocol=2) as client:
        client.flushall()
        client.function_flush()
    return _session_valkey


@pytest.fixture
def unique() -> UniqueName:
    """Return a function that makes a topic, group or key name no other test of the session uses."""
    return lambda name: f"{name}-{next(_numbers)}"


@pytest.fixture
def new_topic(kafka: Kafka, unique: UniqueName) -> NewTopicFactory:
    """Return a coroutine function (below) that makes a topic and returns its unique name."""

    async def create(
        name: str, *, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        topic = unique(name)
        await create_topic(kafka.bootstrap, topic, partitions=partitions, configs=configs)
        return topic

    return create
