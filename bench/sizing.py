"""From measured constants to machines: how many workers, how much Redis, at what cost.

``python -m bench.sizing`` prints the table of docs/performance.md.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.options import from_environment
from bench.results import NotReported, reported

LOAD_MAX = 0.5  # of a core: the rest is for peaks and for what a failed worker leaves to others
REDIS_SHARE_MAX = 0.6  # of a server's memory: the rest is for copies, fragmentation, growth
REDIS_NODE_GB = 64
# Cloud list prices move; these are round figures to multiply, not quotes. US dollars a month.
CORE_COST, REDIS_GB_COST = 30.0, 7.0
SIZES, SMALLEST = "items_and_customers", 10_000  # the series of `scale`, and from where it is used
_PARTS = ("worker", "broker", "redis")


@dataclass(frozen=True, slots=True)
class Cpu:
    """Microseconds of CPU per event where one worker has so many customers."""

    customers: float
    worker_us: float
    broker_us: float
    redis_us: float


@dataclass(frozen=True, slots=True)
class Constants:
    """Measured by ``scale``, or ``pipeline``, and ``model``; ``cpu`` ascends by customers."""

    cpu: Sequence[Cpu]
    customer_bytes: float  # state, lists and profile of one customer in Redis
    item_bytes: float

    @staticmethod
    def of(
        pipeline: Mapping[str, Any],
        model: Mapping[str, Any],
        scale: Sequence[Mapping[str, Any]] = (),
    ) -> "Constants":
        """From two summaries and the rows of ``scale``; without those one ``Cpu`` serves all."""
        customer = ("customer_state_bytes", "public_lists_bytes", "public_profile_bytes")
        item = ("item_state_bytes", "public_similar_bytes")
        usual = pipeline["cpu_us_per_event_by_process"]
        sized = [
            Cpu(row["at"], *(row[f"cpu_us_per_event.{part}"] for part in _PARTS))
            for row in scale
            if row["series"] == SIZES and row["at"] >= SMALLEST
        ]
        return Constants(
            sorted(sized, key=lambda cpu: cpu.customers)
            or [Cpu(0, *(usual[part] for part in _PARTS))],
            sum(model[name] for name in customer),
            sum(model[name] for name in item),
        )

    def at(self, customers: float) -> Cpu:
        """By the logarithm of ``customers`` between those measured, beyond them as at the ends.

        >>> constants = Constants([Cpu(1e4, 20, 2, 6), Cpu(1e6, 60, 4, 8)], 3_000, 1_000)
        >>> constants.at(1e5).worker_us, constants.at(1e9).worker_us
        (40.0, 60.0)
        """
        if len(self.cpu) == 1:
            return self.cpu[0]
        place = math.log(max(customers, 1.0))
        measured = [math.log(cpu.customers) for cpu in self.cpu]

        def between(values: Sequence[float]) -> float:
            return round(float(np.interp(place, measured, values)), 3)

        return Cpu(
            customers,
            between([cpu.worker_us for cpu in self.cpu]),
            between([cpu.broker_us for cpu in self.cpu]),
            between([cpu.redis_us for cpu in self.cpu]),
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

    A worker has its share of the customers: of more workers each event costs less, because its
    customer comes again sooner. Taken are the fewest that are enough.

    >>> cpu = [Cpu(0, 25.0, 2.5, 7.5)]
    >>> row = needs(Shop("x", 10_000, 10**6, 10**5), Constants(cpu, 3_000.0, 1_000.0))
    >>> row["workers"], row["redis_gb"]
    (1, 5.2)
    """
    rate = shop.events_per_second

    def cores(us: float) -> int:
        return max(math.ceil(rate * us / 1e6 / LOAD_MAX), 1)

    def wanted(workers: int) -> int:
        return cores(constants.at(shop.customers / workers).worker_us)

    workers = 1 + bisect_left(range(1, wanted(1)), True, key=lambda n: n >= wanted(n))
    cpu = constants.at(shop.customers / workers)
    stored = shop.customers * constants.customer_bytes + shop.items * constants.item_bytes
    redis_gb = stored / REDIS_SHARE_MAX / 1e9
    brokers = cores(cpu.broker_us)
    nodes = max(math.ceil(redis_gb / REDIS_NODE_GB), cores(cpu.redis_us))
    return {
        "shop": shop.name,
        "events_per_second": rate,
        "customers": shop.customers,
        "items": shop.items,
        "worker_us_per_event": cpu.worker_us,
        "workers": workers,
        "partitions": max(8, 2 ** math.ceil(math.log2(4 * workers))),
        "broker_cores": brokers,
        "redis_nodes": nodes,
        "redis_gb": round(redis_gb, 1),
        "usd_a_month": round((workers + brokers + nodes) * CORE_COST + redis_gb * REDIS_GB_COST),
    }


def markdown(*, trials: bool) -> str:
    """The constants and the table. Raises ``NotReported`` without ``pipeline`` or ``model``."""
    from bench.report import table

    pipeline, model = (reported(name, trials=trials) for name in ("pipeline", "model"))
    try:
        scale = reported("scale", trials=trials)["rows"]
    except NotReported:
        scale = []
    constants = Constants.of(pipeline["summary"], model["summary"], scale)
    rows = [needs(shop, constants) for shop in SHOPS]
    return (
        f"Constants: {_cpu(constants.cpu)}. {constants.customer_bytes:,.0f} bytes per customer and"
        f" {constants.item_bytes:,.0f} per item in Redis; cores at {LOAD_MAX:.0%}, Redis memory at"
        f" {REDIS_SHARE_MAX:.0%}; one copy of each (multiply by the copies you keep).\n\n"
        f"{table({'rows': rows})}"
    )


def _cpu(measured: Sequence[Cpu]) -> str:
    """Which CPU the table takes for which shop."""
    texts = [f"{cpu.worker_us:.1f} / {cpu.broker_us:.1f} / {cpu.redis_us:.1f}" for cpu in measured]
    said = "µs of worker / broker / Redis CPU per event"
    if len(measured) == 1:
        return f"{texts[0]} {said}, of `pipeline` for every shop, as `scale` was not measured"
    by_size = ", ".join(
        f"{text} with {cpu.customers:,}" for text, cpu in zip(texts, measured, strict=True)
    )
    return (
        f"{said}: {by_size} customers of one worker (`scale`), between them by the logarithm,"
        " beyond them as at the ends; `worker_us_per_event` is what a worker's share of the"
        " shop's customers makes of that"
    )


if __name__ == "__main__":
    try:
        print(markdown(trials=from_environment().trials))
    except NotReported as exc:
        raise SystemExit(str(exc)) from exc
