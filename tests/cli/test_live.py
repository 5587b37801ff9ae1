"""Live sessions from the terminal or in a pipe, and who is there."""

from __future__ import annotations

import os
import re
import secrets
import signal
from typing import TYPE_CHECKING

import joinleaf

if TYPE_CHECKING:
    from tests.cli.conftest import Start

LOCAL = "jl://127.0.0.1:0"


def test_lines_of_a_pipe_reach_every_leaf_and_its_end_ends_the_session(start: Start) -> None:
    root = start("root", LOCAL, "-n", 2, "--data", "welcome", stdin=True)
    root.type("one\ntwo\n")  # before anybody is there: nothing of it may be lost
    address = root.address()
    leaves = [start("leaf", address, "--as", name) for name in ("ann", "bob")]
    root.type("three")
    root.end_input()
    assert root.end() == 0
    for leaf in leaves:
        assert leaf.end() == 0
        assert leaf.stdout == b"one\ntwo\nthree\n"
        assert f"joined {address}: welcome" in leaf.stderr
        assert "the session has ended: dissolved" in leaf.stderr
    assert root.stdout == b""


def test_what_leaves_send_comes_out_at_the_root_with_its_sender(start: Start) -> None:
    root = start("root", LOCAL, "--json", "--keep", stdin=True)
    leaf = start("leaf", root.address(), "--as", "ann", "--role", "sender", stdin=True)
    leaf.type("temperature 20\n")
    root.wait_for("temperature 20")
    leaf.end_input()
    assert leaf.end() == 0
    root.wait_for('"left"')
    root.signal()
    assert root.end() == 130
    (message,) = root.events("message")
    assert (message["name"], message["text"]) == ("ann", "temperature 20")
    assert root.events("left")[0]["reason"] == "closed"


def test_raw_chunks_pass_unchanged(start: Start) -> None:
    data = bytes(range(256)) * 512
    root = start("root", LOCAL, "--raw", stdin=True)
    leaf = start("leaf", root.address(), "--raw")
    assert root.process.stdin is not None
    root.process.stdin.write(data)
    root.end_input()
    assert (root.end(), leaf.end()) == (0, 0)
    assert leaf.stdout == data


def test_ctrl_c_at_a_leaf_shows_at_the_root_and_the_other_way_round(start: Start) -> None:
    root = start("root", LOCAL, "--keep", stdin=True)
    address = root.address()
    first = start("leaf", address, "--as", "ann")
    root.wait_for(r"ann \(127\.0\.0\.1:\d+\) joined")
    first.wait_for("joined")  # it knows, too: before, Ctrl-C would withdraw the request
    first.signal()
    root.wait_for(r"ann \(127\.0\.0\.1:\d+\) left: closed")
    assert first.end() == 130
    second = start("leaf", address, "--as", "bob")
    root.wait_for(r"bob .* joined")
    root.signal(signal.SIGTERM)
    assert (root.end(), second.end()) == (130, 0)
    assert "the session has ended: dissolved" in second.stderr


def test_typed_lines_go_to_everybody_and_show_who_said_them(start: Start) -> None:
    root = start("root", LOCAL, terminal=True)
    leaf = start("leaf", root.address(), "--as", "ann", terminal=True)
    root.wait_for(r"ann .* joined")
    root.type("hello leaves\n")
    leaf.wait_for(r"root> .*hello leaves")
    leaf.type("hello root\n")
    root.wait_for(r"ann> .*hello root")
    root.type("\x04")  # Ctrl-D
    assert (root.end(), leaf.end()) == (0, 0)


def test_ctrl_c_on_a_terminal_leaves_cleanly(start: Start) -> None:
    with joinleaf.open_root(LOCAL) as root:
        leaf = start("leaf", root.address, terminal=True)
        root.wait_for_leaves(1, timeout=40)
        leaf.wait_for("joined")
        leaf.type("\x03")
        assert leaf.end() == 130
        left = next(e for e in root.events(timeout=40) if isinstance(e, joinleaf.LeafLeft))
        assert left.reason == "closed"


