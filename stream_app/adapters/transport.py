"""Faust with micro-batches: the only module that imports ``faust`` and ``mode``.

Called by the composition root, which makes an app with :func:`make_app` and gives each topic a
handler with :func:`add_stage`. One Faust event is one fetch of one partition, its value a
:class:`RawBatch`: stock Faust spends ~200 µs and four tasks on every record, and has several ways
to commit what was never processed. A partition's records take this way, and none but this:

    assigned → start_offsets (the store's cursor) → seek → fetch → event → agent → lane → handler
    → ack → commit of the oldest contiguous run; "revoked" or a rewind ends it
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial, wraps
from time import monotonic
from typing import Any, TypeVar, cast

import faust
from faust.cli import argument, option
from faust.streams import Stream
from faust.transport.base import Fetcher
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage, EventT, Message, StreamT
from faust.types.transports import TPorTopicSet, TransportT
from mode import Service, Worker
from mode.types import ServiceT

from stream_app.adapters import ending, fetching
from stream_app.adapters.dispatch import (
    Dispatcher,
    Handler,
    PartitionsHook,
    Stage,
    StartOffsets,
    no_hook,
)
from stream_app.adapters.kafka import Security, bootstrap_servers
from stream_app.adapters.lanes import Lane, Partition, PartitionStatus, Ticket
from stream_app.adapters.limits import Limits, faust_settings
from stream_app.errors import ConfigurationError
from stream_app.ports import RawBatch

__all__ = ["App", "Limits", "PartitionStatus", "add_stage", "argument", "make_app", "option"]

log = logging.getLogger(__name__)

T = TypeVar("T")
POLL_S = 1.0  # length of one look for records; new records end it at once


class BatchMessage(ConsumerMessage):
    """A fetched batch on its way through Faust; only its lane's worker may settle it."""

    lane: Lane
    ticket: Ticket
    handled = False


class BatchSchema(faust.Schema[None, RawBatch]):
    """Hands the batch to the agent as it is."""

    def compile(self, app: AppT, **_: Any) -> Callable[..., Awaitable[EventT[RawBatch]]]:
        """Return Faust's decoding function for a topic."""

        async def decode(message: Message, *, propagate: bool = False) -> EventT[RawBatch]:
            return app.create_event(None, message.value, {}, message)

        return decode


class BatchFetcher(Fetcher):
    """The task that moves batches from the consumer's thread to the agents."""

    @Service.task
    async def _fetcher(self) -> None:
        # Stock Faust crashes here when it is stopped during a rebalance.
        app = cast(App, self.app)
        try:
            await app.guarded(lambda: app.batches._drain_messages(self))()
        finally:
            self.set_shutdown()


