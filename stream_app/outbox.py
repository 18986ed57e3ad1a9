"""What a batch leaves behind besides state: lists, transitions, profiles, erasures.

Committed with the state as one outbox, published after.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.codec import STORED_SOURCES, ListsBlock
from stream_app.core.internal import HANDED
from stream_app.core.learn import APPLIED, ERASED, Learned
from stream_app.core.model import KIND
from stream_app.core.ranking import Lists
from stream_app.core.raw import picked
from stream_app.events import EventBatch
from stream_app.profiles import Profiles
from stream_app.sales import route_sales


class Ranked(NamedTuple):
    """What scoring produced for a group: n customers with m lists between them.

    Those of share ``k`` are the customers from ``bounds[k]`` to ``bounds[k + 1]``.

    ``scalars`` is the place for further public fields: by name one JSON text per customer, never
    empty (``b"null"``); they appear in the topic record, in ``rec:<user_id>`` and in the outbox.
    A string loses its quotes in ``rec:<user_id>`` and so must be a plain name.
    """

    users: NDArray[np.void]  # (n,) USER
    customers: list[str]
    next_steps: list[int]
    bounds: list[int]
    owners: NDArray[np.int64]  # (m,) row of the customer of each list
    kinds: NDArray[np.uint8]  # (m,) index into LISTS
    lists: Lists
    scalars: Mapping[str, Sequence[bytes]] = MappingProxyType({})


def pack_lists(
    ranked: Ranked,
    node_ids: NDArray[np.uint64],
    unsaved_names: Callable[[Lists], list[str]],
    *,
    generated_at: float,
) -> list[ListsBlock]:
    """Ids instead of nodes, arrays instead of text: small enough to be committed with the state.

    A block for each share. ``unsaved_names`` are texts of items that the store may not know yet.
    """
    users, lists, bounds = ranked.users, ranked.lists, ranked.bounds
    used = np.arange(lists.nodes.shape[1]) < lists.counts[:, None]
    because = lists.because[used]
    items = node_ids[lists.nodes[used]]
    because = np.where(because >= 0, node_ids[because], np.uint64(0))
    scores, sources = lists.scores[used].astype(np.float32), STORED_SOURCES[lists.sources[used]]
    versions, entered = (users["offset"] + 1).tolist(), users["entered_at"].tolist()
    steps = list(
        zip(users["step"].tolist(), users["previous_step"].tolist(), ranked.next_steps, strict=True)
    )
    firsts = ranked.owners.searchsorted(bounds)
    ends = np.concatenate(([0], lists.counts.cumsum()))[firsts].tolist()
    owners, counts = ranked.owners.astype(np.uint32), lists.counts.astype(np.uint8)
    any_unsaved, blocks = bool(unsaved_names(lists)), []
    for k, ((a, b), (m, m_end), (e, e_end)) in enumerate(
        zip(pairwise(bounds), pairwise(firsts.tolist()), pairwise(ends), strict=True)
    ):
        own = lists.between(m, m_end)
        blocks.append(
            ListsBlock(
                customers=ranked.customers[a:b],
                versions=versions[a:b],
                steps=steps[a:b],
                entered_at=entered[a:b],
                generated_at=generated_at,
                list_owner=(owners[m:m_end] - np.uint32(bounds[k])).tobytes(),
                list_kind=ranked.kinds[m:m_end].tobytes(),
                counts=counts[m:m_end].tobytes(),
                items=items[e:e_end].tobytes(),
                because=because[e:e_end].tobytes(),
                scores=scores[e:e_end].tobytes(),
                sources=sources[e:e_end].tobytes(),
                names=unsaved_names(own) if any_unsaved else [],
                scalars={name: list(texts[a:b]) for name, texts in ranked.scalars.items()},
            )
        )
    return blocks


def route_purchases(
    events: EventBatch, learned: Learned, *, source: int, partitions: int
) -> list[tuple[int, bytes]]:
    """Units sold, one record for each partition that owns any of the items."""
    bought = (events.events["kind"] == KIND["purchase"]) & (learned.status == APPLIED)
    at = np.flatnonzero(bought & (events.events["units"] > 0.0))
    if not len(at):
        return []
    rows = picked(events.events, at)
    names = [events.items[k] for k in at.tolist()]
    return route_sales(
        rows["item"],
        rows["ts"],
        rows["offset"],
        rows["units"].astype(np.float64),
        names,
        source=source,
        partitions=partitions,
    )


def counted_of(users: NDArray[np.void]) -> NDArray[np.uint32]:
    """``(2, n)``: sessions and purchases, whose change makes a profile a new one."""
    return np.array((users["sessions"], users["purchases"]))


def changed_profiles(
    users: NDArray[np.void],
    before: NDArray[np.uint32],
    first: NDArray[np.int64],
    events: EventBatch,
    profiles: Profiles,
) -> list[tuple[str, bytes]]:
    """Profiles of the customers who began a session or bought something.

    ``before (2, n)`` is what was counted of them, ``first`` an event of each.
    """
    counted = (counted_of(users) != before).any(axis=0)
    changed = np.flatnonzero((users["events"] > 0) & counted)
    if not len(changed):
        return []
    customers = [events.customers[k] for k in first[changed].tolist()]
    return list(zip(customers, profiles.json(picked(users, changed), customers), strict=True))


def erased_customers(
    users: NDArray[np.void], rows: NDArray[np.int64], events: EventBatch, learned: Learned
) -> list[str]:
    at = np.flatnonzero((learned.status == ERASED) | (learned.status == HANDED)).tolist()
    return sorted({events.customers[k] for k in at if users["events"][rows[k]] == 0})


def erasures(events: EventBatch, learned: Learned) -> list[tuple[int, float]]:
    """Hashes of the customers erased in this batch, and the event time of each erasure."""
    at = np.flatnonzero(learned.status == ERASED)
    if not len(at):
        return []
    rows = picked(events.events, at)
    return list(zip(rows["customer"].tolist(), rows["ts"].tolist(), strict=True))
