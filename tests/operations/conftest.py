"""One running shop for all tests of this folder: its start is what costs."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from stream_app.embedded import valkey_server
from tests.operations.live import LiveShop, view
from tests.servers import Kafka


@pytest.fixture(scope="session")
def live(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveShop]:
    """A worker that has seen a few customers, a purchase and three dead letters."""
    home = tmp_path_factory.mktemp("live")
    with ExitStack() as stack:
        valkey = stack.enter_context(valkey_server())
        shop = LiveShop(
            kafka.bootstrap,
            valkey.url,
            home,
            "live-shop",
            more={
                "STREAM_APP_LOG_FORMAT": "json",
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
        shop.send(session, bought, carted, *late, events[0])
        shop.wait_for("rec:c2", "cart")
        shop.wait_for("rec:~s9", "home")
        yield shop
