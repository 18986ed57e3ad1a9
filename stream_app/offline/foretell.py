"""Replay an event file and compare every prediction with what happened: ``evaluate-intent``.

The replay calls the worker's own learning, event by event in time order; timers that the worker
would fire are replaced by settling silent customers every ``SETTLE_S`` of event time. Two readings:
*exact* judges the prediction after every single event by labels read from the file, *live* is what
the model counted about itself from its sampled moments, as a worker shows it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core import classification_metrics as measures
from stream_app.core.foresight import WEEK_S
from stream_app.core.insight import elapse_for_all, plain_policy
from stream_app.core.insight_fields import GAUGED, HEADS
from stream_app.core.learn import EVENT, learn
from stream_app.core.model import KIND, Model
from stream_app.core.moments import CLASS_OF_KIND, NOTHING
from stream_app.core.prequential import report
from stream_app.core.state import new_partition, new_users
from stream_app.errors import EventFileError
from stream_app.hashing import short_hash, stable_hash
from stream_app.journeys import load_journey
from stream_app.offline.eventfile import EventTable

SETTLE_S = 3600.0
_PURCHASE = KIND["purchase"]


@dataclass(frozen=True, slots=True)
class Traced:
    """Per event that says what a customer does: rows of the file, and predictions after it."""

    events: NDArray[np.void]  # (n,) EVENT
    who: NDArray[np.int64]
    session: NDArray[np.int64]  # number of the customer's session
    step: NDArray[np.int64]
    step_before: NDArray[np.int64]
    p: NDArray[np.float64]  # (n, 3) in the order of HEADS
    value: NDArray[np.float64]
    users: NDArray[np.void]
    partition: NDArray[np.void]


def columns(table: EventTable) -> NDArray[np.void]:
    """``(n,) EVENT`` records of the rows that name a customer."""
    rows = [k for k in range(len(table)) if table.user_id[k] or table.session_id[k]]
    if not rows:
        raise EventFileError(f"{table.name} names no customers: add user_id or session_id")
    events = np.zeros(len(rows), EVENT)
    at = np.array(rows)
    events["ts"] = table.ts[at]
    events["offset"] = np.arange(len(rows))
    events["kind"] = [KIND[table.event[k]] for k in rows]
    users = [table.user_id[k] for k in rows]
    sessions = [table.session_id[k] for k in rows]
    events["customer"] = [
        stable_hash(user or session or "", 0 if user else 1)
        for user, session in zip(users, sessions, strict=True)
    ]
    events["session"] = [short_hash(session) if session else 0 for session in sessions]
    events["anonymous"] = [not user for user in users]
    events["item"] = [stable_hash(i) if (i := table.item_id[k]) else 0 for k in rows]
    nothing = np.full(len(table), np.nan)
    price = np.nan_to_num(table.numbers.get("price", nothing)[at], nan=0.0)
    quantity = np.nan_to_num(table.numbers.get("quantity", nothing)[at], nan=1.0)
    events["value"] = np.maximum(price * quantity, 0.0)
    return events


def trace(events: NDArray[np.void], model: Model) -> Traced:
    """Learn ``events`` one by one and keep what was predicted after each of them."""
    ids, who = np.unique(events["customer"], return_inverse=True)
    users, partition = new_users(ids), new_partition()
    n = len(events)
    p, value = np.zeros((n, len(HEADS))), np.zeros(n)
    session, step, before = (np.zeros(n, np.int64) for _ in range(3))
    due = float(events["ts"][0]) + SETTLE_S
    row, policy, plan = np.zeros(1, np.int64), plain_policy(), load_journey().plan
    for k, (ts, user) in enumerate(zip(events["ts"].tolist(), who.tolist(), strict=True)):
        if ts >= due:
            elapse_for_all(users, partition["insight"], ts, model, policy)
            due = ts + SETTLE_S
        before[k] = users["step"][user]
        row[0] = user
        learn(users, row, events[k : k + 1], partition, model, plan)
        state = users[user]
        p[k] = state["p_session"], state["p_week"], state["p_churn"]
        value[k], session[k], step[k] = state["order_value"], state["sessions"], state["step"]
    acts = CLASS_OF_KIND[events["kind"]] != NOTHING
    return Traced(
        events[acts],
        who[acts],
        session[acts],
        step[acts],
        before[acts],
        p[acts],
        value[acts],
        users,
        partition,
    )


def labels(traced: Traced, model: Model) -> dict[str, tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """For each head the rows whose label the file decides, and the labels."""
    ts, n = traced.events["ts"], len(traced.events)
    end = float(ts[-1])
    order = np.lexsort((np.arange(n), traced.who))
    who, session, when = traced.who[order], traced.session[order], ts[order]
    bought = traced.events["kind"][order] == _PURCHASE
    nearest = np.full(n, np.inf)  # next purchase of the customer, after this event
    same = np.zeros(n, np.bool_)  # in the same session
    pause = np.full(n, np.inf)
    last = np.ones(n, np.bool_)  # of its session
    for k in range(n - 2, -1, -1):
        if who[k] != who[k + 1]:
            continue
        nearest[k] = when[k + 1] if bought[k + 1] else nearest[k + 1]
        last[k] = session[k] != session[k + 1]
        if not last[k]:
            same[k] = bool(bought[k + 1]) or same[k + 1]
        pause[k] = when[k + 1] - when[k]
    week = nearest - when <= WEEK_S
    known_week = np.flatnonzero(week | (when + WEEK_S <= end))
    known_churn = np.flatnonzero(last & ((pause < np.inf) | (when + model.churn_after_s <= end)))
    gone = pause > model.churn_after_s
    return {
        HEADS[0]: (order, same),
        HEADS[1]: (order[known_week], week[known_week]),
        HEADS[2]: (order[known_churn], gone[known_churn]),
    }


def _exact(truth: NDArray[np.bool_], p: NDArray[np.float64]) -> dict[str, Any]:
    """Measures of all predictions; the first half chooses the threshold for the second."""
    half = len(truth) // 2
    threshold, _ = measures.best_f1_threshold(truth[:half], p[:half])
    rate = np.cumsum(np.concatenate(([0.5], truth[:-1]))) / np.arange(1, len(truth) + 1)
    table = measures.reliability_table(truth, p)
    return {
        "n": len(truth),
        "positive_rate": float(truth.mean()) if len(truth) else float("nan"),
        "auc": measures.auc(truth, p),
        "log_loss": measures.log_loss(truth, p),
        "base_log_loss": measures.log_loss(truth, np.clip(rate, 1e-6, 1 - 1e-6)),
        "mse": measures.brier(truth, p),
        "calibration_error": measures.calibration_error(truth, p),
        "threshold": threshold,
        **measures.decision_measures(truth[half:], p[half:], threshold=threshold),
        "reliability": [
            {"n": int(n), "predicted": float(a), "observed": float(b)}
            for n, a, b in zip(table.count, table.predicted, table.observed, strict=True)
        ],
    }


def _funnel(traced: Traced) -> dict[str, Any]:
    """Customers who were in each step, and how often one led to another."""
    names = load_journey().names
    moved = traced.step != traced.step_before
    before, after = traced.step_before[moved].tolist(), traced.step[moved].tolist()
    pairs = Counter(zip(before, after, strict=True))
    seen = np.unique(traced.step).tolist()
    return {
        "customers": {names[s]: len(np.unique(traced.who[traced.step == s])) for s in seen},
        "moves": {f"{names[a]} → {names[b]}": n for (a, b), n in sorted(pairs.items())},
    }


def foretell(table: EventTable, model: Model | None = None) -> dict[str, Any]:
    """Predicted against actual on one file; NaN where the file cannot decide."""
    model = model or Model()
    events = columns(table)
    traced = trace(events, model)
    end = float(events["ts"][-1])
    elapse_for_all(traced.users, traced.partition["insight"], end, model, plain_policy())
    mind = traced.partition["insight"][0]
    exact = {}
    for column, (name, (rows, truth)) in enumerate(labels(traced, model).items()):
        by_time = np.argsort(rows, kind="stable")
        exact[name] = _exact(truth[by_time], traced.p[rows[by_time], column])
    live = {
        name: report(mind["gauges"][row], mind["buckets"][row]) for row, name in enumerate(GAUGED)
    }
    seen, mean, squared, base_squared, off = mind["value"][:5].tolist()
    return {
        "n": len(traced.events),
        "customers": len(traced.users),
        "exact": exact,
        "live": live,
        "next_event_majority": _majority(mind["next_any"]),
        "order_value": {
            "orders": seen,
            "mean": mean,
            "mse": squared / seen if seen else float("nan"),
            "base_mse": base_squared / seen if seen else float("nan"),
            "mean_absolute_error": off / seen if seen else float("nan"),
        },
        "funnel": _funnel(traced),
    }


def _majority(counts: NDArray[np.float32]) -> float:
    """Accuracy of always naming the class that is most frequent of all."""
    total = counts.sum()
    return float(counts.sum(axis=0).max() / total) if total else float("nan")
