"""Warn while there is still memory: the worker's own, and the store's. Called by the root."""

from pathlib import Path
from typing import Protocol

from stream_app.errors import StreamAppError

NEARLY = 0.9
MIB = 1024 * 1024
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_UNLIMITED = 1 << 60  # what version 1 of cgroups says for "no limit"


class HasMemory(Protocol):
    """A store that says how much of its memory it uses."""

    async def memory(self) -> list[tuple[int, int]]:
        """(bytes used, bytes allowed or 0) of every server."""
        ...


async def memory_warnings(store: HasMemory, worker_max_mib: int) -> list[str]:
    """What is about to run out, with the cure; nothing when all is well or nobody knows."""
    warnings = []
    limit = worker_max_mib * MIB or int(cgroup_limit() * NEARLY)
    used = resident_bytes()
    if limit and used > limit:
        warnings.append(
            f"the worker uses {used // MIB} MiB of {limit // MIB}: lower"
            " STREAM_APP_ITEM_TABLES_MAX or STREAM_APP_USER_CACHE_MAX, or give it more"
        )
    try:
        servers = await store.memory()
    except StreamAppError:
        return warnings  # it is away, which others report
    warnings += [
        f"the store uses {used // MIB} MiB of {most // MIB}: raise its maxmemory, or shorten"
        " STREAM_APP_USER_TTL_DAYS; when it is full, writes wait"
        for used, most in servers
        if most and used > NEARLY * most
    ]
    return warnings


def resident_bytes(status: Path = Path("/proc/self/status")) -> int:
    """Memory of this process; 0 where the system does not say."""
    if not status.exists():
        return 0
    for line in status.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def cgroup_limit() -> int:
    """Bytes that the container may use; 0 without a limit."""
    for path in _CGROUP_LIMITS:
        if path.exists():
            said = path.read_text().strip()
            return int(said) if said.isdigit() and int(said) < _UNLIMITED else 0
    return 0
