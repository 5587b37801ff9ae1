"""Hosts on one network, made of the real kernel: namespaces, veth pairs, a bridge that snoops.

Host *n* (from 1) has the interface ``eth0`` with 10.77.0.n/24 and fd77::n/64. The bridge, in a
namespace of its own, queries for members and snoops IGMP and MLD, as a managed switch does.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType

from tests.package import SRC

BOUND = 15.0  # seconds; no wait comes near it unless something is broken


class NamespaceError(Exception):
    """A command that builds the network failed."""


def ip(*arguments: str) -> None:
    """Run one ``ip`` command. Raises NamespaceError with what it said."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NamespaceError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def ip_batch(lines: Sequence[str], *, namespace: str = "") -> None:
    """Run many ``ip`` commands in one process."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NamespaceError(f"{lines}: {done.stderr.strip()}")


class Host:
    """One namespace with one interface."""

    def __init__(self, lan: Lan, namespace: str, number: int) -> None:
        self.lan = lan
        self.namespace = namespace
        self.ipv4 = f"10.77.0.{number}"
        self.ipv6 = f"fd77::{number}"

    def ip(self, *lines: str) -> None:
        """Change something inside, ``link set eth0 down`` for instance."""
        ip_batch(lines, namespace=self.namespace)

    def sysctl(self, name: str, value: str) -> None:
        path = "/proc/sys/" + name.replace(".", "/")
        self.check_output("sh", "-c", f"echo {value} > {path}")

    def check_output(self, *command: str) -> str:
        """Run a command inside to its end, and return what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *command: str) -> Process:
        """Start a command inside; a context manager that ends it."""
        return Process(["ip", "netns", "exec", self.namespace, *command])

    def python(self, program: str, *arguments: str) -> Process:
        """Start a Python program inside; it talks by lines on its standard streams."""
        return self.start(sys.executable, "-u", "-c", program, *arguments)


class Process:
    """A program under test: lines in, lines out, all within a bound; ended on leaving."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SRC), "LC_ALL": "C"},
        )
        self._heard = {False: b"", True: b""}

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, containing: str = "", *, errors: bool = False) -> str:
        """The next line of its output (or of its error output) that contains a text."""
        stream = self._process.stderr if errors else self._process.stdout
        assert stream is not None
        deadline = time.monotonic() + BOUND
        while True:
            line, newline, rest = self._heard[errors].partition(b"\n")
            if newline:
                self._heard[errors] = rest
                if containing.encode() in line:
                    return line.decode()
                continue
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([stream], [], [], left)[0]
            data = os.read(stream.fileno(), 65536) if ready else b""
            assert data, f"{self.command[4:6]}: no {containing!r}: {self._heard} {self._rest()}"
            self._heard[errors] += data

    def finish(self, line: bytes = b"") -> str:
        """Close its input after a last line, wait for its end, and return what it printed."""
        out, err = self._process.communicate(line, timeout=BOUND)
        assert self._process.returncode == 0, f"{self.command}: {out!r} {err!r}"
        return (self._heard[False] + out).decode()

    def end(self) -> str:
        """Ask it to stop, and return what it printed on both streams."""
        if self._process.poll() is None:
            self._process.terminate()
        return self._rest()

    def _rest(self) -> str:
        with contextlib.suppress(ValueError, subprocess.TimeoutExpired):
            if self._process.poll() is None:
                self._process.terminate()
            out, err = self._process.communicate(timeout=BOUND)
            return (out + err).decode()
        return ""


class Lan:
    """A bridge and its hosts. ``close`` removes everything, whatever state it is in."""

    def __init__(self, name: str, hosts: int) -> None:
        self.name = name
        self.hosts: list[Host] = []
        self._namespaces: list[str] = []
        try:
            self._build(hosts)
        except BaseException:
            self.close()
            raise

    def _build(self, hosts: int) -> None:
        switch = self._namespace("sw")
        ip_batch(
            [
                "link add br0 type bridge mcast_snooping 1 mcast_querier 1"
                " mcast_igmp_version 3 mcast_mld_version 2",
                "link set br0 up",
            ],
            namespace=switch,
        )
        for number in range(1, hosts + 1):
            host = Host(self, self._namespace(f"h{number}"), number)
            self.hosts.append(host)
            self._plug(host, number)

    def _namespace(self, suffix: str) -> str:
        namespace = f"{self.name}-{suffix}"
        ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        # No address stays tentative, so that nothing has to wait for duplicate detection.
        for name in ("all", "default"):
            Host(self, namespace, 0).sysctl(f"net.ipv6.conf.{name}.accept_dad", "0")
        ip_batch(["link set lo up"], namespace=namespace)
        return namespace

    def _plug(self, host: Host, number: int) -> None:
        switch = self._namespaces[0]
        ip_batch(
            [f"link add eth0 netns {host.namespace} type veth peer name p{number} netns {switch}"]
        )
        ip_batch([f"link set p{number} master br0 up"], namespace=switch)
        host.ip(
            "link set eth0 up",
            f"addr add {host.ipv4}/24 dev eth0",
            f"addr add {host.ipv6}/64 dev eth0 nodad",
        )

    def wait_for_member(self, host: Host, group: str) -> None:
        """Until the bridge forwards the group to the host: a report takes a few milliseconds."""
        number = self.hosts.index(host) + 1
        deadline = time.monotonic() + BOUND
        command = ["bridge", "-n", self._namespaces[0], "mdb", "show"]
        while True:
            table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            if any(f"port p{number} grp {group} " in line for line in table.splitlines()):
                return
            assert time.monotonic() < deadline, f"{group} is not in {table}"

    def unplug(self, number: int) -> None:
        """Remove a host's interface altogether."""
        self.hosts[number - 1].ip("link del eth0")

    def plug(self, number: int) -> None:
        """Make a host's interface anew; it has another index than before."""
        host = self.hosts[number - 1]
        host.ip("link add dummy0 type veth peer name dummy1")  # takes the next indexes
        self._plug(host, number)

    def close(self) -> None:
        for namespace in reversed(self._namespaces):
            with contextlib.suppress(NamespaceError):
                ip("netns", "del", namespace)
        self._namespaces.clear()


def why_not() -> str:
    """Why no network can be made here; empty if it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux only"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    try:
        Lan(f"jlprobe{os.getpid()}", 1).close()
    except (NamespaceError, AssertionError) as error:
        return f"no network can be made here: {error}"
    return ""
