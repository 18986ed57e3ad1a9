"""SUPPORT: one batch of messages to customer service into suggestions for who answers them.

decode → journeys → intents, sentiment, urgency, answers → commit → publish ``support-assist``
→ empty the outbox
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import orjson

from stream_app.books import Books
from stream_app.core.assist import AssistRules, queue, urgency
from stream_app.core.knowledge import Answer
from stream_app.core.support import SupportModel, intents_max, normalised
from stream_app.events import Reject
from stream_app.hashing import public_name
from stream_app.ports import (
    ACCOUNTS_ID,
    Claim,
    Commit,
    Log,
    PublicStore,
    RawBatch,
    Record,
    StateStore,
)
from stream_app.pseudonyms import load_pseudonyms
from stream_app.rejects import dead_letter
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.support_knowledge import KnowledgeBase

SUPPORT = "h"  # state space: nothing but cursors and accounts
CONTEXT_FIELDS = ("step", "previous_step", "entered_at", "purchase_intent", "segment")
LABELS_BATCH_MAX = 1_000

Sentiment = Callable[[str], float]

log = logging.getLogger(__name__)


class Message(msgspec.Struct):
    """One message on the wire (JSON). Unknown fields are ignored."""

    text: str
    message_id: str | int
    user_id: str | int | None = None
    session_id: str | int | None = None
    ts: float | None = None


class Label(msgspec.Struct):
    """What a message was about, as an agent knows: one record of ``support-labels``."""

    text: str
    intent: str


class Meta(Books):
    """A partition's accounts."""

    what = "support partition"


@dataclass(slots=True)
class Owned:
    """A partition of messages this worker owns."""

    claim: Claim
    cursor: int | None
    meta: Meta


@dataclass(slots=True)
class Judge:
    """What messages are judged with; the model learns on."""

    model: SupportModel
    rules: AssistRules
    knowledge: KnowledgeBase
    sentiment: Sentiment | None  # None: not known of any message
    lock: threading.Lock = field(default_factory=threading.Lock)  # judging goes on in a thread

    def learn(self, labels: Sequence[tuple[str, str]]) -> None:
        """Learn (text, intent) pairs in their order."""
        for at in range(0, len(labels), LABELS_BATCH_MAX):
            part = labels[at : at + LABELS_BATCH_MAX]
            with self.lock:
                self.model.partial_fit([text for text, _ in part], [name for _, name in part])

    def judge(
        self, messages: Sequence[Message], contexts: Sequence[dict[str, object]]
    ) -> list[bytes]:
        """One ``support-assist`` value for each message."""
        texts = [message.text for message in messages]
        with self.lock:
            intents, confidence = self.model.predict(texts)
        known = [
            bool(c >= self.model.scope_min and normalised(t))
            for c, t in zip(confidence.tolist(), texts, strict=True)
        ]
        answers = self.knowledge.answers(texts, intents)
        return [
            self._assist(message, context, intent, float(sure), in_scope, found)
            for message, context, intent, sure, in_scope, found in zip(
                messages, contexts, intents, confidence, known, answers, strict=True
            )
        ]

    def _assist(
        self,
        message: Message,
        context: dict[str, object],
        intent: str,
        sure: float,
        in_scope: bool,
        answers: Sequence[Answer],
    ) -> bytes:
        mood = None if self.sentiment is None else self.sentiment(message.text)
        told = intent if in_scope else ""
        step = str(context.get("step", ""))
        level, because = urgency(
            self.rules, message.text, sentiment=mood or 0.0, intent=told, step=step
        )
        return orjson.dumps(
            {
                "message_id": message.message_id,
                "user_id": message.user_id,
                "session_id": message.session_id,
                "ts": message.ts,
                "intent": told or None,
                "confidence": round(sure, 4),
                "sentiment": None if mood is None else round(mood, 4),
                "urgency": level,
                "urgency_because": because,
                "queue": queue(self.rules, told, urgency=level, step=step),
                "answers": [
                    {"id": a.entry.id, "answer": a.entry.answer, "score": round(a.score, 4)}
                    for a in answers
                ],
                "journey": context,
            }
        )


