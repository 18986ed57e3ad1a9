"""The image of deploy/Dockerfile is built, and its worker makes lists of a shop's events."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from packaging.requirements import Requirement

from stream_app.embedded import valkey_server
from tests.operations.image import ROOT, Builder, Container, inside
from tests.operations.live import LiveShop, view
from tests.servers import Kafka

COUNT_KERNELS = 'find "$0" -name "*.nbc" | wc -l'


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    builder = Builder(tmp_path_factory.mktemp("image"))
    try:
        yield Container(builder, builder.build())
    finally:
        builder.remove()


@dataclass
class ContainedShop(LiveShop):
    """A worker in a container, started as an engine would: entry point, then command."""

    container: Container | None = None

    def _faust(self, *arguments: str) -> list[str]:
        assert self.container is not None
        own = {k: v for k, v in self.environment.items() if k.startswith("STREAM_APP_")}
        config = self.container.config
        command = config["Cmd"] if arguments[0] == "worker" else [*config["Cmd"][:3], *arguments]
        return self.container.command(
            [*config["Entrypoint"], *command], environment=own, mounted=[self.home]
        )

    def _stop(self, worker: subprocess.Popen[bytes]) -> None:
        assert self.container is not None
        stop = signal.Signals[self.container.config["StopSignal"]]
        os.kill(inside(worker.pid), stop)  # Buildah would end it at once, an engine does this
        assert worker.wait(60) == 0, self.log_path.read_text()[-3000:]


def test_it_holds_what_is_locked_and_says_so(container: Container) -> None:
    bill = json.loads(container.run("cat", "/opt/stream_app/sbom.cdx.json"))
    held = {(part["name"].lower(), part["version"]) for part in bill["components"]}
    lines = re.findall(r"^\w[^\\\n]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    locked = {
        (one.name.lower(), str(one.specifier).removeprefix("=="))
        for one in map(Requirement, lines)
        if one.marker is None or one.marker.evaluate()
    }
    assert len(locked) > 20
    assert held == locked


def test_its_user_is_nobody_in_particular(container: Container) -> None:
    assert container.run("id", "-u") == "10001"
    assert container.run("sh", "-c", "touch /opt/stream_app/x 2>/dev/null || echo no") == "no"


def test_its_worker_makes_lists(
    container: Container, kafka: Kafka, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("contained")
    for path in (home, *home.parents[:2]):
        path.chmod(0o755)
    with ExitStack() as stack:
        valkey = stack.enter_context(valkey_server())
        shop = ContainedShop(
            kafka.bootstrap, valkey.url, home, "contained-shop", container=container
        )
        shop.start(stack)
        now = time.time() - 60
        shop.send(*(view(f"c{u}", f"p{(u + k) % 6}", now + k) for k in range(4) for u in range(8)))
        shop.wait_for("similar:p2")
        shop.send(view("c9", "p2", now + 9))
        entries = shop.wait_for("rec:c9", "home")
        assert {entry["item_id"] for entry in entries} & {"p1", "p3"}
        check = container.config["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        port = {"STREAM_APP_WEB_PORT": str(shop.web_port)}
        container.run(*check[1:], environment=port)
        with pytest.raises(AssertionError):
            container.run(*check[1:], environment={"STREAM_APP_WEB_PORT": "1"})
    brought = container.run("sh", "-c", COUNT_KERNELS, "/home/stream_app/kernels")
    used = container.run("sh", "-c", COUNT_KERNELS, "/home/stream_app/.cache/numba")
    assert int(brought) > 30
    assert used == brought, "it compiled kernels that the image has, or should have"
