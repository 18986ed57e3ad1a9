"""Every fenced block of README and docs is run, or checked by the code that would read it.

What is marked ``runnable`` is run by tests/operations/test_docs.py. Of the others shell lines are
parsed by the real commands, TOML by its loader, Python is compiled and its names are looked up.
``unchecked:`` in the opening line says why a block is neither.
"""

import ast
import importlib
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import yaml

from stream_app.core.actions import parse_actions
from stream_app.core.experiments import parse_experiments
from stream_app.journeys import load_journey, parse_journey
from stream_app.reference import commands
from stream_app.rule_records import read_rules
from stream_app.settings import load_settings
from stream_app.support_files import read_rules as support_rules

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"<<'?(\w+)'?(.*?)\n.*?^\1$", re.MULTILINE | re.DOTALL)
RUNS_ITSELF = "runnable"
REASON_CHARS_MIN = 10
KEYWORDS = set("if then else fi until while do done ! { }".split())
# Programs whose arguments are not ours to check.
OTHERS = set("git grep openssl redis-cli curl cd . sleep umask cat".split())


class Block(NamedTuple):
    """A fenced block: where it is, its language, what else its opening line says, its text."""

    page: Path
    line: int
    language: str
    tag: str
    text: str


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in FENCE.finditer(text):
        language, _, tag = found[1].partition(" ")
        yield Block(page, text.count("\n", 0, found.start()) + 1, language, tag, found[2])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def simple_commands(text: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    r"""Variables and words of each command of a script.

    >>> list(simple_commands("A=1 b --c 'd e' > f 2>&1 & # g\nuntil h | i; do sleep 1; done"))[:3]
    [({'A': '1'}, ['b', '--c', 'd e']), ({}, ['h']), ({}, ['i'])]
    """
    for line in HEREDOC.sub(r"\2", text.replace("\\\n", " ")).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        variables: dict[str, str] = {}
        words: list[str] = []
        tokens = [*lexer, ";"]
        for at, token in enumerate(tokens):
            redirected = at > 0 and set(tokens[at - 1]) <= set("<>&") and ">" in tokens[at - 1]
            number = token.isdigit() and tokens[at + 1].startswith((">", "<"))
            if redirected or number or (set(token) <= set("<>&") and token not in ("&", "&&")):
                continue
            if set(token) <= set("();|&"):
                if words or variables:
                    yield variables, words
                variables, words = {}, []
            elif not words and re.match(r"[A-Z_]+=", token):
                name, _, value = token.partition("=")
                variables[name] = value
            elif words or token not in KEYWORDS:
                words.append(token)


def check_shell(text: str) -> None:
    """Raise for a command that does not exist, or has no such option, target or variable."""
    assert subprocess.run(["bash", "-n", "-c", text], check=False).returncode == 0
    checked = 0
    settings: dict[str, str] = {}
    for variables, words in simple_commands(text):
        if words[:1] == ["export"]:
            variables |= dict(word.split("=", 1) for word in words[1:])
            words = []
        settings |= variables
        if words:
            check_command(words[0], words[1:])
        checked += 1
    assert checked
    load_settings(settings)


def check_command(program: str, arguments: list[str]) -> None:
    if program == "faust":
        assert arguments[:2] == ["-A", "stream_app.app"], arguments
        name, *rest = arguments[2:]
        if name != "worker":  # Faust's own
            commands()[name].make_context(name, rest)
    elif program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in arguments if "=" not in word} <= targets, arguments
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None, arguments[1]
    elif program == "docker" and arguments[0] == "compose":
        check_compose(arguments[1:])
    elif program in ("docker", "helm"):
        check_deployed(arguments)
    else:
        assert program in OTHERS, f"{program}: who checks it?"


