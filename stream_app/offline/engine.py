"""The worker's pipeline on the memory adapters: one partition, no servers, event by event."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.composition import Stages, compose
from stream_app.core.candidates import HOME
from stream_app.core.model import Model
from stream_app.core.ranking import Ranker
from stream_app.core.state import decode_users
from stream_app.hashing import stable_hash
from stream_app.ports import USERS, RawBatch
from stream_app.settings import Settings


class Engine:
    """LEARN and RELATE in this process; every batch is related before the next one is learned."""

    def __init__(
        self,
        settings: Settings,
        *,
        list_size: int,
        exclude_seen: bool,
        sources: Sequence[frozenset[str] | None] = (None,),
        model: Model | None = None,
    ) -> None:
        self._settings = settings.model_copy(
            update={
                "clickstream_partitions": 1,
                "cooccurrence_partitions": 1,
                "refresh_s": 600.0,
                "relate_linger_s": 0.0,
            }
        )
        self._store = MemoryStore()
        self._log = MemoryLog(kept_topics={settings.cooccurrence_topic})
        self.stages: Stages = compose(
            self._settings,
            store=self._store,
            public=MemoryPublic(records_max=1_000),
            log=self._log,
            clock=time.time,
            model=model,
        )
        self._rankers = [
            Ranker(
                self.stages.items.tables,
                list_size=list_size,
                exclude_seen=exclude_seen,
                sources=chosen,
            )
            for chosen in sources
        ]
        self.stages.learn.serving = False
        self._offset = 0

    async def start(self) -> None:
        """Claim the partitions of the empty store."""
        await self.stages.learn.assign(0)
        await self.stages.relate.assign(0)

    async def apply(self, values: list[bytes], *, relate: bool = True) -> None:
        """Send events (JSON, in time order) through the pipeline.

        ``relate=False`` updates customers only: nothing else is learned.
        """
        n, first = len(values), self._offset
        self._offset += n
        self.stages.learn.learning = relate
        await self.stages.learn.process(
            RawBatch(
                self._settings.clickstream_topic,
                0,
                first + n,
                range(first, first + n),
                [None] * n,
                values,
                [-1] * n,
                [()] * n,
            )
        )
        batch = self._log.drain(self._settings.cooccurrence_topic, 0)
        if relate and len(batch):
            await self.stages.relate.process(batch)

    async def predict(
        self, customer: str, *, anonymous: bool, ts: float
    ) -> list[NDArray[np.uint64]]:
        """Item ids for a customer who comes back at ``ts``, best first; a list per ``sources``."""
        ids = np.array([stable_hash(customer, int(anonymous))], np.uint64)
        users = decode_users(ids, await self._store.load(USERS, [0], [ids[0].tobytes()]))
        items = self.stages.items
        found = []
        for ranker in self._rankers:
            lists = ranker.rank(
                users,
                np.zeros(1, np.int64),
                np.full(1, HOME, np.uint8),
                np.array([ts]),
                self.stages.learn.owned[0].partition,
                items.popular(),
                blend=self.stages.learn.blend_of(0),
            )
            found.append(items.tables.nodes["id"][lists.nodes[0, : lists.counts[0]]])
        return found

    async def step_of(self, customer: str, *, anonymous: bool) -> int:
        """The journey step a customer is in."""
        ids = np.array([stable_hash(customer, int(anonymous))], np.uint64)
        users = decode_users(ids, await self._store.load(USERS, [0], [ids[0].tobytes()]))
        return int(users["step"][0])
