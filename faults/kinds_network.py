"""Faults of the connections between a worker and Valkey, or Kafka."""

import asyncio

from faults.cluster import Cluster
from faults.kinds import Strike
from faults.proxy import Proxy
from faults.schedule import Fault

ROLES = ("valkey", "kafka")


async def reset(proxy: Proxy, fault: Fault) -> None:
    """Connections end with RST, some ten times in a row."""
    for _ in range(3 + int(15 * fault.strength)):
        proxy.reset()
        await asyncio.sleep(0.15)


async def drop_reply(proxy: Proxy, fault: Fault) -> None:
    """Requests are applied, their replies are lost."""
    proxy.drop_replies = 5 + int(40 * fault.strength)
    await asyncio.sleep(4)
    proxy.drop_replies = 0


async def delay(proxy: Proxy, fault: Fault) -> None:
    """Every reply takes longer."""
    proxy.delay_s = fault.between(0.02, 0.5)
    await asyncio.sleep(4)
    proxy.delay_s = 0.0


async def half_open(proxy: Proxy, fault: Fault) -> None:
    """Requests are applied, connections stay open, replies never come."""
    proxy.passing.clear()
    await asyncio.sleep(fault.between(1, 5))
    proxy.reset()
    proxy.passing.set()


def _strike(role: str, what: str) -> Strike:
    async def strike(cluster: Cluster, fault: Fault) -> None:
        proxies = cluster.proxies if role == "valkey" else cluster.kafka_proxies
        await _WAYS[what](proxies[fault.worker], fault)

    return strike


_WAYS = {way.__name__: way for way in (reset, drop_reply, delay, half_open)}
STRIKES: dict[str, Strike] = {
    f"{role}_{what}": _strike(role, what) for role in ROLES for what in _WAYS
}
