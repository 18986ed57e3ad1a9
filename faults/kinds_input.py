"""Faults of the input: events in disorder, and records that nobody should send."""

import random

from faults.cluster import Cluster
from faults.kinds import Strike
from faults.load import hostile
from faults.schedule import Fault

FLOOD_CHUNK = 500


async def events_in_disorder(cluster: Cluster, fault: Fault) -> None:
    """Old events again: duplicated, reordered, a year late, an hour early, far in the future."""
    draw = random.Random(fault.number)
    await cluster.load.send(cluster.load.disorder(draw, 200 + int(1_000 * fault.strength)))


async def hostile_flood(cluster: Cluster, fault: Fault) -> None:
    """Thousands of malformed, huge and hostile records as fast as Kafka takes them."""
    draw = random.Random(fault.number)
    for _ in range(4 + int(16 * fault.strength)):
        await cluster.load.send(hostile(draw, FLOOD_CHUNK))


STRIKES: dict[str, Strike] = {
    strike.__name__: strike for strike in (events_in_disorder, hostile_flood)
}
