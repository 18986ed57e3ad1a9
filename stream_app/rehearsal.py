"""What each merchandising rule would do to a customer's lists: ``rules dry-run``."""

from typing import NamedTuple

import numpy as np

from stream_app.composition import Stages
from stream_app.core.hybrid import new_blend
from stream_app.core.ranking import LISTS
from stream_app.core.state import decode_users, new_partition
from stream_app.errors import StreamAppError
from stream_app.hashing import customer_id
from stream_app.ports import USERS, StateStore


class Change(NamedTuple):
    """One rule's effect on one list: the list ``before`` and ``after`` it, the ids of items."""

    rule_id: str
    action: str
    list_name: str
    before: list[str]
    after: list[str]


async def rehearse(
    stages: Stages, store: StateStore, customer: str, partition: int
) -> tuple[dict[str, list[str]], list[Change]]:
    """The lists of ``customer`` (public name) under all rules, and what each rule changes of them.

    Nothing is claimed or written. Rules come in one after the other, in their order; weights that
    the customer's partition has learned are not known here, so ties may fall differently.
    """
    key = np.array([customer_id(customer)], np.uint64)
    users = decode_users(key, await store.load(USERS, [partition], [key[0].tobytes()]))
    if not users["events"][0]:
        raise StreamAppError(f"nothing is known of customer {customer!r}: no event was applied")
    context = np.concatenate((users["ring_item"].ravel(), users["cart_item"].ravel()))
    await stages.items.load(context)
    await stages.items.load(context)  # now also what the first read made known
    stages.items.tables.advance(float(users["last_ts"][0]))
    shown = stages.learn.admission.impersonal(users)
    nowhere = np.zeros((1, 2), np.uint32)
    prior = new_blend(stages.items.tables.model)
    rules = stages.merchandise.rules
    before: dict[str, list[str]] = {}
    changes: list[Change] = []
    try:
        for n in range(len(rules) + 1):
            stages.merchandise.set_rules(rules[:n])
            _, kinds, lists = stages.learn.listing.rank(
                users, shown, nowhere, new_partition(), prior
            )
            names = stages.items.tables.names
            after = {
                LISTS[kind]: [names[node] for node in lists.nodes[i, : lists.counts[i]].tolist()]
                for i, kind in enumerate(kinds.tolist())
            }
            if n:
                rule = rules[n - 1]
                changes += [
                    Change(rule.rule_id, rule.action, name, before[name], now)
                    for name, now in after.items()
                    if now != before[name]
                ]
            before = after
    finally:
        stages.merchandise.set_rules(rules)
    return before, changes
