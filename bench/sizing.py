"""From measured constants to machines: how many workers, how much Redis, at what cost.

``python -m bench.sizing`` prints the table of docs/performance.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.results import load

LOAD_MAX = 0.5  # of a core: the freshness budget is kept at half load
REDIS_SHARE_MAX = 0.6  # of a server's memory: the rest is for copies, fragmentation, growth
REDIS_NODE_GB = 64
# Cloud list prices move; these are round figures to multiply, not quotes. US dollars a month.
CORE_COST, REDIS_GB_COST = 30.0, 7.0


@dataclass(frozen=True, slots=True)
class Constants:
    """Measured on one machine by the scenarios ``pipeline`` and ``model``."""

    worker_us: float
    broker_us: float
    redis_us: float
    customer_bytes: float  # state, lists and profile of one customer in Redis
    item_bytes: float

    @staticmethod
    def of(pipeline: Mapping[str, Any], model: Mapping[str, Any]) -> "Constants":
        """From the two summaries."""
        cpu = pipeline["cpu_us_per_event_by_process"]
        customer = ("customer_state_bytes", "public_lists_bytes", "public_profile_bytes")
        item = ("item_state_bytes", "public_similar_bytes")
        return Constants(
            cpu["worker"],
            cpu["broker"],
            cpu["redis"],
            sum(model[name] for name in customer),
            sum(model[name] for name in item),
        )


@dataclass(frozen=True, slots=True)
class Shop:
    """A size of business: peak events per second, customers and items with state."""

    name: str
    events_per_second: int
    customers: int
    items: int


SHOPS = (
    Shop("one server", 500, 100_000, 20_000),
    Shop("regional shop", 5_000, 2_000_000, 200_000),
    Shop("national marketplace", 50_000, 30_000_000, 5_000_000),
    Shop("continental", 500_000, 200_000_000, 50_000_000),
    Shop("internet scale", 5_000_000, 2_000_000_000, 500_000_000),
)


def needs(shop: Shop, constants: Constants) -> dict[str, Any]:
    """Cores, memory and cost.

    >>> row = needs(Shop("x", 10_000, 10**6, 10**5), Constants(25.0, 2.5, 7.5, 3_000.0, 1_000.0))
    >>> row["workers"], row["redis_gb"]
    (1, 5.2)
    """
    rate = shop.events_per_second

    def cores(us: float) -> int:
        return max(math.ceil(rate * us / 1e6 / LOAD_MAX), 1)

    stored = shop.customers * constants.customer_bytes + shop.items * constants.item_bytes
    redis_gb = stored / REDIS_SHARE_MAX / 1e9
    workers, brokers = cores(constants.worker_us), cores(constants.broker_us)
    nodes = max(math.ceil(redis_gb / REDIS_NODE_GB), cores(constants.redis_us))
    return {
        "shop": shop.name,
        "events_per_second": rate,
        "customers": shop.customers,
        "items": shop.items,
        "workers": workers,
        "partitions": max(8, 2 ** math.ceil(math.log2(4 * workers))),
        "broker_cores": brokers,
        "redis_nodes": nodes,
        "redis_gb": round(redis_gb, 1),
        "usd_a_month": round((workers + brokers + nodes) * CORE_COST + redis_gb * REDIS_GB_COST),
    }


def markdown() -> str:
    """The table, or what to run to get it."""
    from bench.report import table

    pipeline, model = load("pipeline"), load("model")
    if pipeline is None or model is None:
        return "Not measured on this machine yet: `make bench`."
    constants = Constants.of(pipeline["summary"], model["summary"])
    rows = [needs(shop, constants) for shop in SHOPS]
    return (
        f"Constants: {constants.worker_us:.1f} / {constants.broker_us:.1f} /"
        f" {constants.redis_us:.1f} µs of worker / broker / Redis CPU per event,"
        f" {constants.customer_bytes:,.0f} bytes per customer and {constants.item_bytes:,.0f} per"
        f" item in Redis; cores at {LOAD_MAX:.0%}, Redis memory at {REDIS_SHARE_MAX:.0%}; one"
        f" copy of each (multiply by the copies you keep).\n\n{table({'rows': rows})}"
    )


if __name__ == "__main__":
    print(markdown())
