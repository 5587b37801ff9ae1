"""``make demo`` proves itself, and cleans up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Start


def test_the_demonstration_reads_again_what_every_leaf_got(
    start: Start, image: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {"TMPDIR": str(scratch)}
    demo = start(image, module="joinleaf.cli.demo", environment=environment)
    assert demo.end() == 0
    for number in (1, 2, 3):
        assert f"leaf-{number}: 1 file read again, sha256 equal" in demo.stderr
    assert "All well." in demo.stderr
    assert list(scratch.iterdir()) == []


def test_the_demonstration_of_a_missing_file_is_one_line(start: Start, tmp_path: Path) -> None:
    demo = start(tmp_path / "missing", module="joinleaf.cli.demo")
    assert demo.end() == 1
    assert demo.stderr.splitlines()[-1].startswith("joinleaf: error: ")
