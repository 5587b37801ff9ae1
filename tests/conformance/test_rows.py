"""The rows: every clause and every cell has one, and every test they name exists and runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from joinleaf.core.leaf_nonrooted import NonrootedLeafMachine
from joinleaf.core.leaf_rooted import LeafMachine
from joinleaf.core.leg import LegMachine
from joinleaf.core.root import RootMachine
from joinleaf.core.tables import Machine

HERE = Path(__file__).parent
ROWS: list[dict[str, Any]] = tomllib.loads((HERE / "rows.toml").read_text(encoding="utf-8"))["row"]
BY_ID = {row["id"]: row for row in ROWS}
CLAUSES = [f"JL-{number}" for number in range(1, 134)]
CELLS = [
    f"{letter}{number}"
    for letter, count in (("R", 13), ("N", 14), ("L", 11), ("M", 10), ("G", 8), ("H", 6))
    for number in range(1, count + 1)
] + [f"TR-{number}" for number in range(1, 8)]
CALLS = (
    "CloseSocket",
    "Send",
    "SendTo",
    "Recv",
    "RecvFrom",
    "Shutdown",
    "SendDisconnect",
    "RecvDisconnect",
    "GetPeerName",
    "GetSockName",
    "JoinLeaf",
    "Connect",
    "Listen",
    "Accept",
    "Bind",
    "EventSelect",
    "AsyncSelect",
    "EnumNetworkEvents",
    "GetSockOpt",
    "SetSockOpt",
    "Ioctl",
)
LEG_CELLS = [f"T-{call}-{state}" for call in CALLS for state in "NAFX"]
ENTRIES = ("mem", "udp", "ssm", "jl")
MACHINES: tuple[type[Machine[Any, Any, Any]], ...] = (
    RootMachine,
    LeafMachine,
    NonrootedLeafMachine,
    LegMachine,
)


@pytest.fixture(scope="module")
def collected() -> dict[str, set[str]]:
    """Every test of this folder, with the entries it runs against."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    answer = subprocess.run(
        [*command, str(HERE)], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, set[str]] = defaultdict(set)
    for line in answer.stdout.splitlines():
        if match := re.fullmatch(r"(?:.*/)?(\w+\.py::\w+)(?:\[(.*)\])?", line):
            found[match[1]] |= set((match[2] or "").split("-")) & set(ENTRIES)
    return found


def test_every_clause_and_every_cell_has_one_row() -> None:
    assert [row["id"] for row in ROWS] == CLAUSES + CELLS + LEG_CELLS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_row_is_complete(row: dict[str, Any]) -> None:
    assert row["source"]
    assert row["text"]
    assert row["level"] in ("must", "should", "may", "info")
    assert row["status"] in ("met", "differs", "not applicable")
    assert ("reason" in row) == (row["status"] != "met")
    assert set(row["entries"]) <= set(ENTRIES)
    assert bool(row["test"]) == (row["status"] != "not applicable")


def test_every_row_names_tests_that_run_against_its_entries(
    collected: dict[str, set[str]],
) -> None:
    for row in ROWS:
        assert set(row["test"]) <= set(collected), row["id"]
        runs = set().union(*(collected[test] for test in row["test"]))
        assert runs == set(row["entries"]), row["id"]
        assert runs or row["status"] == "not applicable", row["id"]


def test_what_differs_is_little_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    clauses = Counter(BY_ID[name]["status"] for name in CLAUSES)
    cells = Counter(BY_ID[name]["status"] for name in CELLS + LEG_CELLS)
    with capsys.disabled():
        sys.stdout.write(f"\nclauses: {dict(clauses)}; cells: {dict(cells)}\n")
    assert clauses["met"] >= 125
    assert cells["met"] >= len(CELLS + LEG_CELLS) - 5


def cited(text: str) -> set[str]:
    """Ids of rows that a table's ``clause`` speaks of."""
    found: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        if match := re.fullmatch(r"(\d+)(?: to (\d+))?", part):
            first, last = int(match[1]), int(match[2] or match[1])
            found |= {f"JL-{number}" for number in range(first, last + 1)}
        elif match := re.fullmatch(r"(?:(?:model )?\d+\.\d+ )?([A-Z]\d+)", part):
            found.add(match[1])
        else:
            assert re.fullmatch(r"(model|design) \d+(\.\d+)*", part), text
    return found


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_the_tables_of_the_core_cite_nothing_unknown(machine: type[Machine[Any, Any, Any]]) -> None:
    for pair, row in machine.TABLE.items():
        assert row.clause, pair
        assert cited(row.clause) <= set(BY_ID), pair
