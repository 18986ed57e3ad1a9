"""State of the job after the first part of a load, for contenders too slow to work it up.

Without it they would be measured on customers without a past, who have no pairs to count.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import orjson
import redis

from bench.contenders.job import RECENT_MAX

PREVIOUS = 5
CHUNK = 1_000


class Prime:
    """Recent items by customer and counts by item, as :mod:`bench.contenders.job` keeps them."""

    def __init__(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        self._recent: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        for key, value in records:
            item = orjson.loads(value)["item_id"]
            recent = self._recent[key.decode()]
            for distance, other in enumerate(recent[:PREVIOUS], 1):
                weight = distance**-1.5
                self._counts[item][other] += weight
                self._counts[other][item] += weight
            recent.insert(0, item)
            del recent[RECENT_MAX:]

    def write(self, redis_url: str) -> None:
        """Put it all into an empty server."""
        with redis.Redis.from_url(redis_url, protocol=2) as client:
            pipe = client.pipeline(transaction=False)
            for customer, items in self._recent.items():
                pipe.rpush(f"recent:{customer}", *items)
            for number, (item, counts) in enumerate(self._counts.items()):
                pipe.zadd(f"co:{item}", dict(counts))
                if number % CHUNK == 0:
                    pipe.execute()
            pipe.execute()
