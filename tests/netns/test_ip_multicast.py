"""udp:// and ssm:// between hosts: what reaches whom, and what interface trouble does."""

from __future__ import annotations

import itertools
import json
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.netns.lan import Host, Lan, Process

from joinleaf.spi.codes import WSAEADDRNOTAVAIL, WSAENETDOWN, WSAENETUNREACH, WSAETIMEDOUT
from joinleaf.values import SessionAddress

MEMBER = str(Path(__file__).with_name("member.py"))
SILENCE = "0.3"  # seconds without data that count as "hears nothing"; data take under 0.01

_numbers = itertools.count(1)


def udp(version: int) -> str:
    """A session that no other test has used, so that no switch remembers anything about it."""
    number = next(_numbers)
    return (
        f"udp://239.255.10.{number}:5000" if version == 4 else f"udp://[ff15::10:{number:x}]:5000"
    )


Join = Callable[..., "Member"]


class Member:
    """A member program on a host."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.outcome = process.hear()

    def ask(self, line: str) -> str:
        self.process.say(line)
        return self.process.hear()

    def hears_nothing(self) -> bool:
        return self.ask(f"receive {SILENCE}").startswith(f"error {WSAETIMEDOUT}")


@pytest.fixture
def join() -> Iterator[Join]:
    with ExitStack() as stack:

        def start(host: Host, url: str, *, expect: str = "joined", **plan: Any) -> Member:
            """Start a member; if it is to receive, wait until its network knows of it."""
            argument = json.dumps({"url": url, **plan})
            process = stack.enter_context(host.start(sys.executable, "-u", MEMBER, argument))
            member = Member(process)
            assert member.outcome.startswith(expect), member.outcome
            listens = plan.get("role") != "SENDER_ONLY" and not plan.get("d_root")
            if expect == "joined" and listens:
                group = str(SessionAddress.parse(url).address.ip)
                host.lan.wait_for_member(host, group)
            return member

        yield start


@pytest.mark.parametrize("version", [4, 6])
def test_sealed_members_hear_each_other_and_no_stranger(lan: Lan, join: Join, version: int) -> None:
    url, key = udp(version), secrets.token_urlsafe(32)
    one, two = (join(host, f"{url}#{key}") for host in lan.hosts[:2])
    plain, other = join(lan.hosts[2], url), join(lan.hosts[2], f"{url}#{secrets.token_urlsafe(32)}")
    for stranger in (plain, other):
        stranger.ask("send injected")
    one.ask("send sealed")
    sender = lan.hosts[0].ipv4 if version == 4 else lan.hosts[0].ipv6
    assert two.ask("receive 10") == f"got {sender} sealed"
    assert two.hears_nothing()
    assert other.ask("receive 10").endswith(" injected")  # its own, and nothing but
    assert other.hears_nothing()
    counts = json.loads(two.ask("statistics"))
    assert (counts["refused_plain"], counts["refused_other_key"]) == (1, 1)


@pytest.mark.parametrize("version", [4, 6])
def test_all_members_hear_every_member(lan: Lan, join: Join, version: int) -> None:
    url = udp(version)
    one, two, three = (join(host, url) for host in lan.hosts)
    sender = lan.hosts[0].ipv4 if version == 4 else lan.hosts[0].ipv6
    one.ask("send hello")
    assert two.ask("receive 10") == f"got {sender} hello"
    assert three.ask("receive 10") == f"got {sender} hello"
    three.ask("send answer")
    answers = [one.ask("receive 10"), one.ask("receive 10"), two.ask("receive 10")]
    assert [text.split()[-1] for text in answers] == ["hello", "answer", "answer"]


def test_link_local_groups_are_joined_on_the_interface_in_the_address(lan: Lan, join: Join) -> None:
    url = "udp://[ff12::77%eth0]:5001"
    one, two = join(lan.hosts[0], url), join(lan.hosts[1], url)
    one.ask("send hello")
    assert two.ask("receive 10").startswith("got fe80::")


@pytest.mark.parametrize("version", [4, 6])
def test_in_a_source_specific_session_only_the_source_is_heard(
    lan: Lan, join: Join, version: int
) -> None:
    root, leaf, stranger = lan.hosts
    source = {4: root.ipv4, 6: f"[{root.ipv6}]"}[version]
    other = {4: stranger.ipv4, 6: f"[{stranger.ipv6}]"}[version]
    group = {4: "232.1.2.3:5002", 6: "[ff35::8000:1]:5002"}[version]
    listener = join(leaf, f"ssm://{source}@{group}")
    second = join(stranger, f"ssm://{other}@{group}", d_root=True)
    first = join(root, f"ssm://{source}@{group}", d_root=True)
    second.ask("send from a stranger")
    address = {4: leaf.ipv4, 6: leaf.ipv6}[version]
    stranger.check_output(
        sys.executable,
        "-c",
        "import socket, sys; host = sys.argv[1]; "
        "family = socket.AF_INET6 if ':' in host else socket.AF_INET; "
        "socket.socket(family, socket.SOCK_DGRAM).sendto(b'to the port', (host, 5002))",
        address,
    )
    first.ask("send from-the-source")
    assert listener.ask("receive 10").split()[-1] == "from-the-source"
    assert listener.hears_nothing()
    assert json.loads(listener.ask("statistics"))["messages_filtered"] == 1


def test_nobody_sends_to_a_source_specific_session_but_its_source(lan: Lan, join: Join) -> None:
    url = f"ssm://{lan.hosts[0].ipv4}@232.1.2.4:5002"
    leaf = join(lan.hosts[1], url)
    assert leaf.ask("send x").startswith("error 10045")
    join(lan.hosts[1], url, role="SENDER_ONLY", expect="error 10045")
    join(lan.hosts[1], url, d_root=True, expect=f"error {WSAEADDRNOTAVAIL}")
    root = join(lan.hosts[0], url, d_root=True)
    assert root.ask("receive 1").startswith("error 10045")


@pytest.mark.parametrize("version", [4, 6])
def test_no_hops_means_this_host_only(lan: Lan, join: Join, version: int) -> None:
    url = udp(version)
    near, far = join(lan.hosts[0], url), join(lan.hosts[1], url)
    sender = join(lan.hosts[0], url, role="SENDER_ONLY", settings={"hops": 0})
    sender.ask("send here")
    assert near.ask("receive 10").endswith("here")
    assert far.hears_nothing()


def test_hops_are_what_the_receiver_finds_in_the_datagram(lan: Lan, join: Join) -> None:
    program = (
        "import socket, struct\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL\n"
        "s.bind(('', 5003))\n"
        "member = struct.pack('4s4s', socket.inet_aton('239.255.10.3'), bytes(4))\n"
        "s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)\n"
        "print('ready')\n"
        "for _ in range(2):\n"
        "    print(int.from_bytes(s.recvmsg(100, 100)[1][0][2], 'little'))\n"
    )
    lan.hosts[1].ip("route add 224.0.0.0/4 dev eth0")
    with lan.hosts[1].python(program) as receiver:
        receiver.hear("ready")
        for hops in (1, 33):
            url = f"udp://239.255.10.3:5003?hops={hops}"
            join(lan.hosts[0], url, role="SENDER_ONLY").ask("send x")
            assert receiver.hear() == str(hops)
    lan.hosts[1].ip("route del 224.0.0.0/4 dev eth0")


@pytest.mark.parametrize("version", [4, 6])
def test_a_sender_only_hears_nothing_although_its_host_is_in_the_group(
    lan: Lan, join: Join, version: int
) -> None:
    url = udp(version)
    member = join(lan.hosts[0], url)
    deaf = join(lan.hosts[0], url, role="SENDER_ONLY")
    join(lan.hosts[1], url, role="SENDER_ONLY").ask("send x")
    assert member.ask("receive 10").endswith("x")
    assert deaf.hears_nothing()


@pytest.mark.parametrize("version", [4, 6])
def test_loopback_is_switched_where_it_is_heard(lan: Lan, join: Join, version: int) -> None:
    url = udp(version)
    on = join(lan.hosts[0], url)
    off = join(lan.hosts[0], url, settings={"loopback": False})
    far = join(lan.hosts[1], url)
    off.ask("send from-off")
    assert on.ask("receive 10").endswith("from-off")
    assert far.ask("receive 10").endswith("from-off")
    on.ask("send from-on")
    assert far.ask("receive 10").endswith("from-on")
    assert off.hears_nothing()
    far.ask("send from-far")
    assert off.ask("receive 10").endswith("from-far")


def test_without_any_route_the_interface_that_is_up_is_chosen(lan: Lan, join: Join) -> None:
    url = udp(4)
    # The hosts have no default route, so that this is what every test here relies on.
    routes = lan.hosts[0].check_output("ip", "route", "get", "10.77.0.2")
    assert "eth0" in routes
    one, two = (join(host, url) for host in lan.hosts[:2])
    one.ask("send hello")
    assert two.ask("receive 10").endswith("hello")


def test_a_join_on_a_missing_interface_names_those_there_are(lan: Lan, join: Join) -> None:
    url = udp(4)
    member = join(
        lan.hosts[0], url, settings={"interface": "nope0"}, expect=f"error {WSAEADDRNOTAVAIL}"
    )
    assert "eth0" in member.outcome


def test_ipv6_on_loopback_is_refused_and_not_pretended(lan: Lan, join: Join) -> None:
    url = udp(6)
    join(lan.hosts[0], url, settings={"interface": "lo"}, expect=f"error {WSAENETUNREACH}")


def test_an_interface_that_is_down_refuses_joins_and_sends_until_it_is_up(
    make_lan: Callable[[int], Lan], join: Join
) -> None:
    url = udp(4)
    lan = make_lan(2)
    host = lan.hosts[0]
    member = join(host, url, settings={"interface": "eth0", "dead_after": 0.5})
    host.ip("link set eth0 down")
    join(host, url, settings={"interface": "eth0"}, expect=f"error {WSAENETDOWN}")
    assert member.ask("send x").startswith(f"error {WSAENETDOWN}")
    assert "link set eth0 up" in member.ask("receive 10")
    host.ip("link set eth0 up")
    other = join(lan.hosts[1], url)
    other.ask("repeat hello")
    assert member.ask("receive 10").endswith("hello")
    assert "sent" in member.ask("send back")


def test_a_host_without_ipv6_says_so(make_lan: Callable[[int], Lan], join: Join) -> None:
    host = make_lan(1).hosts[0]
    host.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")
    settings = {"interface": "eth0"}
    member = join(host, udp(6), settings=settings, expect=f"error {WSAEADDRNOTAVAIL}")
    assert "no IPv6 address" in member.outcome
    join(host, udp(6), expect=f"error {WSAENETUNREACH}")
    join(host, udp(4))


@pytest.mark.parametrize(
    ("version", "trouble"),
    [(4, "address"), (6, "address"), (4, "interface"), (6, "interface"), (6, "mtu")],
)
def test_a_member_hears_again_once_its_interface_is_well_again(
    make_lan: Callable[[int], Lan], join: Join, version: int, trouble: str
) -> None:
    url = udp(version)
    lan = make_lan(2)
    host, other = lan.hosts
    member = join(host, url)
    member.process.say("receive 30")  # waiting while it happens
    if trouble == "interface":
        lan.unplug(1)
        lan.plug(1)
    else:
        host.ip("addr flush dev eth0" if trouble == "address" else "link set eth0 mtu 1000")
        host.ip("link set eth0 mtu 1500", f"addr replace {host.ipv4}/24 dev eth0")
        host.ip(f"addr replace {host.ipv6}/64 dev eth0 nodad")
    join(other, url, role="SENDER_ONLY").ask("repeat hello")
    assert member.process.hear().endswith("hello")
    assert member.ask("send back") == "sent"
    if trouble != "address":  # the system forgot the membership, so it took a renewal
        assert json.loads(member.ask("statistics"))["memberships_renewed"] == 1


def test_an_interface_that_stays_away_ends_the_wait_and_not_the_session(
    make_lan: Callable[[int], Lan], join: Join
) -> None:
    url = udp(4)
    lan = make_lan(2)
    settings = {"dead_after": 0.2, "interface": "eth0", "loopback": False}
    member = join(lan.hosts[0], url, settings=settings)
    member.process.say("receive 30")
    lan.unplug(1)
    assert member.process.hear().startswith(f"error {WSAEADDRNOTAVAIL}")
    assert member.ask("send x").startswith(f"error {WSAEADDRNOTAVAIL}")
    lan.plug(1)
    assert member.ask("send x") == "sent"
    join(lan.hosts[1], url, role="SENDER_ONLY").ask("repeat hello")
    assert member.ask("receive 30").endswith("hello")
