"""A worker dies, or a reply is lost, at every gap of the pipeline: nothing is lost, nothing twice.

The end must equal that of an undisturbed run bit for bit: customers, items, lists.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from stream_app import pipeline, relating
from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.codec import Outbox, Transitions
from stream_app.composition import Stages
from stream_app.embedded import ValkeyServer
from stream_app.errors import Fenced, LogUnavailable, StoreUnavailable
from stream_app.ports import (
    Claim,
    Commit,
    Log,
    PublicHash,
    PublicKeys,
    RawBatch,
    Record,
    StateStore,
)
from tests.contract.shop_run import (
    CLICKS,
    DEAD,
    ITEM_PARTITIONS,
    LISTS,
    PAIRS,
    SOURCES,
    STEP_EVENTS,
    Run,
    faults,
    outcome,
    take_over,
    work,
)
from tests.contract.stores import Stores, opened

EVENTS = 1_200


class Crash(Exception):
    """The process is gone."""


class Fate:
    """Something happens at the n-th arrival at a place; after a crash nothing happens any more."""

    def __init__(self, place: str, arrival: int, error: Exception) -> None:
        self.place, self.left, self.error = place, arrival, error
        self.met = self.dead = False

    def reach(self, place: str) -> None:
        """Arrive at ``place``."""
        if self.dead:
            raise Crash
        if place == self.place:
            self.left -= 1
            if self.left == 0:
                self.met, self.dead = True, isinstance(self.error, Crash)
                raise self.error


class MortalState:
    """A state store as one worker sees it."""

    def __init__(self, state: StateStore, fate: Fate) -> None:
        self._state, self._fate = state, fate

    async def claim(self, space: str, partition: int, *, epoch_min: int = 0) -> Claim:
        claim = await self._state.claim(space, partition, epoch_min=epoch_min)
        self._fate.reach(f"{space}: claimed")
        return claim

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        self._fate.reach(f"{space}: load")
        return await self._state.load(space, partitions, ids)

    async def commit(self, claim: Claim, step: Commit) -> None:
        self._fate.reach(f"{claim.space}: before commit")
        await self._state.commit(claim, step)
        self._fate.reach(f"{claim.space}: after commit")


class MortalPublic:
    """Public keys as one worker sees them."""

    def __init__(self, public: PublicKeys, fate: Fate) -> None:
        self._public, self._fate = public, fate

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        self._fate.reach("lists: before")
        replaced = await self._public.put_hashes(records)
        self._fate.reach("lists: after")
        return replaced

    async def get_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        return await self._public.get_hashes(keys)

    async def amend_hashes(self, records: Sequence[PublicHash]) -> int:
        return await self._public.amend_hashes(records)

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        kind = pairs[0][0].partition(":")[0]
        self._fate.reach(f"{kind}: before")
        await self._public.put_values(pairs)
        self._fate.reach(f"{kind}: after")

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        return await self._public.get(key)


class MortalLog:
    """The log as one worker sees it."""

    def __init__(self, log: Log, fate: Fate) -> None:
        self._log, self._fate = log, fate

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        self._fate.reach(f"{topic}: before")
        await self._log.send(topic, partition, records)
        self._fate.reach(f"{topic}: after")


def mortal(run: Run, fate: Fate) -> Stages:
    """A worker with a fate."""
    return run.worker(
        state=MortalState(run.state, fate),
        public=MortalPublic(run.public, fate),
        log=MortalLog(run.tape.log, fate),
    )


async def live(run: Run, fate: Fate) -> None:
    """The whole log; whoever crashes has an heir, to whom the batch is delivered again."""
    stages = mortal(run, fate)
    steps: list[Any] = [("take over", 0, 0)]
    for number in range(run.rounds):
        steps += [("learn", p, (number + 1) * STEP_EVENTS) for p in range(SOURCES)]
        steps += [("relate", q, 0) for q in range(ITEM_PARTITIONS)]
    while steps:
        what, partition, end = steps[0]
        try:
            if what == "take over":
                await take_over(stages)
            elif what == "learn":
                await run.learn(stages, partition, end)
            else:
                await run.relate(stages, partition)
            steps.pop(0)
        except Crash:
            stages = mortal(run, Fate("", 0, Crash()))
            if what != "take over":
                steps.insert(0, ("take over", 0, 0))


@pytest.fixture(params=["memory", "valkey"])
async def stores(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Stores]:
    """Each adapter in turn, empty."""
    async with opened(request.param, valkey.url) as stores:
        yield stores


@pytest.fixture
async def run(stores: Stores) -> Run:
    """A log that nobody has read yet."""
    run = Run(stores.state, stores.public, EVENTS)
    await run.fill()
    return run


async def in_memory() -> Run:
    """The same in this process."""
    run = Run(MemoryStore(), MemoryPublic(), EVENTS)
    await run.fill()
    return run


_undisturbed: dict[str, Any] = {}


async def undisturbed() -> dict[str, Any]:
    """How the log ends when nothing happens."""
    if not _undisturbed:
        run = await in_memory()
        await live(run, Fate("", 0, Crash()))
        assert await faults(run) == []
        _undisturbed.update(await outcome(run))
    return _undisturbed


GAPS = (
    ("u: claimed", 2),
    ("u: load", 2),
    ("u: before commit", 1),
    ("u: before commit", 6),
    ("u: after commit", 1),  # before anything was published of it
    ("u: after commit", 6),
    (f"{PAIRS}: before", 8),  # between two sends of one batch
    (f"{PAIRS}: after", 7),
    (f"{LISTS}: before", 6),
    (f"{LISTS}: after", 6),
    ("lists: before", 5),
    ("lists: after", 5),
    (f"{DEAD}: before", 3),
    (f"{DEAD}: after", 3),
    ("profile: before", 3),
    ("profile: after", 3),
    ("i: claimed", 2),
    ("i: load", 6),
    ("i: before commit", 1),
    ("i: before commit", 5),
    ("i: after commit", 1),
    ("i: after commit", 5),
    ("similar: before", 4),
    ("similar: after", 4),
)


@pytest.mark.parametrize(("gap", "arrival"), GAPS)
async def test_a_crash_loses_nothing_and_repeats_nothing(run: Run, gap: str, arrival: int) -> None:
    fate = Fate(gap, arrival, Crash())
    await live(run, fate)
    assert fate.met
    assert await faults(run) == []
    assert differing(await outcome(run), await undisturbed()) == []


@pytest.mark.parametrize("arrival", [1, 3])
async def test_a_redelivery_after_everything_was_published_changes_nothing(
    run: Run, arrival: int
) -> None:
    """The worker dies before the acknowledgement: its heir gets the whole batch once more."""
    stages = await take_over(run.worker())
    for number in range(run.rounds):
        for p in range(SOURCES):
            start = number * STEP_EVENTS
            batch = run.tape.batch(CLICKS, p, start, start + STEP_EVENTS)
            if not len(batch):
                continue
            await run.learn(stages, p, start + STEP_EVENTS)
            if number + 1 == arrival:
                stages = await take_over(run.worker())
            await stages.learn.process(batch)
        for q in range(ITEM_PARTITIONS):
            await run.relate(stages, q)
    assert await faults(run) == []
    assert differing(await outcome(run), await undisturbed()) == []


@pytest.mark.parametrize(
    ("gap", "error"),
    [
        ("u: after commit", StoreUnavailable("the reply was lost")),
        ("u: before commit", StoreUnavailable("refused")),
        ("i: after commit", StoreUnavailable("the reply was lost")),
        ("u: claimed", StoreUnavailable("the reply was lost")),
        ("lists: after", StoreUnavailable("the reply was lost")),
        (f"{PAIRS}: after", LogUnavailable("the acknowledgement was lost")),
        (f"{LISTS}: after", LogUnavailable("the acknowledgement was lost")),
        (f"{DEAD}: after", LogUnavailable("the acknowledgement was lost")),
    ],
)
async def test_a_lost_reply_loses_nothing_and_repeats_nothing(
    run: Run, gap: str, error: Exception
) -> None:
    fate = Fate(gap, 3, error)
    await live(run, fate)
    assert fate.met
    assert await faults(run) == []
    assert differing(await outcome(run), await undisturbed()) == []


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what two runs do not have in common."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


# -- that these tests can fail: each guard taken away, one after the other


def _everything(messages: Sequence[Transitions], meta: relating.Meta) -> Any:
    meta.applied += len(messages)
    return relating.fresh_of([m.rows for m in messages], [m.snapshots for m in messages])


async def _nothing(*_: object) -> None:
    return None


class _Careless(MemoryStore):
    """Writes whatever it is given: no fence, no expected cursor."""

    async def commit(self, claim: Claim, step: Commit) -> None:
        now = await self.claim(claim.space, claim.partition)
        await super().commit(
            now, Commit(now.cursor, step.cursor, step.writes, step.meta, step.outbox)
        )


async def test_without_the_watermark_a_republished_batch_would_be_counted_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relating, "_unseen", _everything)
    run = await in_memory()
    await live(run, Fate("lists: after", 5, Crash()))
    found = await faults(run)
    assert any("masses are off" in fault for fault in found)


async def test_without_the_outbox_a_crash_after_the_commit_would_lose_counts_and_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "decode_outbox", lambda _blob: Outbox())
    run = await in_memory()
    await live(run, Fate("u: after commit", 6, Crash()))
    found = await faults(run)
    assert any("masses are off" in fault for fault in found)
    assert differing(await outcome(run), await undisturbed())


async def test_without_the_cursor_a_redelivered_batch_would_be_applied_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RawBatch, "since", lambda batch, _offset: batch)
    run = await in_memory()
    stages = await take_over(run.worker())
    for end in (STEP_EVENTS, 2 * STEP_EVENTS):
        await stages.learn.process(run.tape.batch(CLICKS, 0, 0, end))
    for p in range(SOURCES):
        await run.learn(stages, p, 10**9)
    for q in range(ITEM_PARTITIONS):
        await run.relate(stages, q)
    assert any("customers differ" in fault for fault in await faults(run))


@pytest.mark.parametrize(("store", "fenced"), [(MemoryStore, True), (_Careless, False)])
async def test_without_the_fence_a_zombie_would_spoil_what_its_heir_wrote(
    store: type[MemoryStore], fenced: bool
) -> None:
    run = Run(store(), MemoryPublic(), EVENTS)
    await run.fill()
    zombie = await take_over(run.worker())
    await work(run, zombie, last=1)
    heir = await take_over(run.worker())
    await work(run, heir, first=1, last=2)
    for p in range(SOURCES):
        try:
            await run.learn(zombie, p, 3 * STEP_EVENTS)
        except Fenced:
            assert fenced
    await work(run, heir, first=2)
    assert bool(await faults(run)) != fenced
