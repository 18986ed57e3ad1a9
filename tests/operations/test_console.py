"""The console in a real browser, by keyboard, and who may see it."""

import re
import time
from collections.abc import Iterator

import orjson
import pytest
from playwright.sync_api import Page, expect

from stream_app.console.access import Access
from stream_app.core.journey import STEPS
from stream_app.formats import FORMAT_HEADER
from stream_app.states import CAUSES
from tests.operations.browser import chromium, page_of, shot
from tests.operations.live import TOKEN, LiveShop, view

BUSY_S = 12  # a little longer than the window of the rates
A_NUMBER = re.compile(r"^(?!0$)[\d,.]+$")


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
    expect(page.get_by_role("status", name="Connection")).to_have_text("live")
    expect(page.get_by_role("row", name="malformed_json 1")).to_be_visible()
    applied = page.get_by_role("table", name="Records by what became of them").get_by_role("row")
    expect(applied.filter(has_text="applied")).to_contain_text("%")
    for second in range(BUSY_S):
        now = time.time()
        live.send(*(view(f"passer-{second}-{k}", f"p{k % 6}", now) for k in range(4 + second)))
        page.wait_for_timeout(1_000)
    for figure in ("#rate", "#lists"):
        expect(page.locator(figure)).to_have_text(A_NUMBER)
    for figure in ("#p50", "#p99"):
        expect(page.locator(figure)).to_have_text(re.compile(r"^≤ [\d.]+ m?s$"))
    line = page.get_by_role("img", name="Events a second").locator("polyline")
    expect(line).to_have_attribute("points", re.compile(r"(\S+,\S+ ){5}"))
    assert page.locator("#funnel tbody th").all_text_contents() == list(STEPS)
    shot(page, "console")


def test_the_funnel_says_who_goes_on(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    moves = page.get_by_role("table", name="Moves of customers")
    expect(moves.get_by_role("columnheader")).to_have_text(["from", *STEPS])
    expect(moves.get_by_role("rowheader")).to_have_text(list(STEPS))
    status, body = live.get("/console/api/live", Authorization=f"Bearer {TOKEN}")
    assert status == 200
    found = {stage["step"]: stage for stage in orjson.loads(body)["funnel"]}
    assert list(found) == list(STEPS)
    cart, bought = found["cart"], found["post_purchase"]
    assert 0 < found["browse"]["on"] <= found["browse"]["came"]
    assert cart["came"] >= 1 and bought["came"] >= 2
    assert bought["on"] is None and bought["bought"] is None
    row = page.get_by_role("table", name="Funnel").get_by_role("row", name="browse")
    expect(row).to_contain_text(re.compile(r"\d+\.\d %"))


def test_what_was_rejected_is_split_by_cause(live: LiveShop, page: Page) -> None:
    call = {"type": "identify", "userId": "c2"}
    live.send_as(((FORMAT_HEADER, b"segment"),), orjson.dumps(call))
    page.goto(f"{live.url}/console/")
    by_name = page.get_by_role("table", name="Ignored by this process")
    expect(by_name.get_by_role("row", name="identify")).to_have_count(1)
    causes = page.get_by_role("table", name="Rejected by this process")
    expect(causes.get_by_role("rowheader")).to_have_text([*CAUSES, "late"])
    cells = causes.get_by_role("row", name="duplicate").get_by_role("cell")
    expect(cells.first).to_have_text(re.compile("^[1-9]"))  # the shop sent one event twice
    expect(causes.get_by_role("row", name="late").get_by_role("cell").first).to_have_text(
        re.compile("^[1-9]")
    )


def test_a_customer_and_an_item_are_found_by_keyboard_alone(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    for _ in range(30):  # links of the navigation come first
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
    shot(page, "console-customer", "#customers", "#items")


def test_what_came_of_lists_and_experiments_is_shown(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    came = page.get_by_role("table", name="What came of each list")
    expect(came.get_by_role("row", name="home")).to_contain_text("50.0 %")  # clicked, of two
    trials = page.get_by_role("table", name="Customers whose first session ended")
    expect(trials.get_by_role("row").nth(1)).to_contain_text("control")
    expect(trials.get_by_role("row").nth(2)).to_contain_text("coupons")
    expect(trials).to_contain_text("go on")
    difference = trials.get_by_role("row").nth(2).get_by_role("cell").nth(4)
    expect(difference).to_contain_text("too few customers to tell")


def test_rules_are_rehearsed_on_a_customer_and_nothing_is_written(
    live: LiveShop, page: Page
) -> None:
    page.goto(f"{live.url}/console/")
    page.get_by_label("What rules do to customer").fill("c2")
    page.keyboard.press("Enter")
    found = page.locator("#rules-found")
    expect(found.get_by_role("row", name="hero pin home")).to_be_visible()
    first_after = found.get_by_role("row", name="hero").get_by_role("cell").nth(3)
    expect(first_after).to_have_text(re.compile("^p5"))
    shot(page, "console-rules", "#rules")
    page.get_by_label("What rules do to customer").fill("nobody")
    page.keyboard.press("Enter")
    expect(found.locator(".problem")).to_contain_text("nothing is known of customer 'nobody'")


def test_what_customers_are_called_is_never_markup(live: LiveShop, page: Page) -> None:
    page.goto(f"{live.url}/console/")
    page.get_by_label("Customer id").fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Show customer").click()
    expect(page.locator("#customer-found .problem")).to_contain_text("<img src=x")
    assert page.locator("#customer-found img").count() == 0


def test_without_a_token_only_this_machine_sees_the_console() -> None:
    local, public = Access(None, web_host="127.0.0.1"), Access(None, web_host="0.0.0.0")
    assert local.served and not public.served
    assert local.allowed({"Host": "localhost:6066"}, {})
    assert not local.allowed({"Host": "evil.example:6066"}, {})  # a name that leads here
    assert not local.allowed({}, {})
    assert not local.token_fits("")
