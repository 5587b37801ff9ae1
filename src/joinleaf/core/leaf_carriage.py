"""A leaf's end of the multicast stream: from units to frames, in the order of the sender.

What is for some leaves only goes over their legs, and must not overtake the stream nor be overtaken
by it. So the root says on the leg before which unit it stands, and in the stream, in a unit of its
own, how many such messages each leaf must have by then (GATE, both ways).

A leaf that the group serves no longer, because it is served by its leg or out, goes on hearing it
until it has read so on its leg. What the legs alone carry meanwhile is not in the stream, and it
must not take what is later for what is next. So a GATE in the stream that demands NO_MORE of it
stands before everything that is not for it: there it waits for what its leg has to say.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from joinleaf.core.keys.group import KeyFact, LeafKeys
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.wire.frames import Kind, control_frame
from joinleaf.core.wire.landing import Landing, Landings, Scattered
from joinleaf.core.wire.quick import QuickReader, quick_reader
from joinleaf.core.wire.reports import Timing
from joinleaf.core.wire.unit_frames import UnitFrame, UnitReader
from joinleaf.core.wire.units import POLL
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.provider import Batch

__all__ = ["NO_MORE", "LeafCarriage", "direct_count", "gate_frames", "place_frame", "place_of"]

_GATE: Final = struct.Struct(">IQ")
_UNIT: Final = struct.Struct(">Q")

GATE_ENTRIES: Final = 4096
"""Leaves named in one GATE; fits a unit."""

NO_MORE: Final = (1 << 64) - 1
"""As many messages as no leaf gets: the group serves it no longer."""


def gate_frames(counts: Mapping[int, int]) -> Iterator[bytes]:
    """For the stream: by leaf id, how many messages it must have got over its leg."""
    entries = list(counts.items())
    for start in range(0, len(entries), GATE_ENTRIES):
        part = entries[start : start + GATE_ENTRIES]
        yield control_frame(Kind.GATE, b"".join(_GATE.pack(*entry) for entry in part))


def direct_count(body: bytes | memoryview, leaf: int) -> int:
    """How many a GATE of the stream demands of this leaf; 0: it is not named.

    Raises:
        RemoteProtocolError: Not a whole number of entries.
    """
    if len(body) % _GATE.size:
        raise RemoteProtocolError(f"a GATE of {len(body)} bytes")
    return max((count for number, count in _GATE.iter_unpack(body) if number == leaf), default=0)


def place_frame(unit: int) -> bytes:
    """For the leg: the messages for this leaf only that follow stand before ``unit``."""
    return control_frame(Kind.GATE, _UNIT.pack(unit))


def place_of(body: memoryview) -> int:
    """Read the body of the same.

    Raises:
        RemoteProtocolError: It has another length.
    """
    if len(body) != _UNIT.size:
        raise RemoteProtocolError(f"a place of {len(body)} bytes")
    unit: int = _UNIT.unpack(body)[0]
    return unit


class LeafCarriage:
    """See the module.

    Args:
        key: The leg of the root whose stream it is.
        receiver: Where trains go.
        keys: What opens them; None: they are not sealed.
        max_body: Longest frame body.
        keep: Bytes of memory kept between long messages.

    Attributes:
        key: The leg.
        receiver: Where trains go.
        started: Whether the group serves this leaf.
        landings: Where trains are received.
        position: The unit whose frames come next.
        quick: The reader, if trains can go straight into it.
        place: Before which unit the next message for this leaf only stands.
        waiting: Units not looked at yet, oldest first.
        aside: Messages for this leaf only, and before which unit they stand.
        ended: Whether the stream has said that it goes on without this leaf; the leg will, too.
            What comes until then is left where it is, so that the window closes: should a member
            have made that up, the root notices who takes nothing more.
    """

    __slots__ = (
        "_keys", "_max_body", "_rest", "_skips", "_synced", "aside", "ended", "key", "landings",
        "place", "position", "quick", "reader", "receiver", "started", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        key: int,
        receiver: StreamReceiver,
        keys: LeafKeys | None,
        max_body: int,
    ) -> None:
        self.key = key
        self.receiver = receiver
        self.started = False
        self.position = self.place = 0
        self.landings = Landings()
        self.waiting: deque[bytes | Landing | Scattered] = deque()
        self.aside: deque[tuple[int, Batch, int]] = deque()
        self.ended = False
        self._keys = keys
        self._max_body = max_body
        self._skips = 0
        self._synced: dict[int, int] = {}
        self._rest: Iterator[UnitFrame] | None = None  # of a unit whose gate is closed
        self._forget_cut_frame()

    def _forget_cut_frame(self) -> None:
        self.quick: QuickReader | None = quick_reader(self._max_body, self.landings)
        self.reader: UnitReader | QuickReader = self.quick or UnitReader(
            self._max_body, self.landings
        )

    def handle_landing(self, landing: Landing, now_ns: int) -> bool:
        """What was received into a landing, which the owner has not tried to take straight.

        Returns:
            Whether it was kept: receive into another one.
        """
        quick, unit = self.quick, self.straight()
        if quick is not None and unit >= 0:
            size = landing.size
            kind = quick.take_train(landing.view, size, landing.segment, self.receiver.tag, unit)
            if kind:
                self.went_straight(size, now_ns, polled=kind == POLL)
                return False
        return self.receiver.handle_landing(landing, now_ns)

    def straight(self) -> int:
        """The unit that may go straight from where it was received into ``quick``; -1: none.

        So it is where nothing else waits, and nothing is to be opened or looked at in between.
        """
        quick = self.quick
        if quick is None or self._keys is not None or self.ended:
            return -1
        if quick.next > self.position:
            self.went_straight(0, 0)  # of a run that was interrupted before anybody knew of it
        unit = self.receiver.straight()
        return unit if unit == self.position and not (self.waiting or self.aside) else -1

    def went_straight(self, size: int, now_ns: int, *, polled: bool = False) -> int:
        """So many bytes did; how many units that was."""
        assert self.quick is not None
        taken = self.receiver.went_straight(self.quick.next, size, now_ns, polled=polled)
        self.position += taken
        return taken

    def taken(self) -> Sequence[UnitFrame]:
        """The frames completed by what went straight."""
        return () if self.quick is None else self.quick.taken()

    def frames_of_first(self) -> Iterator[UnitFrame]:
        """The frames that the first unit of ``waiting`` completes, each once.

        Raises:
            RemoteProtocolError: While they are fetched: what the stream carries are no frames.
        """
        frames, self._rest = self._rest, None
        return iter(self.reader.take(self.waiting[0])) if frames is None else frames

    def go_on_with(self, gate: bytes, frames: Iterator[UnitFrame]) -> None:
        """A gate is closed: it comes again, and what is behind it in its unit.

        The unit itself cannot be read again: where it lies may hold another by then.
        """
        if self.waiting:
            self._rest = chain(((int(Kind.GATE), 0, 0, 0, gate, len(gate)),), frames)

    @property
    def in_message(self) -> bool:
        """Whether a frame has begun to come that is longer than a unit."""
        return self.reader.in_frame

    def start(self, unit: int, timing: Timing) -> None:
        """START: from ``unit`` on the group serves this leaf."""
        self.receiver.start(unit, timing)
        self.started = True
        self.position = unit

    def stop(self, unit: int) -> None:
        """STOP: from ``unit`` on the leg does; what the group has brought since was a GATE."""
        self.receiver.stop(unit)
        if self.ended:
            self.receiver.take()
        self.receiver.probe_heard = False  # and may be heard again
        self.started = False
        self.ended = False
        self._rest = None
        self._forget_cut_frame()

    def skip(self, unit: int) -> None:
        """SKIP: the stream goes on at ``unit``; the next message of each sender may be any."""
        if not self.receiver.skip(unit):
            return
        self.position = unit
        self._skips += 1
        self._forget_cut_frame()

    def learn(self, body: memoryview, now_ns: int) -> None:
        """A KEY frame has come.

        Raises:
            RemoteProtocolError: It is none, or the stream is not sealed.
        """
        if self._keys is None:
            raise RemoteProtocolError("a key for a stream that is not sealed")
        self._keys.learn(KeyFact.parse(body))
        self.receiver.keys_changed(now_ns)

    def may_skip(self, sender: int) -> bool:
        """Whether this sender's numbers may jump now; asked for each of its batches."""
        if self._synced.get(sender, 0) == self._skips:
            return False
        self._synced[sender] = self._skips
        return True
