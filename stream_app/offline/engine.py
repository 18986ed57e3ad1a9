"""The worker's pipeline on the memory adapters: one partition, no servers, event by event."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.candidates import GIVEN, Candidates
from stream_app.composition import Stages, compose
from stream_app.core.catalog import CatalogItem
from stream_app.core.list_kinds import HOME
from stream_app.core.model import SEGMENTS_OF_EVENT, Model
from stream_app.core.ranking import Ranker
from stream_app.core.rules import Rules, make_rules
from stream_app.core.scoring import SOURCES
from stream_app.core.scoring_extra import Extra
from stream_app.core.shaping import EMPTY_CATALOG
from stream_app.core.state import decode_users
from stream_app.hashing import short_hash, stable_hash
from stream_app.ports import USERS, RawBatch
from stream_app.settings import Settings

BLENDABLE = tuple(name for name in SOURCES if name != "exploration")


def configured(settings: Settings) -> frozenset[str]:
    """The sources that a worker with these settings blends."""
    return frozenset(BLENDABLE) - GIVEN | settings.sources_given()


class Engine:
    """LEARN and RELATE in this process; every batch is related before the next one is learned.

    Lists are made of each of ``sources``, ``None`` for those that a worker blends.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        list_size: int,
        exclude_seen: bool = False,
        rules: Rules | None = None,
        sources: Sequence[frozenset[str] | None] = (None,),
        diversities: Sequence[float] = (),
        model: Model | None = None,
    ) -> None:
        self._settings = settings.model_copy(
            update={
                "clickstream_partitions": 1,
                "cooccurrence_partitions": 1,
                "refresh_s": 600.0,
            }
        )
        self.store = MemoryStore()
        self._log = MemoryLog(kept_topics={settings.cooccurrence_topic})
        self.stages: Stages = compose(
            self._settings,
            store=self.store,
            public=MemoryPublic(records_max=1_000),
            log=self._log,
            clock=time.time,
            model=model,
        )
        usual = configured(settings)
        self._sources = [usual if wanted is None else wanted for wanted in sources]
        self._sources += [usual for _ in diversities]
        self._candidates = self._drawing(frozenset().union(*self._sources), thin_only=True)
        # Alone, content has to answer where counts would do better, too.
        self._content = self._drawing(frozenset({"content"}), thin_only=False)
        self._rankers = [
            Ranker(
                self.stages.items.tables,
                list_size=list_size,
                exclude_seen=exclude_seen,
                sources=wanted,
                rules=rules,
            )
            for wanted in sources
        ]
        self._rankers += [
            Ranker(
                self.stages.items.tables,
                list_size=list_size,
                rules=make_rules(seen=exclude_seen, diversity=weight),
            )
            for weight in diversities
        ]
        self.stages.learn.serving = False
        self._offset = 0

    def _drawing(self, sources: frozenset[str], *, thin_only: bool) -> Candidates:
        stages = self.stages
        return Candidates(
            stages.items,
            stages.catalog,
            stages.audience,
            sources=sources,
            thin_only=thin_only,
        )

    def describe(self, items: Sequence[CatalogItem]) -> None:
        """Tell the catalog what is known of items from here on."""
        self.stages.catalog.upsert(items)

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
        self, customer: str, *, anonymous: bool, ts: float, segments: Sequence[str] = ()
    ) -> list[NDArray[np.uint64]]:
        """Item ids for a customer who comes back at ``ts``, best first.

        A list per ``sources``, then one per ``diversities``.

        ``segments`` are the channel and the region they come from; empty where nobody knows.
        """
        ids = np.array([stable_hash(customer, int(anonymous))], np.uint64)
        users = decode_users(ids, await self.store.load(USERS, [0], [ids[0].tobytes()]))
        items = self.stages.items
        place = np.zeros((1, SEGMENTS_OF_EVENT), np.uint32)
        place[0, : len(segments)] = [short_hash(text) if text else 0 for text in segments]
        asked = (users, np.zeros(1, np.int64), np.full(1, HOME, np.uint8), np.array([ts]), place)
        items.tables.advance(ts)
        extra = self._candidates.draw(*asked)
        found = []
        for ranker, wanted in zip(self._rankers, self._sources, strict=True):
            content_alone = wanted == frozenset({"content"})
            lists = ranker.rank(
                users,
                np.zeros(1, np.int64),
                np.full(1, HOME, np.uint8),
                np.array([ts]),
                self.stages.learn.owned[0].partition,
                items.popular(),
                self._content.draw(*asked) if content_alone else chosen(extra, wanted),
                blend=self.stages.learn.blend_of(0),
                catalog=self.stages.catalog.view() if ranker.rules.shaped else EMPTY_CATALOG,
            )
            found.append(items.tables.nodes["id"][lists.nodes[0, : lists.counts[0]]])
        return found

    async def step_of(self, customer: str, *, anonymous: bool) -> int:
        """The journey step a customer is in."""
        ids = np.array([stable_hash(customer, int(anonymous))], np.uint64)
        users = decode_users(ids, await self.store.load(USERS, [0], [ids[0].tobytes()]))
        return int(users["step"][0])

    def diversity(self, lists: Sequence[NDArray[np.uint64]]) -> float:
        """Mean of 1 - cosine over all pairs within a list (Ziegler et al. 2005).

        The cosine is that of the item tables' counts, s / √(m · m): how often the two were looked
        at together. NaN when no list has two items.
        """
        tables = self.stages.items.tables
        found = []
        for items in lists:
            nodes = tables.lookup(items)
            nodes = nodes[nodes >= 0]
            n = len(nodes)
            if n < 2:
                continue
            masses = np.maximum(tables.nodes["mass"][nodes], 1e-300)
            rows = tables.nodes["row"][nodes]
            alike = 0.0
            for row, mass in zip(rows.tolist(), masses.tolist(), strict=True):
                filled = tables.filled[row] if row >= 0 else 0
                near = tables.neighbour[row, :filled]
                s = tables.forward[row, :filled] + tables.backward[row, :filled]
                same = np.flatnonzero(near[:, None] == nodes)
                others = masses[same % n]
                alike += float((np.maximum(s[same // n], 0.0) / np.sqrt(mass * others)).sum())
            found.append(1.0 - min(alike / (n * (n - 1)), 1.0))
        return float(np.mean(found)) if found else float("nan")


def chosen(extra: Extra | None, wanted: frozenset[str]) -> Extra | None:
    """The candidates of the sources that are wanted.

    >>> one = np.zeros(2, np.int64)
    >>> extra = Extra(np.array([0, 2]), one, np.ones(2, np.float32), np.array([6, 7], np.uint8))
    >>> found = chosen(extra, frozenset({"embedding"}))
    >>> found.starts.tolist(), found.sources.tolist()
    ([0, 1], [7])
    """
    if extra is None:
        return None
    kept = np.isin(extra.sources, [SOURCES.index(name) for name in wanted])
    starts = np.concatenate(([0], np.cumsum(kept)))[extra.starts]
    because = None if extra.because is None else extra.because[kept]
    return Extra(starts, extra.nodes[kept], extra.values[kept], extra.sources[kept], because)
