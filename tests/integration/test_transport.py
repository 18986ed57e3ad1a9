"""The micro-batch transport, with workers as processes that are killed, stopped and joined."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.topics import TopicSpec, ensure_topics
from stream_app.embedded import TansuBroker
from stream_app.ports import Record
from tests.conftest import NewTopicFactory, UniqueName
from tests.servers import ApacheKafka, Kafka, create_topic

DEADLINE_S = 60.0  # only to end a test that hangs


class Worker:
    """One ``faust worker`` process; its log is what an assertion shows."""

    def __init__(self, plan: dict[str, Any], number: int) -> None:
        self.log = Path(plan["directory"]) / f"worker-{number}.log"
        command = ["-m", "faust", "-A", "tests.integration.transport_worker"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, "worker", "-l", "info", "--without-web"],
                env=os.environ | {"TRANSPORT_PLAN": json.dumps(plan)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.diary = Path(plan["directory"]) / f"diary-{self.process.pid}"

    async def ended(self) -> int:
        """Wait for the exit code."""
        await until(lambda: self.process.poll() is not None, self.tail)
        return self.process.returncode

    async def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    def tail(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-6000:]


class Bench:
    """A topic, a directory for the workers' state, and the workers."""

    def __init__(self, kafka: Kafka, directory: Path, topic: str, stack: ExitStack) -> None:
        self.kafka = kafka
        self.directory = directory
        self.topic = topic
        self.group = f"group-{topic}"
        # Our own broker allows one second; others allow no less than six by default.
        self.session_timeout_s = 3.0 if "Java" in kafka.kind else 6.0
        self.workers: list[Worker] = []
        self._stack = stack

    def start(self, **plan: Any) -> Worker:
        """Start a worker; ``plan`` as in ``transport_worker.PLAN``."""
        given = {
            "bootstrap": self.kafka.bootstrap,
            "directory": str(self.directory),
            "topic": self.topic,
            "group": self.group,
            "session_timeout_s": self.session_timeout_s,
        }
        worker = Worker(given | plan, len(self.workers))
        self._stack.callback(worker.process.wait)
        self._stack.callback(worker.process.kill)
        self.workers.append(worker)
        return worker

    async def send(self, partition: int, values: range) -> None:
        """Append records whose values are numbers, in several requests."""
        async with KafkaLog([self.kafka.bootstrap]) as kafka_log:
            for start in range(values.start, values.stop, 500):
                part = range(start, min(start + 500, values.stop))
                await kafka_log.send(
                    self.topic, partition, [Record(b"key", b"%d" % number) for number in part]
                )

    def batches(self, partition: int = 0) -> list[dict[str, Any]]:
        """Return what was handled and stored."""
        path = self.directory / f"{partition}.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def values(self, partition: int = 0) -> list[int]:
        """Return the stored numbers in the order in which they were handled."""
        return [value for batch in self.batches(partition) for value in batch["values"]]

    async def stored(self, count: int, *partitions: int) -> None:
        """Wait until that many numbers are stored, in the partitions together."""
        await until(
            lambda: sum(len(self.values(number)) for number in partitions or (0,)) >= count,
            lambda: "\n".join(worker.tail() for worker in self.workers),
        )

    async def committed(self, partition: int = 0) -> int:
        """Return the group's offset, −1 for none."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        try:
            tp = aiokafka.TopicPartition(self.topic, partition)
            offsets = await admin.list_consumer_group_offsets(self.group, partitions=[tp])
        finally:
            await admin.close()
        return int(offsets[tp].offset)


NewBench = Callable[..., Awaitable[Bench]]


@pytest.fixture
def new_bench(kafka: Kafka, new_topic: NewTopicFactory, tmp_path: Path) -> Iterator[NewBench]:
    """Return a coroutine function that makes a bench with a topic of so many partitions."""
    with ExitStack() as stack:

        async def create(partitions: int = 1) -> Bench:
            topic = await new_topic("transport", partitions=partitions)
            return Bench(kafka, tmp_path, topic, stack)

        yield create


@pytest.fixture
async def bench(new_bench: NewBench) -> AsyncIterator[Bench]:
    """A bench with one partition."""
    yield await new_bench()


async def until(true: Callable[[], bool], explanation: Callable[[], str]) -> None:
    """Wait for something to become true; a hang fails the test with an explanation."""
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + DEADLINE_S
    while not true():
        if clock() > deadline_s:
            pytest.fail(f"did not happen in {DEADLINE_S:g} s\n{explanation()}", pytrace=False)
        await asyncio.sleep(0.05)


async def until_committed(bench: Bench, offset: int, partition: int = 0) -> None:
    """Wait until the group's offset is there."""
    for _ in range(200):
        if await bench.committed(partition) == offset:
            return
        await asyncio.sleep(0.05)
    assert await bench.committed(partition) == offset, bench.workers[-1].tail()


