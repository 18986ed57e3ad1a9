"""The settings table of docs/settings.md, from the settings: ``python -m stream_app.reference``."""

from pathlib import Path

from pydantic.fields import FieldInfo

from stream_app.settings import PREFIX, Settings

START = "<!-- settings: written by `python -m stream_app.reference` -->\n"
END = "<!-- /settings -->\n"


def settings_table() -> str:
    """Markdown: variable, default, meaning.

    >>> settings_table().splitlines()[0]
    '| variable | default | meaning |'
    """
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.default in (None, ""):
        return ""
    return f"`{field.default:.15g}`" if isinstance(field.default, float) else f"`{field.default}`"


def with_table(text: str) -> str:
    """``text`` with what is between the marks replaced by the table."""
    before, rest = text.split(START)
    return before + START + settings_table() + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    page = Path("docs/settings.md")
    page.write_text(with_table(page.read_text()))
