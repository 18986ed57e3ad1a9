"""Topics that every worker reads whole: catalog, users, rules. What they have in common.

A record is applied by every worker, and a bad one counted by every worker; one of them, the owner
of the first clickstream partition, dead-letters it.
"""

from collections import Counter, deque
from collections.abc import Callable

import orjson

from stream_app.errors import SchemaUnknown
from stream_app.events import Reject
from stream_app.ports import Log, PublicStore, RawBatch
from stream_app.rejects import dead_letter
from stream_app.retrying import retrying
from stream_app.settings import Settings

REJECTED_MAX = 1_000  # bad records kept until they are dead-lettered; the oldest give way

Apply = Callable[[RawBatch], list[Reject]]


class Follower:
    """Applies the records of ``topic`` with ``apply``, which returns the bad ones.

    ``records`` counts those read and ``rejected`` the bad ones by reason, since the start.
    """

    def __init__(
        self, topic: str, apply: Apply, settings: Settings, log: Log, public: PublicStore
    ) -> None:
        self.topic = topic
        self.records = 0
        self.rejected: Counter[str] = Counter()
        self._apply = apply
        self._log = log
        self._public = public
        self._dead_letter_topic = settings.dead_letter_topic
        # Of the topics followed only this one names customers.
        self._withheld = settings.pseudonym_key_file is not None and topic == settings.users_topic
        self._dead_letter_partitions = max(
            settings.clickstream_partitions, settings.cooccurrence_partitions
        )
        self._waiting: deque[tuple[RawBatch, Reject]] = deque(maxlen=REJECTED_MAX)

    async def process(self, batch: RawBatch) -> None:
        """Apply a batch of one partition."""
        self.records += len(batch)
        for reject in self._apply(batch):
            self.rejected[reject.reason] += 1
            self._waiting.append((batch.only(reject.row), reject._replace(row=0)))

    async def dead_letter(self) -> None:
        """Dead-letter what nobody has yet; called by one worker at a time.

        How far that went is kept beside the public keys, so that the next worker, which has read
        the same records, does not send them again.
        """
        if not self._waiting:
            return
        key = f"dead-lettered:{self.topic}"
        stored = await retrying(lambda: self._public.get(key), "reading what was dead-lettered")
        done = _decode(stored)
        while self._waiting:
            batch, reject = self._waiting[0]
            part, offset = str(batch.partition), batch.offsets[0]
            if offset >= done.get(part, 0):
                target = batch.partition % self._dead_letter_partitions
                await dead_letter(
                    self._log,
                    self._dead_letter_topic,
                    batch,
                    [reject],
                    partition=target,
                    withheld=self._withheld,
                )
                done[part] = offset + 1
            self._waiting.popleft()
        pairs = [(key, orjson.dumps(done))]
        await retrying(lambda: self._public.put_values(pairs), "writing what was dead-lettered")


def _decode(stored: object) -> dict[str, int]:
    if stored is None:
        return {}
    if not isinstance(stored, bytes):
        raise SchemaUnknown("a dead-lettered: key is not a string: delete it")
    done: dict[str, int] = orjson.loads(stored)
    return done
