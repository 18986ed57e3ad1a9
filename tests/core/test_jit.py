"""Kernels that count no references must not be handed arrays that were made for them."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import stream_app

NUMBERS = ("None", "int", "float", "bool")


class Kernel(NamedTuple):
    allocates: bool
    returns: str
    calls: frozenset[str]


def kernels() -> Iterator[tuple[str, Kernel]]:
    for path in Path(stream_app.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                marks = {ast.unparse(mark) for mark in node.decorator_list}
                if marks & {"kernel", "allocating", "inlined"}:
                    calls = (c.func for c in ast.walk(node) if isinstance(c, ast.Call))
                    names = frozenset(c.id for c in calls if isinstance(c, ast.Name))
                    returns = ast.unparse(node.returns) if node.returns else "None"
                    yield node.name, Kernel("allocating" in marks, returns, names)


def test_only_allocating_kernels_call_those_that_return_arrays() -> None:
    # numba refuses to compile a kernel that makes arrays without counting references, but not one
    # that is given them by another: they would never be freed.
    found = list(kernels())  # two modules may have one of the same name
    making = {name for name, k in found if k.allocates and k.returns not in NUMBERS}
    assert {"new_desk", "new_recent", "_render"} <= making
    wrong = [
        (name, sorted(k.calls & making))
        for name, k in found
        if not k.allocates and k.calls & making
    ]
    assert wrong == []
