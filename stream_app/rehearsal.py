"""What each merchandising rule would do to a customer's lists: ``rules dry-run``, console."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.composition import Stages
from stream_app.core.hybrid import new_blend
from stream_app.core.list_kinds import own_items
from stream_app.core.merchandising import Merchandise, Rule
from stream_app.core.ranking import LISTS
from stream_app.core.state import decode_users, new_partition
from stream_app.errors import StreamAppError
from stream_app.hashing import customer_id
from stream_app.listing import Listing
from stream_app.ports import USERS, StateStore


class Change(NamedTuple):
    """One rule's effect on one list: the list ``before`` and ``after`` it, the ids of items."""

    rule_id: str
    action: str
    list_name: str
    before: list[str]
    after: list[str]


async def rehearse(
    stages: Stages,
    store: StateStore,
    names: Sequence[str],
    partition: int,
    *,
    rules: Sequence[Rule],
    now: float,
) -> tuple[dict[str, list[str]], list[Change]]:
    """The lists of a customer under all ``rules``, and what each of them changes.

    ``names`` are the public names that they may have; the first with a state counts.
    ``now`` (unix seconds) decides which windows are open, where the customer's last event is older.
    Nothing is claimed or written, and a worker that answers meanwhile ranks with its own rules.
    Rules come in one after the other, in their order; weights that the customer's partition has
    learned are not known here, so ties may fall differently.
    """
    keys = np.array([customer_id(name) for name in names], np.uint64)
    blobs = await store.load(USERS, [partition] * len(keys), [key.tobytes() for key in keys])
    users = decode_users(keys, blobs)
    users = users[users["events"] > 0][:1]
    if not len(users):
        raise StreamAppError(f"nothing is known of customer {names[0]!r}: no event was applied")
    context = own_items(users, stages.learn.journey.lists)
    rules = sorted(rules, key=lambda rule: rule.rule_id)
    rehearsed = Merchandise(stages.merchandise.catalog, stages.merchandise.permitted)
    listing = stages.learn.listing.under(rehearsed)
    before: dict[str, list[str]] = {}
    changes: list[Change] = []
    for n in range(len(rules) + 1):
        rehearsed.set_rules(rules[:n])
        await asyncio.sleep(0)  # others go first
        await stages.items.load(context)
        if not n:
            await stages.items.load(context)  # now also what the first read made known
        after = _lists(stages, listing, users, now)
        if n:
            rule = rules[n - 1]
            changes += [
                Change(rule.rule_id, rule.action, name, before[name], now)
                for name, now in after.items()
                if now != before[name]
            ]
        before = after
    return before, changes


def _lists(
    stages: Stages, listing: Listing, users: NDArray[np.void], now: float
) -> dict[str, list[str]]:
    """Ids of the items of each list that a customer would have now."""
    tables = stages.items.tables
    tables.advance(float(users["last_ts"][0]))
    shown = stages.learn.admission.impersonal(users)
    nowhere, prior = np.zeros((1, 2), np.uint32), new_blend(tables.model)
    _, kinds, lists = listing.rank(
        users, shown, nowhere, new_partition(), prior, asked_at=np.full(1, now)
    )
    return {
        LISTS[kind]: [tables.names[node] for node in lists.nodes[i, : lists.counts[i]].tolist()]
        for i, kind in enumerate(kinds.tolist())
    }
