"""Everything encrypted, everybody with the least rights: it works, and nothing more does."""

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import orjson
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from stream_app.adapters.kafka import KafkaLog, Security
from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import consume, ensure_topics
from stream_app.embedded import ValkeyServer, free_port, valkey_server
from stream_app.errors import ConfigurationError
from stream_app.ports import ACCOUNTS_ID, USERS, Commit, PublicHash, Record
from stream_app.settings import Settings, load_settings
from stream_app.simulator import LIVE, Shop
from stream_app.worker import redis_store, security, topic_specs
from tests.integration.secured import (
    Certificate,
    certificate,
    deploy,
    grant,
    secured_kafka,
    tls_before,
)
from tests.servers import ApacheKafka, KafkaUnavailable, create_topic

EVENTS, DEADLINE_S = 600, 300.0
TILL = "till"  # a topic that is copied
START_S = 300.0  # of a worker that has to compile its kernels first
PRINCIPALS = ("worker", "shop", "reader", "desk", "operator")
PASSWORDS = {name: f"secret-of-{name}" for name in PRINCIPALS}
LABELLED = "text,intent\n" + "".join(
    f"{text},{intent}\n"
    for intent, texts in {
        "track": ("where is my order", "track my parcel", "when will it arrive"),
        "refund": ("i want my money back", "refund this please", "return it for a refund"),
    }.items()
    for text in texts
)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("secured"))


@pytest.fixture(scope="module")
def broker(one: Certificate) -> Iterator[tuple[ApacheKafka, str]]:
    """Apache Kafka with SCRAM over TLS, and the address of that."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(secured_kafka(one, PASSWORDS))
        except KafkaUnavailable as exc:
            if os.environ.get("CI") == "true":
                pytest.fail(str(exc), pytrace=False)
            pytest.skip(f"a secured broker needs Java and Maven: {exc}")
        yield started


@pytest.fixture
def guarded() -> Iterator[ValkeyServer]:
    """Valkey with the users of ``deploy/redis-users.acl``."""
    with valkey_server() as server:
        with Redis.from_url(server.url, protocol=2) as admin:
            for line in reversed((deploy / "redis-users.acl").read_text().splitlines()):
                _, name, *rules = line.split()
                admin.execute_command("ACL", "SETUSER", name, *rules)
        yield server


def scram(user: str, one: Certificate) -> Security:
    """Of a client that is not ours."""
    context = ssl.create_default_context(cafile=str(one.ca))
    return Security("SASL_SSL", "SCRAM-SHA-512", user, PASSWORDS[user], context)


def variables(
    kafka: str, tls_port: int, home: Path, one: Certificate, *, principal: str, user: str
) -> dict[str, str]:
    """What an operator sets for a worker or a command; secrets are in files."""
    (home / principal).write_text(PASSWORDS[principal] + "\n")
    (home / f"redis-{user}").write_text(f"change-me-{user}\n")
    (home / "messages.csv").write_text(LABELLED)
    return {
        "STREAM_APP_KAFKA_URL": f"kafka://{kafka}",
        "STREAM_APP_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "STREAM_APP_KAFKA_USERNAME": principal,
        "STREAM_APP_KAFKA_PASSWORD_FILE": str(home / principal),
        "STREAM_APP_KAFKA_CA_FILE": str(one.ca),
        "STREAM_APP_REDIS_URL": f"rediss://{user}@localhost:{tls_port}/0",
        "STREAM_APP_REDIS_PASSWORD_FILE": str(home / f"redis-{user}"),
        "STREAM_APP_REDIS_CA_FILE": str(one.ca),
        "STREAM_APP_SOURCE_TOPICS": f"{TILL}=own",
        "STREAM_APP_SUPPORT_TRAIN_FILE": str(home / "messages.csv"),
        "STREAM_APP_CLICKSTREAM_PARTITIONS": "2",
        "STREAM_APP_COOCCURRENCE_PARTITIONS": "2",
        "STREAM_APP_WEB_PORT": str(free_port()),
    }


async def shop_events(settings: Settings, address: str, one: Certificate) -> None:
    """Sent by a principal that may only write to the clickstream."""
    shop = Shop(seed=5, n_items=80, n_customers=40, rate=5.0, pace=LIVE, dirty=0.1)
    parts: dict[int, list[Record]] = defaultdict(list)
    for key, value in shop.events(EVENTS):
        parts[partition_of(key, settings.clickstream_partitions)].append(Record(key, value))
    async with KafkaLog([address], security=scram("shop", one)) as log:
        for partition, records in parts.items():
            await log.send(settings.clickstream_topic, partition, records)
        with pytest.raises(ConfigurationError, match="TopicAuthorizationFailed"):
            await log.send(settings.recommendations_topic, 0, [Record(b"a", b"b")])


async def desk_asks(settings: Settings, address: str, one: Certificate) -> None:
    """A message to customer service by a principal that may send these, and no events."""
    message = orjson.dumps({"message_id": "m1", "user_id": "ann", "text": "where is my order"})
    async with KafkaLog([address], security=scram("desk", one)) as log:
        await log.send(settings.support_topic, 0, [Record(b"ann", message)])
        await log.send(
            settings.support_labels_topic, 0, [Record(b"1", b'{"text":"t","intent":"i"}')]
        )
        with pytest.raises(ConfigurationError, match="TopicAuthorizationFailed"):
            await log.send(settings.clickstream_topic, 0, [Record(b"a", b"b")])


async def desk_is_told(settings: Settings, address: str, one: Certificate) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while True:
        said = consume(
            settings.support_assist_topic, brokers=[address], security=scram("desk", one)
        )
        if answers := [orjson.loads(record.value or b"") async for record in said]:
            assert [answer["intent"] for answer in answers] == ["track"]
            return
        assert asyncio.get_running_loop().time() < deadline, "no answer to the desk"
        await asyncio.sleep(0.2)


async def till_sells(kafka: ApacheKafka) -> None:
    """An event in a topic of somebody else's, who makes it with rights of their own."""
    await create_topic(kafka.bootstrap, TILL)
    sold = {"event": "purchase", "ts": 1_767_600_000, "user_id": "till-ann", "item_id": "i1"}
    async with KafkaLog([kafka.bootstrap]) as log:
        await log.send(TILL, 0, [Record(None, orjson.dumps(sold))])


