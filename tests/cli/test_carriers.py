"""Files by one multicast stream: who is served by what, said and proved; what is chosen unasked.

On loopback, where a group has to be asked for. Between hosts: tests/netns/test_send_group.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import joinleaf
from joinleaf.cli import carriage, main
from joinleaf.drivers.interfaces import Interface
from joinleaf.values import SessionAddress

if TYPE_CHECKING:
    from tests.cli.conftest import Program, Start

GROUP = ("-a", "jl://127.0.0.1:0", "--data", "auto")
SLOWLY = ("--rate", "16M")  # 2 MB/s: the image takes a second and a half


def carriers(sender: Program) -> dict[str, str]:
    return {leaf["name"]: leaf["carrier"] for leaf in sender.summary()["leaves"]}


def test_a_file_leaves_the_root_once_and_a_receiver_may_decline_the_group(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, "-n", 3, "--json", "--digest", "sha256", *SLOWLY, *GROUP)
    address = sender.address()
    assert "data=" not in address  # the root tells it to whoever joins
    declines = {2: ("--data", "leg")}
    leaves = [
        start(
            "receive", address, "--to", tmp_path / f"to{i}", "--as", f"l{i}", *declines.get(i, ())
        )
        for i in range(3)
    ]
    assert sender.end() == 0
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    for i, leaf in enumerate(leaves):
        assert leaf.end() == 0
        assert f"sha256 {digest}" in leaf.stderr
        assert (tmp_path / f"to{i}" / "image.bin").read_bytes() == image.read_bytes()
    assert carriers(sender) == {"l0": "group", "l1": "group", "l2": "leg"}
    summary = sender.summary()
    assert re.fullmatch(r"239\.255\.\d+\.\d+:7401", summary["group"])
    assert summary["group"] == sender.events("listening")[0]["group"]
    size = image.stat().st_size
    # The first pieces may go before the group is known to be heard.
    assert size * 0.5 < summary["group_bytes"] - summary["group_repair_bytes"] < size * 1.05
    assert size < summary["leg_bytes"] < size * 2
    assert "carrier" in sender.events("progress")[-1]["leaves"][0]
    assert "does not hear" not in sender.stderr  # it never wanted to


def test_the_verdict_says_who_was_served_by_what(start: Start, image: Path, tmp_path: Path) -> None:
    sender = start("send", image, "-n", 2, *SLOWLY, *GROUP, terminal=True)
    sender.wait_for("Over one multicast stream, 239.255.")
    address = sender.address()
    start("receive", address, "--to", tmp_path / "one", "--as", "hears")
    start("receive", address, "--to", tmp_path / "two", "--as", "declines", "--data", "leg")
    assert sender.end() == 0
    seen = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", sender.text)
    assert re.search(r"hears +127\S+ +receiving +group", seen)
    assert re.search(r"declines +127\S+ +receiving +leg", seen)
    assert re.search(r"hears +127\S+ +verified, by the group", seen)
    assert re.search(r"declines +127\S+ +verified, by its leg", seen)
    assert re.search("1 by the group 239.* sent, .*; 1 by its leg: ", seen)


def test_a_folder_over_the_group(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep" / "empty").mkdir(parents=True)
    for number in range(200):
        (source / "deep" / f"{number}.bin").write_bytes(os.urandom(10 * number))
    sender = start("send", source, "-n", 2, "--json", "--rate", "8M", *GROUP)
    address = sender.address()
    leaves = [start("receive", address, "--to", tmp_path / f"to{i}") for i in (1, 2)]
    assert sender.end() == 0
    assert set(carriers(sender).values()) == {"group"}
    for i, leaf in enumerate(leaves, 1):
        assert leaf.end() == 0
        top = tmp_path / f"to{i}" / "tree"
        assert (top / "deep" / "empty").is_dir()
        for path in (source / "deep").glob("*.bin"):
            assert (top / "deep" / path.name).read_bytes() == path.read_bytes()


def test_standard_input_over_the_group(start: Start, tmp_path: Path) -> None:
    sender = start("send", "-", "-n", 2, "--name", "feed", "--json", *GROUP, stdin=True)
    address = sender.address()
    to_file = start("receive", address, "--to", tmp_path, "--name", "kept")
    to_pipe = start("receive", address, "--to", "-")
    for number in range(5):
        sender.type(f"line {number}\n" * 1000)
        to_pipe.wait_for(f"line {number}\n")  # while the stream goes on
    sender.end_input()
    assert (sender.end(), to_file.end(), to_pipe.end()) == (0, 0, 0)
    assert to_pipe.stdout == b"".join(b"line %d\n" % number * 1000 for number in range(5))
    assert (tmp_path / "kept").read_bytes() == to_pipe.stdout
    assert sender.summary()["group_bytes"] > 0


def test_a_late_leaf_gets_what_the_group_has_brought_before_it_came(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, "--start-now", "--json", "--rate", "4M", *GROUP)
    address = sender.address()
    early = start("receive", address, "--to", tmp_path / "early", "--as", "early", "--json")
    early.wait_for(r'"progress".*"bytes_done": [1-9]')
    late = start("receive", address, "--to", tmp_path / "late", "--as", "late", "--json")
    assert (sender.end(), early.end(), late.end()) == (0, 0, 0)
    assert carriers(sender) == {"early": "group", "late": "group"}
    assert (tmp_path / "late" / "image.bin").read_bytes() == image.read_bytes()
    assert sender.summary()["bytes_sent"] > image.stat().st_size + 200_000  # with what it missed


def test_a_receiver_killed_in_the_middle_of_the_group_goes_on_where_it_was(
    start: Start, image: Path, tmp_path: Path
) -> None:
    sender = start("send", image, "-n", 3, "--linger", 30, "--json", "--rate", "8M", *GROUP)
    address = sender.address()
    line = [
        ("receive", address, "--to", tmp_path / f"to{i}", "--as", f"leaf-{i}", "--json")
        for i in range(3)
    ]
    stay, phoenix, other = (start(*arguments) for arguments in line)
    phoenix.wait_for(r'"progress".*"bytes_done": 2\d{6}')  # two seconds: it has made its note
    phoenix.signal(signal.SIGKILL)
    again = start(*line[1])
    assert (stay.end(), again.end(), other.end(), sender.end()) == (0, 0, 0, 0)
    assert again.summary()["bytes_resumed"] > 0
    for i in range(3):
        assert (tmp_path / f"to{i}" / "image.bin").read_bytes() == image.read_bytes()
    assert carriers(sender)["leaf-0"] == "group"
    (back,) = [leaf for leaf in sender.summary()["leaves"] if leaf["name"] == "leaf-1"]
    assert (back["state"], back["returns"]) == ("verified", 1)


def test_a_group_whose_port_another_program_has_is_told_and_the_leg_serves(
    start: Start, image: Path, tmp_path: Path
) -> None:
    group = "239.255.83.41"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((group, 0))
        port = taken.getsockname()[1]
        sender = start("send", image, "--json", *GROUP[:2], "--data", f"{group}:{port}")
        leaf = start("receive", sender.address(), "--to", tmp_path / "to")
        assert (sender.end(), leaf.end()) == (0, 0)
    assert re.search(rf"warning: cannot hear {group}:{port}, and is served by its leg", leaf.stderr)
    assert list(carriers(sender).values()) == ["leg"]


def test_two_sends_at_once_have_groups_of_their_own(
    start: Start, image: Path, tmp_path: Path
) -> None:
    senders = [start("send", image, "--json", *SLOWLY, *GROUP) for _ in range(2)]
    leaves = [
        start("receive", sender.address(), "--to", tmp_path / str(number))
        for number, sender in enumerate(senders)
    ]
    assert [program.end() for program in (*senders, *leaves)] == [0] * 4
    assert senders[0].summary()["group"] != senders[1].summary()["group"]


def test_two_sends_to_one_group_do_not_disturb_each_other(
    start: Start, image: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(os.urandom(3_000_000))
    same = ("--data", "239.255.83.42:7401")
    senders = [start("send", what, "--json", *SLOWLY, *GROUP[:2], *same) for what in (image, other)]
    leaves = [
        start("receive", sender.address(), "--to", tmp_path / str(number))
        for number, sender in enumerate(senders)
    ]
    assert [program.end() for program in (*senders, *leaves)] == [0] * 4
    assert (tmp_path / "0" / "image.bin").read_bytes() == image.read_bytes()
    assert (tmp_path / "1" / "other.bin").read_bytes() == other.read_bytes()


def test_a_live_session_by_the_group(start: Start) -> None:
    root = start("root", "jl://127.0.0.1:0", "--group", "auto", "--json", "--raw", stdin=True)
    root.wait_for("listening")
    group = root.events("listening")[0]["group"]
    assert group.startswith("239.255.")
    leaf = start("leaf", root.events("listening")[0]["addresses"][0])
    leaf.wait_for("joined")
    root.type("to everybody\n")
    leaf.wait_for("to everybody")
    root.end_input()
    assert (root.end(), leaf.end()) == (0, 0)


# What is chosen if nothing is said


@pytest.mark.parametrize(
    ("address", "leaves", "worth"),
    [
        ("jls://:7400", 1, False),
        ("jls://:7400", 2, True),
        ("jls://:7400", None, True),
        ("jl://10.0.0.5:7400", 30, True),
        ("jl://127.0.0.1:7400", 30, False),
        ("jl://[::1]:7400", None, False),
    ],
)
def test_a_group_is_worth_it_for_two_leaves_that_other_hosts_may_be(
    address: str, leaves: int | None, worth: bool
) -> None:
    assert carriage.worth_a_group(SessionAddress.parse(address), leaves) is worth


class Opened:
    """What ``open_by`` has tried to open; refuses groups of these families."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.tried: list[str] = []

    def __call__(self, where: SessionAddress) -> Any:
        data = where.options.get("data", "")
        self.tried.append(data)
        if data.startswith(self.refused):
            raise joinleaf.SessionOSError(f"cannot send to {data}", code=10051)
        return data


