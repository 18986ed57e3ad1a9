"""Files of every event family, as their vendors document them, become lists on a running worker."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis

from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.commands.exposure import exposed, groups_of, latest_lists
from stream_app.commands.replay import read_lines
from stream_app.formats import FORMAT_HEADER
from stream_app.hashing import public_name
from stream_app.ports import Record
from tests.operations.live import LiveShop, until, view

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES = {
    "ga4_export.jsonl": "ga4",
    "ga4_protocol.jsonl": "ga4",
    "segment.jsonl": "segment",
    "snowplow.jsonl": "snowplow",
    "snowplow.tsv": "snowplow",
    "cloudevents.jsonl": "cloudevents",
}
BINARY = "cloudevents.jsonl, binary"
BY_COMMAND = "retailrocket.csv"


def customers(name: str) -> dict[str, bytes]:
    """Public names of the customers of a golden file, and the keys of their records."""
    found = {}
    for events in json.loads((GOLDEN / f"{name}.expected.json").read_text()):
        for event in events:
            anonymous = "user_id" not in event
            text = str(event["session_id" if anonymous else "user_id"])
            found[public_name(text, anonymous=anonymous)] = text.encode()
    return found


def logins(name: str) -> dict[str, int]:
    """Public names of devices whose users log in on them later in the file, and the row of that."""
    anonymous: set[str] = set()
    found: dict[str, int] = {}
    expected = json.loads((GOLDEN / f"{name}.expected.json").read_text())
    for row, events in enumerate(events for events in expected if events):
        for event in events:
            device = event.get("session_id")
            if "user_id" not in event:
                anonymous.add(device)
            elif device in anonymous:
                found.setdefault(public_name(device, anonymous=True), row)
    return found


def in_binary_mode(line: bytes) -> Record:
    """A structured CloudEvent as the other of the two ways to send it."""
    said: dict[str, Any] = orjson.loads(line)
    said["id"] += "-binary"  # another event: one that comes twice counts once
    encoded = said.pop("data_base64", None)
    data = base64.b64decode(encoded) if encoded else orjson.dumps(said.pop("data"))
    who = orjson.loads(data).get("user_id") or said.get("userid") or said.get("sessionid")
    headers = [(f"ce_{name}", str(value).encode()) for name, value in said.items()]
    return Record(str(who).encode(), data, (*headers, ("content-type", b"application/json")))


async def send(shop: LiveShop, records: list[Record]) -> None:
    async with KafkaLog([shop.bootstrap]) as log:
        for record in records:
            p = partition_of(record.key, shop.settings.clickstream_partitions)
            await log.send(shop.settings.clickstream_topic, p, [record])
            shop.offsets += 1


def records_of(name: str) -> list[Record]:
    """The file's lines as they are; those that mean nothing to us too, to be counted as such."""
    if name == BINARY:
        lines = (GOLDEN / "cloudevents.jsonl").read_bytes().splitlines()
        return [in_binary_mode(line) for line in lines]
    lines_ = read_lines(GOLDEN / name, FAMILIES[name])
    return [lines_.record(row) for row in range(len(lines_))]


@pytest.mark.parametrize("name", [*FAMILIES, BINARY, BY_COMMAND])
def test_files_of_a_family_go_unchanged_through_kafka_to_their_customers_lists(
    name: str, live: LiveShop
) -> None:
    live.wait_for("similar:p2")  # there is something to recommend
    file = "cloudevents.jsonl" if name == BINARY else name
    wanted, merged = customers(file), logins(file)
    assert wanted
    before = {who: version(live, who) for who in wanted}
    if name == BY_COMMAND:
        command = [sys.executable, "-m", "faust", "-A", "stream_app.app", "replay"]
        command += ["--format", "retailrocket", str(GOLDEN / name)]
        done = subprocess.run(command, env=live.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = orjson.loads(done.stdout.splitlines()[-1])
        assert (said["sent"], said["ignored"]) == (4, 1)  # the header is no event
        live.offsets += said["sent"]
    else:
        records, sent = records_of(name), 0
        for device, row in merged.items():  # partitions keep no order among them
            asyncio.run(send(live, records[sent:row]))
            until(partial(listed, live, [device], before), f"lists of {device}")
            sent = row
        asyncio.run(send(live, records[sent:]))
    rest = wanted.keys() - merged.keys()
    until(lambda: listed(live, rest, before), f"lists of {sorted(rest)}")
    until(lambda: not any(version(live, who) for who in merged), f"{sorted(merged)} to be merged")


def test_records_of_no_meaning_are_counted_by_name_in_the_metrics(live: LiveShop) -> None:
    header = ((FORMAT_HEADER, b"segment"),)
    said = [b'{"type":"page","userId":"anna"}', b'{"event":"Coupon Applied","userId":"anna"}']
    asyncio.run(send(live, [Record(b"anna", value, header) for value in (*said, said[0])]))
    counts = {'name="page"} 2.0', 'name="Coupon Applied"} 1.0'}
    samples = {f"stream_app_ignored_events_total{{{count}" for count in counts}
    until(lambda: samples <= set(live.get("/metrics")[1].decode().splitlines()), str(samples))


def test_exposure_is_measured_over_the_lists_that_customers_have(live: LiveShop) -> None:
    async def measured() -> dict[str, Any]:
        lists = await latest_lists(live.settings, "home")
        return exposed(lists, await groups_of(live.settings, "brand"))

    found = asyncio.run(measured())
    assert 0.0 <= found["gini"] <= 1.0
    assert sum(row["share"] for row in found["groups"].values()) == pytest.approx(1.0)


def listed(shop: LiveShop, customers: Iterable[str], before: dict[str, int]) -> bool:
    """Whether all of them have lists that are newer than ``before``."""
    return all(version(shop, who) > before[who] and lists(shop, who) for who in customers)


def version(shop: LiveShop, who: str) -> int:
    with Redis.from_url(shop.redis_url, protocol=2) as client:
        return int(client.hget(f"rec:{who}", "version") or 0)


def lists(shop: LiveShop, who: str) -> list[str]:
    """Names of a customer's lists that have entries."""
    with Redis.from_url(shop.redis_url, protocol=2) as client:
        fields = client.hgetall(f"rec:{who}").items()
    return [name.decode() for name, text in fields if text.startswith(b"[{")]


def test_no_record_of_any_family_was_dead_lettered(live: LiveShop) -> None:
    live.send(view("after-the-families", "p1", time.time()))
    live.wait_for("rec:after-the-families", "home")
    with Redis.from_url(live.redis_url, protocol=2) as client:
        accounts = [
            orjson.loads(client.get(key) or b"{}") for key in client.keys("sa1:{u*}:accounts")
        ]
    assert sum(row["dead_lettered"] for row in accounts) == 3  # what the shop began with
