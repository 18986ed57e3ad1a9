"""Microseconds for one event, customer or list of what turns bytes into arrays and back."""

import statistics
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from bench.backlog import Load, batches
from bench.options import SEED, Options
from bench.results import Result
from stream_app.codec import Transitions, decode_transitions, encode_transitions
from stream_app.core.learn import TRANSITION
from stream_app.core.model import KIND
from stream_app.core.state import decode_users, encode_users, new_users
from stream_app.events import EventDecoder
from stream_app.settings import load_settings
from stream_app.wire import Event

BATCH = 2_000
REPEATS = 40


def run(options: Options) -> Result:
    """Medians over repetitions in one process, which needs no server."""
    (raw,) = islice(batches(Load(8 * BATCH * 2), "clickstream", batch=BATCH), 1)
    values = list(raw.values)
    decoder = EventDecoder(load_settings({}))
    typed = msgspec.json.Decoder(Event).decode
    users = _customers()
    blobs = encode_users(users)
    rows = np.zeros(BATCH, TRANSITION)
    message = Transitions(0, rows, [f"item-{n}" for n in range(500)])
    packed = encode_transitions(message)
    cases: dict[str, Callable[[], Any]] = {
        "orjson.loads of an event": lambda: [orjson.loads(v) for v in values if v],
        "msgspec typed decode of an event": lambda: [typed(v) for v in values if v],
        "EventDecoder: event to columns, checked": lambda: decoder.decode(raw),
        "encode customer state": lambda: encode_users(users),
        "decode customer state": lambda: decode_users(users["id"], blobs),
        "encode transition": lambda: encode_transitions(message),
        "decode transition": lambda: decode_transitions(packed),
    }
    repeats = max(int(REPEATS * options.scale), 3)
    found = [{"case": name, "us": _median_us(call, repeats)} for name, call in cases.items()]
    summary = {str(row["case"]): row["us"] for row in found}
    bytes_each = sum(len(v) for v in values if v) / len(values)
    notes = [f"batches of {BATCH}; an event is {bytes_each:.0f} bytes of JSON"]
    notes += ["run inside of the harness's own process"]
    return Result(summary, found, ("case", "us"), notes)


def _customers() -> NDArray[np.void]:
    """``(BATCH,) USER`` that looked at twelve items, eight of them different, a minute apart."""
    rng = np.random.default_rng(SEED)
    users = new_users(np.arange(1, BATCH + 1, dtype=np.uint64))
    for counted in ("ring_n", "seen_n", "session_n", "events", "session_events"):
        users[counted] = 12
    users["vector_n"] = 8
    items = rng.integers(1, 2**63, (BATCH, 8), np.uint64)
    users["vector_item"][:, :8] = items
    users["ring_item"][:, :12] = items[:, np.arange(12) % 8]
    users["vector_weight"][:, :8] = rng.random((BATCH, 8))
    users["seen"] = rng.integers(0, 2**32, users["seen"].shape)
    users["ring_kind"][:, :12] = KIND["view"]
    users["session_start"] = users["first_ts"] = 1.7e9 + rng.random(BATCH) * 86_400.0
    users["last_ts"] = users["session_start"] + 660.0
    users["action_ts"] = users["last_ts"]
    users["ring_ts"][:, :12] = users["session_start"][:, None] + np.arange(12) * 60.0
    return users


def _median_us(call: Callable[[], Any], repeats: int) -> float:
    call()  # compiled and cached
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) / BATCH * 1e6, 4)
