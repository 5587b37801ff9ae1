"""The smallest profile: a table of functions for each end."""

import pytest
from bench.__main__ import main


@pytest.mark.patches  # a profiler does not see into compiled code
def test_both_ends_tell_where_their_time_went(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--only|joinleaf, batches|--leaves|1|--sizes|64|--seconds|0.01"
    assert main(["profile", *options.split("|")]) == 0
    printed = capsys.readouterr().out
    assert "64 B to 1, on loopback: sender" in printed
    assert "64 B to 1, on loopback: receiver" in printed
    assert "data.py" in printed