def test_who_is_expelled_gets_exit_code_4(start: Start) -> None:
    with joinleaf.open_root(LOCAL) as root:
        leaf = start("leaf", root.address)
        root.wait_for_leaves(1, timeout=40)[0].close()
        assert leaf.end() == 4
        assert "turned this member out: expelled" in leaf.stderr


def test_what_a_peer_says_cannot_command_the_terminal(start: Start) -> None:
    with joinleaf.open_root(LOCAL) as root:
        leaf = start("leaf", root.address, terminal=True)
        root.wait_for_leaves(1, timeout=40)
        root.send(b"\x1b]0;owned\x07clear")
        leaf.wait_for("clear")
        assert "\x1b]0;owned" not in leaf.text


def test_who_tells_members_and_why_the_last_ones_left(start: Start) -> None:
    with joinleaf.open_root(LOCAL) as root:
        address = str(root.address)
        stays = joinleaf.join(address, name="stays", role="receiver")
        joinleaf.join(address, name="went").close()
        assert any(isinstance(e, joinleaf.LeafLeft) for e in root.events(timeout=40))
        text, as_json = start("who", address), start("who", address, "--json")
        assert (text.end(), as_json.end()) == (0, 0)
        stays.close()
    out = text.stdout.decode()
    assert re.search(r"1 leaf\nname +address +role +since +by +lag +dropped\n", out)
    assert re.search(r"stays +127\.0\.0\.1:\d+ +receiver +\d\d:\d\d:\d\d +leg +0 B +0", out)
    assert re.search(r"went +127\.0\.0\.1:\d+ .* closed", out)
    summary = as_json.summary()
    assert [one["name"] for one in summary["members"]] == ["stays"]
    assert [(one["name"], one["left"]) for one in summary["former"]] == [("went", "closed")]


def test_a_pipe_closed_by_its_reader_ends_a_leaf_without_complaint(start: Start) -> None:
    with joinleaf.open_root(LOCAL) as root:
        reading, writing = os.pipe()
        leaf = start("leaf", root.address, "-q", stdout=writing)
        os.close(writing)
        root.wait_for_leaves(1, timeout=40)
        os.close(reading)
        root.send(b"anybody?")
        assert leaf.end() == 0
        assert leaf.stderr == ""


def test_protocols_lists_every_scheme_with_its_flags(start: Start) -> None:
    listing, as_json = start("protocols"), start("protocols", "--json")
    assert (listing.end(), as_json.end()) == (0, 0)
    entries = as_json.events("protocol")
    assert {"jl", "udp", "ssm", "mem"} <= {one["scheme"] for one in entries}
    assert as_json.summary()["protocols"] == len(entries)
    rooted = next(one for one in entries if one["scheme"] == "jl")
    assert "MULTIPOINT_CONTROL_PLANE" in rooted["flags"]
    for one in entries:
        assert one["name"] in listing.stdout.decode()


def test_sealed_multicast_needs_nothing_but_the_address_and_never_shows_its_key(
    start: Start,
) -> None:
    key = secrets.token_urlsafe(32)
    group = f"udp://239.204.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}:34001"
    where = {"JOINLEAF_ADDRESS": f"{group}#{key}"}
    listener = start("leaf", "--interface", "lo", "-vv", environment=where)
    listener.wait_for(f"joined {group}")
    with joinleaf.join(group, interface="lo") as stranger:
        stranger.send(b"in the clear")
        speaker = start(
            "leaf", "--interface", "lo", "--role", "sender", "-vv", environment=where, stdin=True
        )
        speaker.type("sealed\n")
        speaker.end_input()
        assert speaker.end() == 0
        listener.wait_for("sealed\n")
        listener.wait_for("datagrams that are not sealed arrive and are dropped")
        listener.signal()
        assert listener.end() == 130
        heard = [stranger.receive(timeout=10).data for _ in range(2)]
    assert listener.stdout == b"sealed\n"
    assert b"sealed" not in heard[1]
    assert key not in listener.text + speaker.text
