"""Which partition a key goes to: as Kafka's own clients decide, so that all producers agree."""

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(maxsize=200_000)
def partition_of(key: bytes | None, partitions: int) -> int:
    """Partition of ``key`` (murmur2, like the Java client); records without a key go to 0.

    >>> partition_of(b"user-1", 8) == partition_of(b"user-1", 8)
    True
    """
    if key is None:
        return 0
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
