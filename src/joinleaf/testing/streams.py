"""Simulated stream connections: reliable and ordered as TCP is, and as unpleasant.

Bytes arrive in order and once, but cut anywhere, late, after stalls (a loss and its repair), and
only as fast as the other end reads: both kernel buffers are bounded. A connection breaks by a
reset, by a crash, or because nothing was acknowledged within ``give_up_ns`` (what TCP_USER_TIMEOUT
does). After a crash without a word, or a one-way partition, one end may go on believing: a
half-open connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from joinleaf.spi.provider import Buffer
from joinleaf.testing.clock import MILLISECOND, SECOND
from joinleaf.values import Address

if TYPE_CHECKING:
    from joinleaf.testing.network import SimNetwork

__all__ = ["StreamEnd", "StreamOwner", "StreamProfile"]

RETRY_NS = 60 * MILLISECOND
"""How often what did not get through is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProfile:
    """How streams behave.

    Attributes:
        latency_ns: Shortest way from end to end.
        jitter_ns: What may be added, drawn anew for each segment.
        stall_chance: Share of segments that are lost and repaired, 0 to 1.
        stall_ns: How long a repair takes.
        segment_bytes: Longest segment; each is cut at random below it.
        send_buffer: Bytes the sender's kernel holds, sent and unacknowledged ones included.
        receive_buffer: Bytes the receiver's kernel holds for its reader.
        give_up_ns: Time without acknowledgement after which the sender's kernel gives up.
        connect_ns: Time after which an attempt to connect fails that nobody answers.
        reset_discards: Whether a reset takes away what had arrived and was not yet read.
    """

    latency_ns: int = MILLISECOND
    jitter_ns: int = 0
    stall_chance: float = 0.0
    stall_ns: int = 200 * MILLISECOND
    segment_bytes: int = 65536
    send_buffer: int = 65536
    receive_buffer: int = 65536
    give_up_ns: int = 2 * SECOND
    connect_ns: int = SECOND
    reset_discards: bool = False


class StreamOwner(Protocol):
    """Whoever has an end: told when there is something to do, never called back at once."""

    def stream_connected(self, end: StreamEnd) -> None:
        """The connection asked for stands."""

    def stream_readable(self, end: StreamEnd) -> None:
        """Bytes, the end of the stream or an error can be had from ``receive_into``."""

    def stream_writable(self, end: StreamEnd) -> None:
        """``send`` took less than it was given, and has room again."""


