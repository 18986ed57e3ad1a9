"""Live rules on a real broker: who changed what is kept, and a file can be rehearsed first."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from stream_app.adapters.topics import consume
from stream_app.commands.rule_changes import drop, live_rules, put
from stream_app.embedded import ValkeyServer
from stream_app.errors import ConfigurationError, LogUnavailable
from stream_app.ports import USERS, Record
from tests.conftest import UniqueName
from tests.integration.test_worker import Shopfront
from tests.operations.schemas import faults
from tests.servers import Kafka

PIN = '[[rule]]\nid = "hero"\naction = "pin"\nitems = ["a"]\nstarts = 2026-06-01\n'
EXCLUDE = '[[rule]]\nid = "hero"\naction = "exclude"\nitems = ["a"]\nauthor = "bert"\n'
PINNED = {"action": "pin", "items": ["a"], "starts": "2026-06-01T00:00:00Z", "author": "anna"}
EXCLUDED = {"action": "exclude", "items": ["a"], "author": "bert"}


@pytest.fixture
async def shop(
    kafka: Kafka, valkey: ValkeyServer, unique: UniqueName, tmp_path: Path
) -> AsyncIterator[Shopfront]:
    """No topics yet."""
    shop = Shopfront(kafka, valkey, unique, tmp_path)
    async with shop.opened(topics=False):
        yield shop


async def test_every_change_of_a_rule_is_kept_with_who_made_it_and_what_it_said_before(
    shop: Shopfront, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, path = shop.settings, tmp_path / "rules.toml"
    path.write_text(PIN)
    monkeypatch.setattr("stream_app.commands.rule_changes.TOPICS_WAIT_MS", 500)
    with pytest.raises(LogUnavailable, match="the topics command makes them"):
        await put(settings, path, "anna")
    code, out, err = await shop.run("topics")
    assert code == 0, out + err
    await put(settings, path, "anna")
    path.write_text(EXCLUDE)
    await put(settings, path, "")
    assert (await live_rules(settings))["hero"].author == "bert"
    await drop(settings, "hero", "carl")
    assert await live_rules(settings) == {}
    with pytest.raises(ConfigurationError, match="'hero' is not live"):
        await drop(settings, "hero", "carl")
    path.write_text("# nothing yet\n")
    with pytest.raises(
        ConfigurationError, match=r"rules.toml has no rules: each is a \[\[rule\]\]"
    ):
        await put(settings, path, "anna")
    with pytest.raises(ConfigurationError, match="--author is a name"):
        path.write_text(PIN)
        await put(settings, path, "anna\n")

    audit = [
        record async for record in consume(settings.rules_audit_topic, brokers=[settings.bootstrap])
    ]
    entries = [orjson.loads(record.value or b"") for record in audit]
    assert [record.key for record in audit] == [b"hero"] * 3
    assert [faults("rule-change", entry) for entry in entries] == [[]] * 3
    assert [faults("rule", rule) for rule in (PINNED, EXCLUDED)] == [[], []]
    assert [(e["author"], e["before"], e["after"]) for e in entries] == [
        ("anna", None, PINNED),
        ("bert", PINNED, EXCLUDED),
        ("carl", EXCLUDED, None),
    ]
    assert all(
        abs(e["ts"] * 1000 - r.timestamp_ms) < 60_000 for e, r in zip(entries, audit, strict=True)
    )
    code, out, err = await shop.run("rules", "history", "hero")
    assert code == 0, err
    assert '{"changes":3}' in out and "carl" in out and "exclude" in out
    code, out, err = await shop.run("rules", "history", "another")
    assert (code, '{"changes":0}' in out) == (0, True), err


async def test_a_file_is_rehearsed_instead_of_the_live_rules_and_nothing_is_written(
    shop: Shopfront, tmp_path: Path
) -> None:
    code, out, err = await shop.run("topics")
    assert code == 0, out + err
    views = [
        {"event": "view", "user_id": "ada", "item_id": item, "ts": 1_700_000_000.0 + k}
        for k, item in enumerate("abcab")
    ]
    await shop.send([Record(b"ada", orjson.dumps(view)) for view in views])
    live, given = tmp_path / "live.toml", tmp_path / "given.toml"
    live.write_text(PIN)
    given.write_text(EXCLUDE)
    await put(shop.settings, live, "anna")
    shop.worker()

    async def applied() -> object:
        return await shop.accounts(USERS) >= len(views)

    await shop.until(applied)
    code, out, err = await shop.run("rules", "dry-run", "ada")
    lists = orjson.loads(out.splitlines()[-1])["lists"]
    assert code == 0 and lists["home"][0] == "a", out + err
    code, out, err = await shop.run("rules", "dry-run", "ada", "--file", str(given))
    lists = orjson.loads(out.splitlines()[-1])["lists"]
    assert code == 0 and "a" not in lists["home"], out + err
    assert (await live_rules(shop.settings))["hero"].fields == PINNED
    await put(shop.settings, given, "")
    code, out, err = await shop.run("recommend", "ada", "--why-not", "a")
    assert code == 0 and "rule (merchandising: hero)" in out, out + err
    code, out, err = await shop.run("recommend", "ada", "--list", "email", "--why-not", "b")
    assert code == 0 and "is in place 1 of ada's list 'email'" in out, out + err
    code, out, err = await shop.run("recommend", "eve", "--why-not", "b")
    assert code == 1 and "customer 'eve' is not known" in err
    given.write_text("")
    code, out, err = await shop.run("rules", "dry-run", "ada", "--file", str(given))
    assert code == 1 and "has no rules" in err
