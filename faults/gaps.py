"""Named gaps of a worker, where a fault can wait for it: ``control/<gap>`` holds what to do there.

The suite writes the file, the worker that comes to the gap renames it to ``<gap>.met`` and obeys:
``kill`` (-9), ``term`` or ``stop`` (SIGSTOP itself). ``hold`` stays: every task that comes there
waits until the file is gone, the worker goes on living. Nothing of this is in the product: the
methods of the ports are wrapped in the worker's process before Faust starts.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

# A worker comes to these in the order of this list, for customers (u) and for items (i).
GAPS = (
    "u_claimed",
    "i_claimed",
    "dead_letters_sent",
    "u_before_commit",
    "u_after_commit",
    "pairs_sent",
    "lists_sent",
    "lists_stored",
    "before_ack",
    "after_ack",
    "i_before_commit",
    "i_after_commit",
    "values_stored",
)
_SENT = {"clickstream.dlq": "dead_letters", "cooccurrence": "pairs", "recommendations": "lists"}
HOLD_POLL_S = 0.02
CLOCK_FILE = "clock"  # seconds that the worker's wall clock is off


class Gaps:
    """The gaps of this process, as the files of ``control`` say."""

    def __init__(self, control: Path) -> None:
        self._control = control

    async def reached(self, gap: str) -> None:
        """Obey what is waiting at ``gap``, once."""
        order, met = self._control / gap, self._control / f"{gap}.met"
        try:
            what = order.read_text()
            if what == "hold":
                met.touch()
            else:
                order.rename(met)
        except FileNotFoundError:
            return
        print(f"gap {gap}: {what}", flush=True)
        if what == "hold":
            while order.exists():  # noqa: ASYNC110 - another process removes it
                await asyncio.sleep(HOLD_POLL_S)
        else:
            number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}[what]
            os.kill(os.getpid(), number)

    def install(self) -> None:
        """Wrap the ports' verbs."""
        from stream_app.adapters.kafka import KafkaLog
        from stream_app.adapters.redis_store import RedisStore
        from stream_app.adapters.transport import BatchConsumer

        commit, claim = RedisStore.commit, RedisStore.claim
        send, acknowledge = KafkaLog.send, BatchConsumer._acknowledge

        async def gapped_claim(store: Any, space: str, *args: Any, **kwargs: Any) -> Any:
            claimed = await claim(store, space, *args, **kwargs)
            await self.reached(f"{space}_claimed")
            return claimed

        async def gapped_commit(store: Any, owner: Any, step: Any) -> None:
            await self.reached(f"{owner.space}_before_commit")
            await commit(store, owner, step)
            await self.reached(f"{owner.space}_after_commit")

        async def gapped_send(log: Any, topic: str, *args: Any) -> None:
            await send(log, topic, *args)
            if topic in _SENT:
                await self.reached(f"{_SENT[topic]}_sent")

        async def gapped_ack(consumer: Any, receipt: Any) -> None:
            await self.reached("before_ack")
            await acknowledge(consumer, receipt)
            await self.reached("after_ack")

        RedisStore.claim = gapped_claim  # type: ignore[method-assign,assignment]
        RedisStore.commit = gapped_commit  # type: ignore[method-assign,assignment]
        KafkaLog.send = gapped_send  # type: ignore[method-assign,assignment]
        BatchConsumer._acknowledge = gapped_ack  # type: ignore[method-assign,assignment]
        for verb, gap in (("put_hashes", "lists_stored"), ("put_values", "values_stored")):
            setattr(RedisStore, verb, self._after(getattr(RedisStore, verb), gap))

    def _after(
        self, verb: Callable[..., Awaitable[Any]], gap: str
    ) -> Callable[..., Awaitable[Any]]:
        async def gapped(*args: Any) -> Any:
            result = await verb(*args)
            await self.reached(gap)
            return result

        return gapped


def install_clock(control: Path) -> None:
    """Let ``time.time`` be off by what the control file says, from one call to the next."""
    true_time, file = time.time, control / CLOCK_FILE
    known = [0, 0.0]  # its modification time, its content

    def stepped() -> float:
        try:
            changed = file.stat().st_mtime_ns
        except FileNotFoundError:
            return true_time()
        if changed != known[0]:
            known[:] = changed, float(file.read_text() or 0.0)
        return true_time() + known[1]

    time.time = stepped