class BatchThread(driver.AIOKafkaConsumerThread):
    """The consumer's own thread and loop: heartbeats go on while handlers compute."""

    app: "App"

    def __post_init__(self) -> None:
        super().__post_init__()
        #: Lanes that may be filled. Written by the main loop, read here; single dict operations.
        self.open_lanes: dict[Partition, Lane] = {}
        self.polled_at_s = monotonic()
        self._beyond_since_s: dict[Partition, float] = {}

    def _create_worker_consumer(self, transport: TransportT) -> Any:
        fetching.take_turns()
        return fetching.new_consumer(
            self.app.conf.id,
            brokers=self.app.brokers,
            security=self.app.security,
            limits=self.app.limits,
            owners=self.open_lanes,
        )

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` in the consumer's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.thread_loop))

    async def fetch(self) -> list[tuple[Lane, list[RawBatch]]]:
        """Wait for records of open lanes."""
        self.polled_at_s = monotonic()
        return await self.run(
            fetching.fetched(
                self._ensure_consumer(),
                timeout_s=POLL_S,
                beyond_since_s=self._beyond_since_s,
            )
        )

    def open(self, lane: Lane) -> None:
        """Let the lane be filled (again)."""
        self.open_lanes[lane.partition] = lane
        self.thread_loop.call_soon_threadsafe(fetching.wake, self._ensure_consumer())

    def shut(self, lane: Lane) -> None:
        """Fetch no more for the lane."""
        self.open_lanes.pop(lane.partition, None)

    async def seek_all(self, offsets: Mapping[Partition, int | None]) -> dict[Partition, int]:
        """Seek and return the positions of those still assigned; ``None`` is the earliest."""
        return await self.run(fetching.sought(self._ensure_consumer(), offsets))

    async def commit_all(self, offsets: Mapping[Partition, int]) -> bool:
        """Commit to the group; False when that failed, which is never fatal."""
        timeout_s = self.app.limits.session_timeout_s
        if self.thread_loop.is_closed():  # Faust itself crashed
            return False
        return await self.run(fetching.committed(self._ensure_consumer(), offsets, timeout_s))

    def status(self, lane: Lane) -> PartitionStatus:
        """Where the lane stands."""
        end = fetching.high_water(self._ensure_consumer(), lane.partition)
        return PartitionStatus(*lane.partition, lane.position, lane.acked, end, lane.queued_records)


class BatchConsumer(driver.Consumer):
    """Carries batches from the thread to the agents, acks and assignments to the dispatcher."""

    app: "App"
    _thread: BatchThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commit_lock = asyncio.Lock()
        self.dispatcher = Dispatcher(
            self.app.limits,
            self.app.stages,
            self.app.start_offsets,
            source=self._thread,
            spawn=self._spawn,
            acknowledge=self._acknowledge,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[Any]:
        return self.app.add_future(self.app.guarded(lambda: work)())

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.wait(cast(Any, self.can_resume_flow))
                continue
            for lane, batches in await self._thread.fetch():
                for batch in batches:
                    await self._deliver(lane, batch)
                self.dispatcher.pause_if_full(lane)

    async def _deliver(self, lane: Lane, batch: RawBatch) -> None:
        if lane.closed:
            return
        ticket = lane.admit(batch)
        if not batch.offsets:
            return  # only markers of transactions: nothing to handle, but the commit moves on
        message = BatchMessage(
            batch.topic,
            batch.partition,
            batch.offsets[-1],
            batch.timestamps_ms[-1] / 1000,
            0,
            {},
            None,
            cast(Any, batch),
            None,
            tp=TP(batch.topic, batch.partition),
            generation_id=self.app.consumer_generation_id,
        )
        message.lane, message.ticket = lane, ticket
        await self.callback(message)

    def enqueue(self, stream: Stream[RawBatch], event: EventT[RawBatch]) -> None:
        """Queue an event for its partition's worker; called by the agents, never blocks."""
        message = cast(BatchMessage, event.message)
        message.lane.queue(cast(RawBatch, event.value), (stream, event))

    async def _acknowledge(self, receipt: tuple[Stream[RawBatch], EventT[RawBatch]]) -> None:
        stream, event = receipt
        cast(BatchMessage, event.message).handled = True
        await stream.ack(event)
        event.value = event.message.value = cast(Any, None)  # they refer to each other: free it now

    def ack(self, message: Message) -> bool:
        """Settle a handled batch; Faust also "acks" what it skips or cancels, which is ignored."""
        batch = cast(BatchMessage, message)
        self._unacked_messages.discard(message)
        if not batch.handled or not self.dispatcher.is_current(batch.lane):
            return False
        self.dispatcher.settle(batch.lane, batch.ticket)
        return True

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: lanes pause and resume their partition themselves."""

    on_buffer_drop = on_buffer_full

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's livelock detector only logs, and takes slow batches for hanging ones."""

    async def perform_seek(self) -> None:
        """Nothing: Faust would seek to the committed offsets here."""

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let Faust see the assignment; the start offsets follow in the background."""
        await super().on_partitions_assigned(assigned, generation_id)
        if assigned and not self.app.should_stop:
            partitions: set[Partition] = {(tp.topic, tp.partition) for tp in assigned}
            self.dispatcher.place_soon(partitions, first=self.app.on_assigned_hook)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish what is being handled, commit, forget the partitions, tell the application."""
        await super().on_partitions_revoked(revoked)  # stops the flow, then waits in wait_empty
        await self.wait_empty()  # again, for what Faust skips when it is stopping
        self.dispatcher.forget()
        if revoked:
            gone: set[Partition] = {(tp.topic, tp.partition) for tp in revoked}
            await self._spawn(self.app.on_revoked_hook(gone))

    async def wait_empty(self) -> None:
        """Drop what is queued, let handler calls finish (bounded), commit."""
        await self.dispatcher.drain()
        await self.commit()

    async def commit(
        self, topics: TPorTopicSet | None = None, start_new_transaction: bool = True
    ) -> bool:
        """Commit, per partition, the end of the oldest contiguous run of acked batches."""
        async with self._commit_lock:
            lanes = [x for x in self.dispatcher.lanes.values() if x.acked != x.committed]
            offsets = {lane.partition: lane.acked for lane in lanes}
            if not offsets or not await self._thread.commit_all(offsets):
                return False
            for lane in lanes:
                lane.committed = offsets[lane.partition]
            self.app.monitor.on_tp_commit({TP(*key): end for key, end in offsets.items()})
            return True


class BatchProducer(driver.Producer):
    """Faust's own producer, secured like ours."""

    app: "App"

    def _settings_auth(self) -> Mapping[str, Any]:
        return self.app.security.client_arguments()


class BatchTransport(driver.Transport):
    """Registers the parts above with an app."""

    Consumer, Producer, Fetcher = BatchConsumer, BatchProducer, BatchFetcher


class App(faust.App):
    """A Faust app whose agents receive micro-batches. Made by :func:`make_app`."""

    brokers: list[str]
    limits: Limits
    security: Security
    start_offsets: StartOffsets
    on_assigned_hook: PartitionsHook
    on_revoked_hook: PartitionsHook
    stages: dict[str, Stage]
    before_start: Callable[[], Awaitable[Any]] = partial(asyncio.sleep, 0)

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    async def on_first_start(self) -> None:
        """Prepare before the group is joined. No directories as in Faust: they are for tables."""
        await self.wait(asyncio.ensure_future(self.before_start()))  # or until we are stopped

    @property
    def batches(self) -> BatchConsumer:
        """The consumer of the running worker."""
        return cast(BatchConsumer, self.consumer)

    def fail(self, exc: Exception) -> None:
        """Stop in good order (calls under way end, acks are committed), with exit code 1."""
        log.critical("the worker stops: %s: %s", type(exc).__name__, exc, exc_info=exc)
        worker = self.beacon.root.data if self.beacon.root else None
        assert isinstance(worker, Worker), "started by `faust worker`"
        worker.crash_reason = worker.crash_reason or exc
        signal.raise_signal(signal.SIGTERM)

    def guarded(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Any]:
        """``work`` as a coroutine function whose exception stops the worker in good order."""

        @wraps(work)
        async def run() -> None:
            try:
                await work()
            except Exception as exc:
                self.fail(exc)

        return run

    async def rewind(self, topic: str, partition: int, offset: int | None) -> None:
        """Go on at ``offset`` (``None``: the earliest) in a partition of this worker.

        What was fetched of it before is dropped, and acks of it no longer count. Raises ``Fenced``
        when the partition is not assigned to this worker.
        """
        await self.batches.dispatcher.rewind((topic, partition), offset)

    def partition_statuses(self) -> list[PartitionStatus]:
        """Where this worker stands in each of its partitions."""
        consumer = self.batches
        return [consumer._thread.status(lane) for lane in consumer.dispatcher.lanes.values()]

    def poll_age_s(self) -> float:
        """Seconds since the consumer last looked for records; more than a few is a hang."""
        return monotonic() - self.batches._thread.polled_at_s


def make_app(
    name: str,
    *,
    brokers: Sequence[str],
    start_offsets: StartOffsets,
    on_assigned: PartitionsHook = no_hook,
    on_revoked: PartitionsHook = no_hook,
    security: Security | None = None,
    limits: Limits | None = None,
    web_host: str = "127.0.0.1",
    web_port: int = 6066,
) -> App:
    """Return a Faust app (consumer group ``name``) with settings that lose nothing.

    ``start_offsets`` gives the offset to go on at for each assigned partition, ``None`` for the
    earliest there is; no record is delivered before it has answered. ``on_assigned`` runs before
    it, ``on_revoked`` after the last handler call for the partitions has ended. An exception from
    any of them (``Fenced`` apart) stops the worker.
    """
    limits = limits or Limits()
    servers = bootstrap_servers(brokers)
    app = App(
        name,
        broker=[f"kafka://{server}" for server in servers],
        Worker=ending.ends_in_time(faust.Worker, limits.stop_timeout_s),
        **faust_settings(limits, web_host=web_host, web_port=web_port),
    )
    app.brokers, app.limits, app.security = servers, limits, security or Security()
    app.on_assigned_hook, app.on_revoked_hook = on_assigned, on_revoked
    app.start_offsets, app.stages = start_offsets, {}
    return app


def add_stage(app: App, name: str, topic: str, handler: Handler, *, every_s: float = 0.0) -> None:
    """Register agent ``name``: ``handler`` gets the batches of ``topic``, in order per partition.

    Queued batches of a partition are joined, ``every_s`` lie between its calls; a batch is acked
    when the handler returns. ``Fenced`` drops the partition, ``RolledBack`` goes back to where
    ``start_offsets`` says, any other exception stops the worker. Retries are the handler's.
    """
    if topic in app.stages:
        raise ConfigurationError(f"topic {topic} already has a stage; one topic feeds one stage")
    app.stages[topic] = Stage(handler, every_s)

    async def dispatch(stream: StreamT[RawBatch]) -> None:
        manual = cast(Stream[RawBatch], cast(Stream[RawBatch], stream).noack())
        async for event in manual.events():
            app.batches.enqueue(manual, event)

    dispatch.__doc__ = handler.__doc__  # shown by `faust agents`
    app.agent(app.topic(topic, schema=BatchSchema()), name=name, concurrency=1)(dispatch)