async def test_records_arrive_once_in_order_in_batches_within_the_limit(
    new_bench: NewBench,
) -> None:
    bench = await new_bench(partitions=3)
    for partition in range(3):
        await bench.send(partition, range(3_000))
    worker = bench.start(batch_records_max=700)
    await bench.stored(9_000, 0, 1, 2)
    for partition in range(3):
        assert bench.values(partition) == list(range(3_000))
        sizes = [len(batch["offsets"]) for batch in bench.batches(partition)]
        assert max(sizes) <= 700
        assert len(sizes) < 3_000 / 500 + 6, "fetches larger than a request are not split further"
    assert bench.batches()[0]["keys"][0] == "key"
    await until_committed(bench, 3_000)
    assert await worker.stop() == 0


async def test_kill_in_the_middle_leaves_no_gap_and_nothing_doubled(bench: Bench) -> None:
    await bench.send(0, range(4_000))
    worker = bench.start(delay_s=0.1, batch_records_max=100)
    await bench.stored(1_000)
    worker.process.kill()
    worker.process.wait()
    assert len(bench.values()) < 4_000
    bench.start()
    await bench.stored(4_000)
    assert bench.values() == list(range(4_000))


async def test_sigterm_finishes_the_call_under_way_commits_and_loses_nothing(
    bench: Bench,
) -> None:
    await bench.send(0, range(2_000))
    worker = bench.start(delay_s=0.3)
    await bench.stored(200)
    assert await worker.stop() == 0, worker.tail()
    kept = len(bench.values())
    assert kept < 2_000
    assert await bench.committed() == kept, "what is stored is committed, no more"
    bench.start()
    await bench.stored(2_000)
    assert bench.values() == list(range(2_000))


async def test_sigterm_ends_a_worker_whose_kernels_are_still_being_compiled(bench: Bench) -> None:
    worker = bench.start(compiles=True)
    await until((bench.directory / "compiling").exists, worker.tail)
    assert await worker.stop() == 0, worker.tail()


async def test_workers_joining_and_leaving_lose_and_double_nothing(new_bench: NewBench) -> None:
    bench = await new_bench(partitions=4)
    partitions = range(4)
    for partition in partitions:
        await bench.send(partition, range(1_500))

    def pids() -> set[int]:
        return {batch["pid"] for number in partitions for batch in bench.batches(number)}

    first = bench.start(delay_s=0.25, batch_records_max=25)
    await bench.stored(300, *partitions)
    second = bench.start(delay_s=0.25, batch_records_max=25)
    await until(lambda: len(pids()) == 2, second.tail)
    assert "revoked [0, 1, 2, 3]" in first.diary.read_text()
    assert await first.stop() == 0, first.tail()
    assert any(len(bench.values(partition)) < 1_500 for partition in partitions)
    await bench.stored(4 * 1_500, *partitions)
    for partition in partitions:
        assert bench.values(partition) == list(range(1_500))
    assert pids() == {first.process.pid, second.process.pid}


async def test_only_committed_transactions_arrive_and_the_commit_passes_their_markers(
    bench: Bench,
) -> None:
    if not bench.kafka.is_apache:
        pytest.skip(f"{bench.kafka.kind} has no transactions")
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bench.kafka.bootstrap, transactional_id=bench.topic
    )
    async with producer:
        for start, keep in ((0, True), (10, False), (20, True), (30, False)):
            await producer.begin_transaction()
            for value in range(start, start + 10):
                await producer.send_and_wait(bench.topic, b"%d" % value, partition=0)
            await (producer.commit_transaction() if keep else producer.abort_transaction())
    worker = bench.start()
    await until_committed(bench, 44)  # 40 records and 4 markers
    assert bench.values() == [*range(10), *range(20, 30)]
    assert bench.batches()[-1]["next"] == 44, "the cursor passes trailing markers, too"
    assert await worker.stop() == 0


