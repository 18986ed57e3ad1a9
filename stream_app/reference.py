"""Reference pages from the code: ``python -m stream_app.reference``.

Writes the table of docs/settings.md, and docs/commands.md.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic.fields import FieldInfo

from stream_app.commands import register
from stream_app.settings import PREFIX, Settings

START = "<!-- settings: written by `python -m stream_app.reference` -->\n"
END = "<!-- /settings -->\n"
COMMANDS_HEAD = """# Commands

`faust -A stream_app.app COMMAND`, with the worker's [settings](settings.md) in the environment.
Written by `python -m stream_app.reference`. `worker` is Faust's own: `worker --help`.
"""


class Registry:
    """Stands where commands expect the Faust app to register with, and keeps them."""

    def __init__(self) -> None:
        self.found: dict[str, click.Command] = {}

    def command(self, *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """As Faust's ``App.command``: options decorate the handler, whose name is the command's."""

        def take(handler: Any) -> Any:
            def described(**_: Any) -> None: ...

            for option in reversed(options):
                option(described)
            name = handler.__name__.replace("_", "-")
            self.found[name] = click.command(name, help=inspect.getdoc(handler))(described)
            return handler

        return take


def commands() -> dict[str, click.Command]:
    """Every command of ``faust -A stream_app.app`` that is ours, by name.

    >>> [parameter.name for parameter in commands()["erase"].params]
    ['user', 'session']
    """
    registry = Registry()
    register(registry, Settings.model_validate({}))
    return dict(sorted(registry.found.items()))


def commands_page() -> str:
    """Markdown: a section for each command, with its options."""
    sections = [COMMANDS_HEAD]
    for name, command in commands().items():
        context = click.Context(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [f"| `{_cell(r[0])}` | {_cell(r[1])} |" for r in records if r]
        table = "\n".join(["", "| option | |", "|---|---|", *rows, ""]) if rows else ""
        sections.append(f"## {name}\n\n`{usage}`\n\n{_prose(command.help or '')}\n{table}")
    return "\n".join(sections)


def _prose(text: str) -> str:
    """A docstring as Markdown."""
    return text.replace("``", "`").replace("\b\n", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
    Path("docs/commands.md").write_text(commands_page())
