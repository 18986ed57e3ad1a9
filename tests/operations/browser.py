"""The machine's own Chromium, driven by Playwright; nothing is downloaded."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FloatRect, Page, expect, sync_playwright

SHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
WRITE = os.environ.get("WRITE_SCREENSHOTS") == "1"  # `make screenshots` renews those in docs
EXPECT_MS = 60_000  # only to end a test that waits for what never comes
FLAGS = [
    "--no-sandbox",  # tests may run as root in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium; skips the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=EXPECT_MS)
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def logged_in(page: Page, url: str, token: str) -> None:
    """Open the console of a worker."""
    page.goto(f"{url}/console/")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status", name="Connection")).to_have_text("live")


@contextmanager
def page_of(browser: Browser, *, width: int = 1200, height: int = 900) -> Iterator[Page]:
    """A page that fails the test for any error of a script and any request that leaves the host."""
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-GB")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if "//127.0.0.1:" in request.url else errors.append(f"asked {request.url}")
        ),
    )
    yield page
    context.close()
    assert errors == []


def shot(page: Page, name: str, *parts: str) -> None:
    """A picture for the documentation, of the ``parts`` alone; in few colours to be small."""
    if not WRITE:
        return
    clip = None
    if parts:
        boxes = [box for part in parts if (box := page.locator(part).bounding_box())]
        left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
        right = max(box["x"] + box["width"] for box in boxes)
        bottom = max(box["y"] + box["height"] for box in boxes)
        top += page.evaluate("window.scrollY")
        bottom += page.evaluate("window.scrollY")
        clip = FloatRect(x=left, y=top, width=right - left, height=bottom - top)
    from PIL import Image

    SHOTS.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))) as picture:
        few = picture.convert("RGB").quantize(32, dither=Image.Dither.NONE)
        few.save(SHOTS / f"{name}.png", optimize=True)
