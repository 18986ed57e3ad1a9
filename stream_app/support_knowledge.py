"""KNOWLEDGE: the knowledge base's file, and what ``support-knowledge`` changes of it meanwhile.

Called by SUPPORT for every record of the topic, and now and then to index what has changed.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from stream_app.catalog_wire import decode_keyed
from stream_app.core.knowledge import ENTRIES_MAX, Answer, Entry, Knowledge
from stream_app.core.support import Embed, normalised
from stream_app.errors import EventRejected
from stream_app.events import Reject
from stream_app.ports import RawBatch
from stream_app.settings import Settings


class EntryRecord(msgspec.Struct):
    """One entry on the wire, by its id; unknown fields are ignored."""

    question: str
    answer: str
    id: str | int | None = None
    intent: str = ""
    deleted: bool | None = None


_decode = msgspec.json.Decoder(EntryRecord).decode


class KnowledgeBase:
    """The entries of a file; one of the topic stands in for the file's of the same id.

    Answers are found among the entries of the last :meth:`reindex`.
    """

    def __init__(
        self,
        settings: Settings,
        entries: Sequence[Entry] = (),
        *,
        entries_max: int = ENTRIES_MAX,
        embed: Embed | None = None,
    ) -> None:
        self._embed = embed
        self._chars_max = settings.id_chars_max
        self._bytes_max = settings.event_bytes_max
        self._entries_max = entries_max
        self._file = list(entries)  # several questions may have one id, and so one answer
        self._file_ids = frozenset(entry.id for entry in entries)
        self._live: dict[str, Entry] = {}
        self._added = 0  # of the live ones, those that stand in for none of the file
        self._changed = bool(entries)
        self._index: Knowledge | None = None
        self._indexing = asyncio.Lock()

    def apply(self, batch: RawBatch) -> list[Reject]:
        """Apply a batch of one partition; returns what is wrong with its bad records."""
        rejects: list[Reject] = []
        for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                self._change(key, value)
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail))
        return rejects

    def _change(self, key: bytes | None, value: bytes | None) -> None:
        if value is not None and len(value) > self._bytes_max:
            raise EventRejected("oversize", f"{len(value)} bytes")
        entry_id, record = decode_keyed(_decode, "id", key, value, chars_max=self._chars_max)
        added = entry_id not in self._file_ids
        if record is None:
            gone = self._live.pop(entry_id, None) is not None
            self._added -= gone and added
            self._changed |= gone
            return
        if not normalised(record.question) or not record.answer.strip():
            raise EventRejected("missing_field", "an entry has a question and an answer")
        if added and entry_id not in self._live:
            if len(self._file) + self._added >= self._entries_max:
                raise EventRejected("no_room", f"there are {self._entries_max} entries")
            self._added += 1
        self._live[entry_id] = Entry(entry_id, record.question, record.answer, record.intent)
        self._changed = True

    async def reindex(self) -> bool:
        """Let answers be found among what is there now; whether anything had changed.

        In a thread: a large base takes a minute now and then, and messages go on being answered.
        """
        async with self._indexing:
            if not self._changed:
                return False
            self._changed = False
            # The topic's by their ids: every worker breaks ties in the same way.
            entries = [entry for entry in self._file if entry.id not in self._live]
            entries += sorted(self._live.values())
            self._index = await asyncio.to_thread(self._indexed, entries)
            return True

    def answers(self, messages: Sequence[str], intents: Sequence[str]) -> list[list[Answer]]:
        """See :meth:`stream_app.core.knowledge.Knowledge.answers`; an empty base has none."""
        index = self._index
        return [[] for _ in messages] if index is None else index.answers(messages, intents)

    def _indexed(self, entries: Sequence[Entry]) -> Knowledge | None:
        if not entries:
            return None
        index = self._index
        return Knowledge.of(entries, self._embed) if index is None else index.changed(entries)
