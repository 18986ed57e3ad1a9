"""Real workers on a real broker and server: one is killed in the middle, and all adds up."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

import stream_app
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import StoredRecord, consume
from stream_app.embedded import ValkeyServer, free_port
from stream_app.events import EventDecoder
from stream_app.ports import ACCOUNTS_ID, USERS, RawBatch, Record
from stream_app.settings import Settings, load_settings, own_topics
from stream_app.simulator import LIVE, Shop
from stream_app.worker import redis_store
from tests.conftest import UniqueName
from tests.servers import Kafka

DEADLINE_S = 300.0  # only to end a test that hangs
CLEAN, BAD, PARTITIONS = 20_000, 5_000, 4
BAD_KEY = b"bad-"
TUNED = {  # as `tune` writes it
    "pair_half_life_s": 500_000.0,
    "popularity_half_life_s": 50_000.0,
    "vector_half_life_s": 700_000.0,
    "pair_gap_s": 17.0,
}
_MALFORMED = (b"", b"not json", b'{"event":"view"', b"[1,2]", b'{"event":"view","ts":1}', b"\xff")


class Shopfront:
    """Topics of this test's own, a store, and workers as processes."""

    def __init__(
        self, kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, home: Path, **more: str
    ) -> None:
        variables = {
            "STREAM_APP_KAFKA_URL": f"kafka://{kafka.bootstrap}",
            "STREAM_APP_REDIS_URL": valkey.url,
            "STREAM_APP_APP_ID": unique("worker-test"),
            "STREAM_APP_CLICKSTREAM_PARTITIONS": str(PARTITIONS),
            "STREAM_APP_COOCCURRENCE_PARTITIONS": str(PARTITIONS),
            **own_topics(unique("")),
            **more,
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
        self.settings: Settings = load_settings(variables)
        self.log = KafkaLog([kafka.bootstrap])
        self.store = redis_store(self.settings)
        self.stack = ExitStack()
        self._environment = kept | variables
        self.home = home
        self._logs: list[Path] = []

    @asynccontextmanager
    async def opened(self, *, topics: bool = True) -> AsyncIterator["Shopfront"]:
        """Connected, with its ``topics``; what was started ends with it."""
        async with self.log:
            try:
                if topics:
                    code, out, err = await self.run("topics")
                    assert code == 0, out + err
                yield self
            finally:
                self.stack.close()
                await self.store.close()

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        path = self.home / f"worker-{len(self._logs)}.log"
        self._logs.append(path)
        with path.open("wb") as log:
            process = subprocess.Popen(
                [*_faust("worker"), "-l", "info", "--web-port", str(free_port())],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output and error output of a command."""
        process = await asyncio.create_subprocess_exec(
            *_faust(*arguments),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def send(self, records: list[Record]) -> None:
        """Append to the clickstream, by key, in requests of some hundred records."""
        for start in range(0, len(records), 2_000):
            parts: dict[int, list[Record]] = defaultdict(list)
            for record in records[start : start + 2_000]:
                parts[partition_of(record.key, PARTITIONS)].append(record)
            for partition, part in parts.items():
                await self.log.send(self.settings.clickstream_topic, partition, part)

    async def accounts(self, space: str, field: str = "cursor") -> int:
        """Sum of a field over the partitions."""
        blobs = await self.store.load(space, range(PARTITIONS), [ACCOUNTS_ID] * PARTITIONS)
        return sum(orjson.loads(blob)[field] for blob in blobs if blob)

    async def clicks(self) -> list[StoredRecord]:
        """The clickstream as it lies in the log: what was sent, and the worker's own records."""
        topic, brokers = self.settings.clickstream_topic, [self.settings.bootstrap]
        return [record async for record in consume(topic, brokers=brokers)]

    async def applied(self) -> bool:
        """Whether all of the clickstream has been applied."""
        return await self.accounts(USERS) == len(await self.clicks())

    async def until(self, done: Callable[[], Any], *, shows: object = "") -> None:
        """Wait for an awaited condition; ``shows`` is printed when it does not come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while not await done():
            logs = "\n".join(path.read_text(errors="replace")[-3000:] for path in self._logs)
            assert loop.time() < deadline, f"{logs}\n{shows}"
            await asyncio.sleep(0.2)


def _faust(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "faust", "-A", "stream_app.app", *arguments]


def without_timeouts(home: Path) -> dict[str, str]:
    """The setting of a journey that announces nothing, so that the log stays what was sent."""
    journey = home / "journey.toml"
    shipped = (Path(stream_app.__file__).parent / "journey.toml").read_text()
    journey.write_text(shipped.partition("[timeouts.")[0])
    return {"STREAM_APP_JOURNEY_FILE": str(journey)}


@pytest.fixture
async def shop(
    kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, tmp_path: Path
) -> AsyncIterator[Shopfront]:
    """Topics created, nothing started. Without time-outs: they would go on adding to the log while
    it is verified. The model is a tuned one, so that workers and ``verify`` must read the same.
    """
    model = tmp_path / "model.json"
    model.write_bytes(orjson.dumps(TUNED))
    files = {"STREAM_APP_MODEL_FILE": str(model)}
    shop = Shopfront(kafka, valkey, unique, tmp_path, **files, **without_timeouts(tmp_path))
    async with shop.opened():
        yield shop


def traffic() -> list[Record]:
    """A simulated shop's events, with records that are no events mixed in evenly."""
    simulated = Shop(seed=3, n_items=300, n_customers=600, rate=50.0, pace=LIVE)
    records = []
    for number, (key, value) in enumerate(simulated.events(CLEAN)):
        records.append(Record(key, value))
        if number % (CLEAN // BAD) == 0:
            bad = _MALFORMED[number // (CLEAN // BAD) % len(_MALFORMED)]
            records.append(Record(BAD_KEY + b"%d" % number, bad))
    return records


def rejects(settings: Settings, clicks: list[StoredRecord]) -> dict[tuple[str, int, int], str]:
    """The reason of every record that is no event, by topic, partition and offset."""
    n = len(clicks)
    values = [record.value for record in clicks]
    raw = RawBatch("", 0, n, range(n), [None] * n, values, [-1] * n, [()] * n)
    return {
        (settings.clickstream_topic, clicks[row].partition, clicks[row].offset): reason
        for row, reason, _ in EventDecoder(settings).decode(raw).rejects
    }


async def dead_letters(
    shop: Shopfront, clicks: list[StoredRecord]
) -> dict[tuple[str, int, int], str]:
    """The same, as it was dead-lettered."""
    values = {(record.partition, record.offset): record.value for record in clicks}
    found: dict[tuple[str, int, int], str] = {}
    topic, brokers = shop.settings.dead_letter_topic, [shop.settings.bootstrap]
    async for record in consume(topic, brokers=brokers):
        said = {name: value.decode() for name, value in record.headers}
        origin = said["topic"], int(said["partition"]), int(said["offset"])
        assert found.setdefault(origin, said["reason"]) == said["reason"]
        assert record.value == values[origin[1:]]
    return found


async def test_a_worker_is_killed_and_all_adds_up(shop: Shopfront) -> None:
    records = traffic()
    first, _second = shop.worker(), shop.worker()
    half = len(records) // 2
    await shop.send(records[:half])

    async def some() -> bool:
        return await shop.accounts(USERS) > half // 4

    await shop.until(some)
    first.send_signal(signal.SIGKILL)
    shop.worker()
    await shop.send(records[half:])

    await shop.until(shop.applied)
    clicks = await shop.clicks()
    assert len(clicks) >= len(records)  # sessions are merged into their customers at login
    letters = rejects(shop.settings, clicks)
    assert await dead_letters(shop, clicks) == letters
    assert len(letters) == BAD

    verdict: dict[str, Any] = {}

    async def verified() -> bool:  # item partitions lag behind: one was the killed worker's
        _code, out, err = await shop.run("verify")
        verdict.update(json.loads(out.strip().splitlines()[-1]), text=out + err)
        return bool(verdict["passed"])

    await shop.until(verified, shows=verdict)
    # Records of the workers' own, as those that join sessions to customers, may have come since.
    assert len(clicks) <= verdict["events"] <= len(await shop.clicks())
    assert (verdict["dead_lettered"], verdict["lost"], verdict["doubled"]) == (BAD, 0, 0)
    assert verdict["divergent_lists"] == verdict["divergent_customers"] == 0
    assert verdict["item_mass_max_relative_error"] <= 1e-9
    assert verdict["passed"] is True
    await commands_answer(shop, records, len(clicks))


async def commands_answer(shop: Shopfront, records: list[Record], cursor: int) -> None:
    """The commands that show what is there, side by side to save time."""
    events = [
        orjson.loads(record.value or b"")
        for record in records
        if not (record.key or b"").startswith(BAD_KEY)
    ]
    user = next(e["user_id"] for e in events if e["event"] == "purchase" and "user_id" in e)
    item = next(e["item_id"] for e in events if e["event"] == "purchase")
    asked = (
        ("check",),
        ("recommend", user, "--why"),
        ("profile", user),
        ("similar", item),
        ("dlq", "list", "--limit", "3"),
        ("weights", "--out", str(shop.home / "blend.json")),
        ("recommend", "nobody"),
        ("profile", "nobody"),
        ("similar", "nothing"),
    )
    answers = await asyncio.gather(*(shop.run(*arguments) for arguments in asked))
    check, recommend, profile, similar, dlq, _weights, *unknown = answers
    for code, out, err in answers[:6]:
        assert code == 0, out + err
    assert json.loads(check[1].splitlines()[-1])["cursor"] >= cursor
    assert user in recommend[1]
    assert "because of" in recommend[1]
    assert json.loads(profile[1].splitlines()[-1])["purchases"] >= 1
    assert item in similar[1]
    assert json.loads(dlq[1].splitlines()[-1])["total"] == BAD
    assert json.loads((shop.home / "blend.json").read_bytes())["observed"]["browse"] > 0
    for (code, _, err), name in zip(unknown, ("nobody", "nobody", "nothing"), strict=True):
        assert code == 1
        assert name in err
        assert "Traceback" not in err
