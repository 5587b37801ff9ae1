"""The state tables hold through a layer as well: handles are all that differs, and not by much."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BOUND_S = 240

# These count upcalls, of which two providers make twice as many.
COUNTING = ("has_its_handle_the_data_and_a_peer", "makes_an_active_leg")


def test_every_row_of_the_state_tables_holds_below_a_tracer() -> None:
    tables = sorted(str(path) for path in HERE.glob("test_states_*.py"))
    assert tables
    plugin = ("-p", "tests.conformance.through_a_layer", "-p", "no:cacheprovider")
    unless = " and ".join(f"not {name}" for name in COUNTING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", *plugin, "-k", unless, *tables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 100, "the tables have more rows than that"
