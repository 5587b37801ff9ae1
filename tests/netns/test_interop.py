"""Other people's programs in the same sessions: socat, iperf 2, and what tshark sees."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.netns.lan import Host, Lan, Process

from joinleaf.values import SessionAddress

pytestmark = pytest.mark.interop

MEMBER = str(Path(__file__).with_name("member.py"))
GROUP = "239.255.20.1"
URL = f"udp://{GROUP}:5000"


@contextmanager
def member(host: Host, url: str, **plan: Any) -> Iterator[Process]:
    argument = json.dumps({"url": url, **plan})
    with host.start(sys.executable, "-u", MEMBER, argument) as process:
        assert process.hear() == "joined"
        if plan.get("role") != "SENDER_ONLY":
            host.lan.wait_for_member(host, str(SessionAddress.parse(url).address.ip))
        yield process


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def wait_for_member(host: Host, group: str) -> None:
    """Until the group reaches the host; other programs do not say when they have joined."""
    host.lan.wait_for_member(host, group)


def test_socat_sends_and_we_hear_it(lan: Lan) -> None:
    need("socat")
    with member(lan.hosts[0], URL) as ours:
        target = f"UDP4-DATAGRAM:{GROUP}:5000,ip-multicast-if={lan.hosts[1].ipv4}"
        with lan.hosts[1].start("socat", "-u", "-", target) as theirs:
            theirs.finish(b"from socat")
        ours.say("receive 10")
        assert ours.hear() == f"got {lan.hosts[1].ipv4} from socat"


def test_socat_hears_what_we_send(lan: Lan) -> None:
    need("socat")
    source = f"UDP4-RECVFROM:5000,reuseaddr,ip-add-membership={GROUP}:eth0"
    with (
        lan.hosts[1].start("socat", "-u", source, "-") as theirs,
        member(lan.hosts[0], URL, role="SENDER_ONLY") as ours,
    ):
        wait_for_member(lan.hosts[1], GROUP)
        ours.say("send from joinleaf")
        ours.hear("sent")
        assert theirs.finish() == "from joinleaf"


def test_socat_and_we_share_a_port_on_one_host(lan: Lan) -> None:
    need("socat")
    source = f"UDP4-RECVFROM:5000,reuseaddr,ip-add-membership={GROUP}:eth0"
    with (
        lan.hosts[0].start("socat", "-u", source, "-") as theirs,
        member(lan.hosts[1], URL, role="SENDER_ONLY") as sender,
    ):
        wait_for_member(lan.hosts[0], GROUP)
        with member(lan.hosts[0], URL) as ours:
            sender.say("send to both")
            ours.say("receive 10")
            assert ours.hear().endswith("to both")
        assert theirs.finish() == "to both"


def test_iperf_sends_and_we_hear_it(lan: Lan) -> None:
    need("iperf")
    with member(lan.hosts[0], f"udp://{GROUP}:5001") as ours:
        sender = ("-c", GROUP, "-u", "-T", "1", "-t", "0.3", "-b", "1m", "-l", "500")
        lan.hosts[1].ip("route add 224.0.0.0/4 dev eth0")
        with lan.hosts[1].start("iperf", *sender) as theirs:
            ours.say("count 10")
            assert ours.hear() == f"got datagrams of 500 bytes from {lan.hosts[1].ipv4}"
            theirs.end()
        lan.hosts[1].ip("route del 224.0.0.0/4 dev eth0")


def test_iperf_hears_what_we_send(lan: Lan) -> None:
    need("iperf")
    receiver = ("-s", "-u", "-B", f"{GROUP}%eth0", "-p", "5001", "-i", "0.1")
    with (
        lan.hosts[1].start("stdbuf", "-oL", "iperf", *receiver) as theirs,
        member(lan.hosts[0], f"udp://{GROUP}:5001", role="SENDER_ONLY") as ours,
    ):
        wait_for_member(lan.hosts[1], GROUP)
        ours.say("iperf")
        assert ours.hear() == "sent"
        # Its report counts the datagrams by the numbers in them: 20 of them, none missing.
        assert "/20 (0%)" in theirs.hear("/20 (")


MARKER = (
    "import socket, struct, time\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "index = socket.if_nametoindex('eth0')\n"
    "s.setsockopt(0, socket.IP_MULTICAST_IF, struct.pack('8xi', index))\n"
    "while True:\n"
    "    s.sendto(b'', ('224.0.0.99', 9999))\n"
    "    time.sleep(0.05)\n"
)


class Capture:
    """Membership reports on a host's interface, dissected by tshark, a line each."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def next(self, *texts: str) -> str:
        """The next report that contains all the texts."""
        while True:
            line = self.process.hear(texts[0])
            if all(text in line for text in texts):
                return line.rstrip("\t")


