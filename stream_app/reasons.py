"""Why a customer's list is as it is, source by source: ``recommend --why``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.composition import Stages
from stream_app.core.cycles import decode_cycles, new_cycles
from stream_app.core.hybrid import BLENDED, decode_blend, new_blend
from stream_app.core.model import KINDS
from stream_app.core.ranking import LISTS
from stream_app.core.scoring import SOURCES
from stream_app.core.state import decode_users, new_users
from stream_app.errors import StreamAppError
from stream_app.hashing import customer_id, stable_hash
from stream_app.owning import BLEND_ID, CYCLES_ID
from stream_app.ports import USERS, StateStore

_KIND_BITS = 0x7F


@dataclass(frozen=True, slots=True)
class Reason:
    """One item: its score now, and of each source its part of that and its share in the source."""

    score: float
    parts: dict[str, float]
    shares: dict[str, float]


@dataclass(frozen=True, slots=True)
class Reasons:
    """Of one list: the sources' blend weights in the customer's step, and a reason by item id."""

    weights: dict[str, float]
    items: dict[str, Reason]


class Explainer:
    """Explains the lists of ``customer`` (public name), who belongs to partition ``number``.

    Nothing is claimed or written. Scores are those of now: counts have gone on since the list was
    published. Where the customer's last event came from (channel, region) is not kept, so the
    source ``segment`` speaks only for customers whose region the shop has told. ``partition`` is
    the partition's record, ``blend`` and ``cycles`` what it has learned.
    """

    def __init__(
        self, stages: Stages, store: StateStore, number: int, partition: NDArray[np.void]
    ) -> None:
        self._stages = stages
        self._store = store
        self._number = number
        self._users = new_users(np.zeros(1, np.uint64))
        self.partition = partition
        self.blend = new_blend(stages.items.tables.model)
        self.cycles = new_cycles()

    async def load(self, customer: str) -> None:
        """Read the customer, and what their lists are drawn from."""
        key = np.array([customer_id(customer)], np.uint64)
        wanted = [key[0].tobytes(), BLEND_ID, CYCLES_ID]
        blob, blend, cycles = await self._store.load(USERS, [self._number] * 3, wanted)
        users = decode_users(key, [blob])
        if not users["events"][0]:
            raise StreamAppError(f"nothing is known of customer {customer!r}: no event was applied")
        items = self._stages.items
        context = np.concatenate((users["ring_item"].ravel(), users["cart_item"].ravel()))
        for _ in range(3):  # what one read makes known, the next one reads
            await items.load(context)
        items.tables.advance(float(users["last_ts"][0]))
        self._users, self.blend = users, decode_blend(blend, items.tables.model)
        self.cycles = decode_cycles(cycles)

    def customers(self) -> NDArray[np.void]:
        """The ``(1,) USER`` record that was read."""
        return self._users

    def event_with(self, item: str) -> tuple[str, float] | None:
        """Kind and time of the customer's last remembered event with ``item``."""
        user = self._users[0]
        n = int(user["ring_n"])
        at = np.flatnonzero(user["ring_item"][:n] == np.uint64(stable_hash(item)))
        if not len(at):
            return None
        kind = KINDS[int(user["ring_kind"][at[-1]]) & _KIND_BITS]
        return kind, float(user["ring_ts"][at[-1]])

    def explain(self, list_name: str, items: Sequence[str]) -> Reasons:
        """What the sources give ``items`` in the list, best first as far as they give anything."""
        nodes = self._stages.items.tables.ensure(
            np.array([stable_hash(item) for item in items], np.uint64)
        )
        found, weights = self._stages.learn.listing.take_apart(
            self._users,
            self._stages.learn.admission.impersonal(self._users),
            self.partition,
            self.blend,
            LISTS.index(list_name),
            nodes,
        )
        reasons = {}
        for i, item in enumerate(items):
            given = [s for s in np.argsort(-found.parts[i]).tolist() if found.parts[i, s] > 0.0]
            parts = {SOURCES[s]: float(found.parts[i, s]) for s in given}
            shares = {SOURCES[s]: float(found.shares[i, s]) for s in given}
            reasons[item] = Reason(float(found.scores[i]), parts, shares)
        heaviest = sorted(BLENDED.tolist(), key=lambda s: -weights[s])
        return Reasons({SOURCES[s]: float(weights[s]) for s in heaviest}, reasons)
