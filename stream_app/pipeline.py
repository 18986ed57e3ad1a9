"""READ FIRST: one batch of a clickstream partition, from bytes to refreshed lists.

    decode → load → learn → score → commit → publish        (the caller acknowledges)

The next batch of the partition may be computed while one is published; its commit, which takes the
place of the outbox, waits for that.

What waits in several partitions goes as one group up to the commit (:mod:`stream_app.group`): a
batch costs milliseconds whatever is in it. :mod:`stream_app.loading` reads what it needs,
:mod:`stream_app.applying` learns and scores. The co-occurrence counts learn in a second stage,
:mod:`stream_app.relating`, off this path.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.admission import Admission
from stream_app.applying import Applier, Refused
from stream_app.candidates import Candidates
from stream_app.codec import Outbox, decode_outbox
from stream_app.core.agenda import Agenda
from stream_app.core.cycles import decode_cycles
from stream_app.core.hybrid import decode_blend
from stream_app.core.journey import Journey
from stream_app.core.merchandising import Merchandise
from stream_app.core.ranking import Ranker
from stream_app.core.state import PARTITION, decode_partition
from stream_app.decisions import Decisions
from stream_app.events import EventDecoder
from stream_app.group import Group, Member, group_of, side_by_side
from stream_app.grouping import Grouping
from stream_app.handing import Waiting
from stream_app.items import ItemReader
from stream_app.listing import Listing
from stream_app.loading import Loader
from stream_app.merging import decode_watermarks
from stream_app.offers import Offers
from stream_app.owning import BLEND_ID, CYCLES_ID, Applied, Owned
from stream_app.ports import USERS, Commit, Log, RawBatch, StateStore
from stream_app.profiles import Profiles
from stream_app.publishing import Publisher
from stream_app.rejects import dead_letter
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.telemetry import SILENT, Telemetry
from stream_app.turns import Turns
from stream_app.user_cache import UserCache

FIRST_READ_S = 5.0  # after a claim, before a partition that says nothing counts as quiet
GROUP_RECORDS_MAX = 10_000  # of several partitions that are computed together
# Small groups one after the other, each with what came meanwhile. With much to do the next one is
# computed while others wait for Redis and Kafka.
GROUPS_AT_A_TIME, AHEAD_RECORDS = 8, 1_000


class Learn:
    """The LEARN stage. Partitions run side by side; a partition's batch may begin when the one
    before is ``stored``.
    """

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        log: Log,
        publisher: Publisher,
        items: ItemReader,
        candidates: Candidates,
        offers: Offers,
        clock: Callable[[], float],
        admission: Admission,
        journey: Journey,
        decisions: Decisions,
        profiles: Profiles,
        refused: Refused,
        telemetry: Telemetry = SILENT,
        merchandise: Merchandise | None = None,
    ) -> None:
        self.journey = journey
        self.decisions = decisions
        self._settings = settings
        self._store = store
        self._log = log
        self._publisher = publisher
        self._items = items
        self._clock = clock
        self.admission = admission
        self._telemetry = telemetry
        self._decoder = EventDecoder(settings)
        self._loader = Loader(
            store, items, journey, telemetry, partitions=settings.clickstream_partitions
        )
        ranker = Ranker(items.tables, list_size=settings.list_size, rules=offers.rules)
        self.listing = Listing(settings, journey, items, ranker, candidates, offers, merchandise)
        self._applier = Applier(
            settings, publisher, items, candidates, ranker, self.listing,
            clock, admission, journey, decisions, profiles, refused, telemetry,
        )  # fmt: skip
        self._groups = Grouping(
            self._computed,
            size=lambda member: len(member.batch),
            size_max=GROUP_RECORDS_MAX,
            at_a_time=GROUPS_AT_A_TIME,
            ahead_size=AHEAD_RECORDS,
        )
        self.turns = Turns()
        self.owned: dict[int, Owned] = {}
        self.learning = True  # False: the frozen evaluation protocol
        self.serving = True  # False: evaluation asks for the lists it needs
        self.gathering = False  # True: somebody else hands over what waits, again and again

    @property
    def ignored(self) -> Mapping[str, int]:
        """Well-formed records that mean nothing here, by the name of their event."""
        return dict(self._decoder.formats.ignored)

    async def process(self, batch: RawBatch) -> None:
        """Apply ``batch``; returns when its effects are stored and published.

        Raises ``Fenced`` when another worker owns the partition, ``RolledBack`` when the store
        went back in time; infrastructure errors are retried without end.
        """
        owned = self.owned[batch.partition]
        batch = batch.since(owned.cursor)
        if owned.cursor is not None and batch.next_offset <= owned.cursor:
            return  # a redelivery of what is stored
        owned.calls += 1
        try:
            await self._process(owned, batch)
        finally:
            owned.calls -= 1
            owned.touched_at = self._clock()

    async def _process(self, owned: Owned, batch: RawBatch) -> None:
        async with self._groups.group(Member(owned, batch)) as done:
            self._telemetry.lap("turn")  # of those who were computed with another's batch
            if owned.publishing is not None:
                await owned.publishing
            await retrying(
                lambda: self._store.commit(owned.claim, done.step), "committing customers"
            )
            self._telemetry.lap("commit")
            # Commit before publish: a lost list is rebuilt from the outbox, a lost count is not.
            owned.take(done)
            self._telemetry.quality(done.quality)
            publishing = asyncio.create_task(self._publish(owned, batch.partition, done))
            owned.publishing = publishing
        if not done.outbox.erasures:  # which the next batch has to know of
            batch.stored()
        await publishing
        self._telemetry.lap("publish")

    async def _publish(self, owned: Owned, partition: int, done: Applied) -> None:
        await self._publisher.publish(partition, done.outbox, done.messages)
        await self._follow_up(owned, done.outbox)

    async def _computed(self, members: Sequence[Member]) -> list[Applied]:
        """What each batch leaves, before any of it holds."""
        self._telemetry.lap("turn")  # who leads waited for others
        group = self._decoded(members)
        self._telemetry.lap("decode")
        for share in group.shares:
            await dead_letter(
                self._log,
                self._settings.dead_letter_topic,
                share.batch,
                share.events.rejects,
                withheld=self._settings.pseudonym_key_file is not None,
            )
        loaded = await self._loader.load(group)
        self._telemetry.lap("load")
        async with self.turns:
            self._telemetry.lap("turn")
            return self._applier.apply(group, loaded, learning=self.learning, serving=self.serving)

    def _decoded(self, members: Sequence[Member]) -> Group:
        events = self._decoder.decode(side_by_side([member.batch for member in members]))
        group = group_of(members, events)
        for share in group.shares:
            formers = share.events.aliases.former_ids()
            self.admission.refuse(share.events.events, formers)
        return group

    async def _follow_up(self, owned: Owned, outbox: Outbox) -> None:
        """Hand over what must not wait; after an erasure refuse what is older, keep no id of it."""
        if owned.waiting.full or outbox.erasures or not self.gathering:
            await owned.waiting.hand_over()
        if not outbox.erasures:
            return
        for customer, erased_at in outbox.erasures:
            self.admission.suppression.add(customer, erased_at)
        assert owned.cursor is not None
        blank = Commit(owned.cursor, owned.cursor, [], owned.partition.tobytes(), b"")
        await retrying(lambda: self._store.commit(owned.claim, blank), "clearing the outbox")

    async def assign(self, partition: int) -> int | None:
        """Claim a partition, finish what its last owner published; returns where to read on."""
        held = self.owned.get(partition)
        if held:  # the store may have changed to one without its outbox
            await held.waiting.hand_over()
        # Epochs come from the clock: a store that was rolled back cannot hand one out again, under
        # which other lists have been published.
        epoch_min = max(held.claim.epoch if held else 0, int(self._clock() * 1000))
        claim = await retrying(
            lambda: self._store.claim(USERS, partition, epoch_min=epoch_min), "claiming customers"
        )
        blend, cycles = await retrying(
            lambda: self._store.load(USERS, [partition] * 2, [BLEND_ID, CYCLES_ID]),
            "reading what the partition learned",
        )
        outbox = decode_outbox(claim.outbox)
        items_n = self._settings.cooccurrence_partitions
        owned = self.owned[partition] = Owned(
            claim,
            claim.cursor,
            decode_partition(claim.meta),
            decode_watermarks(
                claim.meta[PARTITION.itemsize :], self._settings.clickstream_partitions
            ),
            decode_blend(blend, self._items.tables.model),
            decode_cycles(cycles),
            UserCache(self._settings.user_cache_max // self._settings.clickstream_partitions),
            Agenda(self._settings.timers_max),
            self._clock() + FIRST_READ_S,
            Waiting(self._publisher, items_n, outbox),
        )
        await owned.waiting.hand_over()
        await self._publisher.republish(partition, claim.epoch, outbox)
        await self._follow_up(owned, outbox)
        return claim.cursor

    def blend_of(self, partition: int) -> NDArray[np.void] | None:
        """The weights to rank with: those learned or pinned, ``None`` for the published ones."""
        return self.listing.weights(self.owned[partition].blend)

    def revoke(self, partition: int) -> None:
        """Forget a partition that another worker owns now."""
        self.owned.pop(partition, None)