@contextmanager
def capture(host: Host, protocol: str, *fields: str) -> Iterator[Capture]:
    need("tshark")
    wanted = f"({protocol}) or udp.dstport == 9999"
    command = ["tshark", "-l", "-n", "-i", "eth0", "-Y", wanted, "-T", "fields"]
    for field in (*fields, "udp.dstport"):
        command += ["-e", field]
    with host.start(*command) as process:
        # It says that it captures before it does; so let it see something first.
        with host.python(MARKER):
            process.hear("9999")
        yield Capture(process)


IGMP = ("igmp.record_type", "igmp.maddr", "igmp.saddr")
MLD = (
    "icmpv6.mldr.mar.record_type",
    "icmpv6.mldr.mar.multicast_address",
    "icmpv6.mldr.mar.source_address",
)
# RFC 3376 and 3810, record types.
TO_INCLUDE, TO_EXCLUDE, ALLOW, BLOCK = "3", "4", "5", "6"


def test_joining_and_leaving_are_reported_by_igmp(lan: Lan) -> None:
    group = "239.255.20.9"
    with (
        capture(lan.hosts[1], "igmp", *IGMP) as seen,
        member(lan.hosts[1], f"udp://{group}:5000") as ours,
    ):
        assert seen.next(group).split("\t")[0] == TO_EXCLUDE
        ours.say("leave")
        assert seen.next(f"{TO_INCLUDE}\t{group}").split("\t")[0] == TO_INCLUDE


def test_a_sender_only_reports_nothing(lan: Lan) -> None:
    group, marker = "239.255.20.10", "239.255.20.11"
    with (
        capture(lan.hosts[1], "igmp", *IGMP) as seen,
        member(lan.hosts[1], f"udp://{group}:5000", role="SENDER_ONLY"),
        member(lan.hosts[1], f"udp://{marker}:5000"),
    ):
        assert group not in seen.next("239.255.20.1")


def test_a_source_specific_join_names_its_source_to_igmp(lan: Lan) -> None:
    group, source = "232.20.0.1", lan.hosts[0].ipv4
    with (
        capture(lan.hosts[1], "igmp", *IGMP) as seen,
        member(lan.hosts[1], f"ssm://{source}@{group}:5000") as ours,
    ):
        assert seen.next(group) == f"{ALLOW}\t{group}\t{source}"
        ours.say("leave")
        assert seen.next(f"{BLOCK}\t{group}") == f"{BLOCK}\t{group}\t{source}"


def test_joining_and_leaving_are_reported_by_mld(lan: Lan) -> None:
    group = "ff15::20:9"
    with (
        capture(lan.hosts[1], "icmpv6.type == 143", *MLD) as seen,
        member(lan.hosts[1], f"udp://[{group}]:5000") as ours,
    ):
        assert seen.next(group).split("\t")[0] == TO_EXCLUDE
        ours.say("leave")
        assert seen.next(f"{TO_INCLUDE}\t{group}").split("\t")[0] == TO_INCLUDE


def test_a_source_specific_join_names_its_source_to_mld(lan: Lan) -> None:
    group, source = "ff35::8000:20", lan.hosts[0].ipv6
    with (
        capture(lan.hosts[1], "icmpv6.type == 143", *MLD) as seen,
        member(lan.hosts[1], f"ssm://[{source}]@[{group}]:5000") as ours,
    ):
        assert seen.next(group) == f"{ALLOW}\t{group}\t{source}"
        ours.say("leave")
        assert seen.next(f"{BLOCK}\t{group}") == f"{BLOCK}\t{group}\t{source}"
