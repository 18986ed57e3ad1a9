"""The benchmark suite: what needs no server, run small; the contract of what it prints."""

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench import sizing
from bench.__main__ import meaning_of
from bench.backlog import Load, batches
from bench.inprocess import POINTS
from bench.measure import ContenderFailed, Sample, window
from bench.options import SEED, Options
from bench.progress import Counts
from bench.report import PAGE
from bench.scenarios import DEFAULT, ON_DEMAND, codec
from bench.scenarios import batch as small
from bench.tape import Tape

ROOT = Path(__file__).parents[2]
MARKER = re.compile(r"<!-- begin (\w+) -->")


def test_the_ids_of_scenarios_are_permanent() -> None:
    assert {*DEFAULT, *ON_DEMAND} == {
        *("pipeline", "floor", "naive", "peers", "transport", "store", "codec", "model", "profile"),
        *("batch", "freshness", "withdraw", "scale", "soak", "catchup", "cluster"),
    }


def test_every_scenario_says_what_its_number_means() -> None:
    for scenario in (*DEFAULT, *ON_DEMAND):
        assert meaning_of(scenario).endswith("."), scenario


def test_the_page_shows_every_scenario_and_its_markers_are_closed() -> None:
    page = PAGE.read_text()
    named = MARKER.findall(page)
    assert set(named) >= {*DEFAULT, "soak", "budgets", "sizing", "bound"}
    assert all(f"<!-- end {name} -->" in page for name in named)


def test_the_last_line_is_one_json_object(tmp_path: Path) -> None:
    code = (
        "import pathlib, bench.results as r; r.RESULTS = pathlib.Path('results');"
        "from bench.__main__ import main; main(['codec'])"
    )
    environment = {"BENCH_SCALE": "0.05", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    line = orjson.loads(done.stdout.splitlines()[-1])
    assert line["scenario"] == "codec"
    assert line["codec"]["EventDecoder: event to columns, checked"] > 0
    record = orjson.loads((tmp_path / "results" / "codec.json").read_bytes())
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["python"]
    assert (record["seed"], record["runs"]) == (SEED, 1)


def test_a_batch_is_measured_by_stage_and_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "BATCHES", {1: 8, 16: 8})
    result = small.run(Options(scale=0.01))
    assert {"LEARN of 1, us", "LEARN of 8 x 16, us", "RELATE of 1, us"} <= set(result.summary)
    learn = next(row for row in result.rows if row["batch"] == "LEARN of 16")
    assert learn["us_per_batch"] >= learn["score"] > 0


def test_the_same_load_is_the_same_bytes() -> None:
    load = Load(300, n_items=200, n_customers=50)
    assert list(load.records()) == list(load.records())


def test_a_load_has_only_known_customers_and_events_with_items() -> None:
    for key, value in Load(300, n_items=200, n_customers=50).records():
        event = orjson.loads(value)
        assert event["user_id"].encode() == key
        assert "item_id" in event
        assert "session_id" not in event


def test_batches_keep_each_partition_in_order_and_lose_nothing() -> None:
    load = Load(500, n_items=200, n_customers=50, partitions=3)
    next_offset = [0, 0, 0]
    for batch in batches(load, "t", batch=64):
        assert next(iter(batch.offsets)) == next_offset[batch.partition]
        next_offset[batch.partition] = batch.next_offset
    assert sum(next_offset) == 500


def test_a_window_leaves_out_the_warm_up_and_the_wait_for_rest() -> None:
    samples = [
        Sample(0.0, Counts(0), (0.0,)),
        Sample(9.0, Counts(100, pending=1), (5_000.0,)),
        Sample(10.0, Counts(1_100, pending=3), (15_000.0,)),
        Sample(12.0, Counts(1_100, pending=3), (99_000.0,)),
    ]
    found = window(samples, {"worker": []}, warm=100, total=1_100)
    assert found.events_per_second == 1_000.0
    assert found.cpu_us_per_event == {"worker": 10.0}


def test_a_contender_that_applies_all_at_once_is_not_measured() -> None:
    samples = [Sample(0.0, Counts(0), (0.0,)), Sample(1.0, Counts(500), (9.0,))]
    with pytest.raises(ContenderFailed, match="at once"):
        window(samples, {"worker": []}, warm=100, total=500)


def test_the_codec_scenario_measures_every_case() -> None:
    found = codec.run(Options(runs=1, scale=0.05))
    assert len(found.rows) >= 5
    assert all(row["us"] > 0 for row in found.rows)


def test_sizing_grows_with_the_shop() -> None:
    constants = sizing.Constants([sizing.Cpu(0, 25.0, 2.5, 7.5)], 3_000.0, 1_000.0)
    rows = [sizing.needs(shop, constants) for shop in sizing.SHOPS]
    for name in ("workers", "redis_gb", "usd_a_month"):
        assert [row[name] for row in rows] == sorted(row[name] for row in rows)


def test_every_function_that_the_profile_times_is_there() -> None:
    missing = [(owner, name) for owner, name, _ in POINTS if not hasattr(owner, name)]
    assert not missing


def test_a_tape_counts_pairs_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "tape"
    # In a process of its own: it changes the pipeline.
    subprocess.run([sys.executable, "-m", "bench.tape", str(path), "600", "50"], check=True)
    tape = Tape.read(path)
    assert tape.pairs_per_event > 1.0 and tape.lists_per_event > 0.1
