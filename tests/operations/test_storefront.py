"""The example shop in a real browser: a click becomes an event, and the list knows it."""

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from stream_app.embedded import free_port
from tests.operations.browser import chromium, page_of, shot
from tests.operations.live import LiveShop, until, view

BRIDGE = Path(__file__).parents[2] / "examples" / "storefront" / "bridge.py"
TOURS = (("tent", "bag", "mat", "stove"), ("boots", "rope", "helmet"), ("tent", "mat", "lamp"))


def answers(url: str, **request: object) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **request), timeout=5) as found:  # type: ignore[arg-type]
            return int(found.status)
    except urllib.error.HTTPError as exc:
        exc.close()
        return exc.code
    except OSError:
        return 0


@pytest.fixture(scope="module")
def shop(live: LiveShop) -> Iterator[str]:
    """Address of the example, whose visitors before have made a few tours."""
    now = time.time() - 600
    live.send(
        *(
            view(f"visitor-{tour}-{round_}", item, now + 10 * k)
            for round_ in range(4)
            for tour, items in enumerate(TOURS)
            for k, item in enumerate(items)
        )
    )
    live.wait_for("similar:tent")
    live.wait_for("similar:boots")
    port = free_port()
    process = subprocess.Popen([sys.executable, str(BRIDGE), str(port)], env=live.environment)
    url = f"http://127.0.0.1:{port}"
    until(lambda: answers(f"{url}/lists") == 200, "the bridge's first answer")
    yield url
    process.terminate()
    process.wait(20)


def test_a_click_changes_the_list_of_this_very_visitor(shop: str) -> None:
    with chromium() as browser, page_of(browser, height=700) as page, page_of(browser) as other:
        page.goto(shop)
        other.goto(shop)
        expect(page.locator("#step")).to_have_text("new")
        shot(page, "storefront-1")
        page.get_by_role("button", name="Look at Tent").click()
        fresh = page.get_by_role("status")
        expect(fresh).to_have_text(re.compile(r"your list knew \d+ ms after your click"))
        expect(page.locator("#origin")).to_have_text("from what you did")
        expect(page.locator("#list")).to_contain_text("because of Tent")
        expect(page.locator("#list")).to_contain_text("Sleeping")
        shot(page, "storefront-2")
        page.get_by_role("button", name="Add to cart Hiking boots").press("Enter")
        expect(page.locator("#step")).to_have_text("cart")
        expect(page.locator("#list")).to_contain_text("because of Hiking boots")
        shot(page, "storefront-3")
        print("\n", fresh.text_content(), end="", file=sys.__stderr__)
        other.reload()
        expect(other.locator("#step")).to_have_text("new")  # another visitor is nobody still


def test_the_bridge_takes_events_only(shop: str) -> None:
    cookie = {"Cookie": "visitor=abc"}
    for body in (b"", b"[]", b'{"event":"erase","item_id":"a"}', b'{"event":"view","item_id":1}'):
        assert answers(f"{shop}/events", data=body, headers=cookie) == 400, body
    assert answers(f"{shop}/events", data=b'{"event":"view","item_id":"tent"}') == 400
    assert answers(f"{shop}/events", data=b" " * 10_000, headers=cookie) == 413
    assert answers(f"{shop}/static/../bridge.py") == 404