class StreamEnd:
    """One end of a connection, in the place of a nonblocking socket.

    Attributes:
        host: Name of the host it is on.
        local: Its address.
        peer: The other end's address.
        connected: Whether the connection stands, or stood.
        error: Why it broke, once it did.
    """

    def __init__(
        self, network: SimNetwork, host: str, peer_host: str, local: Address, peer: Address
    ) -> None:
        self.network = network
        self.host = host
        self.peer_host = peer_host
        self.local = local
        self.peer = peer
        self.owner: StreamOwner | None = None
        self.other: StreamEnd | None = None
        self.connected = False
        self.error: OSError | None = None
        self._queue = bytearray()  # accepted from the application, not yet on the way
        self._flight: deque[bytes | None] = deque()  # on the way, in order; None is the FIN
        self._flying = 0
        self._unacknowledged = 0
        self._arrival_ns = 0
        self._inbox = bytearray()
        self._eof = False
        self._fin_wanted = False
        self._fin_sent = False
        self._closed = False  # by the application
        self._gone = False  # the kernel knows it no more
        self._wants_room = False
        self._progress_ns = 0
        self._watching = False

    # What a driver calls

    @property
    def waiting(self) -> int:
        """Bytes in the receive buffer."""
        return len(self._inbox)

    def send(self, buffers: Sequence[Buffer]) -> int:
        """Take what fits into the send buffer; the number of bytes taken, 0 when it is full.

        Raises:
            OSError: The connection is broken or closed.
        """
        if self.error is not None or self._closed or self._fin_wanted or not self.connected:
            raise self.error or BrokenPipeError("closed, or not connected")
        room = self.network.streams.send_buffer - len(self._queue) - self._unacknowledged
        taken = 0
        for buffer in buffers:
            part = memoryview(buffer)[: max(0, room - taken)]
            self._queue += part
            taken += len(part)
            if len(part) < len(buffer):
                self._wants_room = True
                break
        if taken:
            self._transmit()
        return taken

    def receive_into(self, place: memoryview) -> int | None:
        """Read what has arrived, up to the length of ``place``.

        Returns:
            Bytes read; 0 at the end of the stream; None if nothing is there.

        Raises:
            OSError: The connection broke; what had arrived was read before.
        """
        if self._inbox:
            count = min(len(place), len(self._inbox))
            place[:count] = self._inbox[:count]
            del self._inbox[:count]
            if (other := self.other) is not None and other._queue:
                self.network.later(self, other._transmit)  # the window has opened
            return count
        if self.error is not None:
            raise self.error
        return 0 if self._eof else None

    def shut_down_sending(self) -> None:
        """Half-close: the other end reads the end of the stream after all data."""
        if not self._fin_wanted and self.error is None and self.connected:
            self._fin_wanted = True
            self._transmit()

    def close(self) -> None:
        """Give it back. What is queued still goes; unread bytes make it a reset, as with TCP."""
        if self._closed:
            return
        if self._inbox or not self.connected:
            self.reset()
            return
        self._closed = True
        self.owner = None
        if not self._fin_wanted and self.error is None:
            self._fin_wanted = True
            self._transmit()

    def reset(self) -> None:
        """End at once; the other end sees a reset, if it can be reached."""
        was_known = not self._gone
        self.vanish()
        if was_known and self.connected:
            self._send_reset()

    def vanish(self) -> None:
        """The host lost power: nobody is told anything."""
        self._closed = self._gone = True
        self.owner = None
        self._queue.clear()
        self._flight.clear()
        self._inbox.clear()

    # The way to the other end

    def _transmit(self) -> None:
        """Put on the way what the other end has room for."""
        other, streams = self.other, self.network.streams
        if other is None or self._gone or self.error is not None:
            return
        while self._queue:
            window = streams.receive_buffer - len(other._inbox) - self._flying
            if window <= 0:
                break
            size = self.network.segment_size(self, min(window, len(self._queue)))
            self._launch(bytes(self._queue[:size]))
            del self._queue[:size]
        if self._fin_wanted and not self._fin_sent and not self._queue:
            self._fin_sent = True
            self._launch(None)
        self._watch()

    def _launch(self, segment: bytes | None) -> None:
        size = len(segment) if segment is not None else 0
        self._flying += size
        self._unacknowledged += size
        self._flight.append(segment)
        due_ns = self.network.clock.now_ns + self.network.delay_ns(self)
        self._arrival_ns = max(self._arrival_ns, due_ns)
        self.network.agenda.at(self._arrival_ns, self._land)

    def _land(self) -> None:
        """The first segment on the way arrives, or is tried again later."""
        if self._gone or self.error is not None or not self._flight:
            return
        if not self.network.passes(self.host, self.peer_host):
            self._arrival_ns = max(self._arrival_ns, self.network.clock.now_ns + RETRY_NS)
            self.network.agenda.after(RETRY_NS, self._land)
            return
        other = self.other
        assert other is not None
        if other._gone or (other._closed and self._flight[0] is not None):
            self.network.later(other, lambda: self._break(ConnectionResetError("reset by peer")))
            return
        segment = self._flight.popleft()
        if segment is None:
            other._eof = True
        else:
            self._flying -= len(segment)
            other._inbox += segment
            self._acknowledge(len(segment))
        other._readable()

    def _acknowledge(self, size: int) -> None:
        other = self.other
        assert other is not None

        def arrive() -> None:
            if not self.network.passes(self.peer_host, self.host):
                self.network.agenda.after(RETRY_NS, arrive)
                return
            self._unacknowledged -= size
            self._progress_ns = self.network.clock.now_ns
            self._transmit()
            self._tell_room()

        self.network.later(other, arrive)

    def _tell_room(self) -> None:
        """Writable again once a third is free, as on Linux; sooner would be silly windows."""
        most = self.network.streams.send_buffer
        room = most - len(self._queue) - self._unacknowledged
        if self._wants_room and self.owner is not None and room * 3 >= most:
            self._wants_room = False
            self.owner.stream_writable(self)

    def _readable(self) -> None:
        if self.owner is not None:
            self.owner.stream_readable(self)

    def _send_reset(self) -> None:
        other = self.other
        if other is None:
            return

        def arrive() -> None:
            if self.network.passes(self.host, self.peer_host):
                other._break(ConnectionResetError("reset by peer"))

        self.network.later(self, arrive)

    def _break(self, error: OSError) -> None:
        if self._gone or self.error is not None:
            return
        self.error = error
        self._queue.clear()
        self._flight.clear()
        if self.network.streams.reset_discards:
            self._inbox.clear()
        if self._closed:
            self._gone = True
        self._readable()

    # Giving up

    def _watch(self) -> None:
        """Give up when nothing has been acknowledged for too long."""
        if not self._watching and (self._queue or self._unacknowledged):
            self._watching = True
            self._progress_ns = self.network.clock.now_ns
            self.network.agenda.after(self.network.streams.give_up_ns, self._check)

    def _check(self) -> None:
        self._watching = False
        if self._gone or self.error is not None or not (self._queue or self._unacknowledged):
            return
        now_ns, network = self.network.clock.now_ns, self.network
        reachable = network.passes(self.host, self.peer_host) and network.passes(
            self.peer_host, self.host
        )
        if reachable and not self._flying:
            self._progress_ns = now_ns  # a closed window, and its probes are answered
            if self.other is not None and self.other._gone:
                self._break(ConnectionResetError("reset by peer"))
                return
        due_ns = self._progress_ns + network.streams.give_up_ns
        if now_ns >= due_ns:
            self._break(TimeoutError("nothing acknowledged"))
            return
        self._watching = True
        network.agenda.at(due_ns, self._check)

    # Establishing

    def begin(self, accept: Callable[[], StreamEnd | None]) -> None:
        """Knock: ``accept`` makes the other end, or says that nobody listens."""
        started_ns = self.network.clock.now_ns

        def knock() -> None:
            if self._gone:
                return
            if not self.network.passes(self.host, self.peer_host):
                if self.network.clock.now_ns - started_ns < self.network.streams.connect_ns:
                    self.network.agenda.after(RETRY_NS, knock)
                else:
                    self._break(TimeoutError("nobody answered"))
                return
            other = accept()
            if other is None:
                self._break(ConnectionRefusedError("nobody listens"))
                return
            self.other = other
            self.network.later(other, self._established)

        self.network.later(self, knock)

    def _established(self) -> None:
        if self._gone:
            self._send_reset()
            return
        if not self.network.passes(self.peer_host, self.host):
            self.network.agenda.after(RETRY_NS, self._established)
            return
        self.connected = True
        if self.owner is not None:
            self.owner.stream_connected(self)
