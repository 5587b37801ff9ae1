"""Encrypted sessions at the command line: the join line, certificates, and what goes wrong."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Program, Start

HERE = ("-a", "jls://127.0.0.1:0")


def line_of(sender: Program) -> str:
    """The join line as it is printed, without the quotation marks of the shell."""
    return sender.wait_for(r'joinleaf (?:receive|leaf) "(jls://[^"]+)"')[1]


def test_the_line_that_send_prints_is_all_that_a_receiver_needs(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, *HERE)
    receiver = start("receive", line_of(sender), "--to", tmp_path / "got")
    assert (receiver.end(), sender.end()) == (0, 0)
    assert (tmp_path / "got" / "image.bin").read_bytes() == image.read_bytes()
    assert line_of(sender).partition("#")[2] not in receiver.text  # it shows the key to nobody


def test_by_default_other_hosts_are_served_encrypted(start: Start, image: Path) -> None:
    sender = start("send", image, "--max-wait", 0)
    assert re.fullmatch(r"jls://[^/]+:7400/#[\w-]{48}", line_of(sender))
    assert "127.0.0.1" not in line_of(sender) or "no other" in sender.text
    sender.end()


def test_wrong_lines_are_told_apart(start: Start, image: Path, tmp_path: Path) -> None:
    sender = start("send", image, *HERE)
    line = line_of(sender)
    where, _, key = line.partition("#")
    other = start("root", "jls://127.0.0.1:0", stdin=True)
    stale = line_of(other).partition("#")[2]
    cases = (
        (2, "copy the join line whole", f"{where}#{key[:-1]}"),
        (2, "mistyped", f"{where}#{'A' if key[0] != 'A' else 'B'}{key[1:]}"),
        (1, "join line", f"{where}#{stale}"),
        (1, "encrypted", where.replace("jls", "jl").rstrip("/")),
    )
    for code, word, address in cases:
        receiver = start("receive", address, "--to", tmp_path / "no", "--timeout", 5)
        assert (receiver.end(), word in receiver.stderr) == (code, True), receiver.stderr
        assert receiver.stderr.count("\n") == 1
        assert key not in receiver.stderr
    assert start("receive", line, "--to", tmp_path / "yes").end() == 0
    assert sender.end() == 0


def test_an_authority_is_made_once_and_nothing_is_written_over(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    assert start("keys", "localhost", "127.0.0.1", "-f", folder).end() == 0
    ca = (folder / "ca.pem").read_bytes()
    assert start("keys", "lab-7", "--leaf", "-f", folder).end() == 0
    again = start("keys", "lab-7", "--leaf", "-f", folder)
    assert (again.end(), "there already" in again.stderr) == (2, True)
    outside = start("keys", "../lab-8", "--leaf", "-f", folder)
    assert (outside.end(), "no name for a file" in outside.stderr) == (2, True)
    assert (folder / "ca.pem").read_bytes() == ca
    for path in folder.glob("*-key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_certificates_let_in_and_who_shows_their_names(
    start: Start, image: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    assert start("keys", "localhost", "127.0.0.1", "-f", folder).end() == 0
    assert start("keys", "lab-7", "--leaf", "-f", folder).end() == 0

    def papers(name: str) -> tuple[str | Path, ...]:
        cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        return ("--cert", cert, "--key", key, "--ca", folder / "ca.pem")

    root = start("root", "jls://127.0.0.1:0", *papers("localhost"), stdin=True)
    address = root.wait_for(r"joinleaf leaf (jls://[^\s\"]+)")[1]
    stranger = start("leaf", address, "--ca", folder / "ca.pem")
    assert (stranger.end(), "asks for a certificate" in stranger.stderr) == (1, True)
    leaf = start("leaf", address, *papers("lab-7"), stdin=True)
    root.wait_for("joined")
    who = start("who", address, *papers("lab-7"))
    assert who.end() == 0
    assert re.search(r"identity\n.* lab-7\n", who.stdout.decode())
    root.end_input()
    assert (root.end(), leaf.end()) == (0, 0)


def test_a_certificate_alone_admits_nobody_and_says_so(
    start: Start, image: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    assert start("keys", "localhost", "-f", folder).end() == 0
    cert = folder / "localhost.pem"
    sender = start("send", image, "-a", "jls://0.0.0.0:0", "--cert", cert)
    assert (sender.end(), "--ca" in sender.stderr) == (2, True)
