"""The fenced commit as one transaction: watch the cursor record, judge it, write, or try again.

Called by :mod:`.redis_store`. A function of the server would need one round trip instead of two,
but Lua copies and hashes every byte it is handed: a commit took the server three times as long.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from stream_app.adapters.redis_functions import INTEGER_END, Argument, Command
from stream_app.adapters.redis_link import Refused, packed
from stream_app.errors import Fenced, RolledBack, StoreUnavailable
from stream_app.ports import Claim, Commit

ATTEMPTS_MAX = 10  # each one that fails has met another writer, which the next one judges


class Connection(Protocol):
    """What is needed of redis-py's."""

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None: ...
    async def read_response(self) -> Any: ...


class Asked(NamedTuple):
    """A step of one partition, whose keys start with ``head``; ``size`` is about what it writes."""

    head: bytes
    claim: Claim
    step: Commit
    ttl_ms: int | None
    size: int


def asked_of(head: bytes, claim: Claim, step: Commit, ttl_ms: int | None) -> Asked:
    """See :class:`Asked`; ``size`` is in bytes."""
    size = sum([len(blob) for _, blob in step.writes]) + len(step.meta) + len(step.outbox)
    return Asked(head, claim, step, ttl_ms, size)


Refusal = Fenced | RolledBack | None  # why a step was not taken; None: it was


class Writer:
    """Writes the state of one server, or of one cluster; remembers what it does not know."""

    def __init__(self, *, shown: str) -> None:
        self._shown = shown
        # One command for many keys costs half of one for each, but only Redis 8.4+ and Valkey 9.1+
        # can set many keys that expire.
        self._has_msetex = True

    async def attempt(self, connection: Connection, asked: Sequence[Asked]) -> list[Refusal] | None:
        """Try to commit the steps in one transaction, those that may be; what became of each.

        ``None`` when another writer came between. Raises redis-py's errors; the connection must
        then be closed, as it may be within a transaction.
        """
        records = [one.head + b"#cursor" for one in asked]
        looks = [("HMGET", record, "epoch", "token", "cursor") for record in records]
        await _send(connection, [("WATCH", *records), *looks])
        await connection.read_response()
        stored = [await connection.read_response() for _ in asked]
        found: list[Refusal] = []
        commands: list[Command] = []
        for one, record, now in zip(asked, records, stored, strict=True):
            try:
                if not already(now, one.claim, one.step, shown=self._shown):
                    commands += self._written(record, one)
                found.append(None)
            except (Fenced, RolledBack) as exc:
                found.append(exc)
        if not commands:
            await _send(connection, [("UNWATCH",)])
            await connection.read_response()
            return found
        try:
            return found if await _transaction(connection, commands) else None
        except Refused as exc:
            if not self.learned(exc):
                raise
            return None

    def _written(self, record: bytes, asked: Asked) -> list[Command]:
        head, _, step, ttl_ms, _ = asked
        assert (step.expected or 0) <= step.cursor < INTEGER_END
        commands = self.set_all({head + b":" + id_: blob for id_, blob in step.writes}, ttl_ms)
        last = ("HSET", record, "cursor", step.cursor, "meta", step.meta, "outbox", step.outbox)
        return [*commands, last]

    def set_all(self, values: Mapping[bytes, bytes], ttl_ms: int | None) -> list[Command]:
        """Commands that set keys of one slot; an empty value deletes. ``None`` lives for ever."""
        gone = [key for key, value in values.items() if not value]
        kept = {key: value for key, value in values.items() if value} if gone else values
        commands: list[Command] = [("DEL", *gone)] if gone else []
        flat: list[Argument] = [word for pair in kept.items() for word in pair]
        if flat and ttl_ms is None:
            commands.append(("MSET", *flat))
        elif flat and self._has_msetex:
            commands.append(("MSETEX", len(kept), *flat, "PX", ttl_ms or 0))
        else:
            commands += [("SET", key, value, "PX", ttl_ms or 0) for key, value in kept.items()]
        return commands

    def learned(self, exc: Exception) -> bool:
        """True when the server refused because it is older than thought: ask it otherwise."""
        news = self._has_msetex and isinstance(exc, Refused) and "unknown command" in str(exc)
        self._has_msetex = self._has_msetex and not news
        return news


def already(stored: Sequence[bytes | None], claim: Claim, step: Commit, *, shown: str) -> bool:
    """True when ``step`` is what is stored, False when it may be written.

    Raises ``Fenced`` or ``RolledBack``; ``shown`` names the server.
    """
    epoch, cursor = (None if word is None else int(word) for word in (stored[0], stored[2]))
    message = (
        f"{shown}, partition {claim.space}{claim.partition}: we hold epoch {claim.epoch} and "
        f"expected cursor {step.expected}, but the store has epoch {epoch} and cursor {cursor}"
    )
    if epoch != claim.epoch or stored[1] != claim.token:
        if epoch is not None and epoch > claim.epoch:
            raise Fenced(f"{message}: another worker has gone on")
        # Our claim is gone: the store is older than it.
        raise RolledBack(f"{message}: it went back in time", cursor=cursor)
    if cursor == step.expected:
        return False
    if cursor == step.cursor:
        return True  # a retry: the first reply was lost
    if (-1 if cursor is None else cursor) < (-1 if step.expected is None else step.expected):
        raise RolledBack(f"{message}: it went back in time", cursor=cursor)
    raise Fenced(f"{message}: another worker has gone on")


def given_up(shown: str, asked: Sequence[Asked]) -> StoreUnavailable:
    """The error for partitions that somebody else writes without end."""
    places = ", ".join(f"{one.claim.space}{one.claim.partition}" for one in asked)
    return StoreUnavailable(
        f"{shown}, partition {places}: {ATTEMPTS_MAX} transactions met"
        " another writer: is another application using these keys? Retried until it succeeds"
    )


async def _send(connection: Connection, commands: Sequence[Command]) -> None:
    await connection.send_packed_command(packed(commands), check_health=False)


async def _transaction(connection: Connection, commands: Sequence[Command]) -> bool:
    """Run the commands as one; False when what is watched has changed."""
    await _send(connection, [("MULTI",), *commands, ("EXEC",)])
    for _ in range(len(commands) + 1):
        await connection.read_response()  # raises what the server refused to queue: none is run
    replies = await connection.read_response()
    for reply in replies or ():
        if isinstance(reply, Exception):
            raise reply
    return replies is not None
