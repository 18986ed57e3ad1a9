"""Write the Grafana dashboard: ``python deploy/monitoring/make_dashboard.py``.

A dashboard's JSON is mostly layout; this table says what is on it.
"""

import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "dashboard.json"
RATE = "[$__rate_interval]"
Panel = tuple[str, str, str, tuple[tuple[str, str], ...]]


def _quantile(q: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{RATE})))"


def _share(outcome: str, of: str) -> str:
    counted = (
        f'sum by (list) (increase(stream_app_list_outcomes_total{{outcome="{name}"}}[1h]))'
        for name in (outcome, of)
    )
    return " / ".join(counted)


PANELS: tuple[Panel, ...] = (  # title, unit, what it says, (expression, legend) …
    (
        "Events",
        "ops",
        "Records of the clickstream by what became of them",
        (
            (
                f'sum by (outcome) (rate(stream_app_records_total{{stage="learn"}}{RATE}))',
                "{{outcome}}",
            ),
        ),
    ),
    (
        "Freshness",
        "s",
        "From a record's time in Kafka to its customer's list in Redis",
        tuple(
            (_quantile(q, "stream_app_freshness_seconds"), f"p{100 * q:g}")
            for q in (0.5, 0.95, 0.99)
        ),
    ),
    (
        "Lag",
        "short",
        "Records between the end of the log and the worker",
        (("sum by (stage, topic) (stream_app_lag_records)", "{{stage}}: {{topic}}"),),
    ),
    (
        "Lists",
        "ops",
        "Customers whose lists were written to Redis",
        ((f"sum(rate(stream_app_published_customers_total{RATE}))", "customers"),),
    ),
    (
        "Parts of a batch, p95",
        "s",
        "Wall time",
        (
            (
                _quantile(0.95, "stream_app_batch_part_duration_seconds", "stage, part"),
                "{{stage}} {{part}}",
            ),
        ),
    ),
    (
        "CPU",
        "percentunit",
        "What the parts that never wait take of a core, and the whole process",
        (
            (
                f"sum by (stage, part) (rate(stream_app_cpu_seconds_total{RATE}))",
                "{{stage}} {{part}}",
            ),
            (f'sum(rate(process_cpu_seconds_total{{job="stream_app"}}{RATE}))', "all"),
        ),
    ),
    (
        "Batch size",
        "short",
        "Records of a batch: it grows with load",
        tuple(
            (_quantile(q, "stream_app_batch_records", "stage"), f"{{{{stage}}}} p{100 * q:g}")
            for q in (0.5, 0.95)
        ),
    ),
    (
        "Data quality",
        "ops",
        "Dead letters by reason, rejected records by cause, late events",
        (
            (f"sum by (reason) (rate(stream_app_dead_letters_total{RATE}))", "{{reason}}"),
            (f"sum by (cause) (rate(stream_app_rejected_records_total{RATE}))", "{{cause}}"),
            (f"sum(rate(stream_app_late_events_total{RATE}))", "late"),
        ),
    ),
    (
        "Ignored events",
        "ops",
        "By name: well-formed, but they mean nothing here",
        ((f"sum by (name) (rate(stream_app_ignored_events_total{RATE}))", "{{name}}"),),
    ),
    (
        "Copied",
        "ops",
        "Records of vendors' topics by what became of them",
        (
            (
                'sum by (stage, outcome) (rate(stream_app_records_total{stage=~"copy-.+"}'
                f"{RATE}))",
                "{{stage}} {{outcome}}",
            ),
        ),
    ),
    (
        "Redis and Kafka, p95",
        "s",
        "Wall time of a call",
        (
            (
                _quantile(0.95, "stream_app_dependency_duration_seconds", "dependency, operation"),
                "{{dependency}} {{operation}}",
            ),
        ),
    ),
    (
        "Failed calls",
        "ops",
        "Each is retried without end",
        (
            (
                "sum by (dependency, operation, error)"
                f" (rate(stream_app_dependency_errors_total{RATE}))",
                "{{dependency}} {{operation}} {{error}}",
            ),
            (
                f"sum by (stage, cause) (rate(stream_app_partitions_lost_total{RATE}))",
                "{{stage}} {{cause}}",
            ),
        ),
    ),
    (
        "Cache hits",
        "percentunit",
        "Share of what was asked that was in memory",
        (
            (
                f'sum by (cache) (rate(stream_app_cache_requests_total{{result="hit"}}{RATE}))'
                f" / sum by (cache) (rate(stream_app_cache_requests_total{RATE}))",
                "{{cache}}",
            ),
        ),
    ),
    (
        "Cursor age",
        "s",
        "Since the cursor of a partition moved last, or was claimed first",
        (
            (
                "time() - max by (stage, partition) (stream_app_last_commit_timestamp_seconds)",
                "{{stage}} {{partition}}",
            ),
        ),
    ),
    (
        "CTR by list",
        "percentunit",
        "Clicks per impression of our own lists, last hour",
        ((_share("clicks", "impressions"), "{{list}}"),),
    ),
    (
        "Conversion by list",
        "percentunit",
        "Purchases per click on our own lists, last hour",
        ((_share("purchases", "clicks"), "{{list}}"),),
    ),
    (
        "In memory",
        "short",
        "Entries of the workers' tables and caches",
        (("sum by (kind) (stream_app_entries)", "{{kind}}"),),
    ),
    (
        "Memory",
        "bytes",
        "Resident",
        (('process_resident_memory_bytes{job="stream_app"}', "{{instance}}"),),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it: two panels a row."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "description": text,
            "datasource": source,
            "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + k), "expr": expression, "legendFormat": legend}
                for k, (expression, legend) in enumerate(targets)
            ],
        }
        for number, (title, unit, text, targets) in enumerate(PANELS)
    ]
    return {
        "uid": "stream-app",
        "title": "stream_app",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}
            ]
        },
        "panels": panels,
    }


if __name__ == "__main__":
    OUT.write_text(json.dumps(dashboard(), indent=1) + "\n")
