"""Metrics of a running worker; dashboards and alerts use only what is there."""

import importlib.util
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.operations.live import LiveShop, until
from tests.operations.tools import program

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
_WORDS = set(
    "sum rate by on and time max min increase deriv histogram_quantile clamp_min or unless"
    " ignoring group_left without offset".split()
)


STUCK_AT = "5m"  # into a test of rules, whose samples are 15 s apart


def standing(
    stage: str, topic: str, *, lag: str, committed: str, partition: str = "0"
) -> list[dict[str, str]]:
    """Series of one stage's partition, in promtool's notation."""
    where = f'stage="{stage}",partition="{partition}",instance="w"'
    return [
        {"series": f'stream_app_lag_records{{{where},topic="{topic}"}}', "values": lag},
        {
            "series": f"stream_app_last_commit_timestamp_seconds{{{where}}}",
            "values": committed,
        },
    ]


ALWAYS, NOW_AND_THEN, NONE = "7x40", "3 0 9 0 0 2 0 1 0 0 4 0 0 0 5 0 0 0 0 2 0 0 0", "0x40"
JUST_NOW, ONCE = "0+15x40", "0x40"  # the clock of a test of rules begins at nought
CLICKS, SALES = ("learn", "clickstream"), ("stock", "sales")
STUCK_CASES = {
    "all move": (
        standing(*CLICKS, lag=ALWAYS, committed=JUST_NOW)
        + standing(*SALES, lag=NOW_AND_THEN, committed=JUST_NOW),
        None,
    ),
    "a quiet stage beside a busy one": (
        standing(*CLICKS, lag=ALWAYS, committed=JUST_NOW)
        + standing(*SALES, lag=NONE, committed=ONCE),
        None,
    ),
    "a quiet partition beside a busy one": (
        standing(*CLICKS, lag=ALWAYS, committed=JUST_NOW)
        + standing(*CLICKS, lag=NONE, committed=ONCE, partition="1"),
        None,
    ),
    "one stage stands": (
        standing(*CLICKS, lag=ALWAYS, committed=JUST_NOW)
        + standing(*SALES, lag=ALWAYS, committed=ONCE),
        "stock",
    ),
}


