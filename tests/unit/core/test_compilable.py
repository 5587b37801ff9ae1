"""What the compiler of the data path takes for granted, and whether it was used."""

from __future__ import annotations

import ast
import os
import tomllib
from pathlib import Path

import pytest

import joinleaf

SOURCE = Path(__file__).parents[3]
HARMLESS = {"len", "min", "max"}


def compiled() -> list[str]:
    settings = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    hooks = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    names: list[str] = hooks["mypyc"]["include"]
    return names


def acting(bound: ast.expr | None) -> bool:
    """Whether it matters that a bound is evaluated twice."""
    for node in ast.walk(bound) if bound is not None else ():
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield):
            return True
        if isinstance(node, ast.Call):
            named = node.func.id if isinstance(node.func, ast.Name) else ""
            if named not in HARMLESS:
                return True
    return False


@pytest.mark.parametrize("name", compiled())
def test_no_bound_of_a_slice_does_anything(name: str) -> None:
    """Mypyc evaluates the bounds of a slice of a view twice: one that takes bytes takes two."""
    tree = ast.parse((SOURCE / name).read_text())
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Slice) and any(map(acting, (node.lower, node.upper, node.step)))
    ]
    assert not found


@pytest.mark.parametrize("name", compiled())
def test_no_list_is_extended_by_calls_that_may_fail(name: str) -> None:
    """Of a compiled ``extend`` nothing is left after an error, where ``+=`` keeps what came."""
    tree = ast.parse((SOURCE / name).read_text())
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "extend"
        and any(
            isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id == "map"
            for made in node.args
        )
    ]
    assert not found


def test_what_is_tested_is_what_was_to_be_tested() -> None:
    assert joinleaf.COMPILED is bool(os.environ.get("JOINLEAF_EXPECT_COMPILED"))


def test_structures_of_msgspec_are_not_compiled() -> None:
    """Their annotations bound what a peer may say, and the compiler drops some."""
    for name in compiled():
        assert "msgspec.Struct" not in (SOURCE / name).read_text(), name
