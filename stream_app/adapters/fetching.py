"""From aiokafka's fetch buffer to :class:`RawBatch`, without an object and a task per record.

Called by :mod:`.transport` in the consumer's thread. It reads aiokafka's private buffer, so the
places it touches are all here, but those of a fetch's records (:mod:`.record_batches`):
``Fetcher._records``, the fetch waiters and requests.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiokafka
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
)

from stream_app.adapters.kafka import Security, translated
from stream_app.adapters.lanes import Partition, joined
from stream_app.adapters.limits import Limits
from stream_app.adapters.pacing import paced
from stream_app.adapters.record_batches import records_of
from stream_app.errors import ConfigurationError
from stream_app.ports import RawBatch

log = logging.getLogger(__name__)

BEYOND_END_GRACE_S = 5.0
SWITCH_INTERVAL_S = 0.001
FETCHES_APART_S = 0.005
MORE_APART_S = 0.01  # on top, while nobody takes what is there: an answer costs what a record costs


def take_turns() -> None:
    """Let the consumer's thread run soon while a handler computes in the other one.

    With Python's 5 ms, records wait 10 ms and more between broker and handler; 1 ms costs no
    throughput.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


class _Consumer(aiokafka.AIOKafkaConsumer):  # type: ignore[misc]
    """Fetches on beside partitions that are full, and not more often than is of use.

    As it is, aiokafka asks a broker for nothing while it has records of one partition that nobody
    takes, for up to 0.1 s; and at once again after every record that is there, which costs
    the broker and us more than handling it. And as it asks for one answer at a time, a partition
    whose records are taken while it waits for those of others would get none for ``fetch_wait_ms``.
    So what comes is taken out of aiokafka's buffer at once, for who asks for it next, and all
    partitions are asked for together.
    """

    def __init__(self, owners: Mapping[Partition, Any], records_max: int, **settings: Any) -> None:
        super().__init__(**settings)
        paced(self._client)
        self._owners = owners
        self._records_max = records_max
        self._gathered: dict[Partition, tuple[Any, list[RawBatch]]] = {}
        self._asked = asyncio.Event()
        self._unreadable: Exception | None = None

    def gather(self) -> None:
        """Take what was fetched, of each partition until that is a batch of ``records_max``."""
        try:
            self._gather()
        except Exception as exc:  # in a task of aiokafka's that nobody looks at
            self._unreadable = exc

    def _gather(self) -> None:
        fetcher = self._fetcher
        for tp in list(fetcher._records):
            owner, result = self._owners.get(tp), fetcher._records[tp]
            if owner is None or hasattr(result, "check_raise"):
                continue  # paused, not positioned yet (a seek discards it), or to be raised
            known, batches = self._gathered.get(tp, (owner, []))
            if known is not owner:
                batches = []  # of before a rewind
            if sum(map(len, batches)) >= self._records_max:
                continue
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)  # fetch on while others work
            if result.check_assignment(tp):
                self._gathered[tp] = owner, batches + _batches(tp, result, self._records_max)

    def taken(self) -> list[tuple[Any, list[RawBatch]]]:
        """What was gathered, in batches as large as they may be; raises what ended that."""
        self.gather()
        if self._unreadable is not None:
            raise self._unreadable
        taken, self._gathered = list(self._gathered.values()), {}
        self._asked.set()
        self.gather()
        return [(owner, _joined(batches, self._records_max)) for owner, batches in taken]

    async def _rest(self) -> None:
        await asyncio.sleep(FETCHES_APART_S)
        if self._gathered:
            self._asked.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(MORE_APART_S):
                    await self._asked.wait()

    async def start(self) -> None:
        """Connect and join the group."""
        await super().start()
        fetcher = self._fetcher
        fetcher._prefetch_backoff = 0.0
        fetch = fetcher._proc_fetch_request

        async def fetch_and_rest(*request: Any) -> bool:
            found: bool = await fetch(*request)
            if found:
                self.gather()
                for waiter in list(fetcher._fetch_waiters):
                    fetcher._notify(waiter)
                with suppress(asyncio.CancelledError):  # whoever cancels it awaits it, and goes on
                    await self._rest()
            return found

        fetcher._proc_fetch_request = fetch_and_rest


