"""CPU time and memory of processes with all their children, from ``/proc`` (Linux)."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
_UTIME, _CSTIME = 11, 15  # positions after the name: utime, stime, cutime, cstime


def _stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/<pid>/stat`` after the process's name; ``None`` when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(") ")[2].split()


def cpu_us(pids: Iterable[int]) -> float:
    """Microseconds of CPU used so far by ``pids``, their waited-for and their living children.

    >>> cpu_us([os.getpid()]) > 0
    True
    """
    total = 0.0
    for pid in family(pids):
        fields = _stat(pid)
        if fields is not None:
            total += sum(map(int, fields[_UTIME:_CSTIME])) * _TICK_US
    return total


def family(pids: Iterable[int]) -> set[int]:
    """``pids`` and all their living descendants.

    >>> family([os.getpid()]) >= {os.getpid()}
    True
    """
    found: set[int] = set()
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid in found:
            continue
        found.add(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                todo += map(int, task.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has ended since
    return found


def resident_mb(pids: Iterable[int]) -> float:
    """Resident memory of ``pids`` and their children in MiB."""
    pages = 0
    for pid in family(pids):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
