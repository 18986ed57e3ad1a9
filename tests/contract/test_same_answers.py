"""Memory and server give the same answers to the same random history, errors included."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from stream_app.embedded import ValkeyServer
from stream_app.errors import Fenced, RolledBack
from stream_app.ports import ITEMS, USERS, Claim, Commit, PublicHash
from tests.contract.stores import Stores, opened

IDS = (b"\0\r\n\xff____", b"bob_____", b"12345678")
WORKERS = ("one", "two")
KEYS = ("rec:a", "rec:b")


@dataclass(frozen=True)
class TakeClaim:
    """A worker claims a partition."""

    worker: str
    space: str
    epoch_min: int


@dataclass(frozen=True)
class Step:
    """A worker commits with its last claim of a space, from ``error`` past what it believes."""

    worker: str
    space: str
    error: int
    advance: int
    writes: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Retry:
    """A worker repeats its last step, as if the reply had been lost."""

    worker: str
    space: str


@dataclass(frozen=True)
class Publish:
    """Hashes are put."""

    records: Sequence[PublicHash]


@dataclass(frozen=True)
class TakeBackup:
    """Everything is saved."""


@dataclass(frozen=True)
class PutBackupBack:
    """The store goes back in time."""


@dataclass
class Belief:
    """What a worker knows of a partition: its claim, its cursor and the last step it tried."""

    claim: Claim
    cursor: int | None
    step: Commit | None = None


class History:
    """One store and what its workers believe."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.backup = stores.backups.take()
        self.beliefs: dict[tuple[str, str], Belief] = {}


@singledispatch
async def do(operation: object, history: History) -> object:
    """Return what ``operation`` answers, without what is random in it."""
    raise AssertionError(operation)


@do.register
async def _(operation: TakeClaim, history: History) -> object:
    state = history.stores.state
    claim = await state.claim(operation.space, 0, epoch_min=operation.epoch_min)
    history.beliefs[operation.worker, operation.space] = Belief(claim, claim.cursor)
    return claim.epoch, claim.cursor, claim.meta, claim.outbox


@do.register
async def _(operation: Step, history: History) -> object:
    belief = history.beliefs.get((operation.worker, operation.space))
    if belief is None:
        return None
    expected = belief.cursor
    if operation.error:
        expected = max(0, (expected or 0) + operation.error)
    cursor = (expected or 0) + operation.advance
    belief.step = Commit(expected, cursor, operation.writes, b"m", b"from %d" % cursor)
    return await commit(belief, history)


@do.register
async def _(operation: Retry, history: History) -> object:
    belief = history.beliefs.get((operation.worker, operation.space))
    return None if belief is None or belief.step is None else await commit(belief, history)


async def commit(belief: Belief, history: History) -> object:
    """Return what the worker learns from trying its step."""
    assert belief.step is not None
    try:
        await history.stores.state.commit(belief.claim, belief.step)
    except Fenced:
        return "fenced"
    except RolledBack as error:
        belief.cursor = error.cursor
        return "rolled back", error.cursor
    belief.cursor = belief.step.cursor
    return await history.stores.state.load(belief.claim.space, [0] * len(IDS), IDS)


@do.register
async def _(operation: Publish, history: History) -> object:
    replaced = await history.stores.public.put_hashes(operation.records)
    return replaced, [await history.stores.public.get(key) for key in KEYS]


@do.register
async def _(operation: TakeBackup, history: History) -> object:
    history.backup = history.stores.backups.take()
    return None


@do.register
async def _(operation: PutBackupBack, history: History) -> object:
    history.stores.backups.put_back(history.backup)
    return None


blobs = st.sampled_from([b"", b"a", b"b\0\r\n", b"c" * 300])
spaces = st.sampled_from([USERS, USERS, ITEMS])
workers = st.sampled_from(WORKERS)
claims = st.builds(TakeClaim, workers, spaces, st.integers(0, 6))
steps = st.builds(
    Step,
    workers,
    spaces,
    st.sampled_from([0, 0, 0, 0, 0, 1, -1, 5]),
    st.integers(0, 2),
    st.lists(st.tuples(st.sampled_from(IDS), blobs), max_size=4),
)
retries = st.builds(Retry, workers, spaces)
kinds = {"claim": claims, "step": steps, "retry": retries}
kinds |= {"backup": st.builds(TakeBackup), "put back": st.builds(PutBackupBack)}
frequencies = ["claim"] * 3 + ["step"] * 14 + ["retry"] * 3 + ["backup", "put back"]
operations = st.sampled_from(frequencies).flatmap(lambda kind: kinds[kind])
beginning = [TakeClaim(worker, space, 0) for worker in WORKERS for space in (USERS, ITEMS)]
fields = st.dictionaries(st.sampled_from([b"home", b"cart"]), blobs)
hashes = st.builds(
    lambda key, version, epoch, fields: PublicHash(
        key, version, epoch, tuple(fields), list(fields.values())
    ),
    st.sampled_from(KEYS),
    st.integers(8, 11),
    st.integers(1, 3),
    fields,
)
publications = st.builds(Publish, st.lists(hashes, max_size=3))


async def answers(kind: str, url: str, history: Sequence[object]) -> list[object]:
    """Return the answers of a fresh store of ``kind`` to ``history``."""
    async with opened(kind, url) as stores:
        memory = History(stores)
        return [await do(operation, memory) for operation in history]


def assert_alike(url: str, history: Sequence[object]) -> None:
    """Compare the answers of both stores."""
    with Redis.from_url(url, protocol=2) as client:
        client.flushdb()
    expected = asyncio.run(answers("memory", url, history))
    assert asyncio.run(answers("valkey", url, history)) == expected


alike = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@alike
@given(st.lists(operations, min_size=10, max_size=30))
def test_memory_and_server_judge_steps_alike(valkey: ValkeyServer, history: list[object]) -> None:
    assert_alike(valkey.url, [*beginning, *history])


@alike
@given(st.lists(publications, max_size=10))
def test_memory_and_server_judge_records_alike(valkey: ValkeyServer, history: list[object]) -> None:
    assert_alike(valkey.url, history)
