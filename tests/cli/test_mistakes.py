"""A mistake gets one line that names the way out, and its exit code; never a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import joinleaf
from joinleaf.cli import main

if TYPE_CHECKING:
    from tests.cli.conftest import Start


def test_each_mistake_is_one_line_with_its_exit_code(
    start: Start, image: Path, tmp_path: Path, free_address: str
) -> None:
    with joinleaf.open_root("jl://127.0.0.1:0") as taken:
        cases: list[tuple[int, str, tuple[object, ...]]] = [
            (1, "No such file", ("send", tmp_path / "missing")),
            (1, "in use", ("send", image, "-a", taken.address)),
            (1, "join it as jl://", ("receive", f"jls{str(taken.address).removeprefix('jl')}")),
            (1, "not known", ("receive", "jl://no-such-host.invalid:7400")),
            (2, "no interface has the name", ("send", image, "--interface", "nope0")),
            (2, "no interface has the name", ("leaf", "udp://239.255.1.1:5", "--interface", "no")),
            (1, "Not a directory", ("receive", free_address, "--to", image / "below")),
            (1, "no sender at", ("receive", free_address, "--timeout", "0.1")),
            (1, "Is the other side running", ("leaf", free_address)),
            (1, "Is the other side running", ("who", free_address)),
            (2, "write scheme://host:port", ("receive", "10.0.0.5:7400")),
            (2, "a port is missing", ("leaf", "jl://127.0.0.1")),
            (2, "--open", ("send", image, "-a", "jl://0.0.0.0:0")),
            (2, "--open", ("root", "jl://0.0.0.0:0")),
            (2, "Known schemes", ("leaf", "jk://127.0.0.1:7400")),
            (2, "inside one process", ("root", "mem://here")),
            (2, "has no root", ("root", "udp://239.255.1.1:5000")),
            (2, "leave one out", ("receive", free_address, "--json", "--to", "-")),
            (2, "write a rate as", ("send", image, "--rate", "fast")),
            (2, "No such option", ("send", image, "--fast")),
            (2, "Missing argument", ("send",)),
            (2, "No such command", ("sned",)),
        ]
        # All at once: starting an interpreter is what takes the time.
        programs = [start(*arguments) for _, _, arguments in cases]
        for (code, words, arguments), program in zip(cases, programs, strict=True):
            assert program.end() == code, (arguments, program.text)
            last = program.stderr.splitlines()[-1]
            assert last.startswith("joinleaf: error: "), (arguments, program.text)
            assert words in last, (arguments, last)


def test_who_is_turned_away_gets_exit_code_4_and_the_reason(start: Start) -> None:
    def admit(request: joinleaf.Request) -> object:
        return request.reject(b"members only", message="not on the list")

    with joinleaf.open_root("jl://127.0.0.1:0", admit=admit) as root:  # type: ignore[arg-type]  # reject() gives what admit may return
        programs = [start(verb, root.address) for verb in ("receive", "leaf")]
        for program in programs:
            assert program.end() == 4
            assert "refused by the root: not on the list (members only)" in program.stderr


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["--version"]) == 2
    assert 'pip install "joinleaf[cli]"' in capsys.readouterr().err


def test_every_option_has_an_environment_variable(start: Start, image: Path) -> None:
    settings = {"JOINLEAF_JSON": "1", "JOINLEAF_MAX_WAIT": "0.1", "JOINLEAF_LINGER": "0"}
    settings |= {"JOINLEAF_ADDRESS": "jl://127.0.0.1:0"}
    sender = start("send", image, environment=settings)
    assert sender.end() == 1
    assert sender.summary()["absent"] == 1
    assert sender.events("listening")[0]["size"] == 3_000_000
