"""What a table has to say about where it comes from, and how it is printed."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from joinleaf import COMPILED

__all__ = ["print_table", "print_where", "spread"]


def _commit() -> str:
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "../src", "."],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git here)"
    return head + (" with uncommitted changes" if changed else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def print_where() -> None:
    """Command, commit, machine and versions: without them a figure means nothing."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    libraries = ", ".join(
        map(_version, ("joinleaf", "msgspec", "pyzmq", "eclipse-zenoh", "nats-py"))
    )
    print(f"command:  python -m bench {' '.join(sys.argv[1:])}")
    print(f"commit:   {_commit()}{', compiled' if COMPILED else ''}")
    print(f"machine:  {os.cpu_count()} x {_processor()}, {platform.platform()}")
    print(f"load:     {load:.2f} at the start")
    print(f"versions: Python {platform.python_version()}, {libraries}")
    print()


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median and, in brackets, lowest and highest; a single value is what it is."""
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:{form}}"
    return f"{middle:{form}} [{min(values):{form}}..{max(values):{form}}]"


def print_table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    failures: Mapping[str, str] | None = None,
) -> None:
    """A Markdown table; who failed has a row as well, and the reason below it."""
    failures = failures or {}
    failed = [[name, "failed", *["-"] * (len(head) - 2)] for name in failures]
    cells = [list(head), *map(list, rows), *failed]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    print(f"### {title}\n")
    for number, row in enumerate(cells):
        line = [
            text.ljust(width) if not column else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("| " + " | ".join(line) + " |")
        if not number:
            rules = (
                "-" * width if not column else "-" * (width - 1) + ":"
                for column, width in enumerate(widths)
            )
            print("| " + " | ".join(rules) + " |")
    print()
    for name, reason in failures.items():
        print(f"{name} failed: {reason}\n")
    sys.stdout.flush()
