"""Following the ``recommendations`` topic: keep what is newest, drop what came late or twice."""

from collections import OrderedDict

from stream_app.reader.records import Recommendations, Text, decode_recommendations

CUSTOMERS_MAX = 1_000_000


class Newest:
    """Remembers the version of each of the last ``customers_max`` customers heard of.

    A worker that took over repeats what its predecessor may have published, so that a follower sees
    records twice, and now and then an old one after a newer.

    >>> newest = Newest()
    >>> record = (b'{"user_id":"a","version":%d,"epoch":1,"generated_at":1,"step":"browse",'
    ...           b'"previous_step":"browse","next_step":"cart","entered_at":1,"lists":{},'
    ...           b'"source":{"topic":"clickstream","partition":0,"offset":1}}')
    >>> [newest.accept(b"a", record % version) is not None for version in (2, 2, 1, 3)]
    [True, False, False, True]
    """

    def __init__(self, *, customers_max: int = CUSTOMERS_MAX) -> None:
        self._customers_max = customers_max
        self._versions: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def accept(self, key: bytes, value: Text | None) -> Recommendations | None:
        """The record if it is news; ``None`` for an outdated one and for a tombstone.

        A tombstone (no value) says that the customer was erased: :meth:`erased` tells them apart.
        """
        if value is None:
            self._versions.pop(key, None)
            return None
        record = decode_recommendations(value)
        version = record.version, record.epoch
        if version <= self._versions.get(key, (-1, -1)):
            return None
        self._versions[key] = version
        self._versions.move_to_end(key)
        while len(self._versions) > self._customers_max:
            self._versions.popitem(last=False)
        return record

    @staticmethod
    def erased(value: Text | None) -> bool:
        """Whether a record says: forget this customer."""
        return value is None
