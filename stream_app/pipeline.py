"""READ FIRST: one batch of a clickstream partition, from bytes to refreshed lists.

    decode → load → learn → score → commit → publish        (the caller acknowledges)

The co-occurrence counts learn in a second stage, :mod:`stream_app.relating`, off this path.
"""

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream_app.admission import Admission
from stream_app.candidates import Candidates
from stream_app.codec import Outbox, decode_outbox, encode_outbox
from stream_app.core.agenda import Agenda
from stream_app.core.cycles import decode_cycles
from stream_app.core.hybrid import decode_blend, learn_blend, prior_of
from stream_app.core.journey import Journey, deadlines
from stream_app.core.learn import APPLIED, Learned, learn
from stream_app.core.list_kinds import own_items
from stream_app.core.merchandising import Merchandise
from stream_app.core.ranking import Ranker
from stream_app.core.raw import copied, picked
from stream_app.core.state import PARTITION, decode_partition, decode_users
from stream_app.customers import Customers, customers_of
from stream_app.decisions import Decisions
from stream_app.events import EventBatch, EventDecoder
from stream_app.handing import Waiting, pack_transitions
from stream_app.items import ItemReader
from stream_app.listing import Listing
from stream_app.merging import (
    Click,
    Session,
    adopted,
    decode_watermarks,
    links,
    merges,
    sessions_to_ask_for,
)
from stream_app.offers import Offers
from stream_app.outbox import (
    Ranked,
    changed_profiles,
    counted_of,
    erased_customers,
    erasures,
    pack_lists,
    route_purchases,
)
from stream_app.owning import Applied, Owned
from stream_app.ports import USERS, Commit, Log, RawBatch, StateStore
from stream_app.profiles import Profiles
from stream_app.publishing import Publisher
from stream_app.rejects import dead_letter
from stream_app.retrying import retrying
from stream_app.rotating import Moved, adopt
from stream_app.settings import Settings
from stream_app.states import account, account_text, changed, follow_time, state_blobs
from stream_app.telemetry import SILENT, Telemetry
from stream_app.turns import Turns
from stream_app.user_cache import UserCache

ACCOUNTS_ID = b"accounts"  # beside the states of a partition: its accounts, as JSON for tools
BLEND_ID = b"blend"  # beside them: what is learned of the sources' weights
CYCLES_ID = b"cycles"  # and of how soon customers buy an item again
FIRST_READ_S = 5.0  # after a claim, before a partition that says nothing counts as quiet


