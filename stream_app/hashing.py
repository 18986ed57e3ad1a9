"""Ids inside state are stable hashes: no counter that could roll back, no table to keep."""

import xxhash


def stable_hash(text: str, seed: int = 0) -> int:
    """64-bit id of a text, never 0; the same on every machine and in every release (XXH3).

    >>> stable_hash("sku-1") == stable_hash("sku-1"), stable_hash("a") == stable_hash("a", seed=1)
    (True, False)
    """
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed) or 1


def short_hash(text: str) -> int:
    """32-bit hash, never 0, for comparison within one customer's state.

    >>> 0 < short_hash("session-1") < 2**32
    True
    """
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) & 0xFFFFFFFF or 1
