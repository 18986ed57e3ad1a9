"""The console without a mouse and without eyes: keyboard, names, landmarks, what is announced."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.operations.browser import chromium, logged_in, page_of
from tests.operations.live import TOKEN, LiveShop, until
from tests.operations.tools import AXE, fetched

PANELS = (
    "Now, on this worker",
    "Data quality, on this worker",
    "Journey, on this worker",
    "Our lists, on this worker",
    "Experiments, on this worker",
    "Customers",
    "Items",
    "Rules, rehearsed",
)
LINKS = "now quality journey outcomes-of-lists experiments customers items rules".split()
TAB_PATH = [
    "#main",
    *(f"#{link}" for link in LINKS),
    "Pause",
    *("customer", "Show customer", "item", "Show neighbours", "rules-customer", "Rehearse rules"),
]
FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  return [e.getAttribute("href") || e.id && e.tagName === "INPUT" && e.id || e.textContent.trim(),
    style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""


@pytest.fixture(scope="module")
def page(live: LiveShop) -> Iterator[Page]:
    with chromium() as browser, page_of(browser) as page:
        logged_in(page, live.url, TOKEN)
        yield page


@pytest.fixture
def console(live: LiveShop, page: Page) -> Page:
    """The page, opened anew."""
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(f"{live.url}/console/")
    expect(page.get_by_role("status", name="Connection")).to_have_text("live")
    return page


def path(page: Page, key: str) -> list[str]:
    """What has the focus after each ``key``, once around; each must show that it has it."""
    passed: list[str] = []
    for _ in range(50):
        page.keyboard.press(key)
        if page.evaluate("document.activeElement === document.body"):
            return passed
        name, seen = page.evaluate(FOCUSED)
        if name in passed[:1]:
            return passed
        assert seen, f"the focus is not seen on {name}"
        passed.append(name)
    raise AssertionError(f"the focus never leaves the page: {passed}")


def test_the_keyboard_comes_to_every_control_in_reading_order_and_back(console: Page) -> None:
    assert path(console, "Tab") == TAB_PATH
    assert path(console, "Shift+Tab") == TAB_PATH[::-1]


def test_the_skip_link_and_the_sections_links_move_the_focus_on(console: Page) -> None:
    console.keyboard.press("Tab")
    expect(console.get_by_role("link", name="Skip to content")).to_be_focused()
    expect(console.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    console.keyboard.press("Enter")
    console.keyboard.press("Tab")
    expect(console.get_by_label("Customer id")).to_be_focused()
    console.get_by_role("link", name="Rules").press("Enter")
    expect(console.get_by_role("heading", name="Rules, rehearsed")).to_be_in_viewport()
    console.keyboard.press("Tab")
    expect(console.get_by_label("What rules do to customer")).to_be_focused()


def test_a_panel_that_is_wider_than_the_screen_is_scrolled_by_keyboard(console: Page) -> None:
    console.set_viewport_size({"width": 420, "height": 800})
    panel = console.get_by_role("region", name="Journey")
    expect(panel).to_have_attribute("tabindex", "0")
    panel.focus()
    console.keyboard.press("ArrowRight")
    # Asked from outside: the page's policy forbids what waits inside it to be evaluated.
    until(lambda: panel.evaluate("panel => panel.scrollLeft") > 0, "scrolling by keyboard")
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not console.evaluate(wide), "the page itself is not"


def test_landmarks_and_headings_give_the_page_its_shape(console: Page) -> None:
    for landmark in ("banner", "main"):
        assert console.get_by_role(landmark).count() == 1
    expect(console.get_by_role("navigation", name="Sections").get_by_role("link")).to_have_count(
        len(PANELS)
    )
    for panel in PANELS:
        expect(console.get_by_role("region", name=panel, exact=True)).to_have_count(1)
    expect(console.get_by_role("heading", level=1)).to_have_text("stream_app")
    expect(console.get_by_role("heading", level=2)).to_have_text(PANELS)
    for name in ("Customers", "Items", "Rules, rehearsed"):
        expect(console.get_by_role("search", name=name, exact=True)).to_have_count(1)


def test_every_table_has_a_caption_and_every_header_a_scope(console: Page) -> None:
    console.get_by_label("Customer id").fill("c2")
    console.keyboard.press("Enter")
    expect(console.get_by_role("table", name="List: cart", exact=True)).to_be_visible()
    faults = console.evaluate(
        """() => [...document.querySelectorAll("table")].filter((t) => !t.caption?.textContent ||
          !t.tHead.rows.length || [...t.rows].some((r) => r.cells[0].tagName === "TD" &&
            r.cells[0].colSpan < 2 && t.tHead.rows[0].cells.length > 1))
        .concat([...document.querySelectorAll("th")].filter((h) => !h.scope))
        .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert faults == []
    assert console.evaluate("document.documentElement.lang") == "en"


