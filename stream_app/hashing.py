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


def public_name(text: str, *, anonymous: bool) -> str:
    """What a customer is called in keys and topics: the user id, or ``~`` and the session id.

    No user is taken for a session: user ids that begin with ``~`` or ``=`` get a ``=`` before them.

    >>> [public_name(text, anonymous=False) for text in ("anna", "~s1", "=x")]
    ['anna', '=~s1', '==x']
    >>> public_name("s1", anonymous=True)
    '~s1'
    """
    if anonymous:
        return f"~{text}"
    return f"={text}" if text[:1] in ("~", "=") else text


def given_name(name: str) -> tuple[str, bool]:
    """The inverse: the id as it came, and whether it is a session's.

    >>> [given_name(name) for name in ("anna", "=~s1", "~s1")]
    [('anna', False), ('~s1', False), ('s1', True)]
    """
    return (name[1:], name[0] == "~") if name[:1] in ("~", "=") else (name, False)


def customer_id(name: str) -> int:
    """The 64-bit id of a customer by public name.

    >>> customer_id("~s1") == stable_hash("s1", 1), customer_id("anna") == stable_hash("anna")
    (True, True)
    """
    text, anonymous = given_name(name)
    return stable_hash(text, int(anonymous))
