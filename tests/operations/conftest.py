"""One running shop for all tests of this folder: its start is what costs."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from stream_app.embedded import valkey_server
from tests.operations.live import LiveShop, view
from tests.servers import Kafka

RULES = """
[[rule]]
id = "hero"
action = "pin"
items = ["p5"]
lists = ["home"]
steps = ["cart"]
"""
EXPERIMENTS = "[experiment.coupons]\nvariants = { control = 0.5, coupons = 0.5 }\n"


@pytest.fixture(scope="session")
def live(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveShop]:
    """A worker that has seen a few customers, a purchase and three dead letters."""
    home = tmp_path_factory.mktemp("live")
    rules, experiments = home / "rules.toml", home / "experiments.toml"
    rules.write_text(RULES)
    experiments.write_text(EXPERIMENTS)
    with ExitStack() as stack:
        valkey = stack.enter_context(valkey_server())
        shop = LiveShop(
            kafka.bootstrap,
            valkey.url,
            home,
            "live-shop",
            more={
                "STREAM_APP_LOG_FORMAT": "json",
                "STREAM_APP_RULES_FILE": str(rules),
                "STREAM_APP_EXPERIMENTS_FILE": str(experiments),
                "STREAM_APP_CLICKSTREAM_PARTITIONS": "2",
                "STREAM_APP_COOCCURRENCE_PARTITIONS": "2",
            },
        )
        shop.start(stack)
        now = time.time() - 60
        events = [
            view(f"c{u}", f"p{(u + k) % 6}", now + k, event_id=f"{u}-{k}")
            for k in range(4)
            for u in range(8)
        ]
        bought = {"event": "purchase", "user_id": "c1", "item_id": "p2", "ts": now + 9}
        carted = {"event": "add_to_cart", "user_id": "c2", "item_id": "p3", "ts": now + 9}
        late: list[dict[str, Any] | bytes] = [
            b"not json",
            b"{}",
            {"event": "dance", "user_id": "c1", "ts": now},
        ]
        shop.send(*events)
        shop.wait_for("similar:p2")  # lists are drawn from what is known when an event comes
        session = {"event": "view", "session_id": "s9", "item_id": "p3", "ts": now + 9}
        session["channel"] = "kiosk"
        shown = {"event": "impression", "user_id": "c9", "item_id": "p4", "list": "home"}
        clicked = shown | {"event": "click", "list_source": "popularity"}
        earned = {"event": "purchase", "user_id": "c9", "item_id": "p4"}
        feedback = [
            event | {"ts": now + k} for k, event in enumerate((shown, shown, clicked, earned))
        ]
        shop.send(session, bought, carted, *late, events[0], *feedback)
        shop.wait_for("rec:c2", "cart")
        shop.wait_for("rec:~s9", "home")
        yield shop
