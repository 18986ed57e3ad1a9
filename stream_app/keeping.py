"""What the worker knows of its stages: each owns partitions of a topic, by cursors in the store."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from stream_app.books import Books
from stream_app.ports import Claim, RawBatch


class HasCursor(Protocol):
    """A partition that a stage owns."""

    @property
    def cursor(self) -> int | None: ...
    @property
    def claim(self) -> Claim: ...


class HasBooks(HasCursor, Protocol):
    """One with accounts of its records."""

    @property
    def meta(self) -> Books: ...


class Keeper(Protocol):
    """A stage: it owns partitions of one topic, whose cursors are in the store."""

    @property
    def owned(self) -> Mapping[int, HasCursor]: ...
    async def process(self, batch: RawBatch) -> None: ...
    async def assign(self, partition: int) -> int | None: ...
    def revoke(self, partition: int) -> None: ...


class Kept(NamedTuple):
    """A stage with its name, its topic and its state space."""

    name: str
    topic: str
    space: str
    keeper: Keeper
