"""The smallest runs of the question bulk: copies are compared, failures told, nothing stays."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import bulk_files, bulk_memory
from bench.__main__ import main
from bench.bulk_memory import MEMORY_WAYS
from bench.bulk_ways import FILE_WAYS
from tests.netns.lan import why_not

TINY = ["--megabytes", "2", "--leaves", "2", "--rounds", "1", "--loss", "0"]

_reason = functools.cache(why_not)


@pytest.fixture(autouse=True)
def _networks() -> None:
    if reason := _reason():
        pytest.skip(reason)


def remains() -> tuple[set[str], set[str]]:
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    spaces = {line.split()[0] for line in listed.splitlines() if line.startswith("jlb")}
    return spaces, {one.name for one in Path("/dev/shm").glob("jlbench-*")}


@pytest.mark.parametrize("where", ["loopback", "bridge", "mtu", "gigabit"])
def test_a_file_of_joinleaf_reaches_all_everywhere(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = remains()
    chosen = ["--of", "file", "--only", "joinleaf send"]
    assert main(["bulk", *TINY, "--where", where, *chosen]) == 0
    printed = capsys.readouterr().out
    assert "### 2 MB from file to file, 2 leaves" in printed
    assert "| joinleaf send |" in printed
    assert "failed" not in printed
    assert remains() == before


@pytest.mark.parametrize("name", [name for name in FILE_WAYS if "joinleaf" not in name])
def test_every_rival_that_is_installed_brings_a_file(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := FILE_WAYS[name].why_not():
        pytest.skip(reason)
    where = "gigabit" if "Mbit/s" in name else "bridge"
    assert main(["bulk", *TINY, "--where", where, "--of", "file", "--only", name]) == 0
    printed = capsys.readouterr().out
    assert f"| {name} |" in printed
    assert "failed" not in printed


@pytest.mark.parametrize("name", [name for name in MEMORY_WAYS if "joinleaf, " not in name])
def test_every_way_from_memory_reaches_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := MEMORY_WAYS[name].why_not():
        pytest.skip(reason)
    assert main(["bulk", *TINY, "--where", "bridge", "--of", "memory", "--only", name]) == 0
    printed = capsys.readouterr().out
    assert f"| {name} |" in printed
    assert "failed" not in printed


def test_a_file_that_is_not_the_one_sent_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest: Callable[[Path], bytes] = bulk_files._digest
    monkeypatch.setattr(
        bulk_files, "_digest", lambda path: b"" if path.parent.name == "1" else digest(path)
    )
    chosen = ["--of", "file", "--only", "joinleaf send"]
    assert main(["bulk", *TINY, "--where", "bridge", *chosen]) == 0
    printed = capsys.readouterr().out
    assert "joinleaf send failed: the file of receiver 2 is not what was sent" in printed


def test_who_takes_too_long_is_told_and_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = remains()
    monkeypatch.setattr(bulk_memory, "LIMIT_S", 0.1)
    assert main(["bulk", *TINY, "--where", "bridge", "--of", "memory", "--only", "joinleaf"]) == 0
    assert "joinleaf failed: 0 of 2 finished: within 0 s" in capsys.readouterr().out
    assert remains() == before
