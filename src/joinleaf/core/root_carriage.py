"""Which leaf the group serves and which its own leg does: the root's side of multicast data.

Every leaf begins on its leg. It is told of the group, hears a probe there, says so, and is then
*promoted*: START names the unit from which on the group serves it, and being a word on the leg it
stands behind everything the leg still carries. A leaf that hears no probe stays on its leg, and a
leaf whose group has died is *demoted*: what it lacks goes over its leg, then STOP, then everything
else. So no message depends on the group, in no order, and nobody has to help.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from joinleaf.core.keys.group import GroupKeys
from joinleaf.core.qos.shaper import shaper_of
from joinleaf.core.reliability.pacing import StreamPacer
from joinleaf.core.reliability.sender import PATIENCE_NS, StreamSender, Train
from joinleaf.core.wire.control import GroupFacts
from joinleaf.core.wire.frames import DATA_HEADER_SIZE, Kind, control_frame
from joinleaf.core.wire.reports import NO_UNIT, decode_report
from joinleaf.spi.provider import Buffer
from joinleaf.spi.qos import FlowSpec

__all__ = ["Carrier", "Cause", "FellBack", "RootCarriage"]

PROBE_EVERY_NS: Final = 20_000_000
"""While somebody new is listening; a join of a group takes a switch some milliseconds."""

PROBE_FOR_NS: Final = 2_000_000_000
"""A leaf that has heard nothing for this long stays on its leg. IGMP answers within a second
where a querier is awake; longer only makes the log late, as the leg serves the leaf meanwhile."""

RETRY_NS: Final = 10_000_000_000
"""Leaves that stayed on their legs are offered the group again this often, by one probe."""


LOOK_EVERY_NS: Final = 50_000_000
"""So often at most every leaf is asked whether it stalls, which shows after a second: the pacer
wakes the root every millisecond, and ten thousand leaves take longer to ask than that."""

MARKS: Final = 8192
"""Batches of which is known where they begin: what a sender keeps units of."""


class Carrier(StrEnum):
    """What a leaf is served by. The words are shown to people."""

    LEG = "leg"
    GROUP = "group"


class Cause(StrEnum):
    """Why a leaf is served by its leg though there is a group. The words stand in the log."""

    UNHEARD = "does not hear"
    DIED = "hears no more of"
    FULL = "takes nothing more from"
    UNREAD = "is not read at present, nor its reports on"


@dataclass(frozen=True, slots=True)
class FellBack:
    """A leaf is served by its leg.

    Attributes:
        key: The leg.
        cause: Why.
    """

    key: int
    cause: Cause


@dataclass(slots=True)
class _Listener:
    """A leaf that was told of the group. ``until_ns`` is None once it was given up on."""

    on_group: bool
    until_ns: int | None
    stops: int = 0  # how often it was put back on its leg


class RootCarriage:
    """See the module.

    Args:
        facts: What joiners are told.
        sender: The stream.
        pacer: The stream's; None: it keeps to no rate.
        keys: What the sender seals with; None: nothing is sealed.

    Attributes:
        flow: What the stream keeps to; None: nothing was agreed.
        facts: What joiners are told; a new key replaces it.
        sender: The stream.
        events: Leaves that fell back, oldest first; the owner takes them.
    """

    def __init__(
        self,
        facts: GroupFacts,
        sender: StreamSender,
        pacer: StreamPacer | None = None,
        keys: GroupKeys | None = None,
    ) -> None:
        self._pacer = pacer
        self._keys = keys
        self._knowing: dict[int, None] = {}  # the legs that have been given the current key
        self._somebody_left = False  # who knows it
        self.flow: FlowSpec | None = None
        self.facts = facts
        self.sender = sender
        self.events: list[FellBack] = []
        self._told: dict[int, _Listener] = {}
        self._on_group: dict[int, None] = {}
        self._skipped_from: dict[int, int] = {}
        self._marks: deque[tuple[int, int]] = deque(maxlen=MARKS)
        self._next_probe_ns: int | None = None
        self._look_ns = 0
        self._changes = 0

    # Who is served how

    @property
    def on_group(self) -> dict[int, None]:
        """Keys of the legs whose leaves the group serves."""
        return self._on_group

    @property
    def changes(self) -> int:
        """How often a leaf was put on the group, or taken off it."""
        return self._changes

    def carrier(self, key: int) -> Carrier:
        """What serves this leaf."""
        return Carrier.GROUP if key in self._on_group else Carrier.LEG

    @property
    def carried(self) -> dict[str, int]:
        """What the stream has sent so far, and what of it again."""
        sent = self.sender.counters
        return {
            "group_leaves": len(self._on_group),
            "group_bytes": sent["bytes"] + sent["repair_bytes"],
            "group_repair_bytes": sent["repair_bytes"],
            "group_repaired": sent["repaired_symbols"],
            "group_leg_repairs": sent["leg_repairs"],
            "group_fallbacks": sent["demoted"],
        }

    def tell(self, key: int) -> GroupFacts:
        """What an asker is told with ACCEPT, the current key among it."""
        self._knowing[key] = None
        return self.facts

    def joined(self, key: int, now_ns: int) -> None:
        """A leaf that was told of the group is a member now: let it hear a probe."""
        self._told[key] = _Listener(on_group=False, until_ns=now_ns + PROBE_FOR_NS)
        self._next_probe_ns = now_ns

    def left(self, key: int) -> None:
        """It is no member any more, and must not read on."""
        self._told.pop(key, None)
        if key in self._knowing:
            del self._knowing[key]
            self._somebody_left = True
        self._skipped_from.pop(key, None)
        if key in self._on_group:
            del self._on_group[key]
            self._changes += 1
            self.sender.remove_leaf(key)

    # Keys

    @property
    def sealed(self) -> bool:
        """Whether only members can read the stream."""
        return self._keys is not None

    @property
    def due_for_rotation(self) -> bool:
        """Whether a new key is due: somebody who knew this one has left, or it has sealed much."""
        keys = self._keys
        return keys is not None and (self._somebody_left or keys.due_for_rotation)

    def rotate(self, random_bytes: bytes) -> tuple[bytes, list[int]]:
        """Begin a new epoch; nothing may be sealed between a leave and this.

        Args:
            random_bytes: 32 fresh ones.

        Returns:
            The KEY frame, and the legs it has to go on: of everybody who knows the old one,
            whether the group serves them at the moment or not.
        """
        assert self._keys is not None
        fact = self._keys.rotate(random_bytes)
        self.facts = msgspec.structs.replace(self.facts, key=fact.body())
        self._somebody_left = False
        return control_frame(Kind.KEY, fact.body()), list(self._knowing)

    def reported(
        self, key: int, body: memoryview, now_ns: int, *, may_hear: bool = True
    ) -> bytes | None:
        """A leaf reports; if it is that it hears the group, and it may, the START for its leg.

        Raises:
            RemoteProtocolError: Malformed, or impossible.
        """
        if key in self._on_group:
            self.sender.handle_report(key, body, now_ns)
            return None
        report = decode_report(body)
        listener = self._told.get(key)
        if listener is None or report.seen != NO_UNIT or report.ack != listener.stops:
            # A word from before the last STOP. Until that has come the leaf goes on acknowledging
            # what the group brings, and a START would take it back before that.
            return None
        if not may_hear or not report.heard:
            return None
        listener.on_group, listener.until_ns = True, None
        self._on_group[key] = None
        self._changes += 1
        return self.sender.start(self.sender.add_leaf(key, report.window, now_ns))

    def demote(self, key: int, now_ns: int) -> Sequence[bytes]:
        """Serve a leaf by its leg from here on: what its leg has to carry first."""
        if key not in self._on_group:
            return ()
        del self._on_group[key]
        self._changes += 1
        stops = self._told[key].stops + 1
        self._told[key] = _Listener(on_group=False, until_ns=None, stops=stops)
        if self._next_probe_ns is None:
            self._next_probe_ns = now_ns + RETRY_NS
        return self.sender.demote(key)

    # What is sent

    def shape(self, flow: FlowSpec | None, now_ns: int) -> None:
        """Keep the stream to this flow specification from now on."""
        self.flow = flow
        if self._pacer is not None:
            self._pacer.shaper = shaper_of(flow, now_ns, self._pacer.shaper)

    @property
    def frame_target(self) -> int:
        """Length of the frames that a long batch is best cut into: one unit each."""
        return self.sender.capacity

    def begin(self, buffers: Sequence[Buffer], number: int | None) -> None:
        """Send frames to everybody on the group.

        Args:
            buffers: Each array a frame; of long messages header and payload in turn.
            number: The root's message they begin with; None: they are another member's.
        """
        if number is not None:
            self._marks.append((self.sender.next_unit, number))
        run: list[Buffer] = []
        size = 0
        raw = False
        for buffer in buffers:
            if not len(buffer):
                continue  # a long message that is empty
            header = len(buffer) == DATA_HEADER_SIZE
            # Arrays begin units of their own, so that each can be read where it lies.
            if run and not raw and not header:
                self.sender.begin(run, size)
                run, size = [], 0
            run.append(buffer)
            size += len(buffer)
            raw = header
        self.sender.begin(run, size)

    def blocking(self, now_ns: int, *, urgent: bool) -> list[int]:
        """The leaves that hold the stream up.

        Args:
            now_ns: The time.
            urgent: Whoever does at this moment; else only those who have not got on for a while,
                and not those that only have to take what came at once when one of them was gone.
        """
        sender = self.sender
        keys = sender.blocking()
        if urgent:
            return keys
        return [key for key in keys if sender.waits_ns(key, now_ns) >= PATIENCE_NS]

    def skip(self, key: int, number: int, now_ns: int) -> bytes | None:
        """Wait for a leaf no longer.

        Args:
            key: Its leg.
            number: The root's next message.
            now_ns: The time.

        Returns:
            The SKIP for its leg; None if it is sent later, by ``StreamSender.poll_leg``.
        """
        unit = self.sender.acknowledged(key)
        if key not in self._skipped_from and unit < self.sender.next_unit:
            begun = (first for begin, first in reversed(self._marks) if begin <= unit)
            self._skipped_from[key] = next(begun, number)
        return self.sender.skip(key, now_ns)

    def skipping(self, key: int, number: int) -> int:
        """How many messages of the root's a leaf misses that was skipped and has no room yet."""
        return number - self._skipped_from.get(key, number)

    def stands_at(self, unit: int, number: int) -> int:
        """Which message of the root's is the first from a unit on, where a batch begins.

        Args:
            unit: Which a SKIP names. More may have begun since it was written.
            number: The root's next message.
        """
        if unit >= self.sender.next_unit:
            return number
        for begin, first in reversed(self._marks):
            if begin < unit:
                break
            number = first
            if begin == unit:  # of several that begin there, those before the last met nobody
                break
        return number

    def skipped(self, key: int, number: int) -> int:
        """The SKIP goes on the leg now: how many messages of the root's the leaf will miss.

        Args:
            key: The leg.
            number: Where the root's messages stand at the SKIP, see ``stands_at``.

        Counted from the first batch that it has not acknowledged whole. What the group brought it
        since then is not missed: the leaf's own count is exact, this one no less than that.
        """
        return number - self._skipped_from.pop(key, number)

    # Time

    def poll_transmit(self, now_ns: int) -> Train | None:
        """What may leave now; None if nothing may."""
        if self._next_probe_ns is not None and now_ns >= self._next_probe_ns:
            return self._probe(now_ns)
        return self.sender.poll_transmit(now_ns) if self._on_group else None

    def _probe(self, now_ns: int) -> Train:
        waiting = [key for key, one in self._told.items() if one.until_ns is not None]
        for key in waiting:
            until_ns = self._told[key].until_ns
            if until_ns is not None and now_ns >= until_ns:
                self._told[key].until_ns = None
                self.events.append(FellBack(key, Cause.UNHEARD))
        if any(one.until_ns is not None for one in self._told.values()):
            self._next_probe_ns = now_ns + PROBE_EVERY_NS
        elif any(not one.on_group for one in self._told.values()):
            self._next_probe_ns = now_ns + RETRY_NS
        else:
            self._next_probe_ns = None
        return self.sender.probe(self.facts.nonce, now_ns)

    def next_deadline_ns(self) -> int | None:
        """When ``tick`` or ``poll_transmit`` has something to do."""
        times = [self._next_probe_ns]
        if self._on_group:
            times.append(self.sender.next_deadline_ns())
            if self.sender.held_bytes:  # somebody may be holding it up
                times.append(self._look_ns)
        return min((time for time in times if time is not None), default=None)

    def tick(self, now_ns: int, is_read: Callable[[int], bool] = lambda _: True) -> list[int]:
        """Run the clocks; keys of leaves that make no progress and are to be demoted.

        Args:
            now_ns: The time.
            is_read: Whether a leg is read at the moment. While the application takes nothing, or a
                leaf sends faster than it can be passed on, its reports stand behind its messages.
                The stream would wait for them, and they for the stream: so its leg serves it,
                whose own acknowledgements stand behind nothing.
        """
        if not self._on_group or now_ns < self._look_ns:
            return []
        self._look_ns = now_ns + LOOK_EVERY_NS
        stalled = self.sender.stalled(now_ns)
        for key, has_room in stalled.items():
            heard = Cause.DIED if has_room else Cause.FULL
            self.events.append(FellBack(key, heard if is_read(key) else Cause.UNREAD))
        return list(stalled)
