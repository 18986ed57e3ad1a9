"""The worker's side of SUPPORT: its topics, and what is measured of it."""

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_app import worker as composition
from stream_app.adapters.memory import MemoryLog
from stream_app.adapters.telemetry import Standing
from stream_app.core.support import SupportModel
from stream_app.embedded import ValkeyServer
from stream_app.ports import RawBatch
from stream_app.settings import Settings
from stream_app.support_files import read_rules
from stream_app.support_knowledge import KnowledgeBase
from stream_app.supporting import Judge
from stream_app.worker import Worker, topic_specs


def test_labels_are_kept_for_good_and_messages_as_long_as_events() -> None:
    given = {"support_train_file": "m.csv", "clickstream_retention_days": 3, "item_ttl_days": 10}
    specs = {spec.name: spec for spec in topic_specs(Settings.model_validate(given))}
    labels = specs["support-labels"]
    assert labels.config == {"cleanup.policy": "compact", "delete.retention.ms": "864000000"}
    assert not labels.setting  # nothing depends on how many partitions it has
    assert specs["support-knowledge"].config == labels.config
    for name in ("support", "support-assist"):
        assert specs[name].config == {"retention.ms": "259200000"}
        assert specs[name].setting == "STREAM_APP_CLICKSTREAM_PARTITIONS"


def batch(*values: bytes) -> RawBatch:
    n = len(values)
    return RawBatch("support", 0, n, range(n), [b"ada"] * n, values, [-1] * n, [()] * n)


def value(worker: Worker, name: str, **labels: str) -> float:
    """Sum of the samples of ``name`` that carry ``labels``."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(worker.metrics.exposition().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_messages_their_dead_letters_and_their_calls_of_redis_are_measured(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "kafka_log", lambda _settings: MemoryLog())
    settings = Settings.model_validate(
        {"support_train_file": "messages.csv", "redis_url": valkey.url, "redis_prefix": "seen:"}
    )
    worker = Worker(settings)
    assert worker.support is not None
    model = SupportModel.fit(["my parcel", "my money"] * 2, ["track_order", "get_refund"] * 2)
    worker.support.judge = Judge(model, read_rules(None, ()), KnowledgeBase(settings), None)
    worker.metrics.registry.register(
        Standing(
            worker.metrics,
            partitions=lambda: (),
            stages={kept.topic: kept.name for kept in worker.kept},
            accounts=worker.accounts,
            sizes=worker.sizes,
            outcomes=lambda: (),
            ignored=dict,
            version="1",
        )
    )
    handlers = {name: handler for name, _, handler, _ in worker.handlers()}
    try:
        await worker.support.assign(0)
        asked = orjson.dumps({"message_id": "m1", "user_id": "ada", "text": "my parcel"})
        await handlers["support"](batch(asked, b"{", asked))
    finally:
        await worker.store.close()
    records = "stream_app_records_total"
    assert value(worker, records, stage="support", outcome="applied") == 2
    assert value(worker, records, stage="support", outcome="dead_lettered") == 1
    assert value(worker, "stream_app_cursor_offset", stage="support") == 3
    assert value(worker, "stream_app_last_commit_timestamp_seconds", stage="support") > 0
    assert value(worker, "stream_app_dead_letters_total", reason="malformed") == 1
    sent = value(worker, "stream_app_published_records_total", topic="support-assist")
    assert sent == 2
    calls = "stream_app_dependency_duration_seconds_count"
    assert value(worker, calls, dependency="redis", operation="claim") == 1
    assert value(worker, calls, dependency="redis", operation="get") == 2  # their journeys
    assert value(worker, calls, dependency="redis", operation="commit") == 2  # one clears
    assert value(worker, calls, dependency="kafka", operation="send") == 2
