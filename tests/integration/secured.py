"""A broker with SCRAM over TLS and ACLs, and TLS before Valkey, from the files of ``deploy/``."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from stream_app.embedded import free_port
from tests.servers import ApacheKafka, Listener

deploy = Path(__file__).parents[2] / "deploy"
RESOURCES = {"topic": 2, "group": 3, "cluster": 4}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
LITERAL, ALLOW = 3, 3
OPENSSL_TIMEOUT_S = 60
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed one for this machine: itself its CA. ``both`` has the key as well."""

    ca: Path
    both: Path


def certificate(folder: Path) -> Certificate:
    """Made with openssl, in ``folder``."""
    program = shutil.which("openssl")
    assert program, "openssl is needed to make the certificates of this test"
    key, ca, both = (folder / name for name in ("key.pem", "ca.pem", "both.pem"))
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    subprocess.run(
        [program, *request, "-addext", names, "-keyout", str(key), "-out", str(ca)],
        check=True,
        capture_output=True,
        timeout=OPENSSL_TIMEOUT_S,
    )
    both.write_text(key.read_text() + ca.read_text())
    return Certificate(ca, both)


@contextmanager
def secured_kafka(one: Certificate, passwords: dict[str, str]) -> Iterator[tuple[ApacheKafka, str]]:
    """A broker and the address of its secured listener; the plain one is the administrator's."""
    port = free_port()
    prefix = "listener.name.secure"
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    options = {
        f"{prefix}.ssl.keystore.type": "PEM",
        f"{prefix}.ssl.keystore.location": str(one.both),
        f"{prefix}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        f"{prefix}.scram-sha-512.sasl.jaas.config": login,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    listener = Listener("SECURE", port, port, "SASL_SSL")
    with ApacheKafka(options=options, listeners=[listener], scram=passwords) as broker:
        yield broker, f"localhost:{port}"


async def grant(broker: ApacheKafka, *more: str) -> None:
    """Apply ``deploy/kafka-acls.txt``, and ``more`` lines like its own."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        for line in (*(deploy / "kafka-acls.txt").read_text().splitlines(), *more):
            if line.startswith("#"):
                continue
            who, kind, name, operation = line.split()
            answer = await admin._send_request(
                CreateAclsRequest(
                    RESOURCES[kind],
                    name,
                    LITERAL,
                    f"User:{who}",
                    "*",
                    OPERATIONS[operation],
                    ALLOW,
                )
            )
            assert [code for code, _ in answer.creation_responses] == [0], answer
    finally:
        await admin.close()


@asynccontextmanager
async def tls_before(target_port: int, one: Certificate) -> AsyncIterator[int]:
    """A port that speaks TLS and passes what it hears to ``target_port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(one.both)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_READ_BYTES):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # either end has gone: so does the other
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
