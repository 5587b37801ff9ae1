"""The ways to bring a file from one host to many that are compared.

Each at the best settings found. A way says how its receivers and its senders are started; when a
file is complete is seen from outside, alike for all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.netns.lan import Host

from bench.fleet import Fleet, Program
from bench.lan import BenchLan
from bench.places import Place

__all__ = ["FILE_WAYS", "GROUP", "PORT", "Job", "Transfer", "TransferError", "Way"]

BUFFER_BYTES: Final = 4 << 20
"""Of the sockets of programs that take such a setting; the most an unchanged Linux gives here."""

BLOCK_BYTES: Final = 256 << 10
"""Of socat: its own 8 KiB would make it several times slower."""

UFTP_BLOCK_BYTES: Final = 1400
"""The most that still fits packets of 1,500 bytes with all headers."""

UFTP_LOOPBACK_BYTES: Final = 8800
"""The most it takes."""

MEETING: Final = "239.255.9.9"
"""Of udpcast; its own choice is a broadcast that these hosts have no address for."""

PORT: Final = 7300
GROUP: Final = "239.255.70.1:7401"


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        where: Kind of network.
        net: The network.
        leaves: A host for each receiver; on loopback all the root's.
        source: The file.
        size: Its length in bytes; for a job of memory: how much to send.
        folder: Where receivers have a folder each, named by their number.
    """

    where: Place
    net: BenchLan
    leaves: Sequence[Host]
    source: Path
    size: int
    folder: Path

    @property
    def root(self) -> Host:
        """The sender's host."""
        return self.net.root

    @property
    def interface(self) -> str:
        return "lo" if self.where == "loopback" else "eth0"

    def target(self, leaf: int) -> Path:
        """Where the file appears at a receiver."""
        return self.folder / str(leaf) / self.source.name


@dataclass(frozen=True)
class Transfer:
    """One job done.

    Attributes:
        seconds: From the first data to the last receiver's having all of it.
        whole_s: The same from the start of the sending command; None: not told.
        sender_cpu_s: User and system time of the senders meanwhile; None: not told.
    """

    seconds: float
    whole_s: float | None = None
    sender_cpu_s: float | None = None


class TransferError(Exception):
    """A way did not finish, or not correctly; the message is the reason."""


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        receive: Starts the receivers.
        send: Starts the sender, or several.
        needs: Programs of others that must be installed.
        wants: What it cannot do of a job; empty if it can.
        listens: Port of the first receiver that must listen before the senders start; 0: none.
    """

    name: str
    receive: Callable[[Job, Fleet], None]
    send: Callable[[Job, Fleet], list[Program]]
    needs: Sequence[str] = ()
    wants: Callable[[Job], str] = lambda job: ""
    listens: int = 0

    def why_not(self) -> str:
        """What is missing on this machine; empty if nothing is."""
        missing = [name for name in self.needs if shutil.which(name) is None]
        return f"{', '.join(missing)} not installed" if missing else ""


# plain TCP, a program pair for each receiver


def _socat_receive(job: Job, fleet: Fleet) -> None:
    for number, host in enumerate(job.leaves):
        fleet.start(
            host, "socat", "-u", "-b", str(BLOCK_BYTES),
            f"TCP4-LISTEN:{PORT + number},reuseaddr", f"CREATE:{job.target(number)}",
        )  # fmt: skip


def _socat_send(job: Job, fleet: Fleet) -> list[Program]:
    return [
        fleet.start(
            job.root, "socat", "-u", "-b", str(BLOCK_BYTES),
            f"OPEN:{job.source},rdonly", f"TCP4:{host.ipv4}:{PORT + number}",
        )
        for number, host in enumerate(job.leaves)
    ]  # fmt: skip


# UFTP


def _uid(number: int) -> str:
    return f"0x{0x0A4D0001 + number:08X}"


def _uftp_receive(job: Job, fleet: Fleet) -> None:
    for number, host in enumerate(job.leaves):
        fleet.start(
            host, "uftpd", "-d", "-t", "-D", str(job.target(number).parent),
            "-I", job.interface, "-B", str(BUFFER_BYTES), "-U", _uid(number + 1),
        )  # fmt: skip


def _uftp_send(rate_kbit_per_s: int) -> Callable[[Job, Fleet], list[Program]]:
    def send(job: Job, fleet: Fleet) -> list[Program]:
        block = UFTP_LOOPBACK_BYTES if job.where == "loopback" else UFTP_BLOCK_BYTES
        everybody = ",".join(_uid(number + 1) for number in range(len(job.leaves)))
        sender = fleet.start(
            job.root, "uftp", "-R", str(rate_kbit_per_s), "-I", job.interface,
            "-B", str(BUFFER_BYTES), "-b", str(block), "-U", _uid(0), "-H", everybody,
            str(job.source),
        )  # fmt: skip
        return [sender]

    return send


# udpcast


def _udpcast_receive(job: Job, fleet: Fleet) -> None:
    for number, host in enumerate(job.leaves):
        fleet.start(
            host, "udp-receiver", "--nokbd", "--no-progress", "--interface", job.interface,
            "--mcast-rdv-address", MEETING, "--rcvbuf", str(BUFFER_BYTES),
            "--file", str(job.target(number)),
        )  # fmt: skip


def _udpcast_send(job: Job, fleet: Fleet) -> list[Program]:
    sender = fleet.start(
        job.root, "udp-sender", "--nokbd", "--no-progress", "--full-duplex",
        "--interface", job.interface, "--mcast-rdv-address", MEETING,
        "--min-receivers", str(len(job.leaves)),
        "--file", str(job.source),
    )  # fmt: skip
    return [sender]


def _udpcast_wants(job: Job) -> str:
    several = job.where == "loopback" and len(job.leaves) > 1
    return "one receiver per address only" if several else ""


# joinleaf


def _joinleaf_receive(job: Job, fleet: Fleet) -> None:
    for number, host in enumerate(job.leaves):
        fleet.python(
            host, "joinleaf", "receive", f"jl://{job.root.ipv4}:{PORT}", "--quiet",
            "--to", str(job.target(number).parent), "--as", f"leaf{number}",
        )  # fmt: skip


def _joinleaf_send(suffix: str) -> Callable[[Job, Fleet], list[Program]]:
    def send(job: Job, fleet: Fleet) -> list[Program]:
        sender = fleet.python(
            job.root, "joinleaf", "send", str(job.source), "--quiet", "--open",
            "--address", f"jl://{job.root.ipv4}:{PORT}{suffix}", "--leaves", str(len(job.leaves)),
            "--linger", "0",
        )  # fmt: skip
        return [sender]

    return send


FILE_WAYS: Final = {
    way.name: way
    for way in (
        Way("TCP to each (socat)", _socat_receive, _socat_send, ("socat",), listens=PORT),
        Way("UFTP", _uftp_receive, _uftp_send(-1), ("uftp", "uftpd")),
        Way("UFTP, 900 Mbit/s", _uftp_receive, _uftp_send(900_000), ("uftp", "uftpd")),
        Way(
            "udpcast",
            _udpcast_receive,
            _udpcast_send,
            ("udp-sender", "udp-receiver"),
            _udpcast_wants,
        ),
        Way("joinleaf send", _joinleaf_receive, _joinleaf_send("?data=leg")),
        Way("joinleaf send, multicast", _joinleaf_receive, _joinleaf_send(f"?data={GROUP}")),
    )
}
"""By name. The first is what the others are compared with."""