_pack = msgspec.msgpack.Encoder().encode
_unpack_told = msgspec.msgpack.Decoder(list[tuple[bytes | None, bytes]]).decode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_label = msgspec.json.Decoder(Label).decode


class Support:
    """The SUPPORT stage. One batch of a partition at a time; partitions may run side by side."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        public: PublicStore,
        log: Log,
        judge: Judge | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._public = public
        self._log = log
        self._pseudonyms = load_pseudonyms(settings.pseudonym_key_file)
        self.judge = judge  # takes a while to learn: there before partitions are claimed
        self._thinking = asyncio.Lock()  # scikit-learn works in a thread; one at a time
        self.owned: dict[int, Owned] = {}

    async def process(self, batch: RawBatch) -> None:
        """Answer ``batch``; errors as for :meth:`stream_app.pipeline.Learn.process`."""
        owned = self.owned[batch.partition]
        batch = batch.since(owned.cursor)
        if owned.cursor is not None and batch.next_offset <= owned.cursor:
            return  # a redelivery of what is answered
        messages, rows, rejects = self._decode(batch)
        await dead_letter(
            self._log,
            self._settings.dead_letter_topic,
            batch,
            rejects,
            withheld=self._pseudonyms is not None,
        )
        contexts = await asyncio.gather(*(self._context(message) for message in messages))
        values: list[bytes] = []
        if messages:
            async with self._thinking:
                values = await asyncio.to_thread(self._ready().judge, messages, contexts)
        start = owned.cursor if owned.cursor is not None else 0
        meta = msgspec.structs.replace(owned.meta)
        meta.applied += len(messages)
        meta.dead_lettered += len(rejects)
        meta.skipped += batch.next_offset - start - len(batch)
        told = [
            (key, value)
            for key, value in zip(self._keys(batch, messages, rows), values, strict=True)
        ]
        step = Commit(
            owned.cursor,
            batch.next_offset,
            [(ACCOUNTS_ID, meta.accounts(batch.next_offset))],
            meta.encode(),
            _pack(told),
        )
        await retrying(lambda: self._store.commit(owned.claim, step), "committing messages")
        owned.cursor, owned.meta = step.cursor, meta
        await self._publish(batch.partition, owned, told)

    def _ready(self) -> Judge:
        assert self.judge is not None
        return self.judge

    def _decode(self, batch: RawBatch) -> tuple[list[Message], list[int], list[Reject]]:
        messages, rows, rejects = [], [], []
        for row, value in enumerate(batch.values):
            if value is not None and len(value) > self._settings.event_bytes_max:
                rejects.append(Reject(row, "oversize", f"{len(value)} bytes"))
                continue
            try:
                messages.append(self._named(_decode_message(value or b"")))
                rows.append(row)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                rejects.append(Reject(row, "malformed", f"not a message: {exc}"[:200]))
        return messages, rows, rejects

    def _named(self, message: Message) -> Message:
        """The message under the customer's pseudonym, where they have one."""
        if self._pseudonyms is not None:
            for field, anonymous in (("user_id", False), ("session_id", True)):
                given = getattr(message, field)
                if given is not None:
                    named = self._pseudonyms.of(str(given), anonymous=anonymous)
                    setattr(message, field, named)
        return message

    def _keys(
        self, batch: RawBatch, messages: Sequence[Message], rows: Sequence[int]
    ) -> list[bytes | None]:
        """Keys of the answers: as the messages have them, or the pseudonyms."""
        if self._pseudonyms is None:
            return [batch.keys[row] for row in rows]
        customers = [m.session_id if m.user_id is None else m.user_id for m in messages]
        return [None if name is None else str(name).encode() for name in customers]

    async def _context(self, message: Message) -> dict[str, object]:
        """Where the customer is in their journey; empty for one nobody knows."""
        customer = message.session_id if message.user_id is None else message.user_id
        if customer is None:
            return {}
        name = public_name(str(customer), anonymous=message.user_id is None)
        stored = await retrying(
            lambda: self._public.get(f"rec:{name}"), "reading a customer's journey"
        )
        if not isinstance(stored, dict):
            return {}
        return {
            name: stored[name.encode()].decode("utf-8", "replace")
            for name in CONTEXT_FIELDS
            if name.encode() in stored
        }

    async def _publish(
        self, partition: int, owned: Owned, told: Sequence[tuple[bytes | None, bytes]]
    ) -> None:
        """Send what was committed, then keep none of it: who wrote may be erased any time later."""
        if not told:
            return
        records = [Record(key, value) for key, value in told]
        topic = self._settings.support_assist_topic
        await retrying(lambda: self._log.send(topic, partition, records), f"sending to {topic}")
        assert owned.cursor is not None
        blank = Commit(owned.cursor, owned.cursor, [], owned.meta.encode(), b"")
        await retrying(lambda: self._store.commit(owned.claim, blank), "clearing the outbox")

    def apply_labels(self, batch: RawBatch) -> list[Reject]:
        """Learn what agents say messages were about, in order; returns what is no label."""
        labels, rejects = [], []
        judge = self._ready()
        room = intents_max - len(judge.model.intents)
        known = set(judge.model.intents)
        for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if value is None:
                continue  # a tombstone: what was learned stays until the worker starts again
            if not key:
                rejects.append(Reject(row, "no_key", "a label's key is its message's id"))
                continue
            try:
                label = _decode_label(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                rejects.append(Reject(row, "malformed", f"not a label: {exc}"[:200]))
                continue
            intent = label.intent.strip()
            if not intent or not normalised(label.text):
                rejects.append(Reject(row, "missing_field", "a label has a text and an intent"))
            elif intent not in known and room <= 0:
                rejects.append(Reject(row, "too_many_intents", f"more than {intents_max}"))
            else:
                room -= intent not in known
                known.add(intent)
                labels.append((label.text, intent))
        judge.learn(labels)
        return rejects

    def apply_knowledge(self, batch: RawBatch) -> list[Reject]:
        """Know, change or forget entries of the knowledge base; returns what is none."""
        return self._ready().knowledge.apply(batch)

    async def reindex(self) -> None:
        """Suggest answers from the entries there are now; to be called again and again."""
        if self.judge is not None:
            await self.judge.knowledge.reindex()

    async def assign(self, partition: int) -> int | None:
        """Claim a partition, finish what its last owner published; returns where to read on."""
        held = self.owned.get(partition)
        epoch_min = held.claim.epoch if held else 0
        claim = await retrying(
            lambda: self._store.claim(SUPPORT, partition, epoch_min=epoch_min), "claiming messages"
        )
        owned = Owned(claim, claim.cursor, Meta.decode(claim.meta))
        self.owned[partition] = owned
        if claim.outbox:
            await self._publish(partition, owned, _unpack_told(claim.outbox))
        return claim.cursor

    def revoke(self, partition: int) -> None:
        """Forget a partition that another worker owns now."""
        self.owned.pop(partition, None)


def vader() -> Sentiment | None:
    """Sentiment from -1 to 1 (Hutto & Gilbert 2014); 0 for languages its lexicon does not know.

    ``None``, and a line in the log, where the extra ``support`` is not installed.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # slow to import
    except ModuleNotFoundError:
        log.warning(
            "vaderSentiment is not installed: the sentiment of messages is null and does not count"
            " for their urgency; pip install stream_app[support] adds it"
        )
        return None
    analyser = SentimentIntensityAnalyzer()
    return lambda text: float(np.clip(analyser.polarity_scores(text[:4_000])["compound"], -1, 1))