async def until_applied(
    settings: Settings, log_path: Path, *, space: str = USERS, n: int = 2, wanted: int = EVENTS
) -> None:
    store = redis_store(settings)
    deadline = asyncio.get_running_loop().time() + START_S
    try:
        while True:
            blobs = await store.load(space, range(n), [ACCOUNTS_ID] * n)
            if sum(orjson.loads(blob)["cursor"] for blob in blobs if blob) >= wanted:
                return
            assert asyncio.get_running_loop().time() < deadline, _tail(log_path)
            await asyncio.sleep(0.2)
    finally:
        await store.close()


def _tail(log_path: Path) -> str:
    """The end of the log, and before it where things first went wrong."""
    said = log_path.read_text()
    return said[said.find("Traceback") :][:3_000] * ("Traceback" in said) + said[-3_000:]


def aggregates(environment: dict[str, str], home: Path) -> None:
    """Publish counts, as the operator does; pages may read them."""
    (home / "aggregates").write_text("0123456789abcdef" * 4)
    command = "aggregates --epsilon 1 --secret-file".split()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "stream_app.app", *command, str(home / "aggregates")],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert orjson.loads(done.stdout)["records"] >= EVENTS


def started_worker(environment: dict[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
    with log_path.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "stream_app.app", "worker", "-l", "info"],
            env=kept | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.slow
@pytest.mark.kafka_process
async def test_a_worker_with_least_rights_and_tls_everywhere_serves(
    broker: tuple[ApacheKafka, str], guarded: ValkeyServer, one: Certificate, tmp_path: Path
) -> None:
    kafka, secure = broker
    async with tls_before(guarded.port, one) as tls_port:
        where = (secure, tls_port, tmp_path, one)
        given = variables(*where, principal="worker", user="writer")
        operator = variables(*where, principal="operator", user="operator")
        settings = load_settings(given)
        await grant(kafka, f"worker topic {TILL} Read")
        await till_sells(kafka)
        await ensure_topics(
            topic_specs(settings), brokers=[secure], security=scram("operator", one)
        )
        await shop_events(settings, secure, one)
        await desk_asks(settings, secure, one)
        log_path = tmp_path / "worker.log"
        worker = started_worker(given, log_path)
        try:
            await until_applied(settings, log_path)
            await until_applied(settings, log_path, space=f"copy-{TILL}:", n=1, wanted=1)
            await asyncio.to_thread(only_health_is_shown, settings.web_port)
            await desk_is_told(settings, secure, one)
            await asyncio.to_thread(aggregates, operator, tmp_path)
        finally:
            worker.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(worker.wait, DEADLINE_S)
    assert code == 0, _tail(log_path)
    the_reader_reads_lists_and_nothing_else(guarded)
    said = log_path.read_text()
    secrets = [*PASSWORDS.values(), "change-me-writer"]
    assert not [secret for secret in secrets if secret in said]
    assert not nothing_personal(guarded, said)


async def test_the_writer_has_every_right_that_a_worker_uses(
    guarded: ValkeyServer, tmp_path: Path
) -> None:
    (tmp_path / "redis").write_text("change-me-writer")
    given = {
        "STREAM_APP_REDIS_URL": f"redis://writer@127.0.0.1:{guarded.port}/0",
        "STREAM_APP_REDIS_PASSWORD_FILE": str(tmp_path / "redis"),
    }
    store = redis_store(load_settings(given))
    try:
        claim = await store.claim(USERS, 0)
        await store.commit(claim, Commit(None, 1, [(b"anna", b"a"), (b"bert", b"")], b"m", b"o"))
        assert await store.load(USERS, [0], [b"anna"]) == [b"a"]
        assert [key async for page in store.scan(USERS, 0) for key in page] == [b"anna"]
        await store.put_hashes([PublicHash("rec:anna", 1, 1, (b"home",), [b"[]"])])
        await store.put_values([("trending:all", b"x"), ("dead-lettered:rules", b"{}")])
        assert await store.get("rec:anna") and await store.get("trending:all") == b"x"
        assert await store.check() and await store.memory() and not await store.moved()
    finally:
        await store.close()


def only_health_is_shown(port: int) -> None:
    """On loopback, and neither tables nor routes nor graphs."""
    for page in ("live", "ready"):
        with urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10) as answer:
            assert answer.status == 200
    for page in ("table/", "router/", "graph", "stats/"):
        with pytest.raises(HTTPError) as refused:
            urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10)
        assert refused.value.code == 404
        refused.value.close()
    with socket.socket() as other:  # 127.0.0.2 is loopback too, and would answer for 0.0.0.0
        assert other.connect_ex(("127.0.0.2", port)) != 0


