"""README and docs say what is true: the settings table and the links."""

import re
from pathlib import Path

from stream_app.reference import with_table

ROOT = Path(__file__).parent.parent


def test_the_settings_table_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    assert with_table(text) == text, "run: python -m stream_app.reference"


def test_no_link_in_the_documentation_is_dead() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    dead = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not dead, dead
