"""README and docs say what is true: the settings table and the links."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from stream_app.codec import OUTBOX_SCHEMA
from stream_app.core.hybrid import BLEND_SCHEMA
from stream_app.core.state import PARTITION_SCHEMA, USER_SCHEMA
from stream_app.core.tables import ITEM_SCHEMA
from stream_app.reference import commands, commands_page, with_table

ROOT = Path(__file__).parent.parent


def test_the_settings_table_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    assert with_table(text) == text, "run: python -m stream_app.reference"


def test_the_page_of_commands_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert commands_page() == text, "run: python -m stream_app.reference"


def test_commands_are_those_that_faust_knows() -> None:
    code = (
        "import json; import stream_app.app; from faust.cli.faust import cli;"
        "print(json.dumps({n: [p.name for p in c.params] for n, c in cli.commands.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    known = json.loads(done.stdout.splitlines()[-1])
    ours = {name: [p.name for p in command.params] for name, command in commands().items()}
    assert {name: known.get(name) for name in ours} == ours
    assert {"recommend", "topics", "verify"} < set(ours)


def test_no_link_in_the_documentation_is_dead() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    dead = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not dead, dead


def test_the_changelog_begins_with_this_version_and_its_schemas() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = (ROOT / "deploy" / "helm" / "stream-app" / "Chart.yaml").read_text()
    found = re.search(r"^## (\S+)", text, re.MULTILINE)
    assert found and found[1] == project["version"]
    assert f"appVersion: {found[1]}\n" in chart
    rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \|", text, re.MULTILINE)
    assert {name: int(number) for name, number in rows} == {
        "customers": USER_SCHEMA,
        "their partitions": PARTITION_SCHEMA,
        "items": ITEM_SCHEMA,
        "outboxes": OUTBOX_SCHEMA,
        "blend weights": BLEND_SCHEMA,
    }
