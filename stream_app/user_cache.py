"""The committed states of recent customers of one partition, kept by its owner."""

from collections.abc import Iterable, Sequence


class UserCache:
    """At most ``size`` blobs; the ones written longest ago go first.

    >>> cache = UserCache(1)
    >>> cache.put([(b"a", b"1"), (b"b", b"2")])
    >>> cache.get([b"a", b"b"])
    [None, b'2']
    """

    def __init__(self, size: int) -> None:
        assert size >= 0
        self._size = size
        self._blobs: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._blobs)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Blobs in the order of ``keys``; ``None`` where the store has to be asked."""
        return [self._blobs.get(key) for key in keys]

    def put(self, writes: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember what was committed."""
        for key, blob in writes:
            self._blobs.pop(key, None)
            self._blobs[key] = blob
        while len(self._blobs) > self._size:
            del self._blobs[next(iter(self._blobs))]
