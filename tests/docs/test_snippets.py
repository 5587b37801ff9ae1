"""Every snippet of the README and the documentation runs.

A ``python`` block is a program; one marked ``python continues`` goes on where the block before it
ended. In a ``console`` block each line after ``$`` is run by bash, in one shell for the page, in an
empty folder; lines in between are what it must print (``...`` stands for anything). ``text`` blocks
are not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```", re.M | re.S)
BOUND_S = 60

# Commands that set the project up run in CI before this test does, or install from outside.
ELSEWHERE = ("make ", "pip install", "git clone", "cd joinleaf", "sudo ")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _fences(page: Path) -> list[tuple[str, str, int, str]]:
    text = page.read_text(encoding="utf-8")
    return [
        (
            match[2],
            match[3].strip(),
            text[: match.start()].count("\n") + 1,
            textwrap.dedent(match[4]),
        )
        for match in FENCE.finditer(text)
    ]


def _programs() -> list[Block]:
    blocks: list[Block] = []
    for page in PAGES:
        before = ""
        for language, mark, line, body in _fences(page):
            if language == "python":
                before = before + body if mark == "continues" else body
                blocks.append(Block(page, line, before))
    return blocks


def _sessions() -> list[Block]:
    return [
        Block(page, line, body)
        for page in PAGES
        for language, _, line, body in _fences(page)
        if language == "console"
    ]


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "100"}


@pytest.mark.parametrize("block", _programs(), ids=str)
def test_python_snippet_runs(block: Block, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("block", _sessions(), ids=str)
def test_console_snippet_runs_and_prints_what_it_says(block: Block, tmp_path: Path) -> None:
    lines = block.text.splitlines()
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    assert commands, f"{block}: a console block needs a line that starts with $"
    mine = [command for command in commands if not command.startswith(ELSEWHERE)]
    if not mine:
        return
    script = "set -e\n" + "\n".join(mine) + "\nwait\n"
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    printed = result.stdout + result.stderr
    assert result.returncode == 0, f"{block}\n{printed}"
    expected = [line for line in lines if line and not line.startswith("$ ")]
    for line in expected:
        pattern = ".*".join(re.escape(part) for part in line.split("..."))
        assert re.search(pattern, printed), f"{block}: {line!r} is not in\n{printed}"


def test_every_page_is_reachable_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.parent == ROOT or page.name == "index.md":
            continue
        assert str(page.relative_to(ROOT / "docs")) in index, f"{page.name} is not in docs/index.md"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
