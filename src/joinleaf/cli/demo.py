"""``make demo``: a root and three leaves in four processes send real data and prove that it came.

Twice: over a TCP connection for each leaf, then by one multicast stream for all.

The root is this process, the leaves run ``joinleaf receive``. What is sent is this interpreter's
own standard library, or any file or folder named on the command line. Afterwards every file is
read again at every leaf and compared with the source by this program itself, so that the verdict
does not rest on what is to be shown.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joinleaf.cli import carriage, units
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import run_verb
from joinleaf.cli.send import Sending
from joinleaf.cli.serving import reachable
from joinleaf.cli.signals import Stop
from joinleaf.sync import Root, open_root
from joinleaf.transfer import PathSource, TransferResult
from joinleaf.values import SessionAddress

__all__ = ["main"]

LEAVES: Final = 3
_JOIN_WITHIN_S: Final = 30.0
_END_WITHIN_S: Final = 10.0

_HERE: Final = SessionAddress.parse("jl://127.0.0.1:0")
_CARRIERS: Final = {carriage.LEG: f"{LEAVES} TCP connections", carriage.AUTO: "1 multicast stream"}
"""What is shown, by what ``--data`` calls it."""

# The library itself, and neither what was compiled from it, nor its tests, nor installed packages.
_LEFT_OUT: Final = ("__pycache__", "test", "tests", "idlelib", "site-packages", "dist-packages")


def main(arguments: list[str]) -> int:
    """Run it; gives 0 only if every leaf has every byte."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.stderr.write("usage: python -m joinleaf.cli.demo [FILE or FOLDER]\n")
        return ExitCode.USAGE
    given = Path(arguments[0]) if arguments else None
    return run_verb("demo", Common(), lambda talk, stop: _demonstrate(talk, stop, given))


@dataclass(frozen=True, slots=True)
class _Round:
    """One sending of everything to everybody, by one carrier.

    Attributes:
        result: The sender's verdict.
        good: Whether every leaf has every byte, and ended well.
        left_bytes: What left the root's sockets, repairs and control included.
        by_group: How many leaves the group served.
    """

    result: TransferResult
    good: bool
    left_bytes: int
    by_group: int

    @property
    def rate(self) -> float:
        """Bytes per second that every leaf got."""
        return self.result.size / self.result.seconds if self.result.seconds else 0.0


def _demonstrate(talk: Talk, stop: Stop, given: Path | None) -> tuple[ExitCode, dict[str, Any]]:
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="joinleaf-demo-")))
        what = given if given is not None else _standard_library(folder)
        source = PathSource(what)
        cleanup.callback(source.close)
        _introduce(talk, given, source)
        original = _digests(what)
        rounds: dict[str, _Round] = {}
        for carrier, title in _CARRIERS.items():
            talk.say(f"\n{title}", "bold")
            root, why_not = carriage.open_by(carrier, _HERE, _open, worth=False)
            with root:
                if why_not:
                    talk.say(f"No multicast on this machine: {why_not}", "yellow")
                    break
                done = _send(talk, stop, root, source, folder / carrier, original)
            rounds[carrier] = done
            if done.result.cancelled:
                return ExitCode.INTERRUPTED, done.result.as_dict()
        good = all(one.good for one in rounds.values())
        _conclude(talk, rounds, good=good)
        return ExitCode.OK if good else ExitCode.FAILURE, rounds[carriage.LEG].result.as_dict()


def _open(where: SessionAddress) -> Root:
    return open_root(where, linger=2.0)


def _send(
    talk: Talk,
    stop: Stop,
    root: Root,
    source: PathSource,
    folder: Path,
    original: Mapping[str, str],
) -> _Round:
    """Start the leaves, send, wait for their ends, read everything again."""
    with ExitStack() as cleanup:
        leaves = [
            cleanup.enter_context(_leaf_process(root, folder, number))
            for number in range(1, LEAVES + 1)
        ]
        sending = Sending(leaves=LEAVES, max_wait=_JOIN_WITHIN_S, linger=0.0)
        result = sending.run(talk, stop, root, source)
        stats = root.stats()
        ended = [_end_of(leaf) for leaf in leaves]
    left = stats.get("leg_bytes", 0) + stats.get("group_bytes", 0)
    by_group = sum(leaf.carrier == "group" for leaf in result.leaves)
    same = not result.cancelled and _compare(talk, original, folder, source.manifest.name)
    return _Round(result, same and result.ok and not any(ended), left, by_group)


