"""Microseconds of a prediction (median batch) and an update, bytes of a customer and an item."""

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench.contest import BATCH, ROOT
from bench.memory import by_kind, used
from bench.options import Options
from bench.results import Result
from bench.scenarios.profile import measured
from bench.servers import Broker, one_redis, start_broker
from bench.sources import source_us

EVENTS, WARM = 200_000, 100_000
# A public data set beside the repository, where there is one; it is not part of it.
FILE = ROOT.parent / "shared" / "data" / "yoochoose_train.csv.gz"
FILE_EVENTS, FILE_WARM = 90_000, 45_000


def run(options: Options) -> Result:
    """A simulated catalogue, and the data set if it is there."""
    n = options.events
    with ExitStack() as stack:
        broker = start_broker(stack)
        rows = [_measured(broker, "simulated shop", n(EVENTS), n(WARM), None)]
        if FILE.exists():
            rows.append(_measured(broker, FILE.name, n(FILE_EVENTS), n(FILE_WARM), FILE))
    summary = {name: value for name, value in rows[0].items() if name != "events_of"}
    summary["source_us"] = source_us()
    return Result(summary | {"data": rows}, rows, ("events_of", "prediction_us"))


def _measured(
    broker: Broker, name: str, events: int, warm: int, file: Path | None
) -> dict[str, Any]:
    with one_redis() as servers:
        empty = used(servers.url)["used_memory"]
        found = measured(broker, servers.url, events=events, warm=warm, batch=BATCH, file=file)
        kinds = by_kind(servers.url)
        grown = used(servers.url)["used_memory"] - empty
    stages = {row["stage"]: row for row in found["stages"]}
    score = stages["LEARN > score"]
    customers = kinds["customer state"]["keys"]
    return {
        "events_of": name,
        "prediction_us": round(median(found["prediction_us_of_batches"]), 2),
        "prediction_us_mean": round(
            score["cpu_us_per_event"] * found["events"] / found["lists"], 2
        ),
        "learn_us_per_event": stages["LEARN > learn"]["cpu_us_per_event"],
        "relate_us_per_event": stages["RELATE > merge"]["cpu_us_per_event"],
        "lists_per_event": round(found["lists"] / found["events"], 3),
        "customers": customers,
        "items": kinds["item state"]["keys"],
        "customer_state_bytes": kinds["customer state"]["bytes"],
        "item_state_bytes": kinds["item state"]["bytes"],
        "public_lists_bytes": kinds["public lists"]["bytes"],
        "public_lists_value_bytes": kinds["public lists"]["value_bytes"],
        "public_profile_bytes": kinds.get("public profile", {}).get("bytes", 0),
        "public_similar_bytes": kinds.get("public similar", {}).get("bytes", 0),
        "used_memory_bytes_per_customer": round(grown / customers, 1),
    }