def test_what_was_found_is_announced_and_so_is_what_was_not(console: Page) -> None:
    said = console.locator("#customer-said")
    assert said.get_attribute("role") == "status"
    for wanted, told in (("c2", r"^c2, .*List: cart"), ("nobody", "there is no customer 'nobody'")):
        console.get_by_label("Customer id").fill(wanted)
        console.keyboard.press("Enter")
        expect(said).to_have_text(re.compile(told))


def test_figures_are_told_in_a_sentence_now_and_then_and_stand_still_when_asked(
    live: LiveShop, console: Page
) -> None:
    told = console.get_by_role("status", name="Figures")
    expect(told).to_have_text(re.compile("events a second, 99 % of lists within .* records behind"))
    assert console.locator("dl [aria-live], table [aria-live], svg [aria-live]").count() == 0
    first = told.text_content()
    pause = console.get_by_role("button", name="Pause")
    pause.press("Enter")
    expect(pause).to_have_attribute("aria-pressed", "true")
    expect(console.get_by_role("status", name="Connection")).to_have_text("paused")
    done = console.locator("#outcomes tbody").inner_text()
    live.send({"event": "view", "user_id": "pauser", "item_id": "p1", "ts": 1_790_000_000.0})
    live.wait_for("rec:pauser", "home")
    console.wait_for_timeout(2_500)  # two polls
    assert console.locator("#outcomes tbody").inner_text() == done
    pause.press("Enter")
    expect(console.get_by_role("status", name="Connection")).to_have_text("live")
    expect(console.locator("#outcomes tbody")).not_to_have_text(done)
    assert told.text_content() == first, "once a minute is enough"


def test_a_table_that_changes_keeps_the_cells_that_did_not(live: LiveShop, console: Page) -> None:
    cell = console.locator("#outcomes tbody tr").first.locator("td").first
    console.evaluate("window.kept = document.querySelector('#outcomes tbody tr')")
    before = cell.text_content() or ""
    live.send({"event": "view", "user_id": "keeper", "item_id": "p1", "ts": 1_790_000_000.0})
    expect(cell).not_to_have_text(before)
    assert console.evaluate("window.kept === document.querySelector('#outcomes tbody tr')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of(live: LiveShop, console: Page, scheme: str) -> None:
    """Deque's rules for WCAG 2.2 AA and good practice, with everything shown that can be."""
    source = (fetched(AXE) / "package" / "axe.min.js").read_text()
    console.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for label, wanted, shown in (
        ("Customer id", "c2", "List: cart"),
        ("Item id", "p2", "Neighbours"),
        ("What rules do to customer", "c2", "What each rule changes"),
    ):
        console.get_by_label(label).fill(wanted)
        console.keyboard.press("Enter")
        expect(console.get_by_role("table", name=shown, exact=True)).to_be_visible()
    console.evaluate(source)
    found = console.evaluate("axe.run().then((r) => r)")
    told = [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in found["violations"]]
    assert told == []
    assert len(found["passes"]) > 30
    console.emulate_media(color_scheme="light")
