"""What must not be listed is crossed out of lists that are out already, right where they are read.

A list without it follows by the way of all events, behind those that wait there; until then this
one is a little shorter. On the topic nothing is said of it: version and epoch stay.
"""

from collections.abc import Sequence, Set
from functools import partial

import orjson

from stream_app.ports import PublicHash, PublishedHashes
from stream_app.retrying import retrying

CHUNK = 500  # customers at once: the event loop is not to wait for all of them
_NEEDLES_MAX = 16  # beyond, reading a list is cheaper than looking for each item in its text


async def delist(public: PublishedHashes, items: Set[str], customers: Sequence[str]) -> int:
    """Cross ``items`` (ids) out of the ``customers``' lists; how many had any."""
    amended = 0
    needles = [b'"item_id":' + orjson.dumps(item) for item in items]
    if len(needles) > _NEEDLES_MAX:
        needles = [b'"item_id":']
    for at in range(0, len(customers), CHUNK):
        keys = [f"rec:{name}" for name in customers[at : at + CHUNK]]
        stored = await retrying(partial(public.get_hashes, keys), "reading lists")
        records = [
            record
            for key, fields in zip(keys, stored, strict=True)
            if (record := _without(items, needles, key, fields)) is not None
        ]
        if records:
            amend = partial(public.amend_hashes, records)
            amended += await retrying(amend, "crossing out items")
    return amended


def _without(
    items: Set[str], needles: Sequence[bytes], key: str, fields: dict[bytes, bytes]
) -> PublicHash | None:
    """Those lists among ``fields`` that hold any of the items, without them."""
    changed = {}
    for name, text in fields.items():
        if text[:1] == b"[" and any(needle in text for needle in needles):
            entries = orjson.loads(text)
            kept = [entry for entry in entries if entry["item_id"] not in items]
            if len(kept) < len(entries):
                changed[name] = orjson.dumps(kept)
    if not changed:
        return None
    version, epoch = int(fields[b"version"]), int(fields[b"epoch"])
    return PublicHash(key, version, epoch, tuple(changed), list(changed.values()))
