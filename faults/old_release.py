"""What the release before stored: a worker with this is one of it, as far as Redis can tell.

Customers in schema 2, which knew no words of a search, no purchase times and 10 bought items at
most; items in schema 1, which knew no fans; outboxes in schema 1, whose transitions were routed
when they were committed; blend weights in schema 1, which knew a source less.
Nothing of this is in the product: the worker's encoders are replaced before Faust starts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app import applying, merging, states
from stream_app.codec import Outbox, encode_outbox
from stream_app.core.hybrid import BLEND, BLEND_1
from stream_app.core.neighbourhood import FAN
from stream_app.core.state import (
    USER,
    Layout,
    customer_name,
    decode_users,
    encode_users,
    layout,
)
from stream_app.core.tables import ITEM, NEIGHBOUR, ItemTables
from stream_app.handing import route_transitions
from stream_app.owning import BLEND_ID
from stream_app.settings import load_settings

USER_BEFORE, ITEM_BEFORE, OUTBOX_BEFORE, BLEND_BEFORE = 2, 1, 1, 1
BOUGHT_BEFORE = 10


def customer_before(blob: bytes) -> bytes:
    """A customer, as the release before would have stored them."""
    user = decode_users(np.zeros(1, np.uint64), [blob])
    user["query_n"] = 0
    bought = user["bought_item"][0, : user["bought_n"][0]][-BOUGHT_BEFORE:].copy()
    user["bought_n"], user["bought_item"][0, : len(bought)] = len(bought), bought
    user["schema"] = USER_BEFORE
    return laid_out(user, layout(USER, without="bought_ts")) + customer_name(blob)


def laid_out(record: NDArray[np.void], form: Layout) -> bytes:
    """A ``(1,)`` record as schemas up to 4 had it: the header, then arrays as far as filled."""
    full, (header, arrays) = record.tobytes(), form
    parts = [full[start : start + size * full[count]] for start, size, count in arrays.tolist()]
    return full[:header] + b"".join(parts)


def item_before(blob: bytes) -> bytes:
    """The same of an item."""
    head = np.frombuffer(blob, ITEM, 1).copy()
    fans_at = ITEM.itemsize + int(head["neighbours_n"][0]) * NEIGHBOUR.itemsize
    named_at = fans_at + int(head["fans_n"][0]) * FAN.itemsize
    head["schema"], head["fans_n"] = ITEM_BEFORE, 0
    return head.tobytes() + blob[ITEM.itemsize : fans_at] + blob[named_at:]


def outbox_before(outbox: Outbox, *, partitions: int) -> bytes:
    """The same of an outbox, for ``partitions`` of items."""
    routed = route_transitions(outbox.waiting, partitions=partitions) if outbox.waiting else []
    told = {name: getattr(outbox, name) for name in outbox.__struct_fields__}
    changed = {"schema": OUTBOX_BEFORE, "transitions": outbox.transitions + routed, "waiting": []}
    return encode_outbox(Outbox(**told | changed))


def blend_before(blob: bytes) -> bytes:
    """The same of blend weights: shares among the sources that there were."""
    now, old = np.frombuffer(blob, BLEND), np.zeros(1, BLEND_1)
    known = BLEND_1["weights"].shape[1]
    for name in ("observed", "loss", "published_loss"):
        old[name] = now[name]
    shares = now["weights"][..., :known]
    old["schema"], old["sources_n"] = BLEND_BEFORE, known
    old["weights"] = shares / shares.sum(axis=-1, keepdims=True)
    return old.tobytes()


def install() -> None:
    """Let this process store the schemas of the release before."""
    partitions = load_settings().cooccurrence_partitions
    encode_tables = ItemTables.encode

    def customers(users: NDArray[np.void], names: Sequence[bytes] | None = None) -> list[bytes]:
        return [customer_before(blob) for blob in encode_users(users, names)]

    def items(tables: ItemTables, nodes: NDArray[np.int64]) -> list[bytes]:
        return [item_before(blob) for blob in encode_tables(tables, nodes)]

    changed_now = applying.changed  # type: ignore[attr-defined]

    def changed(*kept: Any) -> list[tuple[bytes, bytes]]:
        writes = changed_now(*kept)
        return [(key, blend_before(v) if key == BLEND_ID else v) for key, v in writes]

    applying.changed = changed  # type: ignore[attr-defined]
    states.encode_users = merging.encode_users = customers  # type: ignore[attr-defined]
    ItemTables.encode = items  # type: ignore[method-assign,assignment]
    applying.encode_outbox = lambda outbox: outbox_before(outbox, partitions=partitions)  # type: ignore[attr-defined]