def _standard_library(folder: Path) -> Path:
    """A copy, so that only the library itself is sent."""
    copy = folder / f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = sysconfig.get_path("stdlib")
    shutil.copytree(library, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT, "config-*"))
    return copy


def _introduce(talk: Talk, given: Path | None, source: PathSource) -> None:
    manifest = source.manifest
    what = "this Python's standard library, without its tests" if given is None else str(given)
    talk.say(f"A root and {LEAVES} leaves, four processes on this machine.", "bold")
    talk.say(
        f"The root sends {what}: {units.count(len(manifest.files), 'file')}, "
        f"{units.size(manifest.size or 0)}. Each leaf runs joinleaf receive."
    )


def _leaf_process(root: Root, folder: Path, number: int) -> _Leaf:
    (address,) = reachable(str(root.address))
    command = [sys.executable, "-m", "joinleaf", "receive", str(address), "--quiet"]
    command += ["--to", str(folder / f"leaf{number}"), "--as", f"leaf-{number}"]
    command += ["--timeout", f"{_JOIN_WITHIN_S:g}"]
    return _Leaf(command)


class _Leaf:
    """A leaf's process; a context manager that never leaves one behind."""

    def __init__(self, command: list[str]) -> None:
        # A session of its own: Ctrl-C at the terminal is for the root, which tells the leaves.
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self) -> _Leaf:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _end_of(leaf: _Leaf) -> int:
    try:
        return leaf.process.wait(timeout=_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        return ExitCode.FAILURE


def _compare(talk: Talk, original: Mapping[str, str], folder: Path, name: str) -> bool:
    """Read everything again at each leaf; whether all of it is the same."""
    begun = time.monotonic()
    equal = True
    for number in range(1, LEAVES + 1):
        received = _digests(folder / f"leaf{number}" / name)
        wrong = sorted(set(original.items()) ^ set(received.items()))
        for path, _ in wrong[:5]:
            talk.say(f"leaf-{number}: {path} differs", "red")
        equal = equal and not wrong
        if not wrong:
            same = units.count(len(received), "file")
            talk.say(f"leaf-{number}: {same} read again, sha256 equal to the source's")
    talk.say(f"read again in {units.duration(time.monotonic() - begun)}", "dim")
    return equal


def _digests(top: Path) -> dict[str, str]:
    """Sha256 of every regular file, by its path below ``top``."""
    if top.is_file():
        return {"": _sha256(top)}
    return {
        os.path.relpath(os.path.join(where, name), top): _sha256(Path(where, name))
        for where, _, names in os.walk(top)
        for name in names
        if not os.path.islink(os.path.join(where, name)) and Path(where, name).is_file()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _conclude(talk: Talk, rounds: Mapping[str, _Round], *, good: bool) -> None:
    if not good:
        talk.complain("the demonstration failed; the lines above say where")
        return
    talk.say()
    for carrier, one in rounds.items():
        talk.say(
            f"{_CARRIERS[carrier]:<22} every leaf got {units.rate(one.rate)}; "
            f"{units.size(one.left_bytes)} left the root for "
            f"{units.size(one.result.size * one.result.verified)} delivered."
        )
    talk.say(_comparison(rounds))
    talk.say("All well.", "bold green")


def _comparison(rounds: Mapping[str, _Round]) -> str:
    legs, group = rounds[carriage.LEG], rounds.get(carriage.AUTO)
    if group is None:
        return "Only connections were shown, for want of multicast on this machine."
    if group.by_group < LEAVES:
        deaf = LEAVES - group.by_group
        leaves = units.count(deaf, "leaf", "leaves")
        return f"{leaves} did not hear the group on this machine, and got all over connections."
    ratio = legs.left_bytes / max(1, group.left_bytes)
    speed = group.rate / legs.rate if legs.rate else 1.0
    return (
        f"To {LEAVES} leaves, one multicast stream took {ratio:.1f} times fewer bytes from the "
        f"root than {LEAVES} connections, at {speed:.1f} times their speed."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
