"""What the console shows, as JSON-able dictionaries: this worker's figures, a customer, an item."""

import time
from typing import Any

import numpy as np
import orjson

from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.telemetry import FRESHNESS_EDGES_S
from stream_app.console.funnel import defined, funnel, goal_of
from stream_app.core.customer import FIRST_OF_SESSION
from stream_app.core.model import KINDS, STEPS_MAX
from stream_app.core.state import decode_users
from stream_app.hashing import customer_id, given_name, stable_hash
from stream_app.outcomes import experiments, feedback
from stream_app.ports import USERS
from stream_app.pseudonyms import load_pseudonyms, names_of
from stream_app.rehearsal import rehearse
from stream_app.states import CAUSES
from stream_app.worker import Worker


def live(worker: Worker, statuses: list[Any]) -> dict[str, Any]:
    """Totals since the process began (or ever, for records); the page makes rates of them."""
    metrics = worker.metrics
    records: dict[str, int] = {}
    for account in worker.accounts():
        if account.stage == "learn":
            for outcome, count in account.outcomes.items():
                records[outcome] = records.get(outcome, 0) + count
    journey = worker.stages.learn.journey
    counts = np.zeros((STEPS_MAX, STEPS_MAX))
    for owned in worker.stages.learn.owned.values():
        counts += owned.partition["step_counts"][0]
    steps, moves = [journey.names[k] for k in journey.defined], defined(journey, counts)
    return {
        "at": time.time(),
        "records": records,
        "lists": metrics.lists_written,
        "freshness": {
            "edges_s": list(FRESHNESS_EDGES_S),
            "counts": metrics.freshness.counts.tolist(),
        },
        "partitions": [
            {
                "topic": status.topic,
                "partition": status.partition,
                "done": status.acked,
                "end": status.high_water,
            }
            for status in sorted(statuses, key=lambda status: (status.topic, status.partition))
        ],
        "steps": steps,
        "moves": moves.tolist(),
        "funnel": [stage._asdict() for stage in funnel(steps, moves, goal_of(journey))],
        "rejected": {cause: int(metrics.rejected.value((cause,))) for cause in CAUSES},
        "late": int(metrics.late.value()),
        "ignored": sorted(worker.ignored().items(), key=lambda one: (-one[1], one[0])),
        "dead": {"by_reason": metrics.dead.by_reason, "latest": metrics.dead.latest[::-1]},
        "sizes": worker.sizes(),
        "outcomes": {
            block: rows
            for block, rows in feedback(worker.stages.learn).items()
            if block in ("list", "variant")
        },
        "experiments": experiments(worker.stages.learn),
    }


async def customer(worker: Worker, name: str) -> dict[str, Any] | None:
    """Journey, recent events and lists of a customer by public name; ``None``: unknown."""
    lists, profile = None, None
    events: list[dict[str, Any]] = []
    for called in _names(worker, name):
        lists = lists or await worker.store.get(f"rec:{called}")
        profile = profile or await worker.store.get(f"profile:{called}")
        events = events or await _recent(worker, called, _partition(worker, name))
    if not (isinstance(lists, dict) or isinstance(profile, bytes) or events):
        return None
    fields = dict(sorted(lists.items())) if isinstance(lists, dict) else {}
    return {
        "id": name,
        "journey": {
            key.decode(): value.decode(errors="replace")
            for key, value in fields.items()
            if not value.startswith((b"[", b"{"))
        },
        "decided": {
            key.decode(): orjson.loads(value)
            for key, value in fields.items()
            if value.startswith(b"{") and key != b"source"
        },
        "lists": {
            key.decode(): _titled(worker, orjson.loads(value))
            for key, value in fields.items()
            if value.startswith(b"[")
        },
        "profile": orjson.loads(profile) if isinstance(profile, bytes) else None,
        "events": events,
    }


async def item(worker: Worker, name: str) -> dict[str, Any] | None:
    """Neighbours of an item, and what the catalog says of it; ``None``: unknown to both."""
    found = await worker.store.get(f"similar:{name}")
    described = _described(worker, name)
    if not isinstance(found, bytes) and described is None:
        return None
    neighbours = orjson.loads(found) if isinstance(found, bytes) else []
    return {"id": name, "catalog": described, "neighbours": _titled(worker, neighbours)}


async def rules(worker: Worker, name: str) -> dict[str, Any]:
    """What each merchandising rule does to the lists of a customer; nothing is written."""
    names, partition = _names(worker, name), _partition(worker, name)
    rules = worker.stages.merchandise.rules
    lists, changes = await rehearse(
        worker.stages, worker.store, names, partition, rules=rules, now=time.time()
    )
    return {
        "id": name,
        "rules": len(rules),
        "lists": lists,
        "changes": [change._asdict() for change in changes],
    }


def _partition(worker: Worker, name: str) -> int:
    """Of a customer: the key of their events is the id as it came."""
    key = given_name(name)[0].encode("utf-8", "surrogatepass")
    return partition_of(key, worker.settings.clickstream_partitions)


def _names(worker: Worker, name: str) -> list[str]:
    """What a customer is called in keys: as the operator says, or by pseudonym."""
    return names_of(load_pseudonyms(worker.settings.pseudonym_key_file), name)


async def _recent(worker: Worker, name: str, partition: int) -> list[dict[str, Any]]:
    """The customer's last item events, newest first, from their state."""
    ids = np.array([customer_id(name)], np.uint64)
    (blob,) = await worker.store.load(USERS, [partition], [ids[0].tobytes()])
    if not blob:
        return []
    user = decode_users(ids, [blob])[0]
    n = int(user["ring_n"])
    items = user["ring_item"][:n].astype(np.uint64)
    reader = worker.stages.items
    await reader.load(items)
    nodes = reader.tables.lookup(items).tolist()
    return [
        {
            "event": KINDS[int(kind) & ~FIRST_OF_SESSION],
            "item_id": (name := reader.tables.names[node] if node >= 0 else ""),
            "title": _title(worker, name),
            "ts": int(ts),
            "begins_session": bool(int(kind) & FIRST_OF_SESSION),
        }
        for node, kind, ts in zip(nodes, user["ring_kind"][:n], user["ring_ts"][:n], strict=True)
    ][::-1]


def _titled(worker: Worker, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**entry, "title": _title(worker, entry["item_id"])} for entry in entries]


def _title(worker: Worker, item_id: str) -> str:
    described = _described(worker, item_id)
    return described["title"] if described else ""


def _described(worker: Worker, item_id: str) -> dict[str, Any] | None:
    catalog = worker.stages.catalog
    row = int(catalog.rows(np.array([stable_hash(item_id)], np.uint64))[0])
    if row < 0:
        return None
    texts = catalog.texts(row)
    return {"title": texts.title, "category": texts.category, "brand": texts.brand}
