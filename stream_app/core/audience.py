"""What shops say about customers: consent, region, language; found by the customer's hash.

Filled from the ``users`` topic, one row a customer; the learned state is elsewhere. Admission,
decisions, candidates and profiles read it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_app.core.arena import Arena, grown
from stream_app.core.hash_index import HashIndex
from stream_app.core.words import Vocabulary
from stream_app.hashing import stable_hash

PERSONALISE, EMAIL, ANALYSE = 1, 2, 4  # bits of ``consent``; all set for customers not in here
ALL_CONSENT = PERSONALISE | EMAIL | ANALYSE


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as the shop describes them; empty is unknown, consent is given unless denied.

    ``described`` is what their profile repeats of that, encoded by whoever reads it there.
    """

    user_id: str
    region: str = ""
    channel: str = ""
    language: str = ""
    consent: int = ALL_CONSENT
    described: bytes = b""


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
        self._described = Arena(np.uint8)
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

    def described(self, ids: NDArray[np.uint64]) -> list[bytes]:
        """What the profiles of ``(n,)`` customers repeat, empty where the shop has said nothing."""
        rows = self.rows(ids).tolist()
        return [self._described.get(row).tobytes() if row >= 0 else b"" for row in rows]

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
            self._described.put(rows, np.zeros(0, np.uint8), np.zeros(len(rows), np.int64))
            self._index.rebuild(self.ids[: self.rows_n])

    def _write(self, rows: NDArray[np.int64], customers: Sequence[Customer]) -> None:
        of = self._vocabulary.of
        self.consent[rows] = [customer.consent for customer in customers]
        for name in ("region", "channel", "language"):
            values = [getattr(customer, name) for customer in customers]
            getattr(self, name)[rows] = [of(value) if value else 0 for value in values]
        texts = [customer.described for customer in customers]
        sizes = np.array([len(text) for text in texts], np.int64)
        self._described.put(rows, np.frombuffer(b"".join(texts), np.uint8), sizes)

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
