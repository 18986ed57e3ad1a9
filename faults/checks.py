"""What must hold when all is applied: the ``verify`` command's checks, and two about the way there.

``verify`` recomputes customers and items from the log and compares lists on the topic with Redis.
"""

import os
import re
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis import Redis

from faults.cluster import Cluster
from stream_app.adapters.topics import consume
from stream_app.commands.verify import verified

EXAMPLES_MAX = 40
PUBLIC = (
    *(b"rec:", b"similar:", b"trending:", b"profile:", b"segment:", b"demand:"),
    b"dead-lettered:",
)


@dataclass
class Verdict:
    """Counts of what is wrong, and examples in words. No example: every guarantee held."""

    counts: dict[str, Any] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.examples

    def note(self, what: str) -> None:
        """Something is wrong."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(what)


async def verdict(cluster: Cluster) -> Verdict:
    """Check everything. The workers must be stopped, or idle with nothing left to do."""
    found = Verdict()
    found.counts = await verified(cluster.settings, migrated=cluster.upgraded)
    if not found.counts.pop("passed"):
        found.note("state or lists are not what the log says: see above")
    found.counts["fallen_cursors"] = len(cluster.fallen_cursors)
    for fall in cluster.fallen_cursors:
        found.note(f"a stored cursor fell although the store was not restarted: {fall}")
    found.counts["early_commits"] = len(cluster.early_commits)
    for early in cluster.early_commits:
        found.note(f"the group was told more than is stored: {early}")
    found.counts["leaks"] = len(leaks := await _leaks(cluster))
    for leak in leaks:
        found.note(f"left behind: {leak}")
    found.counts["fallen_versions"] = await _fallen_versions(cluster, found)
    found.examples += cluster.problems
    return found


async def _fallen_versions(cluster: Cluster, found: Verdict) -> int:
    """Under one claim of a partition, a customer's versions on the topic only grow."""
    highest: dict[tuple[bytes | None, int], int] = {}
    fallen = 0
    topic = cluster.settings.recommendations_topic
    async for record in consume(topic, brokers=[cluster.kafka.bootstrap]):
        if record.value is None:
            continue
        said = orjson.loads(record.value)
        place, version = (record.key, said["epoch"]), said["version"]
        if version < highest.get(place, 0):
            fallen += 1
            found.note(
                f"{topic}-{record.partition}, offset {record.offset}: version {version} of"
                f" {record.key!r} after {highest[place]}, both of epoch {said['epoch']}"
            )
        highest[place] = max(version, highest.get(place, 0))
    return fallen


async def _leaks(cluster: Cluster) -> list[str]:
    """Processes of workers that have ended, files they left, keys that are none of ours."""
    found = []
    for worker in cluster.workers:
        if worker.running:
            continue  # a check in the middle of things
        found += [f"a process of {worker.name}" for pid in worker.pids if _group_exists(pid)]
        found += [f"{worker.name}: {path.name}" for path in worker.home.glob("*")]
    prefix = cluster.settings.redis_prefix.encode()
    ours = re.escape(prefix)
    state = re.compile(ours + rb"((g\d+:)?\{[a-z]+\d+\}(#cursor|:.+)|generation)", re.DOTALL)
    for url in cluster.primaries():
        with Redis.from_url(url, protocol=2) as client:
            for key in client.scan_iter(count=1_000):
                forever = key.endswith((b"#cursor", b"generation"))
                if not (state.fullmatch(key) or key.startswith(PUBLIC)):
                    found.append(f"the key {key!r}")
                elif not forever and client.ttl(key) < 0:
                    found.append(f"the key {key!r} without a lifetime")
    return found


def _group_exists(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):  # gone, or the number is another's by now
        return False
    return True
