"""What shops say about customers: consent, region, language, tags; found by the customer's hash.

Filled from the ``users`` topic, one row a customer; the learned state is elsewhere. Rules and
decisions read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream_app.core.arena import Arena, grown
from stream_app.core.hash_index import HashIndex
from stream_app.core.words import Vocabulary
from stream_app.hashing import stable_hash

PERSONALISE, EMAIL, ANALYSE = 1, 2, 4  # bits of ``consent``; all set for customers not in here
ALL_CONSENT = PERSONALISE | EMAIL | ANALYSE
LABELS_MAX = 64


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as the shop describes them; empty is unknown, consent is given unless denied."""

    user_id: str
    region: str = ""
    channel: str = ""
    language: str = ""
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    consent: int = ALL_CONSENT


class Audience:
    """Columns by row; ``customers_max`` rows, beyond that new customers are ``refused``."""

    def __init__(self, *, customers_max: int) -> None:
        assert customers_max > 0
        self.customers_max = customers_max
        self.version = 0
        self.refused = 0
        self.rows_n = 0
        self.ids = np.zeros(64, np.uint64)
        self.consent = np.zeros(64, np.uint8)
        self.region = np.zeros(64, np.uint32)  # hashes, 0 unknown; channel and language too
        self.channel = np.zeros(64, np.uint32)
        self.language = np.zeros(64, np.uint32)
        self.labels = Arena(np.uint32)  # hashes of ``name=value``: rules compare them
        self._vocabulary = Vocabulary()
        self._free: list[int] = []
        self._index = HashIndex()

    def __len__(self) -> int:
        return self.rows_n - len(self._free)

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``(n,)`` rows of ``(n,)`` customer hashes, -1 for those nothing was said about."""
        return self._index.rows(ids)

    def may(self, ids: NDArray[np.uint64], purpose: int) -> NDArray[np.bool_]:
        """Which of ``(n,)`` customers allow ``purpose``, one of the bits above.

        >>> audience = Audience(customers_max=10)
        >>> _ = audience.upsert([Customer("anna", consent=EMAIL)])
        >>> ids = np.array([stable_hash("anna"), stable_hash("bert")], np.uint64)
        >>> audience.may(ids, PERSONALISE).tolist(), audience.may(ids, EMAIL).tolist()
        ([False, True], [True, True])
        """
        rows = self.rows(ids)
        allowed: NDArray[np.bool_] = (rows < 0) | (self.consent[rows] & purpose != 0)
        return allowed

    def upsert(self, customers: Sequence[Customer]) -> NDArray[np.int64]:
        """Insert or replace, the last of equal ids; ``(n,)`` rows of those, -1 if refused."""
        latest = list({customer.user_id: customer for customer in customers}.values())
        ids = np.array([stable_hash(customer.user_id) for customer in latest], np.uint64)
        rows = self._ensure(ids)
        kept = np.flatnonzero(rows >= 0)
        self.refused += len(rows) - len(kept)
        if len(kept):
            self.version += 1
            self._write(rows[kept], [latest[k] for k in kept.tolist()])
        return rows

    def delete(self, ids: NDArray[np.uint64]) -> None:
        """Forget customers."""
        rows = self.rows(np.unique(ids))
        rows = rows[rows >= 0]
        if len(rows):
            self.version += 1
            self.ids[rows] = 0
            self._free.extend(rows.tolist())
            nothing = np.zeros(0, np.uint32)
            self.labels.put(rows, nothing, np.zeros(len(rows), np.int64))
            self._index.rebuild(self.ids[: self.rows_n])

    def _write(self, rows: NDArray[np.int64], customers: Sequence[Customer]) -> None:
        of = self._vocabulary.of
        self.consent[rows] = [customer.consent for customer in customers]
        for name in ("region", "channel", "language"):
            values = [getattr(customer, name) for customer in customers]
            getattr(self, name)[rows] = [of(value) if value else 0 for value in values]
        labels = [[of(label) for label in customer_labels(customer)] for customer in customers]
        data = np.array([label for some in labels for label in some], np.uint32)
        self.labels.put(rows, data, np.array([len(some) for some in labels], np.int64))

    def _ensure(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        rows = self.rows(ids)
        missing = np.flatnonzero(rows < 0)
        reused = [self._free.pop() for _ in range(min(len(missing), len(self._free)))]
        more = min(len(missing) - len(reused), self.customers_max - self.rows_n)
        made = np.array([*reused, *range(self.rows_n, self.rows_n + more)], np.int64)
        self.rows_n += more
        if self.rows_n > len(self.ids):
            size = max(self.rows_n, 2 * len(self.ids))
            self.ids = grown(self.ids, size)
            self.consent = grown(self.consent, size)
            self.region = grown(self.region, size)
            self.channel = grown(self.channel, size)
            self.language = grown(self.language, size)
        missing = missing[: len(made)]
        self.ids[made] = ids[missing]
        rows[missing] = made
        self._index.add(self.ids[made], made)
        return rows


def customer_labels(customer: Customer) -> list[str]:
    """What rules can say about a customer, as ``name=value`` texts.

    >>> customer_labels(Customer("anna", region="de", tags=("vip",)))
    ['region=de', 'tag=vip']
    """
    named = (("region", customer.region), ("channel", customer.channel))
    found = [f"{name}={value}" for name, value in named if value]
    found += [f"language={customer.language}"] if customer.language else []
    found += [f"tag={tag}" for tag in customer.tags]
    for name, value in customer.attributes.items():
        found += [f"{name}={one}" for one in ((value,) if isinstance(value, str) else value)]
    return found[:LABELS_MAX]
