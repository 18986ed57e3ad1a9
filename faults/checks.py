"""What must hold when all is applied: the ``verify`` command's checks, and two about the way there.

``verify`` recomputes customers and items from the log and compares lists on the topic with Redis.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from faults.cluster import Cluster
from stream_app.adapters.topics import consume
from stream_app.commands.verify import verified

EXAMPLES_MAX = 40


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
    found.counts = await verified(cluster.settings)
    if not found.counts.pop("passed"):
        found.note("state or lists are not what the log says: see above")
    found.counts["fallen_cursors"] = len(cluster.fallen_cursors)
    for fall in cluster.fallen_cursors:
        found.note(f"a stored cursor fell although the store was not restarted: {fall}")
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