class Learn:
    """The LEARN stage. One batch of a partition at a time; partitions may run side by side."""

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
        refused: Callable[[NDArray[np.uint64]], NDArray[np.uint8]],
        telemetry: Telemetry = SILENT,
        merchandise: Merchandise | None = None,
    ) -> None:
        self.journey = journey
        self.decisions = decisions
        self._profiles = profiles
        self._refused = refused
        self._settings = settings
        self._store = store
        self._log = log
        self._publisher = publisher
        self._items = items
        self._candidates = candidates
        self._clock = clock
        self.admission = admission
        self._telemetry = telemetry
        self._decoder = EventDecoder(settings)
        self._offers = offers
        self._ranker = Ranker(items.tables, list_size=settings.list_size, rules=offers.rules)
        self.listing = Listing(
            settings, journey, items, self._ranker, candidates, offers, merchandise
        )
        self._blending = settings.blend_weights == "learned"
        self.turns = Turns()
        self.owned: dict[int, Owned] = {}
        self.learning = True  # False: the frozen evaluation protocol
        self.serving = True  # False: evaluation asks for the lists it needs
        self.gathering = False  # True: somebody else hands over what waits, again and again

    async def process(self, batch: RawBatch) -> None:
        """Apply ``batch``; returns when its effects are stored and published.

        Raises ``Fenced`` when another worker owns the partition, ``RolledBack`` when the store
        went back in time; infrastructure errors are retried without end.
        """
        owned = self.owned[batch.partition]
        batch = batch.since(owned.cursor)
        if owned.cursor is not None and batch.next_offset <= owned.cursor:
            return  # a redelivery of what is stored
        owned.busy = True
        try:
            await self._process(owned, batch)
        finally:
            owned.busy, owned.touched_at = False, self._clock()

    async def _process(self, owned: Owned, batch: RawBatch) -> None:
        events = self._decoder.decode(batch)
        self.admission.refuse(events.events, events.aliases.former_ids())
        self._telemetry.lap("decode")
        await dead_letter(
            self._log,
            self._settings.dead_letter_topic,
            batch,
            events.rejects,
            withheld=self._settings.pseudonym_key_file is not None,
        )
        who, users, clicks, moved = await self._load(batch.partition, owned, events)
        self._telemetry.lap("load")
        async with self.turns:
            self._telemetry.lap("turn")
            done = self._applied(owned, batch, events, who, users, moved, clicks)
        await retrying(lambda: self._store.commit(owned.claim, done.step), "committing customers")
        self._telemetry.lap("commit")
        # Commit before publish: a lost list is rebuilt from the outbox, a lost count is not.
        owned.take(done, who)
        await self._publisher.publish(batch.partition, done.outbox, done.messages)
        await self._follow_up(owned, done.outbox)
        self._telemetry.lap("publish")

    def _applied(
        self,
        owned: Owned,
        batch: RawBatch,
        events: EventBatch,
        who: Customers,
        users: NDArray[np.void],
        moved: list[Moved],
        clicks: list[Click],
    ) -> Applied:
        """Learn, score and render: what the batch leaves, before any of it holds."""
        rows, partition, before = who.rows, copied(owned.partition), counted_of(users)
        merged, cycles = owned.merged.copy(), copied(owned.cycles)
        learned = learn(
            users,
            rows,
            events.events,
            partition,
            self._items.tables.model,
            self.journey.plan,
            policy=self.decisions.policy,
            adopted=adopted(events.events["kind"], events.data, merged),
            cycles=cycles,
            learn_globals=self.learning,
        )
        follow_time(partition, events)
        self._telemetry.lap("learn")
        self._name_items(events)
        blend = self._learn_blend(owned.blend, events, learned)
        ranked = None
        if self.serving:
            ranked = self._score(events, rows, users, partition, blend, cycles, learned)
        self._telemetry.lap("score")
        outbox = self._outbox(batch.partition, events, who, users, before, learned, ranked)
        fresh = owned.waiting.joined(outbox)
        outbox.clicks += clicks
        outbox.erased += [one.name for one in moved]
        messages = self._publisher.render(
            batch.partition, owned.claim.epoch, outbox.lists, ranked.lists if ranked else None
        )
        account(partition, batch, owned.cursor, events)
        writes = [
            *zip(who.keys, state_blobs(users, who.first, events), strict=True),
            *[(one.key, b"") for one in moved],
            *changed((BLEND_ID, owned.blend, blend), (CYCLES_ID, owned.cycles, cycles)),
            (ACCOUNTS_ID, account_text(partition, batch.next_offset)),
        ]
        meta, left = partition.tobytes() + merged.tobytes(), encode_outbox(outbox)
        step = Commit(owned.cursor, batch.next_offset, writes, meta, left)
        due, users_n = deadlines(users, self.journey.plan), len(who.ids) + len(moved)
        self._telemetry.lap("render")
        return Applied(
            step, outbox, fresh, messages, partition, merged, blend, cycles, users_n, due
        )

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
        """The weights to rank with: what the partition learned, ``None`` for the published ones."""
        return self.owned[partition].blend if self._blending else None

    def revoke(self, partition: int) -> None:
        """Forget a partition that another worker owns now."""
        self.owned.pop(partition, None)

    async def _load(
        self, number: int, owned: Owned, events: EventBatch
    ) -> tuple[Customers, NDArray[np.void], list[Click], list[Moved]]:
        """States of the customers in the batch, and the item tables their lists are drawn from.

        Also records that ask for the states of sessions in which customers have become known, and
        the former states of those whose pseudonym has changed.
        """
        who = customers_of(events.events)
        keys, blobs = who.keys, owned.users.get(who.keys)
        missing = [k for k, blob in enumerate(blobs) if blob is None]
        self._telemetry.cache("customers", asked=len(keys), missing=len(missing))
        if missing:
            read = await retrying(
                lambda: self._store.load(
                    USERS, [number] * len(missing), [keys[k] for k in missing]
                ),
                "reading customers",
            )
            for k, blob in zip(missing, read, strict=True):
                blobs[k] = blob
        moved = await adopt(self._store, number, who, events, blobs)
        users = decode_users(who.ids, blobs)
        own = own_items(users, self.journey.lists)
        context = np.concatenate((own, events.events["item"]))
        asked = sessions_to_ask_for(
            events, who.rows, users, partitions=self._settings.clickstream_partitions
        )
        reading = retrying(lambda: self._items.load(context), "reading items")
        if not asked:  # nearly always: two tasks would cost more than what they save
            await reading
            return who, users, [], moved
        clicks, _ = await asyncio.gather(self._links(number, events, asked), reading)
        return who, users, clicks, moved

    async def _links(self, number: int, events: EventBatch, asked: list[Session]) -> list[Click]:
        at, keys = [session.partition for session in asked], [session.key for session in asked]
        blobs = await retrying(lambda: self._store.load(USERS, at, keys), "reading sessions")
        return links(events, asked, blobs, source=number)

    def _name_items(self, events: EventBatch) -> None:
        self._items.tables.set_names(events.events["item"], events.items)

    def _learn_blend(
        self, blend: NDArray[np.void], events: EventBatch, learned: Learned
    ) -> NDArray[np.void]:
        """What the sources gave the items that sampled customers went on to; a copy when learned.

        After ``learn``, which has done with the customers, before the items' tables know of it.
        """
        if not len(learned.probes):
            return blend
        asked = picked(events.events, learned.probed)
        self._items.tables.advance(float(asked["ts"].max()))
        ts = np.ascontiguousarray(asked["ts"])
        extra = self._candidates.draw(
            learned.probes, np.arange(len(asked)), None, ts, asked["segment"]
        )
        given = self._ranker.probe(learned.probes, asked["item"], ts, self._items.popular(), extra)
        prior = prior_of(self._items.tables.model)
        changed = copied(blend)
        return changed if learn_blend(changed, learned.probes["step"], given, prior) else blend

    def _score(
        self,
        events: EventBatch,
        rows: NDArray[np.int64],
        users: NDArray[np.void],
        partition: NDArray[np.void],
        blend: NDArray[np.void],
        cycles: NDArray[np.void],
        learned: Learned,
    ) -> Ranked:
        """Lists of every customer with an applied event."""
        at = np.flatnonzero((learned.status == APPLIED) & (users["events"][rows] > 0))
        touched, first = np.unique(rows[at], return_index=True)
        at = at[first]
        selected = picked(users, touched)
        shown = self.admission.impersonal(selected)
        if len(selected):
            self._items.tables.advance(float(selected["last_ts"].max()))
        segments = events.events["segment"][at]
        owners, kinds, lists = self.listing.rank(
            selected, shown, segments, partition, blend, cycles
        )
        likely = self.journey.likely_next(partition["step_counts"][0])
        return Ranked(
            selected,
            [events.customers[k] for k in at.tolist()],
            [likely[step] for step in selected["step"].tolist()],
            owners,
            kinds,
            lists,
            self.decisions.scalars(selected, self._refused(selected["id"])),
        )

    def _outbox(
        self,
        number: int,
        events: EventBatch,
        who: Customers,
        users: NDArray[np.void],
        before: NDArray[np.uint32],
        learned: Learned,
        ranked: Ranked | None,
    ) -> Outbox:
        s = self._settings
        users_n, items_n = s.clickstream_partitions, s.cooccurrence_partitions
        lists = None
        if ranked:
            node_ids = self._items.tables.nodes["id"]
            names = self._items.unsaved_names(ranked.lists)
            lists = pack_lists(ranked, node_ids, names, generated_at=self._clock())
        return Outbox(
            waiting=pack_transitions(learned, events, source=number),
            sales=route_purchases(events, learned, source=number, partitions=items_n),
            lists=lists,
            profiles=changed_profiles(users, before, who.first, events, self._profiles),
            erased=erased_customers(users, who.rows, events, learned),
            erasures=erasures(events, learned),
            clicks=merges(
                events, learned.status, learned.handed, source=number, partitions=users_n
            ),
        )