async def test_a_slow_handler_keeps_its_place_in_the_group(bench: Bench) -> None:
    await bench.send(0, range(3_000))
    worker = bench.start(delay_s=bench.session_timeout_s + 2, delay_once=True)
    await bench.stored(3_000)
    assert bench.values() == list(range(3_000))
    await until_committed(bench, 3_000)
    assert worker.diary.read_text() == "assigned [0]\n", "no rebalance"


@pytest.mark.parametrize("what", ["roll_back_at", "rewind_at"])
async def test_a_rewind_drops_what_is_buffered_and_replays(bench: Bench, what: str) -> None:
    await bench.send(0, range(3_000))
    worker = bench.start(**{what: 1_500})
    await bench.stored(3_000)
    assert bench.values() == list(range(3_000))
    await until_committed(bench, 3_000)
    await bench.send(0, range(3_000, 3_100))
    await bench.stored(3_100)
    assert bench.values() == list(range(3_100))
    assert await worker.stop() == 0


async def test_a_failing_handler_stops_the_worker_with_nothing_acked_after_it(
    bench: Bench,
) -> None:
    await bench.send(0, range(1_000))
    worker = bench.start(fail_at=500)
    assert await worker.ended() > 0
    assert "the worker stops: ValueError: planned failure at 500" in worker.log.read_text()
    assert bench.values() == list(range(500))
    assert await bench.committed() == 500
    bench.start()
    await bench.stored(1_000)
    assert bench.values() == list(range(1_000))


async def test_a_fenced_partition_is_dropped_and_claimed_again_when_nobody_takes_it(
    bench: Bench,
) -> None:
    await bench.send(0, range(300))
    worker = bench.start(fence_once=True)
    await bench.stored(300)
    assert bench.values() == list(range(300))
    assert worker.diary.read_text() == "assigned [0]\n" * 2
    assert "fenced, dropping what is queued" in worker.log.read_text()


async def test_a_position_beyond_the_end_stops_the_worker_and_names_the_cure(
    bench: Bench,
) -> None:
    await bench.send(0, range(100))
    worker = bench.start(start=5_000)
    assert await worker.ended() > 0
    assert (
        f"the stored position 5000 of {bench.topic}[0] lies beyond the end"
        in worker.log.read_text()
    )
    assert bench.values() == []


async def test_a_position_below_the_start_goes_on_there_and_says_what_is_missing(
    bench: Bench,
) -> None:
    if not bench.kafka.is_apache:
        pytest.skip(f"{bench.kafka.kind} cannot delete records")
    await bench.send(0, range(100))
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_records(
            {aiokafka.TopicPartition(bench.topic, 0): RecordsToDelete(before_offset=60)}
        )
    finally:
        await admin.close()
    worker = bench.start(start=10)
    await bench.stored(40)
    assert bench.values() == list(range(60, 100))
    assert "retention removed 50 offsets (10 to 59)" in worker.log.read_text()


async def test_the_embedded_broker_serves_workers_too(
    tansu: TansuBroker, unique: UniqueName, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        kafka = Kafka(tansu.bootstrap, "Tansu", is_apache=False)
        bench = Bench(kafka, tmp_path, unique("embedded"), stack)
        spec = TopicSpec(bench.topic, partitions=1)
        await ensure_topics([spec], brokers=[tansu.bootstrap])
        await bench.send(0, range(1_000))
        worker = bench.start()
        await bench.stored(1_000)
        assert bench.values() == list(range(1_000))
        await until_committed(bench, 1_000)
        assert await worker.stop() == 0, worker.tail()
        (tmp_path / "0.jsonl").write_text(json.dumps({"next": 5_000, "values": []}) + "\n")
        lost = bench.start()  # the broker was restarted, say, and its memory with it
        assert await lost.ended() > 0
        assert "stored position 5000" in lost.log.read_text()


async def test_a_broker_that_dies_and_comes_back_costs_nothing(
    kafka_process: ApacheKafka, unique: UniqueName, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        kafka = Kafka(kafka_process.bootstrap, "Apache Kafka (Java)", is_apache=True)
        bench = Bench(kafka, tmp_path, unique("broker"), stack)
        await create_topic(kafka.bootstrap, bench.topic)
        await bench.send(0, range(1_000))
        worker = bench.start(delay_s=0.1)
        await bench.stored(300)
        kafka_process.kill()
        kafka_process.start()
        await bench.send(0, range(1_000, 1_500))
        await bench.stored(1_500)
        assert bench.values() == list(range(1_500))
        await until_committed(bench, 1_500)
        assert worker.process.poll() is None, worker.tail()
        assert await worker.stop() == 0