@pytest.fixture
def one_interface(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """This host has one interface, with these addresses and properties."""

    def have(*addresses: Any, **properties: Any) -> None:
        import ipaddress

        ips = tuple(map(ipaddress.ip_address, addresses))
        one = Interface("eth0", 2, ips, **properties)
        monkeypatch.setattr(carriage, "list_interfaces", lambda: [one])

    return have


def test_a_group_is_drawn_from_what_is_set_aside_for_it(
    one_interface: Callable[..., None],
) -> None:
    one_interface("10.0.0.5", "fd00::5")
    drawn = set()
    for _ in range(200):
        opened, why = carriage.open_by(
            None, SessionAddress.parse("jl://10.0.0.5:0"), Opened("x"), worth=True
        )
        assert not why
        host, port = str(opened).split(":")
        assert host.startswith("239.255.")
        assert not host.startswith("239.255.255.")  # RFC 2365, section 9
        assert port == "7401"
        drawn.add(host)
    assert len(drawn) > 190
    opened, _ = carriage.open_by(
        None, SessionAddress.parse("jl://[fd00::5]:0"), Opened("x"), worth=True
    )
    assert re.match(r"\[ff15::[89a-f][0-9a-f]{3}:", str(opened))  # RFC 3307, section 4.3


def test_the_next_family_and_then_the_legs_are_tried(one_interface: Callable[..., None]) -> None:
    one_interface("10.0.0.5", "fd00::5")
    where = SessionAddress.parse("jl://:0")
    for refused, kinds in ((("2",), "2["), (("2", "["), "2[-")):
        tries = Opened(*refused)
        _, why = carriage.open_by(None, where, tries, worth=True)
        assert "".join(one[:1] or "-" for one in tries.tried) == kinds
        assert bool(why) is (kinds[-1] == "-")
    for way in ("leg", None):
        tries = Opened()
        carriage.open_by(way, where, tries, worth=way is not None)
        assert tries.tried == [""]


@pytest.mark.parametrize("properties", [{"up": False}, {"multicast": False}, {"loopback": True}])
def test_without_an_interface_that_multicasts_there_is_none_and_a_reason(
    one_interface: Callable[..., None], properties: dict[str, bool]
) -> None:
    one_interface("10.0.0.5", **properties)
    tries = Opened()
    _, why = carriage.open_by("auto", SessionAddress.parse("jl://:0"), tries, worth=True)
    assert tries.tried == [""]
    assert "can multicast" in why


def test_a_group_that_was_named_is_used_or_an_error() -> None:
    tries = Opened("2")
    with pytest.raises(joinleaf.SessionOSError):
        carriage.open_by(
            "239.1.2.3:5", SessionAddress.parse("jl://127.0.0.1:0"), tries, worth=False
        )
    assert tries.tried == ["239.1.2.3:5"]


HERE = ("-a", "jl://127.0.0.1:0")


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (2, "is no multicast group", ("send", "IMAGE", *HERE, "--data", "10.0.0.1:7401")),
        (2, "a group and a port", ("send", "IMAGE", *HERE, "--group", "239.255.70.1")),
        (2, "has no port 0", ("send", "IMAGE", *HERE, "--data", "239.255.70.1:0")),
        (2, "a group and a port", ("root", *HERE[1:], "--group", "everybody")),
        (2, "leave that out", ("send", "IMAGE", "-a", f"{HERE[1]}?data=leg", "--data", "leg")),
        (2, "is no multicast group", ("receive", *HERE[1:], "--data", "1.2.3.4:5")),
        (2, "is a group itself", ("leaf", "udp://239.255.1.1:5000", "--group", "leg")),
        (1, "or data=leg", ("send", "IMAGE", *HERE, "--data", "[ff15::1]:7401")),
    ],
)
def test_a_mistake_about_the_carrier_is_one_line_with_the_way_out(
    image: Path,
    capsys: pytest.CaptureFixture[str],
    code: int,
    words: str,
    arguments: tuple[str, ...],
) -> None:
    """In this process: what costs is starting an interpreter for each."""
    assert main([str(image) if one == "IMAGE" else one for one in arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("joinleaf: error: ")
    assert words in line
