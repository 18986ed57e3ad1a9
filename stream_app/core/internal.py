"""Records of the application to itself: believed as far as the customers' states bear them out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.customer import Row
from stream_app.core.insight import Desk, Policy, elapse, reconsider
from stream_app.core.jit import kernel
from stream_app.core.journey import Plan, apply_timeout, next_timeout
from stream_app.core.merging import merge_customers
from stream_app.core.model import KIND, Model
from stream_app.core.raw import zeroed
from stream_app.core.state import USER

APPLIED, DUPLICATE, ERASED, STALE, QUARANTINED, REFUSED, HANDED = range(7)
NO_TIMER = 255
_TIMEOUT, _REFRESH = KIND["timeout"], KIND["refresh"]
_LINK, _MERGE = KIND["link"], KIND["merge"]


class Exchange(NamedTuple):
    """States that leave this partition, and states that come.

    ``handed`` and ``adopted (n,) USER`` by link and merge events in order; of those adopted one
    without events was seen before. ``n (2,) int64``: how many of each are done.
    """

    handed: NDArray[np.void]
    adopted: NDArray[np.void]
    n: NDArray[np.int64]


def new_exchange(kinds: NDArray[np.uint8], adopted: NDArray[np.void] | None) -> Exchange:
    """Room for what the events of ``kinds (n,)`` hand over; nothing adopted means seen before."""
    if adopted is None:
        adopted = zeroed(int(np.count_nonzero(kinds == _MERGE)), USER)
    handed = zeroed(int(np.count_nonzero(kinds == _LINK)), USER)
    return Exchange(handed, adopted, np.zeros(2, np.int64))


@kernel
def _believed(
    users: NDArray[np.void],
    row: int,
    mind: Row,
    event: Row,
    plan: Plan,
    model: Model,
    policy: Policy,
    desk: Desk,
    blank: NDArray[np.void],
    exchange: Exchange,
) -> tuple[int, int]:
    user, merge = users[row], exchange.n[1]
    if event.kind == _MERGE:
        exchange.n[1] += 1
    if user.events == 0:
        return STALE, NO_TIMER
    if event.kind == _REFRESH:
        return APPLIED, NO_TIMER
    if event.kind == _TIMEOUT:
        # The next one that the state has, to the bit of its deadline: after an event of the
        # customer, or applied once, it is not.
        next_row, due = next_timeout(user, plan.timeouts)
        if next_row >= 0 and due == event.ts:
            elapse(user, mind, due, False, model, policy, desk)
            apply_timeout(user, plan.timeouts[next_row], due)
            reconsider(user, mind, event, policy, desk)
            return APPLIED, next_row
    if event.kind == _LINK and user.anonymous > 0:
        exchange.handed[exchange.n[0]] = users[row]
        exchange.n[0] += 1
        users[row] = blank[0]
        users[row].id = event.customer
        return HANDED, NO_TIMER
    if event.kind == _MERGE and exchange.adopted[merge].events > 0:
        merge_customers(user, exchange.adopted[merge], model)
        return APPLIED, NO_TIMER
    return STALE, NO_TIMER


@kernel
def take_internal(
    users: NDArray[np.void],
    row: int,
    partition: Row,
    mind: Row,
    event: Row,
    plan: Plan,
    model: Model,
    policy: Policy,
    desk: Desk,
    blank: NDArray[np.void],
    exchange: Exchange,
) -> tuple[int, int]:
    """Apply one internal event; returns its status and the row of the time-out it makes known."""
    status, timer = _believed(users, row, mind, event, plan, model, policy, desk, blank, exchange)
    if status == STALE:
        partition.rejected += 1
    else:
        partition.applied += 1
    if status == APPLIED:
        users[row].offset = event.offset  # the version of lists that are ranked anew
    return status, timer
