"""Learn, rank and render: what the batches of a group leave, before any of it holds.

Called by LEARN between reading and committing. Never waits; changes nothing but the copies it
makes of what the partitions have.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.admission import Admission
from stream_app.candidates import Candidates
from stream_app.codec import ListsBlock, Outbox, encode_outbox
from stream_app.core.hybrid import learn_blend, prior_of
from stream_app.core.journey import Journey, deadlines
from stream_app.core.learn import APPLIED, Learned, learn
from stream_app.core.ranking import Ranker
from stream_app.core.raw import copied, picked, stacked, together
from stream_app.decisions import Decisions
from stream_app.group import Group, Share
from stream_app.handing import pack_transitions
from stream_app.items import ItemReader
from stream_app.listing import Listing
from stream_app.loading import Loaded
from stream_app.merging import adopted, merges
from stream_app.outbox import (
    Ranked,
    changed_profiles,
    counted_of,
    erased_customers,
    erasures,
    pack_lists,
    route_purchases,
)
from stream_app.owning import BLEND_ID, CYCLES_ID, Applied
from stream_app.ports import ACCOUNTS_ID, Commit
from stream_app.profiles import Profiles
from stream_app.publishing import Messages, Publisher
from stream_app.settings import Settings
from stream_app.states import account, account_text, changed, follow_time, quality, state_blobs
from stream_app.telemetry import Telemetry

Refused = Callable[[NDArray[np.uint64]], NDArray[np.uint8]]


class Applier:
    """The computing part of the LEARN stage, on what is in memory."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        items: ItemReader,
        candidates: Candidates,
        ranker: Ranker,
        listing: Listing,
        clock: Callable[[], float],
        admission: Admission,
        journey: Journey,
        decisions: Decisions,
        profiles: Profiles,
        refused: Refused,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._items = items
        self._candidates = candidates
        self._ranker = ranker
        self._listing = listing
        self._clock = clock
        self._admission = admission
        self._journey = journey
        self._decisions = decisions
        self._profiles = profiles
        self._refused = refused
        self._telemetry = telemetry

    def apply(
        self, group: Group, loaded: Loaded, *, learning: bool, serving: bool
    ) -> list[Applied]:
        """What each share leaves; ``learning`` and ``serving`` as LEARN has them."""
        shares, events, users = group.shares, group.events, loaded.users
        partitions = stacked([share.owned.partition for share in shares])
        cycles = stacked([share.owned.cycles for share in shares])
        merged = [share.owned.merged.copy() for share in shares]
        before = counted_of(users)
        learned = learn(
            users,
            loaded.who.rows,
            events.events,
            partitions,
            self._items.tables.model,
            self._journey.plan,
            homes=group.homes,
            policy=self._decisions.policy,
            adopted=_adopted(shares, merged),
            cycles=cycles,
            learn_globals=learning,
        )
        for k, share in enumerate(shares):
            follow_time(partitions[k : k + 1], share.events)
        self._telemetry.lap("learn")
        self._items.tables.set_names(events.events["item"], events.items)
        blends = self._learn_blends(group, learned)
        ranked = None
        if serving:
            ranked = self._ranked(group, loaded, learned, partitions, stacked(blends), cycles)
        self._telemetry.lap("score")
        lists, messages = self._lists(shares, ranked)
        states = state_blobs(users, loaded.who.first, events)
        due = deadlines(users, self._journey.plan)
        found = []
        for k, share in enumerate(shares):
            outbox = self._outbox(k, share, loaded, before, learned, lists[k])
            fresh = share.owned.waiting.joined(outbox)
            outbox.clicks += loaded.clicks[k]
            outbox.erased += [one.name for one in loaded.moved[k]]
            partition = copied(partitions[k : k + 1])
            account(partition, share.batch, share.owned.cursor, share.events)
            blend, cycle, own = blends[k], copied(cycles[k : k + 1]), _own(loaded, k)
            step = _commit(
                share,
                list(zip(loaded.who.keys[own], states[own], strict=True)),
                [one.key for one in loaded.moved[k]],
                (partition, merged[k], blend, cycle),
                outbox,
            )
            users_n = own.stop - own.start + len(loaded.moved[k])
            found.append(
                Applied(
                    step,
                    outbox,
                    fresh,
                    messages[k],
                    partition,
                    merged[k],
                    blend,
                    cycle,
                    users_n,
                    loaded.who.ids[own],
                    due[own],
                    quality(learned.status[share.first : share.end], share.events),
                )
            )
        self._telemetry.lap("render")
        return found

    def _learn_blends(self, group: Group, learned: Learned) -> list[NDArray[np.void]]:
        """What the sources gave the items that sampled customers went on to; copies where learned.

        After ``learn``, which has done with the customers, before the items' tables know of it.
        """
        blends = [share.owned.blend for share in group.shares]
        if not len(learned.probes):
            return blends
        asked = picked(group.events.events, learned.probed)
        self._items.tables.advance(float(asked["ts"].max()))
        ts = np.ascontiguousarray(asked["ts"])
        extra = self._candidates.draw(
            learned.probes, np.arange(len(asked)), None, ts, asked["segment"]
        )
        given = self._ranker.probe(learned.probes, asked["item"], ts, self._items.popular(), extra)
        prior = prior_of(self._items.tables.model)
        for k, share in enumerate(group.shares):
            first, end = learned.probed.searchsorted((share.first, share.end)).tolist()
            if first < end:
                blend, steps = copied(blends[k]), learned.probes["step"][first:end]
                blends[k] = (
                    blend if learn_blend(blend, steps, given[first:end], prior) else blends[k]
                )
        return blends

    def _ranked(
        self,
        group: Group,
        loaded: Loaded,
        learned: Learned,
        partitions: NDArray[np.void],
        blends: NDArray[np.void],
        cycles: NDArray[np.void],
    ) -> Ranked:
        """Lists of every customer with an applied event."""
        users, rows, events = loaded.users, loaded.who.rows, group.events
        at = np.flatnonzero((learned.status == APPLIED) & (users["events"][rows] > 0))
        touched, first = np.unique(rows[at], return_index=True)
        asked_at = None
        if self._listing.ruled:  # windows go by the last record, also one of which nothing comes
            asked_at = np.zeros(len(touched))
            np.maximum.at(asked_at, touched.searchsorted(rows[at]), events.events["ts"][at])
        at = at[first]
        selected, homes = picked(users, touched), loaded.homes[touched]
        shown = self._admission.impersonal(selected)
        if len(selected):
            self._items.tables.advance(float(selected["last_ts"].max()))
        owners, kinds, lists = self._listing.rank(
            selected,
            shown,
            events.events["segment"][at],
            partitions,
            blends,
            cycles,
            homes,
            asked_at,
        )
        likely = [self._journey.likely_next(counts) for counts in partitions["step_counts"]]
        steps = zip(homes.tolist(), selected["step"].tolist(), strict=True)
        return Ranked(
            selected,
            [events.customers[k] for k in at.tolist()],
            [likely[home][step] for home, step in steps],
            touched.searchsorted(loaded.bounds).tolist(),
            owners,
            kinds,
            lists,
            self._decisions.scalars(selected, self._refused(selected["id"])),
        )

    def _lists(
        self, shares: Sequence[Share], ranked: Ranked | None
    ) -> tuple[Sequence[ListsBlock | None], Sequence[Messages]]:
        """The lists of each share, to be committed and to be published."""
        if ranked is None:
            return [None] * len(shares), [Messages()] * len(shares)
        blocks = pack_lists(
            ranked,
            self._items.tables.nodes["id"],
            self._items.unsaved_names,
            generated_at=self._clock(),
        )
        places = [(share.number, share.owned.claim.epoch) for share in shares]
        return blocks, self._publisher.render(places, blocks, ranked.lists)

    def _outbox(
        self,
        k: int,
        share: Share,
        loaded: Loaded,
        before: NDArray[np.uint32],
        learned: Learned,
        lists: ListsBlock | None,
    ) -> Outbox:
        s, own, events = self._settings, _own(loaded, k), share.events
        users_n, items_n = s.clickstream_partitions, s.cooccurrence_partitions
        users, rows = loaded.users[own], loaded.who.rows[share.first : share.end] - own.start
        first = loaded.who.first[own] - share.first
        part = learned.between(share.first, share.end)
        return Outbox(
            waiting=pack_transitions(part, events, source=share.number),
            sales=route_purchases(events, part, source=share.number, partitions=items_n),
            lists=lists,
            profiles=changed_profiles(users, before[:, own], first, events, self._profiles),
            erased=erased_customers(users, rows, events, part),
            erasures=erasures(events, part),
            clicks=merges(
                events, part.status, part.handed, source=share.number, partitions=users_n
            ),
        )