def new_consumer(
    group: str,
    *,
    brokers: Sequence[str],
    security: Security,
    limits: Limits,
    owners: Mapping[Partition, Any],
) -> Any:
    """Return an aiokafka consumer of a group that commits nothing and resets nothing by itself.

    It gathers records of the partitions in ``owners``, for :func:`fetched`. Others keep what was
    prefetched (one fetch) and pause.
    """
    return _Consumer(
        owners,
        limits.batch_records_max,
        client_id=group,
        group_id=group,
        bootstrap_servers=list(brokers),
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        enable_auto_commit=False,
        auto_offset_reset="none",  # positions come from the store, never from a default
        isolation_level="read_committed",
        fetch_max_wait_ms=limits.fetch_wait_ms,
        fetch_max_bytes=limits.fetch_bytes_max,
        max_partition_fetch_bytes=limits.fetch_partition_bytes_max,
        request_timeout_ms=int(limits.request_timeout_s * 1000),
        session_timeout_ms=int(limits.session_timeout_s * 1000),
        heartbeat_interval_ms=int(limits.heartbeat_interval_s * 1000),
        rebalance_timeout_ms=int(limits.rebalance_timeout_s * 1000),
        max_poll_interval_ms=int(limits.poll_interval_max_s * 1000),
        **security.client_arguments(),
    )


async def fetched(
    consumer: Any, *, timeout_s: float, beyond_since_s: dict[Partition, float]
) -> list[tuple[Any, list[RawBatch]]]:
    """Wait until partitions have records; return all that were gathered, with their owners.

    Returns nothing after ``timeout_s``. Raises ``ConfigurationError`` when a position lies beyond
    the end; ``beyond_since_s`` remembers between calls since when one seemed to.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    fetcher = consumer._fetcher
    # Counts as polling: outside of it aiokafka's max_poll_interval runs, and a worker whose main
    # loop hangs leaves the group.
    with consumer._subscription.fetch_context():
        while True:
            if fetcher._closed:
                raise ConsumerStoppedError
            try:
                taken = consumer.taken() or await _moved(consumer)
            except KafkaError as exc:
                raise translated(exc, "cannot fetch") from exc
            remaining_s = deadline_s - loop.time()
            if taken or remaining_s <= 0:
                await _check_ends(consumer, taken, beyond_since_s)
                return taken
            waiter = fetcher._create_fetch_waiter()
            await asyncio.wait([waiter], timeout=remaining_s)
            if waiter.done():
                waiter.result()  # raises what the group's coordinator refused
            else:
                waiter.cancel()


def wake(consumer: Any) -> None:
    """Let a waiting :func:`fetched` look again; call it in the consumer's loop."""
    for waiter in list(consumer._fetcher._fetch_waiters):
        consumer._fetcher._notify(waiter)


async def sought(consumer: Any, offsets: Mapping[Partition, int | None]) -> dict[Partition, int]:
    """Seek (``None``: to the earliest record there is) and return the positions.

    Partitions that were revoked meanwhile are left out.
    """
    positions: dict[Partition, int] = {}
    for (topic, number), offset in offsets.items():
        tp = aiokafka.TopicPartition(topic, number)
        try:
            _state(consumer, tp).highwater = None  # only a fetch from the new position counts
            if offset is None:
                await consumer.seek_to_beginning(tp)
                positions[topic, number] = await consumer.position(tp)
            else:
                consumer.seek(tp, offset)
                positions[topic, number] = offset
        except IllegalStateError:
            log.info("%s[%d] was revoked before its start offset was set", topic, number)
    return positions


async def committed(consumer: Any, offsets: Mapping[Partition, int], timeout_s: float) -> bool:
    """Commit to the group; False when it failed.

    Never fatal: the store's cursor is the truth, the group's offsets are there for lag monitors.
    """
    assigned = consumer.assignment()
    wanted = {
        aiokafka.TopicPartition(*partition): offset
        for partition, offset in offsets.items()
        if partition in assigned
    }
    if not wanted:
        return False
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.commit(wanted)
    except (KafkaError, TimeoutError) as exc:
        log.warning("offsets were not committed, the next try follows: %r", exc)
        return False
    return True


