"""After a change of the pseudonyms' key: who comes back keeps their history. Called by LEARN.

The state that lies under the pseudonym of the former key becomes that of the new one, in the step
that applies the event; the former one goes, with its public keys.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_app.customers import Customers
from stream_app.events import EventBatch
from stream_app.hashing import customer_id
from stream_app.ports import USERS, StateStore
from stream_app.retrying import retrying


class Moved(NamedTuple):
    """A customer's former state, to be deleted: its key and public name."""

    key: bytes
    name: str


async def adopt(
    store: StateStore,
    partition: int,
    who: Customers,
    events: EventBatch,
    blobs: list[bytes | None],
) -> list[Moved]:
    """Fill ``blobs`` of customers who have none with what they have under the former key.

    Nothing to do without a former key.
    """
    formers = events.aliases.formers
    if not formers:
        return []
    first = who.first.tolist()
    new = [(k, formers[row]) for k, row in enumerate(first) if formers[row] and not blobs[k]]
    if not new:
        return []
    keys = [np.uint64(customer_id(name)).tobytes() for _, name in new]
    found: Sequence[bytes | None] = await retrying(
        lambda: store.load(USERS, [partition] * len(keys), keys), "reading former states"
    )
    places = {key: k for k, key in enumerate(who.keys)}
    moved = []
    for (k, name), key, blob in zip(new, keys, found, strict=True):
        if blob:
            blobs[k] = blob
            moved.append(Moved(key, name))
            if key in places:  # a record of our own that still names them so
                blobs[places[key]] = None
    return moved
