"""Rules of customer service: urgency and journey choose the queue, a wrong file is explained."""

from pathlib import Path

import pytest

from stream_app.core.assist import AssistRules, queue
from stream_app.errors import ConfigurationError
from stream_app.journeys import load_journey
from stream_app.support_files import read_rules

HEAD = """default_queue = "general"
out_of_scope_queue = "human"
[urgency]
high_from = 0.6
normal_from = 0.25
negative = 0.5
word = 0.4
"""
STEPS = load_journey(None).names


def rules(folder: Path, routes: str) -> AssistRules:
    path = folder / "support.toml"
    path.write_text(HEAD + routes)
    return read_rules(path, STEPS)


def test_the_first_route_whose_conditions_hold_takes_a_message(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        """
        [[route]]
        queue = "rescue"
        steps = ["cart", "checkout"]
        urgency = "normal"
        intents = ["payment_issue"]
        [[route]]
        queue = "duty"
        urgency = ["high"]
        [[route]]
        queue = "payments"
        intents = ["payment_issue", "get_invoice"]
        """,
    )
    told = {
        (intent, urgency, step): queue(found, intent, urgency=urgency, step=step)
        for intent in ("payment_issue", "review", "")
        for urgency in ("low", "normal", "high")
        for step in ("checkout", "browse", "")
    }
    assert told.pop(("payment_issue", "normal", "checkout")) == "rescue"
    assert told.pop(("payment_issue", "high", "checkout")) == "rescue"
    for (intent, urgency, _), chosen in told.items():
        least = {"payment_issue": "payments", "review": "general", "": "human"}[intent]
        assert chosen == ("duty" if urgency == "high" else least)


def test_a_file_of_intents_alone_routes_as_before(tmp_path: Path) -> None:
    found = rules(tmp_path, '[[route]]\nqueue = "money"\nintents = ["refund", "invoice"]\n')
    for step, urgency in (("checkout", "high"), ("", "low")):
        assert queue(found, "refund", urgency=urgency, step=step) == "money"
        assert queue(found, "review", urgency=urgency, step=step) == "general"
        assert queue(found, "", urgency=urgency, step=step) == "human"


def test_the_shipped_routes_know_the_journey_and_fit_any_other() -> None:
    shipped = read_rules(None, ())  # a journey of none of our steps
    assert {step for route in shipped.routes for step in route.steps} <= set(STEPS)
    assert queue(shipped, "payment_issue", urgency="low", step="checkout") == "checkout"
    assert queue(shipped, "payment_issue", urgency="high", step="browse") == "escalations"
    assert queue(shipped, "payment_issue", urgency="normal", step="browse") == "payments"
    assert queue(shipped, "complaint", urgency="normal", step="checkout") == "human"
    assert queue(shipped, "", urgency="high", step="checkout") == "human"


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ('queue = "a"\n', "route.0: .*give intents, urgency or steps"),
        ('queue = "a"\nintents = []\n', "route.0.intents: .*at least 1 item"),
        ('queue = "a"\nurgency = "urgent"\n', "route.0.urgency: .*urgent: use low, normal, high"),
        ('queue = "a"\nurgency = ["high", "huge"]\n', "route.0.urgency: .*huge: use low"),
        ('queue = "a"\nsteps = ["chekout"]\n', r"route 1 \(a\): steps chekout: choose of .*cart"),
        ('queue = "a"\nstep = ["cart"]\n', "route.0.step: Extra inputs"),
        (
            'queue = "a"\nintents = ["x", "y"]\n[[route]]\nqueue = "b"\nintents = ["y", "z"]\n',
            r"route 2 \(b\) never gets y, which route 1 \(a\) takes",
        ),
        (
            'queue = "a"\nurgency = "normal"\n[[route]]\nqueue = "b"\nurgency = "high"\n'
            'intents = ["y"]\nsteps = ["cart"]\n',
            r"route 2 \(b\) never gets anything, which route 1 \(a\) takes",
        ),
    ],
)
def test_a_wrong_route_is_named_with_its_cure(tmp_path: Path, routes: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        rules(tmp_path, f"[[route]]\n{routes}")


def test_an_intent_may_go_elsewhere_by_urgency_or_step(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        """
        [[route]]
        queue = "fast"
        intents = ["y"]
        urgency = "high"
        [[route]]
        queue = "cart"
        intents = ["y"]
        steps = ["cart"]
        [[route]]
        queue = "rest"
        intents = ["y"]
        """,
    )
    chosen = [
        queue(found, "y", urgency=urgency, step=step)
        for urgency, step in (("high", "cart"), ("low", "cart"), ("low", "browse"))
    ]
    assert chosen == ["fast", "cart", "rest"]


def test_what_is_no_rules_file_stops_the_worker_and_says_why(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('default_queue = "a"\nurgent = 3\n')
    with pytest.raises(ConfigurationError, match="urgent: Extra inputs"):
        read_rules(wrong, STEPS)
    wrong.write_text("default_queue = ")
    with pytest.raises(ConfigurationError, match="not TOML"):
        read_rules(wrong, STEPS)
    with pytest.raises(ConfigurationError, match="SUPPORT_RULES_FILE"):
        read_rules(tmp_path / "missing.toml", STEPS)
