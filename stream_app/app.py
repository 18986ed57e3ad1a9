"""Composition root: ``faust -A stream_app.app worker -l info`` and the other commands."""

import asyncio
import gc
import logging
from typing import Any

from stream_app import console
from stream_app.adapters.limits import Limits
from stream_app.adapters.loop import use_fast_loop
from stream_app.adapters.transport import PartitionStatus, add_stage, make_app
from stream_app.commands import register
from stream_app.errors import WorkerStuck
from stream_app.health import Health
from stream_app.log_floods import hold_back
from stream_app.logs import logging_config
from stream_app.memory_watch import memory_warnings
from stream_app.settings import load_settings
from stream_app.warmup import warm_up
from stream_app.watching import watch
from stream_app.worker import Worker, security

ROLL_BACK_CHECK_S = 5.0
ANNOUNCE_S = 0.25  # between looks at what has fallen due
HAND_OVER_S = 0.25  # between records for RELATE, which itself gathers for longer
SURVEY_S = 1.0
REINDEX_S = 2.0  # between looks at whether the knowledge base has changed
LOOK_AFTER_S = 15.0
GC_THRESHOLD = 100_000  # objects made since the last collection; Python's default is 700

log = logging.getLogger(__name__)
use_fast_loop()
settings = load_settings()
worker = Worker(settings)
health = Health(worker.store, stuck_after_s=settings.stuck_after_s)

app = make_app(
    settings.app_id,
    brokers=settings.bootstrap.split(","),
    start_offsets=worker.start_offsets,
    on_revoked=worker.on_revoked,
    security=security(settings),
    limits=Limits(
        batch_records_max=settings.batch_events_max,
        drain_timeout_s=settings.drain_timeout_s,
        session_timeout_s=settings.session_timeout_s,
    ),
    web_host=settings.web_host,
    web_port=settings.web_port,
)
if settings.log_format == "json":
    app.conf.logging_config = logging_config()

for name, topic, handler, every_s in worker.handlers():
    add_stage(app, name, topic, handler, every_s=every_s)
watch(app, worker)
console.serve(app, worker)
app.timer(settings.refresh_s)(app.guarded(worker.refresh))
app.timer(HAND_OVER_S)(app.guarded(worker.hand_over))
worker.stages.learn.gathering = True
app.timer(ANNOUNCE_S)(app.guarded(worker.announce))
app.timer(REINDEX_S)(app.guarded(worker.reindex))
app.timer(SURVEY_S)(app.guarded(worker.survey))
register(app, settings)


async def follow_roll_backs() -> None:
    """Rewind partitions without traffic too when the store comes back older than it was."""
    for partition in await worker.rolled_back():
        app.batches.dispatcher.take_over_again(partition)


async def follow_topics() -> None:
    """Follow catalog and users for as long as the worker lives."""
    try:
        await worker.broadcasts.follow(worker.store)
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


def standing() -> tuple[list[PartitionStatus], float, set[tuple[str, int]]]:
    """Where this worker stands, for its health."""
    return app.partition_statuses(), app.poll_age_s(), app.batches.dispatcher.unplaced


async def look_after() -> None:
    """End with an error where the worker cannot go on, and warn before memory runs out."""
    problem = health.hopeless(*standing())
    if problem:
        app.fail(WorkerStuck(problem))
    for warning in await memory_warnings(worker.store, settings.memory_max_mib):
        log.warning("%s", warning)


app.task()(app.guarded(follow_topics))
app.timer(LOOK_AFTER_S)(app.guarded(look_after))
app.timer(ROLL_BACK_CHECK_S)(app.guarded(follow_roll_backs))


@app.page("/live")
async def live(view: Any, _request: Any) -> Any:
    """Whether this process works; 503 asks the supervisor to restart it."""
    problems = health.live(*standing())
    return view.json({"live": not problems, "problems": problems}, status=503 if problems else 200)


@app.page("/ready")
async def ready(view: Any, _request: Any) -> Any:
    """Whether this worker has partitions and its store answers."""
    problems = await health.ready(app.partition_statuses())
    return view.json({"ready": not problems, "problems": problems}, status=503 if problems else 200)


async def prepare() -> None:
    """Have every kernel ready before the worker joins its group; other commands need none."""
    await worker.check_sources()
    await asyncio.to_thread(worker.prepare)
    hold_back("aiokafka")
    log.info("preparing kernels: minutes where they must be compiled first, else seconds")
    log.info("kernels ready after %.1f s", await asyncio.to_thread(warm_up, settings))
    # A batch makes and drops tens of thousands of objects, none of them in cycles; what was loaded
    # so far stays for good. Collecting less often spares the worker going through its caches.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    await worker.broadcasts.load()
    await worker.reindex()


app.before_start = prepare


@app.on_before_shutdown.connect
async def close(*_args: Any, **_kwargs: Any) -> None:
    """Disconnect when the last batch is done."""
    await worker.close()
