"""One tiny run: the workers start, messages arrive and are counted, a table comes out."""

import pytest
from bench.__main__ import main


def test_a_tiny_run_of_joinleaf_alone_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--only|joinleaf, batches|--leaves|2|--sizes|64|--rounds|1|--seconds|0.01"
    assert main(["messages", *options.split("|")]) == 0
    printed = capsys.readouterr().out
    assert "### 64 B to 2 leaves" in printed
    assert "| joinleaf, batches |" in printed
    assert "commit:" in printed
