"""Which events LEARN may take in: not those of erased customers, nor of who denied analytics.

Refused events are counted as rejected by policy; nothing of them is learned, stored or published.
"""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.audience import ANALYSE, PERSONALISE, Audience
from stream_app.core.model import INTERNAL, KIND
from stream_app.suppression import Suppression

_ERASE, _INTERNAL = KIND["erase"], KIND[INTERNAL[0]]


class Admission:
    """Consent from the ``users`` topic and erasures from the ``erasures`` topic."""

    def __init__(self, suppression: Suppression, audience: Audience) -> None:
        self.suppression = suppression
        self._audience = audience

    def refuse(
        self, events: NDArray[np.void], former_ids: NDArray[np.uint64] | None = None
    ) -> None:
        """Mark the ``(n,) EVENT`` records that may not be taken in.

        ``former_ids (n,)`` are those of the customers under a former key of pseudonyms: who was
        erased under that one stays erased.

        An erasure holds for what follows it in the log and happened before it, in the same batch
        too: so the same log refuses the same events, however it is cut into batches.
        """
        kinds, customers, ts = events["kind"], events["customer"], events["ts"]
        own = kinds < _INTERNAL
        for ids in (customers, former_ids):
            admitted = None if ids is None else self.suppression.admitted(ids, ts)
            if admitted is not None:
                events["refused"] |= ~admitted & own & (kinds != _ERASE)
        for row in np.flatnonzero(kinds == _ERASE).tolist():
            after = np.arange(len(events)) > row
            same = (customers == customers[row]) & (ts <= ts[row])
            events["refused"] |= after & same & own & (kinds != _ERASE)
        if len(self._audience):
            denied = ~self._audience.may(customers, ANALYSE)
            events["refused"] |= denied & own & (kinds != _ERASE)

    def impersonal(self, users: NDArray[np.void]) -> NDArray[np.void]:
        """``(n,) USER`` records to draw lists from: of who denied personalisation, no past."""
        if not len(self._audience):
            return users
        denied = ~self._audience.may(users["id"], PERSONALISE)
        if not denied.any():
            return users
        shown = users.copy()
        for name in ("ring_n", "vector_n", "cart_n", "bought_n", "session_n", "query_n"):
            shown[name][denied] = 0
        return shown
