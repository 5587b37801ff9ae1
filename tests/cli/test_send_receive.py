"""The main job: send to many, know for each whether it has it, and say so in exit codes."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Program, Start

LOCAL = ("-a", "jl://127.0.0.1:0")
SLOWLY = ("--rate", "16M")  # 2 MB/s: the image takes a second and a half


def states(sender: Program) -> dict[str, str]:
    return {leaf["name"]: leaf["state"] for leaf in sender.summary()["leaves"]}


def leaf_verdict(sender: Program, name: str) -> dict[str, Any]:
    (found,) = [leaf for leaf in sender.summary()["leaves"] if leaf["name"] == name]
    return dict(found)


def test_a_file_reaches_three_receivers_and_the_summary_says_so(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, "-n", 3, "--json", "--digest", "sha256", *LOCAL)
    address = sender.address()
    leaves = [
        start("receive", address, "--to", tmp_path / f"to{i}", "--as", f"leaf-{i}", "--json")
        for i in range(3)
    ]
    assert sender.end() == 0
    assert [leaf.end() for leaf in leaves] == [0, 0, 0]
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert sender.summary()["sha256"] == digest
    assert states(sender) == {f"leaf-{i}": "verified" for i in range(3)}
    assert len(sender.events("joined")) == 3
    for i, leaf in enumerate(leaves):
        assert (tmp_path / f"to{i}" / "image.bin").read_bytes() == image.read_bytes()
        assert leaf.summary()["sha256"] == digest
        assert leaf.summary()["exit"] == 0


def test_a_folder_arrives_as_it_is_and_plain_lines_tell_the_verdict(
    start: Start, tmp_path: Path
) -> None:
    source = tmp_path / "tree"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "deep" / "er" / "a.txt").write_text("a")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    sender = start("send", source, "-n", 2, *LOCAL)
    address = sender.address()
    leaves = [
        start("receive", address, "--to", tmp_path / f"to{i}", "--as", f"l{i}") for i in (1, 2)
    ]
    assert sender.end() == 0
    for i, leaf in enumerate(leaves, 1):
        assert leaf.end() == 0
        top = tmp_path / f"to{i}" / "tree"
        assert (top / "deep" / "er" / "a.txt").read_text() == "a"
        assert (top / "empty").is_dir()
        assert os.access(top / "run.sh", os.X_OK)
    assert sender.stdout == b""  # talk is not data
    assert "2 of 2 leaves have tree, verified by gmac" in sender.stderr
    assert re.search(r"l1 +127\.0\.0\.1:\d+ +verified", sender.stderr)
    assert "\x1b" not in sender.stderr


def test_standard_input_reaches_files_and_standard_output(start: Start, tmp_path: Path) -> None:
    sender = start("send", "-", "-n", 2, "--name", "feed", *LOCAL, stdin=True)
    address = sender.address()
    to_file = start("receive", address, "--to", tmp_path, "--name", "kept")
    to_pipe = start("receive", address, "--to", "-")
    sender.type("first line\n")
    to_pipe.wait_for("first line")  # while the stream goes on
    sender.type("second line\n")
    sender.end_input()
    assert (sender.end(), to_file.end(), to_pipe.end()) == (0, 0, 0)
    assert to_pipe.stdout == b"first line\nsecond line\n"
    assert (tmp_path / "kept").read_bytes() == to_pipe.stdout


def test_a_receiver_killed_in_the_middle_is_named_and_the_others_have_it(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, "-n", 3, "--linger", "0.2", "--json", *SLOWLY, *LOCAL)
    address = sender.address()
    leaves = [
        start("receive", address, "--to", tmp_path / f"to{i}", "--as", f"leaf-{i}", "--json")
        for i in range(3)
    ]
    leaves[1].wait_for('"progress"')
    leaves[1].signal(signal.SIGKILL)
    assert sender.end() == 3
    assert (leaves[0].end(), leaves[2].end()) == (0, 0)
    assert states(sender) == {"leaf-0": "verified", "leaf-1": "gone", "leaf-2": "verified"}
    assert leaf_verdict(sender, "leaf-1")["reason"]
    assert (tmp_path / "to2" / "image.bin").read_bytes() == image.read_bytes()
    assert not (tmp_path / "to1" / "image.bin").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130)])
def test_a_receiver_that_ended_and_is_started_again_goes_on_where_it_was(
    start: Start, image: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    sender = start("send", image, "--linger", 30, "--json", *SLOWLY, *LOCAL)
    line = ("receive", sender.address(), "--to", tmp_path / "to", "--as", "phoenix", "--json")
    first = start(*line)
    first.wait_for(r'"progress".*"bytes_done": [1-9]')
    first.signal(number)
    assert first.end() == code
    second = start(*line)
    assert second.end() == 0
    assert sender.end() == 0
    if number is not signal.SIGKILL:  # killed within a second, it may not have made a note yet
        assert second.summary()["bytes_resumed"] > 0
    assert states(sender) == {"phoenix": "verified"}
    assert (tmp_path / "to" / "image.bin").read_bytes() == image.read_bytes()


def test_a_late_leaf_gets_what_it_missed(start: Start, image: Path, tmp_path: Path) -> None:
    sender = start("send", image, "-n", 5, "--start-now", "--json", "--rate", "4M", *LOCAL)
    address = sender.address()
    early = start("receive", address, "--to", tmp_path / "early", "--as", "early", "--json")
    early.wait_for(r'"progress".*"bytes_done": [1-9]')
    late = start("receive", address, "--to", tmp_path / "late", "--as", "late", "--json")
    assert (sender.end(), early.end(), late.end()) == (0, 0, 0)
    assert states(sender) == {"early": "verified", "late": "verified"}
    assert (tmp_path / "late" / "image.bin").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("key", ["s", "\r"])
def test_a_key_starts_with_those_who_are_here(
    start: Start, image: Path, tmp_path: Path, key: str
) -> None:
    sender = start("send", image, "-n", 3, *LOCAL, terminal=True)
    leaf = start("receive", sender.address(), "--to", tmp_path / "to", terminal=True)
    sender.wait_for("1 of 3 leaves joined")
    sender.type(key)
    assert (sender.end(), leaf.end()) == (0, 0)
    for program in (sender, leaf):
        assert "━" in program.text  # progress is drawn on a terminal
    assert "1 of 1 leaf has image.bin, verified" in sender.text


def test_max_wait_starts_with_those_who_came_and_counts_the_others(
    start: Start, image: Path, tmp_path: Path, free_address: str
) -> None:
    leaf = start("receive", free_address, "--to", tmp_path / "to")
    leaf.wait_for("waiting for")  # so that it is there as soon as there is a sender
    sender = start(
        "send", image, "-n", 2, "--max-wait", 3, "--linger", 0, "--json", "-a", free_address
    )
    assert (sender.end(), leaf.end()) == (3, 0)
    assert sender.summary()["absent"] == 1


def test_nobody_at_all_is_a_failure_that_says_so(start: Start, image: Path) -> None:
    sender = start("send", image, "--max-wait", "0.1", "--linger", 0, *LOCAL)
    assert sender.end() == 1
    assert "joinleaf: error: nobody joined within 0.1 s" in sender.stderr


def test_ctrl_c_at_a_receiver_is_told_to_the_sender(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, "-n", 2, "--linger", "0.2", "--json", *SLOWLY, *LOCAL)
    address = sender.address()
    stays, goes = (
        start("receive", address, "--to", tmp_path / name, "--as", name, "--json")
        for name in ("stays", "goes")
    )
    goes.wait_for('"progress"')
    goes.signal()
    assert goes.end() == 130
    assert (sender.end(), stays.end()) == (3, 0)
    verdict = leaf_verdict(sender, "goes")
    assert (verdict["state"], verdict["reason"]) == ("gone", "closed")
    assert goes.summary()["exit"] == 130


def test_ctrl_c_at_the_sender_is_told_to_the_receivers(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, "--json", *SLOWLY, *LOCAL)
    leaf = start("receive", sender.address(), "--to", tmp_path / "to", "--json")
    leaf.wait_for('"progress"')
    sender.signal()
    assert sender.end() == 130
    assert leaf.end() == 1
    assert sender.summary()["cancelled"]
    # The end of the session can overtake what the sender said last.
    told = leaf.summary().get("reason") or leaf.summary()["error"]
    assert re.search("cancelled at the root|the sender (ended|at .* is gone)", told), told
    assert not (tmp_path / "to" / "image.bin").exists()


def test_a_file_in_the_way_is_not_touched_unless_told_so(
    start: Start, image: Path, tmp_path: Path
) -> None:
    there = tmp_path / "to" / "image.bin"
    there.parent.mkdir()
    there.write_text("precious")
    sender = start("send", image, "--linger", 0, "--json", *LOCAL)
    leaf = start("receive", sender.address(), "--to", there.parent)
    assert (leaf.end(), sender.end()) == (1, 3)
    assert "--overwrite" in leaf.stderr
    assert there.read_text() == "precious"
    again = start("send", image, *LOCAL)
    leaf = start("receive", again.address(), "--to", there.parent, "--overwrite")
    assert (leaf.end(), again.end()) == (0, 0)
    assert there.read_bytes() == image.read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_fails_that_leaf_alone(
    start: Start, image: Path, tmp_path: Path, small_disk: Path
) -> None:
    sender = start("send", image, "-n", 2, "--linger", 0, "--json", *LOCAL)
    address = sender.address()
    good = start("receive", address, "--to", tmp_path / "to", "--as", "good")
    full = start("receive", address, "--to", small_disk, "--as", "full")
    assert (sender.end(), good.end(), full.end()) == (3, 0, 1)
    assert states(sender) == {"good": "verified", "full": "failed"}
    assert "No space left on device" in full.stderr


def test_leaves_that_wait_outlive_a_restart_of_the_root(
    start: Start, image: Path, tmp_path: Path, free_address: str
) -> None:
    leaf = start("receive", free_address, "--to", tmp_path / "to")
    leaf.wait_for(f"waiting for {free_address}")
    first = start("send", image, "-n", 2, "-a", free_address)
    leaf.wait_for(f"joined {free_address}")
    first.signal(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    second = start("send", image, "-n", 1, "-a", free_address)
    assert (second.end(), leaf.end()) == (0, 0)
    assert (tmp_path / "to" / "image.bin").read_bytes() == image.read_bytes()


def test_no_color_takes_the_colours_away(start: Start, image: Path, tmp_path: Path) -> None:
    colour = re.compile(r"\x1b\[[\d;]*(?:3[0-7]|9[0-7])m")
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        sender = start("send", image, *LOCAL, terminal=True, environment=environment)
        leaf = start("receive", sender.address(), "--to", tmp_path / f"to{coloured}", "-q")
        assert (sender.end(), leaf.end()) == (0, 0)
        assert bool(colour.search(sender.text)) is coloured
        assert leaf.text == ""  # quiet


def test_what_is_left_out_is_said_before_anybody_has_joined(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a").write_text("a")
    (source / "link").symlink_to("a")
    os.mkfifo(source / "pipe")
    sender = start("send", source, *LOCAL)
    sender.wait_for(r"notice: tree/pipe: not a regular file; left out")
    leaf = start("receive", sender.address(), "--to", tmp_path / "to")
    assert (sender.end(), leaf.end()) == (0, 0)
    assert sender.stderr.count("tree/link: a symbolic link; left out") == 1
    assert "2 entries left out, as said above" in sender.stderr
    alone = start("send", source, "--json", "--max-wait", "0", *LOCAL)
    alone.end()
    (told,) = alone.events("left_out")
    assert told["notices"] == alone.summary()["notices"]
    assert len(told["notices"]) == 2


@pytest.mark.parametrize("where", ["/proc", "/proc/1/fd"])
def test_a_place_where_no_file_can_be_made_is_found_out_before_joining(
    start: Start, where: str
) -> None:
    if not os.path.isdir(where):
        pytest.skip("there is no such place here")
    leaf = start("receive", "jl://127.0.0.1:1", "--to", where)
    assert leaf.end() == 1
    assert f"{where}: files cannot be made there" in leaf.stderr
    assert "waiting" not in leaf.stderr


def test_receive_clean_removes_what_dead_runs_left_of_the_same_name(
    start: Start, image: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "to"
    folder.mkdir()
    dead = [folder / f".image.bin.{'0' * 16}.{end}" for end in ("part", "journal")]
    other = folder / f".other.bin.{'0' * 16}.part"
    for path in (*dead, other):
        path.write_bytes(b"of a run that is over")
    sender = start("send", image, *LOCAL)
    leaf = start("receive", sender.address(), "--to", folder, "--clean")
    assert (sender.end(), leaf.end()) == (0, 0)
    assert not any(path.exists() for path in dead)
    assert other.exists()
