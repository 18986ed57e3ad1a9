"""Start everything, feed, watch, show, stop everything. Called by ``python -m stream_app.demo``."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.live import Live

from stream_app.adapters.redis_store import RedisStore
from stream_app.demo.feed import Feed, FileSource, ShopSource, Source
from stream_app.demo.options import Options, read_options
from stream_app.demo.stats import Board, Freshness
from stream_app.demo.view import line, screen, summary
from stream_app.demo.watch import watch_progress, watch_topics, watch_trending
from stream_app.demo.worker import DemoFailed, Worker, create_topics
from stream_app.embedded import free_port, tansu_broker, valkey_server
from stream_app.errors import StreamAppError
from stream_app.settings import Settings, load_settings

warm_up_events = 200
first_list_timeout_s = 120.0  # the first start may compile the scoring kernels
drain_timeout_s = 30.0
plain_line_every_s = 3.0
frame_s = 0.25
request_bytes_max = 1_000_000
WORKER_LOG = "worker.log"
INTERRUPTED = 130  # what shells report for Ctrl-C


def main() -> int:
    """Run the demo; returns the process's exit code."""
    # The default action of SIGTERM would skip our clean-up, that of SIGINT does not. A shell starts
    # what it puts in the background with SIGINT ignored: then neither would end the demo.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="stream-app-demo-"))
    try:
        _run(read_options(os.environ), console, folder)
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        _say(console, "interrupted; every process of the demo has been stopped")
        return INTERRUPTED
    except StreamAppError as exc:
        _say(console, f"the demo failed: {exc}")
        if not (folder / WORKER_LOG).exists():
            shutil.rmtree(folder)
        return 1
    shutil.rmtree(folder)
    return 0


def _run(options: Options, console: Console, folder: Path) -> None:
    board = Board()
    source = FileSource(options.file) if options.file else ShopSource(options.rate)
    # The clients' warnings would tear the live screen.
    logging.basicConfig(filename=folder / "demo.log", level=logging.WARNING, force=True)
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(valkey_server())
        broker = stack.enter_context(tansu_broker())
        environment = _environment(broker.address, valkey.address)
        settings = load_settings(environment)
        _say(console, f"broker {broker.address}, Valkey {valkey.address}")
        create_topics(environment)
        worker = stack.enter_context(Worker(environment, folder / WORKER_LOG))
        _say(console, f"worker started, log {worker.log_path}; waiting for its first list")
        _say(console, f"console: http://{settings.web_host}:{settings.web_port}/console/")
        asyncio.run(_live(options, settings, source, worker, board, console))
        worker.stop()
    _say(console, summary(board))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _environment(broker: str, valkey: str) -> dict[str, str]:
    """Ours without the addresses and passwords of a real installation: the demo stays here."""
    elsewhere = ("STREAM_APP_KAFKA_", "STREAM_APP_REDIS_", "STREAM_APP_WEB_", "STREAM_APP_CONSOLE_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(elsewhere)}
    return kept | {
        "STREAM_APP_KAFKA_URL": f"kafka://{broker}",
        "STREAM_APP_REDIS_URL": f"redis://{valkey}",
        "STREAM_APP_WEB_HOST": "127.0.0.1",  # so that its console needs no token
        "STREAM_APP_WEB_PORT": str(free_port()),
    }


async def _live(
    options: Options,
    settings: Settings,
    source: Source,
    worker: Worker,
    board: Board,
    console: Console,
) -> None:
    """Feed and show until the time is up and what was sent is applied."""
    try:
        async with _clients(settings) as (producer, consumer, store), asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(watch_topics(consumer, settings, board)),
                group.create_task(watch_trending(store, board)),
                group.create_task(watch_progress(settings, board)),
                group.create_task(_guard(worker)),
            ]
            feed = Feed(source, producer, settings.clickstream_topic, board)
            await feed.send(warm_up_events)
            await _until(
                lambda: board.lists > 0,
                first_list_timeout_s,
                lambda: worker.failure(f"no list was published in {first_list_timeout_s:g} s"),
            )
            await _all_done(board, worker)
            board.freshness = Freshness()  # what the worker's start took is not freshness
            shown = group.create_task(_show(board, source, options, console))
            await feed.run(options.rate, options.seconds)
            shown.cancel()
            await producer.flush()
            await _all_done(board, worker)
            for watcher in watchers:
                watcher.cancel()
    except BaseExceptionGroup as failures:
        raise _cause(failures, worker) from failures
    except KafkaError as exc:
        raise _cause(exc, worker) from exc


@contextlib.asynccontextmanager
async def _clients(settings: Settings) -> AsyncIterator[tuple[Any, Any, RedisStore]]:
    async with contextlib.AsyncExitStack() as stack:
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap, max_request_size=request_bytes_max
        )
        await stack.enter_async_context(producer)
        consumer = AIOKafkaConsumer(
            settings.recommendations_topic,
            settings.dead_letter_topic,
            bootstrap_servers=settings.bootstrap,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )
        await stack.enter_async_context(consumer)
        store = RedisStore(settings.redis_url)
        stack.push_async_callback(store.close)
        yield producer, consumer, store


async def _guard(worker: Worker) -> None:
    """Fail as soon as the worker ends."""
    while True:
        worker.check()
        await asyncio.sleep(frame_s)


async def _until(
    happened: Callable[[], bool], timeout_s: float, failure: Callable[[], str]
) -> None:
    """Wait for something. Raises :class:`DemoFailed` with ``failure()`` after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline_s:
            raise DemoFailed(failure())
        await asyncio.sleep(frame_s)


async def _all_done(board: Board, worker: Worker) -> None:
    """Wait until every event sent is applied or dead-lettered."""

    def done() -> int:
        return board.applied + board.dead.total()

    def failure() -> str:
        what = (
            f"only {done()} of {board.sent} events were done {drain_timeout_s:g} s after the last"
        )
        return worker.failure(what)

    await _until(lambda: done() >= board.sent, drain_timeout_s, failure)


async def _show(board: Board, source: Source, options: Options, console: Console) -> None:
    """Keep the live screen fresh, or print a plain line now and then where there is none."""
    end_s = time.monotonic() + options.seconds
    board.mark(time.monotonic())
    if not console.is_terminal:
        while True:
            await asyncio.sleep(plain_line_every_s)
            now_s = time.monotonic()
            _say(console, line(board, at_s=now_s, left_s=max(end_s - now_s, 0.0)))
    with Live(console=console, auto_refresh=False) as live:
        while True:
            now_s = time.monotonic()
            left_s = max(end_s - now_s, 0.0)
            live.update(screen(board, source.titles, at_s=now_s, left_s=left_s), refresh=True)
            await asyncio.sleep(frame_s)


def _cause(failure: BaseException, worker: Worker) -> BaseException:
    """The first of several failures, a vendor's one in our words."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, KafkaError):
        return DemoFailed(worker.failure(f"the demo's own broker does not serve: {failure!r}"))
    return failure