def _own(loaded: Loaded, k: int) -> slice:
    """The customers of share ``k``."""
    return slice(loaded.bounds[k], loaded.bounds[k + 1])


def _adopted(
    shares: Sequence[Share], merged: Sequence[NDArray[np.int64]]
) -> NDArray[np.void] | None:
    """The states that merge events carry; raises the watermarks ``merged`` in place."""
    parts = [
        adopted(share.events.events["kind"], share.events.data, watermarks)
        for share, watermarks in zip(shares, merged, strict=True)
    ]
    brought = [part for part in parts if part is not None]
    return together(brought) if brought else None


def _commit(
    share: Share,
    states: list[tuple[bytes, bytes]],
    gone: Sequence[bytes],
    parts: tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.void], NDArray[np.void]],
    outbox: Outbox,
) -> Commit:
    """The step of one partition: states first, those that are ``gone`` after them."""
    (partition, merged, blend, cycles), owned, batch = parts, share.owned, share.batch
    writes = [
        *states,
        *[(key, b"") for key in gone],
        *changed((BLEND_ID, owned.blend, blend), (CYCLES_ID, owned.cycles, cycles)),
        (ACCOUNTS_ID, account_text(partition, batch.next_offset)),
    ]
    meta = partition.tobytes() + merged.tobytes()
    return Commit(owned.cursor, batch.next_offset, writes, meta, encode_outbox(outbox))
