"""Every promise of the threat model names a test, and every test it names exists."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "threat-model.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@lru_cache
def _tests_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 40
    missing = [f"{path}::{name}" for path, name in named if name not in _tests_in(path)]
    assert not missing


def test_every_row_about_an_attempt_names_a_test() -> None:
    shown, bare = False, []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            shown = False
        elif line.rstrip().endswith("| shown by |"):
            shown = True
        elif shown and not line.startswith("|---") and not NAMED.search(line):
            bare.append(line)
    assert not bare
