"""What must not be listed is crossed out of lists that are out already, right where they are read.

A list without it follows by the way of all events, behind those that wait there; until then this
one is a little shorter. On the topic nothing is said of it: version and epoch stay.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import orjson

from stream_app.core.catalog import Catalog
from stream_app.hashing import stable_hash
from stream_app.ports import PublicHash, PublicStore
from stream_app.retrying import retrying

CHUNK = 500  # customers at once: the event loop is not to wait for all of them


async def delist(public: PublicStore, catalog: Catalog, customers: Sequence[str]) -> int:
    """Cross out of the ``customers``' lists what ``catalog`` has unlisted; how many had any."""
    amended = 0
    for at in range(0, len(customers), CHUNK):
        keys = [f"rec:{name}" for name in customers[at : at + CHUNK]]
        stored = await retrying(partial(public.get_hashes, keys), "reading lists")
        records = _without(catalog, keys, stored)
        if records:
            amend = partial(public.amend_hashes, records)
            amended += await retrying(amend, "crossing out items")
    return amended


def _without(
    catalog: Catalog, keys: Sequence[str], stored: Sequence[dict[bytes, bytes]]
) -> list[PublicHash]:
    """The lists that hold what is unlisted, without it."""
    found = [
        (k, name, orjson.loads(text))
        for k, fields in enumerate(stored)
        for name, text in fields.items()
        if text[:1] == b"["
    ]
    ids = [stable_hash(entry["item_id"]) for *_, entries in found for entry in entries]
    listed = iter(catalog.listed(np.array(ids, np.uint64)).tolist())
    changed: dict[int, dict[bytes, bytes]] = {}
    for k, name, entries in found:
        kept = [entry for entry in entries if next(listed)]
        if len(kept) < len(entries):
            changed.setdefault(k, {})[name] = orjson.dumps(kept)
    return [
        PublicHash(
            keys[k],
            int(stored[k][b"version"]),
            int(stored[k][b"epoch"]),
            tuple(fields),
            list(fields.values()),
        )
        for k, fields in changed.items()
    ]