def high_water(consumer: Any, partition: Partition) -> int | None:
    """End of the log as of the last fetch; ``None`` when not assigned or not yet fetched."""
    tp = aiokafka.TopicPartition(*partition)
    try:
        highwater: int | None = consumer.highwater(tp)
    except IllegalStateError:
        return None
    return highwater


async def _moved(consumer: Any) -> list[Any]:
    """Nothing; raises what the broker refused, or goes on behind what retention removed."""
    fetcher = consumer._fetcher
    for tp in list(fetcher._records):
        result = fetcher._records[tp]
        if tp in consumer._owners and hasattr(result, "check_raise"):
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)
            try:
                result.check_raise()
            except OffsetOutOfRangeError as exc:
                ((_, offset),) = exc.args[0].items()
                await _leave_gap(consumer, tp, offset)
    return []


def _joined(batches: Sequence[RawBatch], records_max: int) -> list[RawBatch]:
    """The same records in fewer batches of at most ``records_max``."""
    parts: list[list[RawBatch]] = []
    size = 0
    for batch in batches:
        size += len(batch)
        if not parts or size > records_max:
            parts.append([])
            size = len(batch)
        parts[-1].append(batch)
    return [joined(part) for part in parts]


def _batches(tp: Any, result: Any, records_max: int) -> list[RawBatch]:
    """Unpack one fetch of one partition; one batch without records when there are only markers."""
    unpacked = result._partition_records
    records = records_of(unpacked)
    result._update_position()
    batches = []
    for start in range(0, max(len(records), 1), records_max):
        part = records[start : start + records_max]
        is_last = start + records_max >= len(records)
        batches.append(
            RawBatch(
                topic=tp.topic,
                partition=tp.partition,
                next_offset=unpacked.next_fetch_offset if is_last else part[-1].offset + 1,
                offsets=[record.offset for record in part],
                keys=[record.key for record in part],
                values=[record.value for record in part],
                timestamps_ms=[record.timestamp for record in part],
                headers=[record.headers for record in part],
            )
        )
    return batches


def _state(consumer: Any, tp: Any) -> Any:
    assignment = consumer._subscription.subscription.assignment
    if assignment is None or tp not in assignment.tps:
        raise IllegalStateError(f"{tp} is not assigned")
    return assignment.state_value(tp)


async def _check_ends(
    consumer: Any,
    taken: Sequence[tuple[Any, list[RawBatch]]],
    beyond_since_s: dict[Partition, float],
) -> None:
    """Find positions beyond the end where the broker (Tansu) reports none out of range.

    A new leader's high watermark may lag for a moment, so it has to stay so for a while.
    """
    now_s = asyncio.get_running_loop().time()
    for partition in list(consumer._owners) if not taken else ():
        tp = aiokafka.TopicPartition(*partition)
        if tp not in consumer.assignment():
            continue
        state = _state(consumer, tp)
        if state.highwater is None or state.position <= state.highwater:
            beyond_since_s.pop(partition, None)
        elif now_s - beyond_since_s.setdefault(partition, now_s) > BEYOND_END_GRACE_S:
            await _leave_gap(consumer, tp, state.position)
    if taken:
        beyond_since_s.clear()


async def _leave_gap(consumer: Any, tp: Any, offset: int) -> None:
    """Go on at the log's start when retention was faster than we; else stop with the cure."""
    first: int = (await consumer.beginning_offsets([tp]))[tp]
    if offset >= first:
        raise ConfigurationError(
            f"the stored position {offset} of {tp.topic}[{tp.partition}] lies beyond the end of "
            "the log: the topic was created anew or truncated. Restore the topic; or, if its "
            f"events are gone for good, erase the stored state of partition {tp.partition}, so "
            f"that it starts again at offset {first}"
        )
    log.warning(
        "%s[%d]: retention removed %d offsets (%d to %d) before they were read; going on at %d",
        tp.topic,
        tp.partition,
        first - offset,
        offset,
        first - 1,
        first,
    )
    if consumer.assignment() >= {tp}:
        consumer.seek(tp, first)
