"""The pages that are read off the code say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["api.md", "command-line.md", "errors.md", "states.md", "conformance.md"]
)
def test_generated_page_is_up_to_date(name: str) -> None:
    path = DOCS / "reference" / name
    page = _generator().PAGES[path]()
    assert path.read_text(encoding="utf-8") == page, "run: python docs/generate.py"
