"""The page of benchmarks: what is put there, what stays, what a record of a result says."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console

import bench.__main__ as command
from bench import machine, report, results, sizing
from bench.contenders import registry
from bench.contest import ROOT
from bench.options import Options, from_environment
from bench.results import NotReported, Result
from bench.scenarios import codec

MACHINE = {"processor": "P", "cores": 2, "python": "3", "revision": "abc", "load_average": 0.5}
CPU = {"worker": 25.0, "broker": 5.0, "redis": 10.0, "total": 40.0}
PIPELINE = Result(
    {"events_per_second": 20_000.0, "cpu_us_per_event_by_process": CPU, "cpu_us_per_event": 40.0}
    | {"ratio": {"naive": 79.0}, "ratio_one_list": {}},
    [{"contender": "ours", "events_per_second": 20_000.0}],
    notes=["broker: B", "runs of pipeline: [1, 2]"],
    runs=3,
)


@pytest.fixture(autouse=True)
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and results of its own."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PAGE", tmp_path / "performance.md")
    blocks = {
        "budgets": "| budget | measured | holds |\n|---|---|---|\n"
        "| ≥ Kafka Streams | 1.8 | yes |\n| an old budget | 1 | yes |",
        **dict.fromkeys(("pipeline", "codec", "sizing", "bound"), "as it was"),
    }
    text = "".join(f"<!-- begin {n} -->\n{b}\n<!-- end {n} -->\n" for n, b in blocks.items())
    report.PAGE.write_text(text)
    return report.PAGE


def saved(scenario: str, result: Result, *, scale: float = 1.0, **where: Any) -> None:
    results.save(scenario, "What it means.", Options(scale=scale), result, MACHINE | where)


def section(page: Path, name: str) -> str:
    text = page.read_text()
    return text.partition(f"<!-- begin {name} -->\n")[2].partition(f"\n<!-- end {name} -->")[0]


def test_sections_without_a_result_stay(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved("pipeline", PIPELINE)
    report.write()
    assert section(page, "codec") == section(page, "sizing") == "as it was"
    shown = section(page, "pipeline")
    assert "| ours | 20,000 |" in shown
    assert "medians of 3 runs, load before 0.5" in shown
    assert "- broker: B" in shown
    assert "runs of pipeline" not in shown
    said = capsys.readouterr().out
    assert "codec stays as it was: no result" in said
    assert "make bench SCENARIO=codec" in said
    assert "3 of 5 sections written" in said


@pytest.mark.parametrize(("scale", "revision"), [(0.5, "abc"), (1.0, "abc+"), (1.0, None)])
def test_a_trial_is_only_shown_when_asked_for(
    page: Path, capsys: pytest.CaptureFixture[str], scale: float, revision: str | None
) -> None:
    saved("pipeline", PIPELINE, scale=scale, revision=revision)
    report.write()
    assert section(page, "pipeline") == section(page, "bound") == "as it was"
    assert "| an old budget" not in section(page, "budgets")
    assert "79" not in section(page, "budgets")
    assert "pipeline stays as it was" in capsys.readouterr().out
    report.write(trials=from_environment({"REPORT_TRIALS": "1"}).trials)
    assert "| ours |" in section(page, "pipeline")
    assert "| 79 | **no** |" in section(page, "budgets")


def test_a_result_of_another_schema_is_none(page: Path) -> None:
    saved("pipeline", PIPELINE)
    path = results.RESULTS / "pipeline.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"schema": 1}))
    with pytest.raises(NotReported, match="no result"):
        results.reported("pipeline", trials=True)


def test_budgets_keep_the_rows_that_were_not_measured_anew(page: Path) -> None:
    saved("pipeline", PIPELINE)
    report.write()
    rows = section(page, "budgets").splitlines()
    assert len(rows) == 2 + len(report.BUDGETS)
    assert "| ≥ Kafka Streams | 1.8 | yes |" in rows
    assert "| `pipeline` ≥ 80 × `naive` | 79 | **no** |" in rows
    assert "| `soak`: of it, what Redis uses grows ≤ 5 MB per hour | – | not measured |" in rows


def test_budgets_on_the_real_page_are_those_that_are_checked() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    block = page.partition("<!-- begin budgets -->")[2].partition("<!-- end")[0]
    rows = [line[2:].partition(" | ")[0] for line in block.splitlines() if line[:2] == "| "]
    assert set(rows[1:]) <= {text for text, *_ in report.BUDGETS}
    assert len(rows) > 10


def found(text: str, summary: Mapping[str, Any]) -> tuple[Any, bool]:
    """What the budget that begins so finds, and whether it holds."""
    ((find, holds),) = [(f, h) for t, _, f, h in report.BUDGETS if t.startswith(text)]
    return find(summary), holds(find(summary))


def test_the_budget_of_withdrawals_is_that_of_the_worst_loaded_row() -> None:
    rows = [("idle", 3_000.0), ("loaded", 1_500.0), ("loaded", 400.0)]
    states = [{"worker": worker, "max_ms": ms} for worker, ms in rows]
    assert found("stock 0 or a barred price", {"states": states}) == (1_500.0, False)


def test_the_budgets_of_memory_name_the_data() -> None:
    data = [
        {"events_of": "simulated shop", "item_state_bytes": 414, "customer_state_bytes": 562},
        {"events_of": "yoochoose_train.csv.gz", "item_state_bytes": 422}
        | {"customer_state_bytes": 487},
    ]
    text = "internal state ≤ 512 bytes per customer, `model` by "
    assert found(text + "simulated shop", {"data": data}) == (562, False)
    assert found(text + "yoochoose", {"data": data}) == (487, True)
    assert found("state ≤ 1,400 bytes per item, `model` by yoo", {"data": data}) == (422, True)


def test_the_bound_is_beside_the_measured_rate(page: Path) -> None:
    saved("pipeline", PIPELINE)
    report.write()
    shown = section(page, "bound")
    assert "| 2 cores, 40 µs of all CPU per event | 50,000 | 20,000 | 40% |" in shown
    assert "| one worker, 25 µs of its own | 40,000 | 20,000 | 50% |" in shown


def test_sizing_takes_the_cpu_of_the_size_of_the_shop() -> None:
    model = dict.fromkeys(
        "customer_state_bytes public_lists_bytes public_profile_bytes item_state_bytes"
        " public_similar_bytes".split(),
        500.0,
    )
    parts = ("worker", "broker", "redis")
    rows = [
        {"series": sizing.SIZES, "at": at, **{f"cpu_us_per_event.{p}": us for p in parts}}
        for at, us in ((1_000, 5.0), (10_000, 20.0), (1_000_000, 60.0))
    ]
    sized = sizing.Constants.of(PIPELINE.summary, model, rows)
    assert [sized.at(n).worker_us for n in (100, 10_000, 100_000, 10**7)] == [20, 20, 40, 60]
    assert sizing.Constants.of(PIPELINE.summary, model).at(10**6).redis_us == 10.0
    # 50,000 events/s want a worker for each 10 µs; those of a small shop cost 20, of a large 60.
    shop = sizing.Shop("x", 50_000, 10_000, 100)
    assert sizing.needs(shop, sized)["workers"] == 2
    large = sizing.Shop("x", 50_000, 100_000_000, 100)
    assert sizing.needs(large, sized)["workers"] == 6
    between = sizing.needs(sizing.Shop("x", 50_000, 500_000, 100), sized)
    one_less = sized.at(500_000 / (between["workers"] - 1)).worker_us
    assert between["worker_us_per_event"] * 0.1 <= between["workers"] < 6
    assert one_less * 0.1 > between["workers"] - 1


def test_sizing_says_where_its_cpu_is_from(page: Path) -> None:
    names = "customer_state_bytes public_lists_bytes public_profile_bytes item_state_bytes"
    model = dict.fromkeys([*names.split(), "public_similar_bytes"], 500.0)
    saved("pipeline", PIPELINE)
    saved("model", Result(model | {"data": []}, []))
    assert "`scale` was not measured" in sizing.markdown(trials=False)


def test_each_row_has_a_bar_of_its_own_in_the_chart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    rows = [{"worker": "loaded", "by": by, "p99_ms": 9.0} for by in ("stock", "price", "price")]
    path = tmp_path / "chart.png"
    result = Result({}, rows, ("worker", "by", "p99_ms"))
    assert results.draw(path, "withdraw", "What it means.", result)
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == [
        "loaded, stock",
        "loaded, price",
    ]
    assert len({bar.get_y() for bar in bars}) == 3  # equal labels, too


def test_a_failed_scenario_is_in_the_line_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran(options: Options) -> Result:
        raise ZeroDivisionError("no events")

    monkeypatch.setattr(codec, "run", ran)
    monkeypatch.setattr("bench.scenarios.store.run", lambda options: Result({"a": 1}, [{"a": 1}]))
    with pytest.raises(SystemExit) as ended:
        command.main(["codec", "store"])
    assert ended.value.code == 1
    line = orjson.loads(capsys.readouterr().out.splitlines()[-1])
    assert line == {"codec": {"failed": "ZeroDivisionError: no events"}, "store": {"a": 1}}
    assert results.load("codec") is None
    assert results.load("store") is not None


def test_the_machine_is_described_before_the_scenario_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = [0.25]
    monkeypatch.setattr(os, "getloadavg", lambda: (load[0], 0.0, 0.0))

    def ran(options: Options) -> Result:
        load[0] = 2.0
        return Result({"a": 1}, [{"a": 1}], versions={"kafka_streams": "4"})

    monkeypatch.setattr(codec, "run", ran)
    monkeypatch.setattr(command, "console", Console(quiet=True))
    command.main(["codec"])
    record = results.load("codec")
    assert record is not None
    assert record["machine"]["load_average"] == 0.25
    assert record["versions"] == {"kafka_streams": "4"}


def test_versions_are_of_the_contenders_that_ran(tmp_path: Path) -> None:
    pom = ROOT / "bench" / "kafka_streams" / "pom.xml"
    peers = registry.PEERS / "bin" / "python"
    assert machine.versions_of({"pipeline", "naive_5"}, peers, pom) == {}
    assert machine.versions_of({"kafka_streams"}, peers, pom)["kafka_streams"].count(".") == 2
    # By this Python: the peers' environment is only made when they run.
    asked = machine.versions_of({"aiokafka"}, Path(sys.executable), pom)["peers"]
    assert asked["aiokafka"] == machine.describe()["packages"]["aiokafka"]
    assert asked["python"] == machine.describe()["python"]
