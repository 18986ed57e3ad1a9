"""The console in a real browser, by keyboard, and who may see it."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from stream_app.console.access import Access
from tests.operations.browser import chromium, page_of, shot
from tests.operations.live import TOKEN, LiveShop


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser, page_of(browser) as page:
        yield page


def test_nothing_is_seen_without_the_token(live: LiveShop) -> None:
    for path in ("/console/api/live", "/console/api/customer?id=c2", "/console/api/item?id=p1"):
        assert live.get(path)[0] == 401, path
        assert live.get(path, Authorization="Bearer wrong")[0] == 401
        assert live.get(path, Cookie="stream_app_console=wrong")[0] == 401
        assert live.get(path, Authorization=f"Bearer {TOKEN}")[0] == 200
    status, body = live.get("/console/")
    assert status == 401 and b"Token" in body
    assert live.get("/console/session")[0] == 401


def test_wrong_questions_are_answered_clearly(live: LiveShop) -> None:
    for path, status in (("customer?id=nobody", 404), ("item?id=", 400), ("item?id=nothing", 404)):
        assert live.get(f"/console/api/{path}", Authorization=f"Bearer {TOKEN}")[0] == status


def test_an_operator_logs_in_and_sees_the_stream(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("live")
    expect(page.get_by_role("row", name="malformed_json 1")).to_be_visible()
    applied = page.get_by_role("table", name="Records by what became of them").get_by_role("row")
    expect(applied.filter(has_text="applied")).to_contain_text("%")
    live.send({"event": "view", "user_id": "c3", "item_id": "p1", "ts": 1_790_000_000.0})
    expect(page.locator("#rate")).not_to_have_text("0")
    expect(page.locator("#p99")).to_contain_text("s")
    expect(page.get_by_role("img", name="Events a second")).to_be_visible()
    shot(page, "console")


def test_a_customer_and_an_item_are_found_by_keyboard_alone(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(20):  # links of the navigation come first
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "customer":
            break
    page.keyboard.type("c2")
    page.keyboard.press("Enter")
    found = page.locator("#customer-found")
    expect(found).to_contain_text("cart")
    expect(found.get_by_role("table", name="List: cart", exact=True)).to_be_visible()
    events = found.get_by_role("table", name="Last item events")
    expect(events.get_by_role("row").nth(1)).to_contain_text("add_to_cart")
    expect(events.get_by_role("row").nth(1)).to_contain_text("p3")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("p2")
    page.keyboard.press("Enter")
    expect(page.locator("#item-found").get_by_role("table", name="Neighbours")).to_be_visible()
    shot(page, "console-customer")


def test_what_came_of_lists_and_experiments_is_shown(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    came = page.get_by_role("table", name="What came of each list")
    expect(came.get_by_role("row", name="home")).to_contain_text("50.0 %")  # clicked, of two
    trials = page.get_by_role("table", name="Customers whose first session ended")
    expect(trials.get_by_role("row").nth(1)).to_contain_text("control")
    expect(trials.get_by_role("row").nth(2)).to_contain_text("coupons")
    expect(trials).to_contain_text("go on")


def test_rules_are_rehearsed_on_a_customer_and_nothing_is_written(
    live: LiveShop, page: Page
) -> None:
    page.goto(f"{live.url}/console/")
    page.get_by_label("What rules do to customer").fill("c2")
    page.keyboard.press("Enter")
    found = page.locator("#rules-found")
    expect(found.get_by_role("row", name="hero pin home")).to_be_visible()
    first_after = found.get_by_role("row", name="hero").get_by_role("cell").nth(4)
    expect(first_after).to_have_text(re.compile("^p5"))
    shot(page, "console-rules")
    page.get_by_label("What rules do to customer").fill("nobody")
    page.keyboard.press("Enter")
    expect(found.locator(".problem")).to_contain_text("nothing is known of customer 'nobody'")


def test_what_customers_are_called_is_never_markup(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    page.get_by_label("Customer id").fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Show customer").click()
    expect(page.locator("#customer-found .problem")).to_contain_text("<img src=x")
    assert page.locator("#customer-found img").count() == 0


def test_every_control_has_a_name_and_every_table_a_caption(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    expect(page.get_by_role("status")).to_have_text("live")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input")].filter((e) => !e.labels.length)
        .concat([...document.querySelectorAll("button, a")].filter((e) => !e.textContent.trim()))
        .concat([...document.querySelectorAll("table")].filter((e) => !e.caption))
        .concat([...document.querySelectorAll("section")].filter((e) => !e.ariaLabel &&
          !document.getElementById(e.getAttribute("aria-labelledby"))))
        .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"


def test_without_a_token_only_this_machine_sees_the_console() -> None:
    local, public = Access(None, web_host="127.0.0.1"), Access(None, web_host="0.0.0.0")
    assert local.served and not public.served
    assert local.allowed({"Host": "localhost:6066"}, {})
    assert not local.allowed({"Host": "evil.example:6066"}, {})  # a name that leads here
    assert not local.allowed({}, {})
    assert not local.token_fits("")