def the_reader_reads_lists_and_nothing_else(server: ValkeyServer) -> None:
    with (
        Redis(port=server.port, username="reader", password="change-me-reader", protocol=2) as page,
        Redis(port=server.port, username="writer", password="change-me-writer", protocol=2) as us,
    ):
        name = a_customer(server)
        assert page.hget(f"rec:{name}", "home")
        assert page.get("aggregates:latest")
        for forbidden in (
            lambda: page.get("sa1:{u0}:accounts"),
            lambda: page.hset(f"rec:{name}", "home", "[]"),
            lambda: page.set("aggregates:latest", "{}"),
            lambda: us.get("segment:1"),
            lambda: page.keys("*"),
            us.flushall,
            lambda: us.get("somebody else's"),
            lambda: us.config_set("maxmemory", 1),
        ):
            with pytest.raises(NoPermissionError):
                forbidden()


def customers(server: ValkeyServer) -> list[str]:
    """As an administrator sees them."""
    with Redis(port=server.port, username="writer", password="change-me-writer", protocol=2) as us:
        shop = Shop(seed=5, n_items=80, n_customers=40, rate=5.0, pace=LIVE, dirty=0.1)
        names = {key.decode() for key, _ in shop.events(EVENTS)}
        return sorted(name for name in names if us.hgetall(f"rec:{name}"))


def a_customer(server: ValkeyServer) -> str:
    return customers(server)[0]


def nothing_personal(server: ValkeyServer, said: str) -> set[str]:
    """Ids of customers among the words of a log."""
    return set(customers(server)) & set(re.findall(r"[\w.-]+", said))


async def test_who_has_no_right_is_told_so(
    broker: tuple[ApacheKafka, str], one: Certificate
) -> None:
    log = KafkaLog([broker[1]], security=scram("reader", one))
    with pytest.raises(ConfigurationError, match="check the credentials, the ACLs"):
        await log.send("clickstream", 0, [Record(b"a", b"b")])


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ({"REDIS_URL": "redis://:secret@cache.example:6379/0"}, "use rediss://"),
        ({"REDIS_URL": "redis+cluster://u:secret@127.0.0.1:1,10.0.0.2:1"}, "10.0.0.2 unencrypted"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_URL": "kafka://k1:1"}, "SASL_SSL"),
    ],
)
def test_a_password_is_not_sent_unencrypted_to_another_machine(
    given: dict[str, str], cure: str, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("secret")
    kafka = {"KAFKA_USERNAME": "u", "KAFKA_PASSWORD_FILE": str(tmp_path / "password")}
    asked = {f"STREAM_APP_{name}": value for name, value in (kafka | given).items()}
    settings = load_settings(asked)
    with pytest.raises(ConfigurationError, match=re.escape(cure)) as refused:
        redis_store(settings)
        security(settings)
    assert "secret" not in str(refused.value)
    allowed = load_settings(asked | {"STREAM_APP_PLAINTEXT_CREDENTIALS": "true"})
    redis_store(allowed)
    security(allowed)