def names_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads.

    >>> sorted(names_in('sum by (le) (rate(a_bucket{x="y"}[5m])) / time()'))
    ['a_bucket']
    """
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|offset \w+', "", expression)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", bare)
    return {word for word in re.findall(r"[a-zA-Z_:][\w:]*", bare)} - _WORDS - {"e"}


def samples(live: LiveShop) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, body = live.get("/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    """Sum of the samples of ``name`` that carry ``labels``."""
    wanted = set(labels.items())
    return sum(v for (n, have), v in found.items() if n == name and wanted <= have)


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_every_record_is_in_one_outcome_and_the_lag_comes_to_nothing(live: LiveShop) -> None:
    def settled() -> bool:
        found = samples(live)
        done = value(found, "stream_app_records_total", stage="learn")
        # Snippets and the example shop produce events of their own to the same topic.
        lag = value(found, "stream_app_lag_records", topic=live.settings.clickstream_topic)
        return done >= live.offsets and lag == 0

    until(settled, "all records accounted for")
    found = samples(live)
    for outcome, least in (("applied", 34), ("dead_lettered", 3), ("rejected", 1)):
        assert value(found, "stream_app_records_total", stage="learn", outcome=outcome) >= least
    rejected = value(found, "stream_app_records_total", stage="learn", outcome="rejected")
    assert value(found, "stream_app_rejected_records_total") == rejected
    assert value(found, "stream_app_rejected_records_total", cause="duplicate") >= 1
    for reason in ("malformed_json", "missing_field", "unknown_event"):
        assert value(found, "stream_app_dead_letters_total", reason=reason) == 1


def test_a_batch_leaves_its_traces_in_the_histograms(live: LiveShop) -> None:
    found = samples(live)
    for part in ("decode", "load", "turn", "learn", "score", "render", "commit", "publish"):
        name = "stream_app_batch_part_duration_seconds_count"
        assert value(found, name, stage="learn", part=part) > 0, part
    assert value(found, "stream_app_cpu_seconds_total", stage="learn", part="score") > 0
    assert value(found, "stream_app_cpu_seconds_total", part="commit") == 0  # it waits
    assert value(found, "stream_app_freshness_seconds_count") > 30
    assert value(found, "stream_app_freshness_seconds_bucket", le="600") > 30
    assert value(found, "stream_app_cache_requests_total", cache="customers") > 0
    committed = value(found, "stream_app_last_commit_timestamp_seconds", stage="learn")
    assert 0 < committed <= 2 * time.time()  # two partitions
    assert value(found, "stream_app_published_customers_total") >= 8


def test_what_came_of_a_list_is_counted_by_list_and_by_variant(live: LiveShop) -> None:
    def clicked() -> bool:
        found = samples(live)
        counts = [
            value(found, "stream_app_list_outcomes_total", list="home", outcome=outcome)
            for outcome in ("impressions", "clicks", "purchases")
        ]
        tried = value(found, "stream_app_variant_outcomes_total", outcome="clicks")
        return counts == [2, 1, 1] and tried == 1

    until(clicked, "two impressions, a click and a purchase")


def test_dashboards_and_alerts_read_metrics_that_exist(live: LiveShop) -> None:
    there = {name for name, _ in samples(live)} | {"up"}
    # Counters of what did not happen have no samples yet, but are declared.
    declared = set(re.findall(r"^# TYPE (\w+)", live.get("/metrics")[1].decode(), re.MULTILINE))
    unknown = [
        f"{where}: {name}"
        for where, expression in expressions()
        for name in names_in(expression) - there - declared
    ]
    assert not unknown, unknown


def documented() -> dict[str, set[str]]:
    """Labels by metric, as the table of docs/operations.md has them."""
    text = (MONITORING.parents[1] / "docs" / "operations.md").read_text()
    found: dict[str, set[str]] = {}
    before: set[str] = set()
    for names, labels in re.findall(r"^\| (`stream_app_[^|]*)\| ([^|]*)\|", text, re.MULTILINE):
        own = set(re.findall(r"`(\w+)`", labels))
        before = before | own if "…" in labels else own
        found |= dict.fromkeys(re.findall(r"`(stream_app_\w+)`", names), before)
    return found


def test_the_page_names_every_metric_with_its_labels(live: LiveShop) -> None:
    body = live.get("/metrics")[1].decode()
    declared = set(re.findall(r"^# TYPE (stream_app_\w+)", body, re.MULTILINE))
    assert documented().keys() == declared
    for name, labels in documented().items():
        series = rf"^{name}(?:_bucket|_sum|_count)?\{{([^}}]*)\}}"
        for given in re.findall(series, body, re.MULTILINE):
            assert set(re.findall(r'(\w+)="', given)) - {"le"} == labels, name


def test_the_dashboard_is_the_one_its_table_makes() -> None:
    spec = importlib.util.spec_from_file_location("made", MONITORING / "make_dashboard.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads((MONITORING / "dashboard.json").read_text()) == module.dashboard()


def test_promtool_accepts_rules_and_metrics(live: LiveShop, tmp_path: Path) -> None:
    program("promtool")
    rules = tmp_path / "rules.yml"
    asked = [
        {"record": f"dashboard:panel_{k}", "expr": expression.replace("$__rate_interval", "1m")}
        for k, (_, expression) in enumerate(expressions())
    ]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    for path in (MONITORING / "alerts.yml", rules):
        done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    _, body = live.get("/metrics")
    lint = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True)
    complaints = [
        line
        for line in (lint.stdout + lint.stderr).decode().splitlines()
        if line.startswith("stream_app")
    ]
    assert not complaints, complaints


@pytest.mark.parametrize("case", STUCK_CASES)
def test_the_alert_for_what_is_stuck_fires_for_that_alone(case: str, tmp_path: Path) -> None:
    program("promtool")
    series, stage = STUCK_CASES[case]
    fired = {
        "exp_labels": {"severity": "critical", "stage": stage, "partition": "0"},
        "exp_annotations": {
            "summary": f"{stage} partition 0 has records but its cursor stands",
            "description": "The log names what it retries: look for `trying again`.",
        },
    }
    asked = {
        "eval_time": STUCK_AT,
        "alertname": "StreamAppStuck",
        "exp_alerts": [fired] if stage else [],
    }
    rules = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": series, "alert_rule_test": [asked]}],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(rules))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lag_names_the_stage_that_reads_the_topic(live: LiveShop) -> None:
    s = live.settings
    reads = {s.clickstream_topic: "learn", s.cooccurrence_topic: "relate", s.sales_topic: "stock"}
    found = {
        (labels["topic"], labels["stage"], labels["partition"])
        for (name, pairs) in samples(live)
        if name == "stream_app_lag_records" and (labels := dict(pairs))
    }
    assert found == {(topic, stage, p) for topic, stage in reads.items() for p in "01"}


def test_log_lines_are_json_objects(live: LiveShop) -> None:
    lines = [line for line in live.log_path.read_text().splitlines() if line.startswith("{")]
    assert len(lines) > 3
    for line in lines:
        assert {"ts", "level", "logger", "message"} <= json.loads(line).keys()
