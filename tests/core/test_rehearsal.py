"""What rules would do to a customer's lists, tried before they are live."""

import pytest

from stream_app.core.merchandising import Rule
from stream_app.errors import StreamAppError
from stream_app.rehearsal import rehearse
from stream_app.settings import load_settings
from tests.core.test_why import ONE, learned

NOW = 1_700_000_000.0  # years after the last event of the customer


async def test_rules_are_rehearsed_instead_of_those_in_force_and_at_the_time_it_is_now() -> None:
    engine = await learned(load_settings(ONE))
    await engine.apply([b'{"user_id":"new","item_id":"x","event":"view","ts":1600900000}'])
    engine.stages.merchandise.set_rules([Rule("r", "pin", items=("y",))])

    async def tried(*rules: Rule) -> tuple[list[str], list[tuple[str, str]]]:
        lists, changes = await rehearse(
            engine.stages, engine.store, ["new"], 0, rules=rules, now=NOW
        )
        found = [
            (change.rule_id, change.action) for change in changes if change.list_name == "home"
        ]
        return lists["home"], found

    plain, nothing = await tried()
    assert "y" in plain and nothing == []
    home, found = await tried(Rule("r", "exclude", items=("y",)))
    assert "y" not in home and found == [("r", "exclude")]
    begun = Rule("r", "exclude", items=("y",), starts=NOW - 60.0)
    assert (await tried(begun))[1] == [("r", "exclude")], "their last event was before it began"
    over = Rule("r", "exclude", items=("y",), ends=NOW - 60.0)
    assert await tried(over) == (plain, []), "their last event was before it ended"
    last = Rule("z", "pin", items=("y",))
    assert (await tried(last, begun))[1] == [("r", "exclude"), ("z", "pin")], "by their ids"
    rules = engine.stages.merchandise.rules
    assert [rule.action for rule in rules] == ["pin"], "those in force stay as they are"
    with pytest.raises(StreamAppError, match="nothing is known of customer 'nobody'"):
        await rehearse(engine.stages, engine.store, ["nobody"], 0, rules=(), now=NOW)
