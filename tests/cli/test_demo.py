"""``make demo`` proves itself, and cleans up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import joinleaf
from joinleaf.cli import demo
from joinleaf.values import SessionAddress

if TYPE_CHECKING:
    from tests.cli.conftest import Start


def test_the_demonstration_reads_again_what_every_leaf_got(
    start: Start, image: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {"TMPDIR": str(scratch)}
    shown = start(image, module="joinleaf.cli.demo", environment=environment)
    assert shown.end() == 0
    for number in (1, 2, 3):
        assert shown.stderr.count(f"leaf-{number}: 1 file read again, sha256 equal") == 2
    assert re.search(r"3 TCP connections +every leaf got .*; 9\.\d MB left the root", shown.stderr)
    assert re.search(r"1 multicast stream +every leaf got .*; 3\.\d MB left the root", shown.stderr)
    assert "one multicast stream took" in shown.stderr
    assert "All well." in shown.stderr
    assert list(scratch.iterdir()) == []


def test_where_there_is_no_multicast_the_demonstration_shows_connections_and_says_so(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(address: object, **settings: object) -> joinleaf.Root:
        if "data" in SessionAddress.parse(str(address)).options:
            raise joinleaf.SessionOSError("cannot send to it", code=10051)
        return joinleaf.open_root(str(address))

    monkeypatch.setattr(demo, "open_root", refused)
    assert demo.main([str(image)]) == 0
    said = capsys.readouterr().err
    assert "No multicast on this machine: cannot send to it" in said
    assert "Only connections were shown" in said
    assert "All well." in said


def test_the_demonstration_of_a_missing_file_is_one_line(start: Start, tmp_path: Path) -> None:
    shown = start(tmp_path / "missing", module="joinleaf.cli.demo")
    assert shown.end() == 1
    assert shown.stderr.splitlines()[-1].startswith("joinleaf: error: ")
