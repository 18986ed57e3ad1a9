"""What the batches of a group need in memory: their customers' states, and the items to list."""

import asyncio
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.journey import Journey
from stream_app.core.list_kinds import own_items
from stream_app.core.state import decode_users
from stream_app.customers import Customers, customers_of
from stream_app.group import Group
from stream_app.items import ItemReader
from stream_app.merging import Click, Session, links, sessions_to_ask_for
from stream_app.ports import USERS, StateStore
from stream_app.retrying import retrying
from stream_app.rotating import Moved, adopt
from stream_app.telemetry import Telemetry


class Loaded(NamedTuple):
    """The n customers of a group: ``who`` and their states, before its events.

    Those of a share stand together, from ``bounds[k]`` to ``bounds[k + 1]``; ``homes (n,)`` tells
    of which. For each share, ``moved`` are former states and ``clicks`` records that ask for the
    states of sessions in which customers have become known.
    """

    who: Customers
    users: NDArray[np.void]
    homes: NDArray[np.int64]
    bounds: list[int]
    moved: list[list[Moved]]
    clicks: list[list[Click]]


class Loader:
    """Reads from memory where it can, else from the store."""

    def __init__(
        self,
        store: StateStore,
        items: ItemReader,
        journey: Journey,
        telemetry: Telemetry,
        *,
        partitions: int,
    ) -> None:
        self._store = store
        self._items = items
        self._journey = journey
        self._telemetry = telemetry
        self._partitions = partitions

    async def load(self, group: Group) -> Loaded:
        """The states, and the item tables in memory that their lists are drawn from."""
        events = group.events
        own = [customers_of(share.events.events) for share in group.shares]
        bounds = [0, *np.cumsum([len(who.ids) for who in own]).tolist()]
        who = _all_of(own, [share.first for share in group.shares], bounds)
        homes = np.repeat(np.arange(len(own)), np.diff(bounds))
        blobs, moved = await self._states(group, own, who, homes)
        users = decode_users(who.ids, blobs)
        context = np.concatenate((own_items(users, self._journey.lists), events.events["item"]))
        asked = sessions_to_ask_for(
            events,
            who.rows,
            users,
            group.homes,
            partitions=self._partitions,
            gap_s=self._items.tables.model.session_gap_s,
        )
        reading = retrying(lambda: self._items.load(context), "reading items")
        clicks: list[list[Click]] = [[] for _ in own]
        if asked:
            clicks, _ = await asyncio.gather(self._links(group, asked), reading)
        else:  # nearly always: two tasks would cost more than what they save
            await reading
        return Loaded(who, users, homes, bounds, moved, clicks)

    async def _states(
        self, group: Group, own: list[Customers], who: Customers, homes: NDArray[np.int64]
    ) -> tuple[list[bytes | None], list[list[Moved]]]:
        blobs: list[bytes | None] = []
        for share, some in zip(group.shares, own, strict=True):
            blobs += share.owned.users.get(some.keys)
        missing = [k for k, blob in enumerate(blobs) if blob is None]
        self._telemetry.cache("customers", asked=len(blobs), missing=len(missing))
        if missing:
            numbers = [group.shares[home].number for home in homes[missing].tolist()]
            keys = [who.keys[k] for k in missing]
            read = await retrying(
                lambda: self._store.load(USERS, numbers, keys), "reading customers"
            )
            for k, blob in zip(missing, read, strict=True):
                blobs[k] = blob
        moved: list[list[Moved]] = [[] for _ in own]
        if group.events.aliases.formers:
            at = 0
            for k, (share, some) in enumerate(zip(group.shares, own, strict=True)):
                part = blobs[at : at + len(some.ids)]
                moved[k] = await adopt(self._store, share.number, some, share.events, part)
                blobs[at : at + len(part)] = part
                at += len(part)
        return blobs, moved

    async def _links(self, group: Group, asked: list[Session]) -> list[list[Click]]:
        at, keys = [session.partition for session in asked], [session.key for session in asked]
        blobs = await retrying(lambda: self._store.load(USERS, at, keys), "reading sessions")
        found = []
        for share in group.shares:
            own = [k for k, one in enumerate(asked) if share.first <= one.row < share.end]
            sessions, states = [asked[k] for k in own], [blobs[k] for k in own]
            found.append(links(group.events, sessions, states, source=share.number))
        return found


def _all_of(own: list[Customers], first_rows: list[int], bounds: list[int]) -> Customers:
    """The customers of several shares, one share after the other."""
    if len(own) == 1:
        return own[0]
    first = [who.first + row for who, row in zip(own, first_rows, strict=True)]
    rows = [who.rows + start for who, (start, _) in zip(own, pairwise(bounds), strict=True)]
    return Customers(
        np.concatenate([who.ids for who in own]),
        list(chain.from_iterable(who.keys for who in own)),
        np.concatenate(first),
        np.concatenate(rows),
    )
