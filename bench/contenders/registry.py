"""All contenders by name: how to start them and how much of the load each gets."""

import importlib.metadata
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.contest import ROOT, Contender, python_module
from stream_app.core.model import PREVIOUS_MAX

PEERS = ROOT / ".cache" / "bench-peers"
STREAMS = ROOT / ".cache" / "kafka-streams"
INSTALL_S = 900
# What the job of the peers itself uses, in the versions that the product runs with.
COMMON = ("aiokafka", "redis", "hiredis", "orjson")


class CannotRun(Exception):
    """A contender cannot be had on this machine; the message says why."""


@cache
def install_peers() -> dict[str, str]:
    """Make the peers' environment; maps each requirement that does not install to the reason."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *(f"{name}=={importlib.metadata.version(name)}" for name in COMMON),
        *project["project"]["optional-dependencies"]["bench"],
    ]
    stamp = PEERS / "installed"
    if stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return {}
    failed = {}
    for requirement in wanted:
        command = [str(python), "-m", "pip", "install", "--quiet", requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
        if done.returncode != 0:
            failed[requirement] = done.stderr.strip()[-300:]
    if not failed:
        stamp.write_text("\n".join(wanted))
    return failed


@cache
def build_streams() -> Path:
    """Compile the Kafka Streams program with Maven; returns the directory of its jars."""
    if shutil.which("java") is None or shutil.which("mvn") is None:
        raise CannotRun("Kafka Streams needs Java and Maven")
    pom = ROOT / "bench" / "kafka_streams" / "pom.xml"
    jar = STREAMS / "bench-kafka-streams.jar"
    sources = [pom, *pom.parent.rglob("*.java")]
    if not jar.exists() or jar.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        command = ["mvn", "-q", "-B", "-f", str(pom), "package"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
        if done.returncode != 0:
            raise CannotRun(f"Maven cannot build {pom}: {done.stdout[-1000:]}")
    return STREAMS


def _peer(module: str, *arguments: str) -> list[str]:
    install_peers()
    return [str(PEERS / "bin" / "python"), "-m", module, *arguments]


def _streams() -> list[str]:
    jars = build_streams()
    classpath = f"{jars}/bench-kafka-streams.jar:{jars}/jars/*"
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return ["java", "-Xmx1g", quiet, "-cp", classpath, "bench.Main"]


def pipeline(events: int, warm: int, **changes: object) -> Contender:
    """The product, as a user starts it: ``faust -A stream_app.app worker``."""
    worker = ("-A", "stream_app.app", "worker", "-l", "warn", "--web-port")
    return Contender(
        name="pipeline",
        title="stream_app, 1 worker",
        command=lambda: python_module("faust", *worker),
        events=events,
        warm=warm,
        previous=PREVIOUS_MAX,
        ours=True,
        accounts=True,
        **changes,  # type: ignore[arg-type]
    )


def pipeline_one_list(events: int, warm: int, journey: Path) -> Contender:
    """The product with the job of the others: one list for each customer, whatever their step.

    ``journey`` is written here.
    """
    usual = importlib.resources.files("stream_app").joinpath("journey.toml").read_text()
    journey.write_text(re.sub(r"(?m)^lists = .*$", 'lists = ["home"]', usual))
    return replace(
        pipeline(events, warm, settings={"STREAM_APP_JOURNEY_FILE": str(journey)}),
        name="pipeline_one_list",
        title="stream_app, one list per customer, as the peers",
    )


def floor(events: int, warm: int, tape: Path) -> Contender:
    """The same reads, writes and messages without computing."""
    return Contender(
        name="floor",
        title="floor: same I/O, no computation",
        command=lambda: python_module(
            "faust", "-A", "bench.contenders.floor", "worker", "-l", "warn", "--web-port"
        ),
        events=events,
        warm=warm,
        ours=True,
        accounts=True,
        settings={"BENCH_TAPE": str(tape)},
    )


def naive(events: int, warm: int, previous: int) -> Contender:
    """The textbook agent."""
    arguments = ("worker", "-l", "warn", "--without-web")
    return Contender(
        name=f"naive_{previous}",
        title=f"naive: Faust agent + redis-py per event, {previous} items back",
        command=lambda: python_module("bench.contenders.naive", *arguments),
        events=events,
        warm=warm,
        previous=previous,
        primed=True,
    )


def peers(events: int, warm: int) -> list[Contender]:
    """The Python peers: the same pairs as the product counts."""
    modules = {
        "aiokafka": ("aiokafka_loop", "aiokafka loop + redis-py pipelines"),
        "faststream": ("faststream_batch", "FastStream batch (confluent-kafka)"),
        "quix": ("quix", "Quix Streams, batching sink"),
        "bytewax": ("bytewax_flow", "bytewax, flat_map_batch"),
    }
    return [
        Contender(
            name=name,
            title=title,
            command=lambda module=module: _peer(f"bench.contenders.{module}"),  # type: ignore[misc]
            events=events,
            warm=warm,
            previous=PREVIOUS_MAX,
            primed=True,
        )
        for name, (module, title) in modules.items()
    ]


def kafka_streams(events: int, warm: int) -> Contender:
    """The JVM's own: RocksDB stores, one thread per core."""
    return Contender(
        name="kafka_streams",
        title="Kafka Streams + RocksDB (JVM), lists to a topic only",
        command=_streams,
        events=events,
        warm=warm,
        previous=PREVIOUS_MAX,
        settings={"BENCH_THREADS": str(len(os.sched_getaffinity(0)))},
    )


def transport(events: int, warm: int) -> Contender:
    """Our transport with a handler that does nothing."""
    return Contender(
        name="transport",
        title="micro-batch transport, empty handler",
        command=lambda: python_module(
            "faust", "-A", "bench.contenders.nothing", "worker", "-l", "warn", "--web-port"
        ),
        events=events,
        warm=warm,
        ours=True,
    )


def stock(events: int, warm: int) -> Contender:
    """Faust as it comes with an agent that does nothing."""
    arguments = ("worker", "-l", "warn", "--without-web")
    return Contender(
        name="stock_faust",
        title="stock Faust, empty agent",
        command=lambda: python_module("bench.contenders.stock_faust", *arguments),
        events=events,
        warm=warm,
    )
