"""Announce time-outs: a customer's deadline has passed, so their own partition's log says so.

A deadline follows from the customer's state. The owner of the partition produces a ``timeout``
record to it, and LEARN applies that like any event: the same log gives the same journeys, also
after a restart. Crashes and rival owners may produce a record twice, or for a customer who has come
back meanwhile: LEARN believes it only when it is the next time-out that the state has, and counts
the others as rejected.

Time is that of the partition's events: the watermark while records arrive. While none do, it goes
on from there at the pace of the clock: a quiet shop's carts are left too, and a recorded log that
is replayed years later ends where it ended. An event that comes after its customer's time-out, but
happened before, is applied in the order of the log: it takes no time-out back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core.journey import deadlines
from stream_app.core.state import customer_name, decode_users
from stream_app.hashing import given_name
from stream_app.owning import Owned
from stream_app.pipeline import Learn
from stream_app.ports import ACCOUNTS_ID, USERS, Log, Record, StateStore
from stream_app.retrying import retrying
from stream_app.settings import Settings

IDLE_S = 0.3  # without a record for so long, a partition's time follows the clock
HORIZON_S = 3_600.0  # states are gone through once in this time; notes reach twice as far
SURVEY_PAUSE_S = 0.01  # between pages of states: they are read beside the stream, not instead
SURVEYS_APART_S = 30.0
ANNOUNCED_MAX = 100_000
AGAIN_AFTER_S = 60.0  # a record that was not applied in this time is produced once more
RECORDS_MAX = 1_000


class StateScan(Protocol):
    """What a store can list."""

    def scan(self, space: str, partition: int) -> AsyncIterator[list[bytes]]:
        """Ids of all blobs of a partition in pages; some twice, those written meanwhile or not."""
        ...


class Timers:
    """The time-outs of the partitions that a :class:`~stream_app.pipeline.Learn` owns."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        scan: StateScan,
        log: Log,
        learn: Learn,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._scan = scan
        self._log = log
        self._learn = learn
        self._clock = clock
        self._plan = learn.journey.plan
        self._announced: dict[int, tuple[float, float]] = {}  # customer: deadline, when produced
        self.produced = 0

    async def announce(self) -> None:
        """Produce what has fallen due. To be called a few times a second."""
        for partition, owned in list(self._learn.owned.items()):
            now = self.time_of(owned)
            ids = owned.agenda.due(now)
            if len(ids):
                await self._announce(partition, owned, ids, now)

    async def survey(self) -> None:
        """Go through the states of partitions whose notes do not reach far enough."""
        for partition, owned in list(self._learn.owned.items()):
            now, clock = self.time_of(owned), self._clock()
            far_enough = owned.agenda.until >= now + HORIZON_S
            if now and not far_enough and clock - owned.surveyed_at >= SURVEYS_APART_S:
                owned.surveyed_at = clock
                await self._survey(partition, owned, now + 2.0 * HORIZON_S)

    def time_of(self, owned: Owned) -> float:
        """The event time that a partition has reached, unix seconds; 0 before its first event."""
        watermark = float(owned.partition["watermark"][0])
        clock = self._clock()
        if watermark and not owned.calls and clock - owned.touched_at >= IDLE_S:
            return max(watermark, clock - float(owned.partition["behind_s"][0]))
        return watermark

    async def _survey(self, partition: int, owned: Owned, until: float) -> None:
        owned.agenda.until = until
        async for page in self._scan.scan(USERS, partition):
            keys = [key for key in page if key != ACCOUNTS_ID and len(key) == 8]
            if not keys:
                continue
            blobs = await self._store.load(USERS, [partition] * len(keys), keys)
            if self._learn.owned.get(partition) is not owned:
                return  # another worker goes through them now
            ids = np.frombuffer(b"".join(keys), np.uint64)
            owned.agenda.add(ids, deadlines(decode_users(ids, blobs), self._plan))
            await asyncio.sleep(SURVEY_PAUSE_S)

    async def _announce(
        self, partition: int, owned: Owned, ids: NDArray[np.uint64], now: float
    ) -> None:
        blobs = await self._states(partition, owned, ids)
        due = deadlines(decode_users(ids, blobs), self._plan)
        owned.agenda.add(ids[due > now], due[due > now])
        records = []
        for row in np.lexsort((ids, due)).tolist():
            blob, customer, deadline = blobs[row], int(ids[row]), float(due[row])
            if deadline > now or not blob or self._is_under_way(customer, deadline):
                continue
            name = customer_name(blob).decode("utf-8", "surrogatepass")
            if name:  # a state of schema 1 says no name; their next event brings it
                records.append(self._record(name, deadline))
                self._announced[customer] = deadline, self._clock()
        for start in range(0, len(records), RECORDS_MAX):
            part = records[start : start + RECORDS_MAX]
            await retrying(
                lambda p=part: self._log.send(self._settings.clickstream_topic, partition, p),  # type: ignore[misc]
                "announcing time-outs",
            )
        self.produced += len(records)
        while len(self._announced) > ANNOUNCED_MAX:
            del self._announced[next(iter(self._announced))]

    async def _states(
        self, partition: int, owned: Owned, ids: NDArray[np.uint64]
    ) -> list[bytes | None]:
        keys = [key.tobytes() for key in ids]
        blobs = owned.users.get(keys)
        missing = [k for k, blob in enumerate(blobs) if blob is None]
        if missing:
            wanted = [keys[k] for k in missing]
            read = await retrying(
                lambda: self._store.load(USERS, [partition] * len(wanted), wanted),
                "reading customers",
            )
            for k, blob in zip(missing, read, strict=True):
                blobs[k] = blob
        return blobs

    def _is_under_way(self, customer: int, deadline: float) -> bool:
        """Whether the record was produced a moment ago and waits to be applied."""
        said, at = self._announced.pop(customer, (0.0, 0.0))
        waits = said == deadline and self._clock() - at < AGAIN_AFTER_S
        if waits:
            self._announced[customer] = said, at
        return waits

    def _record(self, name: str, deadline: float) -> Record:
        text, anonymous = given_name(name)
        value = {
            "event": "timeout",
            "session_id" if anonymous else "user_id": text,
            "ts": deadline,
            "event_id": f"timeout:{deadline!r}",
        }
        made_ms = int(max(self._clock(), deadline) * 1000.0)
        key = text.encode("utf-8", "surrogatepass")
        return Record(key, orjson.dumps(value), timestamp_ms=made_ms)
