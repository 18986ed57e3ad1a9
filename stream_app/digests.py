"""One kind of list for customers in any step: ``digest``, ``recommend --list``.

Ranked as LEARN would, off its path, from what is stored now. Nothing is claimed or written.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_app.composition import Stages
from stream_app.core.cycles import decode_cycles
from stream_app.core.hybrid import decode_blend
from stream_app.core.list_kinds import own_items
from stream_app.core.ranking import LISTS
from stream_app.core.state import customer_name, decode_partition, decode_users
from stream_app.owning import BLEND_ID, CYCLES_ID
from stream_app.ports import USERS, StateStore


class Digest(NamedTuple):
    """A customer (public name) and their list: a JSON array as in ``rec:<user_id>``."""

    customer: str
    step: str
    last_seen: float
    items: bytes


class Digests:
    """Makes lists of the kind ``name``, one of :data:`~stream_app.core.ranking.LISTS`."""

    def __init__(self, stages: Stages, store: StateStore, name: str) -> None:
        self._stages = stages
        self._store = store
        self._listing = stages.learn.listing.only(LISTS.index(name))
        self._listing.candidates.exhaustive = True  # nobody waits for it

    async def of(self, number: int, meta: bytes, keys: Sequence[bytes]) -> list[Digest]:
        """Lists of the customers ``keys`` of partition ``number``, whose own state is ``meta``.

        As of the event time that the partition has reached: what is due again by then is due.
        Left out are customers without a state, and those who gave no reason for such a list.
        """
        wanted = [*keys, BLEND_ID, CYCLES_ID]
        *blobs, blend, cycles = await self._store.load(USERS, [number] * len(wanted), wanted)
        known = [(key, blob) for key, blob in zip(keys, blobs, strict=True) if blob]
        if not known:
            return []
        names = [customer_name(blob).decode("utf-8", "surrogatepass") for _, blob in known]
        ids = np.frombuffer(b"".join(key for key, _ in known), np.uint64)
        users, partition = decode_users(ids, [blob for _, blob in known]), decode_partition(meta)
        seen = users["last_ts"].copy()
        users["last_ts"] = np.maximum(seen, partition["watermark"])
        learn, items = self._stages.learn, self._stages.items
        for _ in range(2):  # what one read makes known, the next one reads
            await items.load(own_items(users, self._listing.wanted))
        items.tables.advance(float(users["last_ts"].max()))
        model = items.tables.model
        owners, _, lists = self._listing.rank(
            users,
            learn.admission.impersonal(users),
            np.zeros((len(users), 2), np.uint32),
            partition,
            decode_blend(blend, model),
            decode_cycles(cycles),
        )
        steps = learn.journey.names
        return [
            Digest(names[owner], steps[users["step"][owner]], float(seen[owner]), text)
            for owner, count, text in zip(
                owners.tolist(), lists.counts.tolist(), items.render(lists), strict=True
            )
            if count and names[owner]
        ]
