"""The client: what to ask is decided once (generators of commands), a driver each does the asking.

The Redis client is the application's own: redis-py's or valkey-py's, single, Sentinel or cluster,
with or without ``decode_responses``.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from stream_app.hashing import public_name
from stream_app.pseudonyms import Pseudonyms, names_of
from stream_app.reader.records import (
    Entry,
    Profile,
    Recommendations,
    decode_entries,
    decode_profile,
    decode_recommendations,
)
from stream_app.reader.signals import Aggregates, Demand, decode_aggregates, decode_demand

T = TypeVar("T")
Asking = Generator[tuple[str, ...], Any, T]  # yields commands, is sent their replies


class Answer(NamedTuple):
    """A list and where it is from: the customer's own, or what stood in for it."""

    entries: list[Entry]
    origin: Literal["customer", "session", "similar", "trending", "nothing"]


class Client(Protocol):
    """What is used of a blocking Redis client."""

    def execute_command(self, *args: Any) -> Any: ...


class AsyncClient(Protocol):
    """What is used of an asynchronous Redis client."""

    def execute_command(self, *args: Any) -> Awaitable[Any]: ...


Named = Callable[[str, bool], list[str]]  # id, whether of a session → public names, newest first


def _named(pseudonyms: Pseudonyms | None) -> Named:
    return lambda text, anonymous: names_of(pseudonyms, public_name(text, anonymous=anonymous))


def _recommend(
    named: Named,
    user_id: str | None,
    name: str,
    session_id: str | None,
    item_id: str | None,
    segments: Sequence[str],
    limit: int,
) -> Asking[Answer]:
    for origin, who in (("customer", user_id), ("session", session_id)):
        for called in named(who, origin == "session") if who else ():
            if entries := decode_entries((yield "HGET", f"rec:{called}", name)):
                return Answer(entries[:limit], origin)  # type: ignore[arg-type]
    if item_id and (entries := decode_entries((yield "GET", f"similar:{item_id}"))):
        return Answer(entries[:limit], "similar")
    for segment in (*segments, "all"):
        if entries := decode_entries((yield "GET", f"trending:{segment}")):
            return Answer(entries[:limit], "trending")
    return Answer([], "nothing")


def _customer(named: Named, user_id: str, anonymous: bool) -> Asking[Recommendations | None]:
    for name in named(user_id, anonymous):
        if found := (yield "HGETALL", f"rec:{name}"):
            return decode_recommendations(found, name)
    return None


def _entries(key: str, limit: int) -> Asking[list[Entry]]:
    return decode_entries((yield "GET", key))[:limit]


def _demand(item_id: str) -> Asking[Demand | None]:
    found = yield "GET", f"demand:{item_id}"
    return decode_demand(found) if found else None


def _aggregates() -> Asking[Aggregates | None]:
    found = yield "GET", "aggregates:latest"
    return decode_aggregates(found) if found else None


def _profile(named: Named, user_id: str) -> Asking[Profile | None]:
    for name in named(user_id, False):
        if found := (yield "GET", f"profile:{name}"):
            return decode_profile(found)
    return None


class Reader:
    """Reads with a blocking client. Errors of the client pass through.

    ``pseudonyms``: where the worker has ``STREAM_APP_PSEUDONYM_KEY_FILE``, ``load_pseudonyms`` of
    the same file; customers are still asked for by their own ids.
    """

    def __init__(self, client: Client, *, pseudonyms: Pseudonyms | None = None) -> None:
        self._client = client
        self._named = _named(pseudonyms)

    def recommend(
        self,
        user_id: str | None,
        name: str = "home",
        *,
        session_id: str | None = None,
        item_id: str | None = None,
        segments: Sequence[str] = (),
        limit: int = 10,
    ) -> Answer:
        """The list ``name`` of a customer, or what fits best for one who is not known yet.

        In order: the customer's list, that of their anonymous session, neighbours of the item they
        look at, what is trending in the first of ``segments`` (channels, regions) that has any,
        what is trending.
        """
        return self._ask(
            _recommend(self._named, user_id, name, session_id, item_id, segments, limit)
        )

    def customer(self, user_id: str, *, anonymous: bool = False) -> Recommendations | None:
        """Step and all lists of a customer; ``None`` when none of their events was applied yet.

        ``anonymous``: ``user_id`` is the id of a session.
        """
        return self._ask(_customer(self._named, user_id, anonymous))

    def similar(self, item_id: str, *, limit: int = 20) -> list[Entry]:
        """Neighbours of an item, the closest first; empty for an unknown one."""
        return self._ask(_entries(f"similar:{item_id}", limit))

    def trending(self, segment: str = "all", *, limit: int = 50) -> list[Entry]:
        """What is popular now."""
        return self._ask(_entries(f"trending:{segment}", limit))

    def profile(self, user_id: str) -> Profile | None:
        """What is known of a customer."""
        return self._ask(_profile(self._named, user_id))

    def demand(self, item_id: str) -> Demand | None:
        """What an item will sell; ``None`` for one that was never bought."""
        return self._ask(_demand(item_id))

    def aggregates(self) -> Aggregates | None:
        """The counts of customers published last, with noise; ``None`` before the first."""
        return self._ask(_aggregates())

    def _ask(self, asking: Asking[T]) -> T:
        reply = None
        while True:
            try:
                command = asking.send(reply)
            except StopIteration as end:
                found: T = end.value
                return found
            reply = self._client.execute_command(*command)


class AsyncReader:
    """:class:`Reader` for an asynchronous client; the same methods, awaited."""

    def __init__(self, client: AsyncClient, *, pseudonyms: Pseudonyms | None = None) -> None:
        self._client = client
        self._named = _named(pseudonyms)

    async def recommend(
        self,
        user_id: str | None,
        name: str = "home",
        *,
        session_id: str | None = None,
        item_id: str | None = None,
        segments: Sequence[str] = (),
        limit: int = 10,
    ) -> Answer:
        """See :meth:`Reader.recommend`."""
        return await self._ask(
            _recommend(self._named, user_id, name, session_id, item_id, segments, limit)
        )

    async def customer(self, user_id: str, *, anonymous: bool = False) -> Recommendations | None:
        """See :meth:`Reader.customer`."""
        return await self._ask(_customer(self._named, user_id, anonymous))

    async def similar(self, item_id: str, *, limit: int = 20) -> list[Entry]:
        """See :meth:`Reader.similar`."""
        return await self._ask(_entries(f"similar:{item_id}", limit))

    async def trending(self, segment: str = "all", *, limit: int = 50) -> list[Entry]:
        """See :meth:`Reader.trending`."""
        return await self._ask(_entries(f"trending:{segment}", limit))

    async def profile(self, user_id: str) -> Profile | None:
        """See :meth:`Reader.profile`."""
        return await self._ask(_profile(self._named, user_id))

    async def demand(self, item_id: str) -> Demand | None:
        """See :meth:`Reader.demand`."""
        return await self._ask(_demand(item_id))

    async def aggregates(self) -> Aggregates | None:
        """See :meth:`Reader.aggregates`."""
        return await self._ask(_aggregates())

    async def _ask(self, asking: Asking[T]) -> T:
        reply = None
        while True:
            try:
                command = asking.send(reply)
            except StopIteration as end:
                found: T = end.value
                return found
            reply = await self._client.execute_command(*command)