def check_compose(arguments: list[str]) -> None:
    """Services and profiles are those of the file; commands of ours are parsed."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    for option, value in itertools.pairwise(arguments):
        if option == "--profile":
            assert value in profiles, value
        if option == "--scale":
            assert value.partition("=")[0] in services, value
    if arguments[0] in ("run", "exec"):
        service, *words = [word for word in arguments[1:] if word != "--rm"]
        assert service in services, service
        if service == "faust":
            commands()[words[0]].make_context(words[0], words[1:])


def check_deployed(arguments: list[str]) -> None:
    """Files of ours that are named are there, and values that are set are the chart's."""
    assert all((ROOT / word).exists() for word in arguments if word.startswith("deploy/"))
    for option, value in itertools.pairwise(arguments):
        if option in ("--set", "--set-file"):
            check_values({one.partition(".")[0].partition("=")[0] for one in value.split(",")})


def check_values(names: set[str]) -> None:
    chart = yaml.safe_load((ROOT / "deploy/helm/stream-app/values.yaml").read_text())
    assert names <= set(chart), names - set(chart)


def check_python(text: str) -> None:
    """Raise for a syntax error, a name that nothing defines, an attribute a module lacks."""
    tree = ast.parse(text)
    compile(tree, "snippet", "exec")
    known = set(dir(__builtins__)) | set(__builtins__ if isinstance(__builtins__, dict) else ())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
                known.add((alias.asname or alias.name).partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
                known.add(alias.asname or alias.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used <= known, f"nothing defines {used - known}"


def check_toml(text: str, tmp_path: Path) -> None:
    """Read it as what its first table says it is."""
    path = tmp_path / "snippet.toml"
    path.write_text(text)
    table = (re.search(r"^\[+(\w+)", text, re.MULTILINE) or [""] * 2)[1]
    if table == "rule":
        assert read_rules(path, load_journey().names)
    elif table == "experiment":
        assert parse_experiments(text, "snippet")
    elif table in ("action", "promotion"):
        assert parse_actions(text, "snippet").arms
    elif table == "route":
        path.write_text(shipped("support.toml").partition("[[route]]")[0] + text)
        assert support_rules(path, load_journey().names)
    else:  # a part of a journey: it stands in for that of the shipped one
        whole = shipped("journey.toml")
        for name in re.findall(r"^\[timeouts\.(\w+)\]", text, re.MULTILINE):
            whole = re.sub(
                rf"^\[timeouts\.{name}\]\n(?:[^\[].*\n|\n)*", "", whole, flags=re.MULTILINE
            )
        parse_journey(f"{whole}\n{text}")


def shipped(name: str) -> str:
    return (ROOT / "stream_app" / name).read_text()


def check(block: Block, tmp_path: Path) -> None:
    if block.tag == RUNS_ITSELF:
        assert block.language in ("sh", "python")
    elif block.tag.startswith("unchecked: "):
        assert len(block.tag.removeprefix("unchecked: ")) >= REASON_CHARS_MIN
    elif block.language == "sh":
        check_shell(block.text)
    elif block.language == "python":
        check_python(block.text)
    elif block.language == "toml":
        check_toml(block.text, tmp_path)
    elif block.language == "json":
        assert all(json.loads(line) for line in block.text.splitlines())
    elif block.language == "yaml":
        check_values(set(yaml.safe_load(block.text)))
    else:
        raise AssertionError(f"a block of {block.language or 'no language'}: who checks it?")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page.name}:{block.line}")
def test_a_snippet_is_run_or_checked(block: Block, tmp_path: Path) -> None:
    check(block, tmp_path)


@pytest.mark.parametrize(
    ("language", "text", "error"),
    [
        ("sh", "faust -A stream_app.app recommend ada --wy", click.NoSuchOption),
        ("sh", "faust -A stream_app.app recomend ada", KeyError),
        ("sh", "X=1 make tst", AssertionError),
        ("sh", "python -m stream_app.nothing", AssertionError),
        ("python", "from stream_app.reader import Riedar", AssertionError),
        ("python", "from stream_app.reader import Reader\nReader(redis)", AssertionError),
        ("toml", '[[rule]]\nid = "a"\naction = "hide"', Exception),
        ("", "anything", AssertionError),
    ],
)
def test_a_wrong_snippet_is_found(language: str, text: str, error: Any, tmp_path: Path) -> None:
    with pytest.raises(error):
        check(Block(ROOT / "README.md", 1, language, "", text), tmp_path)
