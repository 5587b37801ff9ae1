"""A leaf's end of the multicast stream, sans-I/O: trains in, units in order and reports out.

The way of a unit without losses is short on purpose: the headers of a coalesced train are compared
as two columns (every index, and the low byte of every unit number), because a network may reorder
before the kernel coalesces; then one join, and it is ready. Whatever is not that takes the long
way: runs of symbols are gathered per unit, and holes are reported.

Three positions tell where the stream is:

    _next     the unit to deliver next; all before it have been (or will not be: SKIP)
    _expect   the next symbol the root has not sent as far as we know (unit * 64 + index); what is
              missing before it is a hole
    _told     the holes before this position have been reported

A hole is reported after a short time for the network to reorder, and a random backoff that the
root sets, so that the repair of what one leaf reported first spares the others their reports. It
is reported again every ``repeat``; the root decides what to send again. Nothing is believed
because a datagram says so: numbers far off are dropped, and what contradicts itself or does not
authenticate is asked for over the leg, where only the root can answer.
"""

from __future__ import annotations

import math
from typing import Final

from joinleaf.core.reliability.partial import Partial, full
from joinleaf.core.reliability.seams import Opener, SpoiledError
from joinleaf.core.wire.landing import LANDING_BYTES, Landing, Scattered
from joinleaf.core.wire.reports import (
    BY_LEG,
    MAX_ENTRIES,
    NO_UNIT,
    Report,
    Timing,
    decode_sync,
    decode_unit_repair,
    report_frame,
)
from joinleaf.core.wire.units import (
    ALL,
    DATA,
    HEADER,
    HEADER_SIZE,
    INDICES,
    MAX_SYMBOLS,
    POLL,
    PROBE,
    REPAIR,
    SYNC,
    UNIT_OVERHEAD,
    XOR,
    cut,
    parity_parts,
    parity_unit,
    strip,
)
from joinleaf.errors import RemoteProtocolError

__all__ = ["StreamReceiver"]

MAX_AHEAD: Final = 8192
"""Units beyond the next one that are looked at: the sender keeps no more (sender.MAX_UNITS)."""

MAX_INTERVAL_NS: Final = 1_000_000_000
MAX_BACKOFF_NS: Final = 1_000_000_000
MAX_REPEAT_NS: Final = 2_000_000_000
"""Bounds on what a SYNC may tell: without keys anybody on the network can send one."""

KEEP_FROM: Final = LANDING_BYTES // 4
"""Bytes of one unit in a landing that is kept as it is. Fewer are copied out: what is held would
else take many times the room that the window counts."""

IMPATIENT_LEAVES: Final = 32
"""Of more leaves the root wants to hear no oftener than it says: what one asks for mends others."""

LEAST_REPEAT_NS: Final = 1_000_000
"""More than the usual that a repair may take before it is asked for again."""

KEY_WAIT_NS: Final = 1_000_000_000
"""How long a unit may wait for the key of its epoch before it is asked for over the leg: KEY
frames are on the leg before the first unit of their epoch is on the group."""

_U64: Final = (1 << 64) - 1
_WHOLE: Final = (DATA, REPAIR)
_LOW: Final = tuple(bytes([value]) * MAX_SYMBOLS for value in range(256))
_PARITY: Final = bytes([XOR]) * MAX_SYMBOLS
_DEFAULT_TIMING: Final = Timing(0, 0, 10_000, 1)


class StreamReceiver:
    """In-order units from the group. Starts listening; ``start`` says from where on it counts.

    Args:
        tag: The session's, as ACCEPT told it.
        window_bytes: What may be held, ready and out of order, UNIT_OVERHEAD per unit included.
        opener: Opens sealed units; None: only cleartext is taken.
        report_every_bytes: Report after so many bytes; default half of the window: the root asks
            for reports as often as it needs them.
        reorder_ns: How long a hole may be mere reordering.
        backoff_seed: Any number, different for each leaf: what its backoffs are drawn from.
        probe: The nonce that a PROBE carries.

    Attributes:
        ready: Units in order that ``take`` has not fetched: payloads, or where they lie in landings
            that were kept.
        backlog: Bytes the owner has taken and its application has not: they count against the
            window. Set it freely; call ``window_opened`` when it shrinks.
        tag: The session's.
        hole_ns: When something was last found missing.
        probe_heard: Whether multicast reaches this leaf.
        counters: What was dropped or mended, by reason.
    """

    __slots__ = (
        "_advertised", "_asked", "_asked_ns", "_drawn", "_echo", "_echo_ns", "_every", "_expect",
        "_fresh", "_gap_due", "_gap_is_new", "_held", "_held_bytes", "_holding", "_landing",
        "_last_report_ns", "_listening", "_next", "_opener", "_owner", "_probe", "_ready_bytes",
        "_recovered", "_reorder_ns", "_repair_dev_ns", "_repair_ns", "_report_due", "_seed",
        "_serial", "_stops", "_timing", "_told", "_window", "backlog", "counters",
        "hole_ns", "probe_heard", "ready", "tag",
    )  # fmt: skip

    def __init__(
        self,
        *,
        tag: int,
        window_bytes: int,
        opener: Opener | None = None,
        report_every_bytes: int | None = None,
        reorder_ns: int = 250_000,
        backoff_seed: int = 0,
        probe: bytes = b"",
    ) -> None:
        self.tag = tag
        self._window = window_bytes
        self._opener = opener
        self._every = report_every_bytes or max(1, window_bytes // 2)
        self._reorder_ns = reorder_ns
        self._seed = backoff_seed & _U64
        self._drawn = 0
        self._probe = probe
        self._timing = _DEFAULT_TIMING
        self._listening = True
        self._stops = 0
        self._next = 0
        self._expect = 0
        self._told = 0
        self._held: dict[int, Partial] = {}
        self._held_bytes = 0
        self._landing: Landing | None = None  # what is being taken in, if it may be kept
        self._owner: Partial | None = None  # the unit it is kept for
        self.ready: list[bytes | Landing | Scattered] = []
        self._ready_bytes = 0
        self.backlog = 0
        self._holding = False
        self._advertised = window_bytes
        self._fresh = 0  # bytes since the last report
        self._recovered = 0  # symbols, since then, that were missing and never reported so
        self._echo, self._echo_ns, self._serial = NO_UNIT, 0, -1
        self._asked, self._asked_ns = -1, 0  # a unit that was asked for, and when
        self._repair_ns = self._repair_dev_ns = 0  # how long repairs take, smoothed; 0: not known
        self._gap_due: int | None = None
        self.hole_ns = -(1 << 62)
        self._gap_is_new = False  # it is due for a hole that has not been reported yet
        self._report_due: int | None = None
        self._last_report_ns = -MAX_INTERVAL_NS
        self.probe_heard = False
        self.counters = dict.fromkeys(
            (
                "strangers", "malformed", "duplicates", "beyond_window", "repaired",
                "recovered", "useless", "spoiled", "conflicts", "by_leg", "reports",
                "skipped_units",
            ),
            0,
        )  # fmt: skip

    # What the leg brings

    def start(self, unit: int, timing: Timing | None = None) -> None:
        """START: deliver from ``unit`` on; what was held of it is used, what is before dropped.

        Raises:
            RemoteProtocolError: It has started already.
        """
        if not self._listening:
            raise RemoteProtocolError("a second START")
        self._listening = False
        if timing is not None:
            self._timing = timing
        self._move_to(unit)
        self._report_due = 0

    def stop(self, unit: int) -> None:
        """STOP: nothing more comes by the group; all before ``unit`` has been delivered.

        Raises:
            RemoteProtocolError: Something before it has not.
        """
        if self._listening or unit > self._next:
            raise RemoteProtocolError(f"STOP at unit {unit}, but the next is {self._next}")
        self._listening = True
        self._asked = -1
        self._stops += 1
        self._drop_below(NO_UNIT)
        self._gap_due, self._report_due = None, 0  # the root waits to hear of it

    def skip(self, unit: int) -> bool:
        """SKIP: go on with ``unit``; what has not been delivered of those before never will.

        Returns:
            Whether that is so of anything. Reports may be late: a leaf that is not waited for any
            longer can have got everything, and some of what came after.

        Raises:
            RemoteProtocolError: Not started.
        """
        if self._listening:
            raise RemoteProtocolError(f"SKIP to unit {unit} before START")
        self._report_due = 0
        if unit <= self._next:
            return False
        self.counters["skipped_units"] += unit - self._next
        self._move_to(unit)
        return True

    def handle_unit_repair(self, body: memoryview, now_ns: int) -> None:
        """Symbols that came over the leg, from the root and nobody else.

        Raises:
            RemoteProtocolError: Malformed, or the unit does not authenticate though all of it came
                over the leg.
        """
        repair = decode_unit_repair(body)
        unit = repair.unit
        if unit < self._next or unit - self._next >= MAX_AHEAD or self._listening:
            self.counters["duplicates"] += 1
            return
        self.counters["by_leg"] += 1
        partial = self._held.get(unit)
        if partial is None or partial.by_leg or not self._fits_repair(partial, repair.symbols):
            self._forget(unit)
            partial = self._hold(unit, repair.epoch, repair.symbols, now_ns)
        if partial.complete:
            return
        self._add_repair(partial, repair.bitmap, repair.symbol, repair.payload)
        # A part of it may have been mixed with what a stranger sent to the group: ask for it all.
        by_leg_alone = repair.bitmap == full(repair.symbols)
        if self._finish(partial, now_ns) and partial.by_leg and by_leg_alone:
            raise RemoteProtocolError(f"unit {unit} is spoiled even over the leg")
        self._after(now_ns)

    def keys_changed(self, now_ns: int) -> None:
        """A KEY has come: try the units that waited for one."""
        for partial in list(self._held.values()):
            if partial.sealed is not None:
                self._unseal(partial, partial.sealed, now_ns)
        self._after(now_ns)

    # What the group brings

    def straight(self) -> int:
        """The next unit, if nothing before or behind it waits here; -1: something does."""
        if self._listening or self.ready or self._held or self._holding:
            return -1
        return self._next

    def went_straight(self, unit: int, size: int, now_ns: int, *, polled: bool) -> int:
        """All units before ``unit`` have gone straight to the owner, without coming by here.

        Args:
            unit: The next one now.
            size: Bytes on the wire.
            now_ns: Now.
            polled: Whether one of them asked for a report.

        Returns:
            How many they were.
        """
        taken = unit - self._next
        if taken <= 0:
            return 0
        self._next = unit
        if self._expect < unit << 6:
            self._expect = unit << 6
            self._echo, self._echo_ns, self._serial = unit - 1, now_ns, -1
        if self._gap_due is not None:
            self._after(now_ns)
        self._fresh += size
        if polled or self._fresh >= self._every:
            self._want_report(now_ns)
        return taken

    def handle_landing(self, landing: Landing, now_ns: int) -> bool:
        """What was received into a landing. Never raises.

        (What comes in order need not come by here: see ``straight``.)

        Returns:
            Whether it was kept, and is among what is ready: receive into another one.
        """
        view, segment = landing.view[: landing.size], landing.segment
        if landing.size < KEEP_FROM or segment <= HEADER_SIZE or self._opener is not None:
            self.handle_train(view, segment, now_ns)
            return False
        unit = self._whole_unit(view, segment)
        if unit == self._next and self._in_order:
            landing.size = min(landing.size, view[7] * segment)  # parity is of no use now
            self.ready.append(landing)
            self._ready_bytes += landing.payload_bytes + UNIT_OVERHEAD
            self._delivered(view, now_ns)
            return True
        if self._is_spare(unit, view, segment):
            return False
        if unit >= self._next and self._hold_landing(unit, landing, now_ns):
            return True
        self._landing = landing
        self._handle_symbols(view, segment, now_ns)
        kept = self._owner is not None
        self._landing = self._owner = None
        return kept

    def _is_known(self, unit: int) -> bool:
        """Whether nothing more of it is needed: most that is sent again is for others."""
        if 0 <= unit < self._next and not self._listening:
            return True
        held = self._held.get(unit)
        return held is not None and held.complete

    def _is_spare(self, unit: int, view: memoryview, segment: int) -> bool:
        """Whether this is a unit that is known, and not with parity of another behind it."""
        if not self._is_known(unit) or len(view) > view[7] * segment:
            return False
        self.counters["duplicates"] += view[7]
        return True

    def _hold_landing(self, unit: int, landing: Landing, now_ns: int) -> bool:
        """Keep a whole unit behind a hole, or that ends one; False: look closer.

        Nothing of it is here.
        """
        over = self._held_bytes + landing.size + UNIT_OVERHEAD > self._window
        over |= unit == self._next and self._ready_bytes > self._window
        if over or unit in self._held or not self._near(unit):
            return False
        _, kind, epoch, _, count, _ = HEADER.unpack_from(landing.view)
        landing.size = min(landing.size, count * landing.segment)
        partial = self._hold(unit, epoch, count, now_ns)
        partial.take(landing)
        self._held_bytes += partial.size
        self._fresh += landing.size
        if kind == REPAIR:
            self.counters["repaired"] += count
        else:
            self._advance(unit, 0, count, count, now_ns)
        if unit == self._next:
            self._after(now_ns)
        if kind == POLL or self._fresh >= self._every:
            self._want_report(now_ns)
        return True

    def handle_train(self, view: memoryview, segment: int, now_ns: int) -> None:
        """One received datagram, or several that the kernel has coalesced. Never raises.

        Args:
            view: What was received; not kept.
            segment: Length of each datagram in it but the last, which may be shorter; the length
                of ``view`` if it is one datagram.
            now_ns: Now.
        """
        if len(view) <= HEADER_SIZE or segment <= HEADER_SIZE:
            self.counters["malformed"] += 1
        elif self._is_spare(unit := self._whole_unit(view, segment), view, segment):
            pass
        elif unit == self._next and self._in_order and self._deliver_whole(view, segment):
            self._delivered(view, now_ns)
        else:
            self._handle_symbols(view, segment, now_ns)

    @property
    def _in_order(self) -> bool:
        """Whether the next unit can be delivered as it comes."""
        return not self._held and self._ready_bytes <= self._window

    def _whole_unit(self, view: memoryview, segment: int) -> int:
        """The unit that this is, as a whole and with nothing but parity behind it; -1: none."""
        tag, kind, epoch, index, count, unit = HEADER.unpack_from(view)
        whole = (
            not index
            and tag == self.tag
            and kind & 0x7F in _WHOLE
            and (count - 1) * segment + HEADER_SIZE < len(view)
            and (len(view) <= count * segment or _is_parity(view, segment, count))
            and not self._listening
            and bool(epoch) is (self._opener is not None)
            and (
                count == 1
                or (
                    view[6 : count * segment : segment] == INDICES[:count]
                    and view[15 : count * segment : segment] == _LOW[unit & 255][:count]
                )
            )
        )
        return unit if whole else -1

    def _delivered(self, view: memoryview, now_ns: int) -> None:
        """The next unit is ready; go on."""
        self._next = unit = self._next + 1
        if self._expect < unit << 6:
            self._expect = unit << 6
            if view[4] != REPAIR:
                self._echo, self._echo_ns, self._serial = unit - 1, now_ns, -1
        if view[4] == REPAIR:
            self.counters["repaired"] += view[7]
        if self._gap_due is not None:  # it may have been the last hole
            self._after(now_ns)
        self._fresh += len(view)
        if view[4] == POLL or self._fresh >= self._every:
            self._want_report(now_ns)

    def _deliver_whole(self, view: memoryview, segment: int) -> bool:
        """Deliver the next unit; False: it needs the long way."""
        _, _, epoch, _, count, unit = HEADER.unpack_from(view)
        payload = strip(view, segment, count)
        if self._opener is not None:
            try:
                opened = self._opener.open(epoch, unit, count, payload)
            except SpoiledError:
                return False
            if opened is None:
                return False
            payload = opened
        self.ready.append(payload)
        self._ready_bytes += len(payload) + UNIT_OVERHEAD
        return True

    def _handle_symbols(self, view: memoryview, segment: int, now_ns: int) -> None:
        """The long way: run by run."""
        total = (len(view) - HEADER_SIZE - 1) // segment + 1  # what is no symbol is left out
        places, lows = view[6::segment].tobytes(), view[15::segment].tobytes()
        at = 0
        while at < total:
            start = at * segment
            header = HEADER.unpack_from(view, start)
            tag, kind, epoch, index, count, unit = header
            kind &= 0x7F
            symbols = 1
            if tag != self.tag:
                self.counters["strangers"] += 1
            elif kind == REPAIR and self._has(unit, epoch, count, index):
                self.counters["duplicates"] += 1
            elif kind in (DATA, REPAIR):
                most = min(count - index, total - at)
                if most > 1 and count <= MAX_SYMBOLS:
                    symbols = _run(places[at : at + most], lows[at : at + most], index)
                run = view[start : start + symbols * segment]
                self._handle_run(run, segment, symbols, at, header, now_ns)
            elif kind == XOR:
                self._handle_parity(header, view[start + HEADER_SIZE : start + segment], now_ns)
            else:
                self._handle_other(kind, header, view[start : start + segment], now_ns)
            at += symbols
        self._after(now_ns)

    def _has(self, unit: int, epoch: int, count: int, index: int) -> bool:
        """Whether this symbol is here already: most repairs are for others."""
        partial = self._held.get(unit)
        if partial is None or partial.complete:
            return self._is_known(unit)
        alike = epoch == partial.epoch and count == partial.count  # else one of both is forged
        return alike and partial.mask >> index & 1 > 0

    def _handle_run(
        self,
        view: memoryview,
        segment: int,
        symbols: int,
        at: int,
        header: tuple[int, int, int, int, int, int],
        now_ns: int,
    ) -> None:
        """Symbols of one unit in their order, ``at`` so many in the train."""
        _, kind, epoch, index, count, unit = header
        if index >= count or count > MAX_SYMBOLS or bool(epoch) is (self._opener is None):
            self.counters["malformed"] += 1
            return
        partial = self._room_for(unit, epoch, count, len(view), now_ns)
        if partial is not None:
            self._place(partial, view, segment, index, symbols, at)
            self._finish(partial, now_ns)
        if kind != REPAIR and self._near(unit):
            self._advance(unit, index, symbols, count, now_ns)
            if kind == POLL and index + symbols == count:
                self._want_report(now_ns)

    def _handle_parity(
        self, header: tuple[int, int, int, int, int, int], payload: memoryview, now_ns: int
    ) -> None:
        """A parity symbol: it mends one loss, or is of no use here.

        It is not kept until more of its unit comes: the root makes it of what the leaves told it,
        so that a leaf which misses two of its parts tells of them later, and gets them then.
        """
        _, _, epoch, index, count, packed = header
        parts = parity_parts(index, count, packed)
        if not parts or bool(epoch) is (self._opener is None):
            self.counters["malformed"] += 1
            return
        unit = parity_unit(packed, self._next)
        if not self._near(unit):
            self.counters["duplicates"] += 1  # most likely one that has been delivered
            return
        partial = self._held.get(unit)
        if partial is None or partial.by_leg:
            self.counters["useless"] += 1
            return
        missing = parts & ~partial.mask
        if partial.complete or not missing:
            self.counters["duplicates"] += 1
        elif epoch != partial.epoch or count != partial.count:
            self.counters["conflicts"] += 1
            self._distrust(partial)
        elif missing & missing - 1:
            self.counters["useless"] += 1
        else:
            self._recover(partial, parts, missing, payload, now_ns)

    def _recover(
        self, partial: Partial, parts: int, missing: int, payload: memoryview, now_ns: int
    ) -> None:
        recovered = partial.recovered(parts, missing, payload)
        if recovered is None:
            self.counters["conflicts"] += 1
            self._distrust(partial)
            return
        size = len(recovered)
        index = missing.bit_length() - 1
        partial.add(index, (recovered,))
        if partial.unit << 6 | index >= self._told:
            self._recovered += 1  # the root would not learn of the loss
        self._held_bytes += size
        self._fresh += size + HEADER_SIZE
        self.counters["repaired"] += 1
        self.counters["recovered"] += 1
        self._finish(partial, now_ns)

    def _near(self, unit: int) -> bool:
        return not self._listening and 0 <= unit - self._next < MAX_AHEAD

    def _room_for(
        self, unit: int, epoch: int, count: int, size: int, now_ns: int
    ) -> Partial | None:
        """Where symbols of this unit go; None: they are not wanted."""
        partial = self._held.get(unit)
        if partial is not None and not partial.complete:
            return partial
        if self._is_known(unit):
            self.counters["duplicates"] += 1
            return None
        over = self._held_bytes + size + UNIT_OVERHEAD > self._window
        if self._listening:
            # What START names is ahead of us: what came first is the least likely to be wanted.
            while over and self._held:
                self._forget(min(self._held))
                over = self._held_bytes + size + UNIT_OVERHEAD > self._window
        elif unit != self._next:
            over |= unit - self._next >= MAX_AHEAD
        else:
            over = self._ready_bytes > self._window  # the stream must go on, but not without end
        if over:
            self.counters["beyond_window"] += 1
            return None
        return self._hold(unit, epoch, count, now_ns)

    def _hold(self, unit: int, epoch: int, count: int, now_ns: int) -> Partial:
        partial = self._held[unit] = Partial(unit, epoch, count, now_ns)
        self._held_bytes += UNIT_OVERHEAD
        return partial

    def _forget(self, unit: int) -> None:
        partial = self._held.pop(unit, None)
        if partial is not None:
            self._held_bytes -= partial.size + UNIT_OVERHEAD

    def _place(
        self,
        partial: Partial,
        view: memoryview,
        segment: int,
        index: int,
        symbols: int,
        at: int,
    ) -> None:
        _, _, epoch, _, count, unit = HEADER.unpack_from(view)
        symbol = min(segment, len(view)) - HEADER_SIZE
        if partial.by_leg:
            self.counters["spoiled"] += symbols
            return
        if not partial.fits(epoch, count, index, symbols, symbol):
            self.counters["conflicts"] += 1
            self._distrust(partial)
            return
        before, landing, owner = partial.size, self._landing, self._owner
        if landing is None or (owner is None and len(view) < KEEP_FROM):
            keep = False
        else:
            keep = owner is None or owner is partial
        if landing is not None and keep:
            fresh = partial.add(index, landing.payloads()[at : at + symbols])
            if fresh and owner is None:
                self._owner = partial
                partial.landings.append(landing)
        else:
            fresh = partial.add(index, cut(view, segment, symbols))
        self._held_bytes += partial.size - before
        self._fresh += (partial.size - before) + fresh * HEADER_SIZE
        self.counters["duplicates"] += symbols - fresh
        if fresh and unit << 6 | index < self._expect:
            self.counters["repaired"] += fresh

    def _distrust(self, partial: Partial) -> None:
        """Drop what has come of a unit; from now on only the leg is believed."""
        self._held_bytes -= partial.size
        partial.clear()
        partial.by_leg = True
        if not self._listening:
            self._expect = max(self._expect, (partial.unit + 1) << 6)
            self._gap_due = 0

    def _finish(self, partial: Partial, now_ns: int) -> bool:
        """Open a unit if it is whole; whether it was."""
        if partial.complete or not partial.whole:
            return partial.complete
        if self._opener is not None:
            self._unseal(partial, partial.joined(), now_ns)
        else:
            partial.payload = partial.scattered() if partial.landings else partial.joined()
        return True

    def _unseal(self, partial: Partial, sealed: bytes, now_ns: int) -> None:
        assert self._opener is not None
        try:
            partial.payload = self._opener.open(partial.epoch, partial.unit, partial.count, sealed)
        except SpoiledError:
            self.counters["spoiled"] += 1
            self._distrust(partial)
            return
        if partial.payload is not None:
            partial.sealed = None
        elif partial.sealed is None:
            partial.sealed, partial.since_ns = sealed, now_ns

    @staticmethod
    def _fits_repair(partial: Partial, count: int) -> bool:
        return partial.complete or partial.count == count

    def _add_repair(self, partial: Partial, bitmap: int, symbol: int, payload: memoryview) -> None:
        before = partial.size
        view = memoryview(bytes(payload))
        payloads = [view[start : start + symbol] for start in range(0, len(view), symbol)]
        if bitmap == full(partial.count):
            partial.clear()
            partial.add(0, payloads)
        else:
            indices = (index for index in range(partial.count) if bitmap >> index & 1)
            for index, one in zip(indices, payloads, strict=True):
                partial.add(index, (one,))
        self._held_bytes += partial.size - before

    # Order

    def _advance(self, unit: int, index: int, symbols: int, count: int, now_ns: int) -> None:
        """The root has sent up to here; what it skipped on the way is a hole."""
        position = unit << 6 | index
        if position > self._expect:
            self._hole(now_ns)
        last = (unit + 1) << 6 if index + symbols == count else position + symbols
        if last > self._expect:
            if unit << 6 >= self._expect:
                self._echo, self._echo_ns, self._serial = unit, now_ns, -1
            self._expect = last

    def _hole(self, now_ns: int) -> None:
        self.hole_ns = now_ns
        if not self._gap_is_new:
            due = now_ns + self._reorder_ns + self._backoff_ns()
            self._gap_due = due if self._gap_due is None else min(due, self._gap_due)
            self._gap_is_new = True

    def _after(self, now_ns: int) -> None:
        """Deliver what is in order now; see whether anything is missing."""
        if self._listening:
            return
        held = self._held
        while (partial := held.get(self._next)) is not None and partial.payload is not None:
            self.ready.append(partial.payload)
            self._ready_bytes += partial.size + UNIT_OVERHEAD
            self._forget(self._next)
            self._next += 1
        if self._expect < self._next << 6:
            self._expect = self._next << 6
        if self._asked >= 0 and self._is_known(self._asked):
            self._answered(now_ns - self._asked_ns)
        if not self._has_hole():
            self._gap_due = None
            self._gap_is_new = False
        if self._fresh >= self._every:
            self._want_report(now_ns)

    def _has_hole(self) -> bool:
        """Whether a symbol before ``_expect`` is missing."""
        if self._expect <= self._next << 6:
            return False
        partial = self._held.get(self._next)
        if partial is None or partial.by_leg:
            return True
        if partial.complete:  # it waits for its key, and something behind it may be missing
            return bool(self._entries(self._expect))
        if self._expect >= (self._next + 1) << 6:
            return True
        return bool(full(self._expect & 63) & ~partial.mask)

    def _move_to(self, unit: int) -> None:
        self._next = unit
        self._asked = -1
        self._drop_below(unit)
        # While nobody had said where the stream is, anybody could have sent any number.
        for number in [number for number in self._held if number - unit >= MAX_AHEAD]:
            self._forget(number)
        self._expect = max(self._expect, unit << 6)
        self._gap_due, self._gap_is_new = None, False
        for held in self._held.values():
            top = held.mask.bit_length()
            whole = held.complete or held.by_leg or top == held.count
            last = (held.unit + 1) << 6 if whole else held.unit << 6 | top
            self._expect = max(self._expect, last)
        self._after(self._last_report_ns)
        if self._has_hole():
            self._gap_due, self._gap_is_new = 0, True

    def _drop_below(self, unit: int) -> None:
        for number in [number for number in self._held if number < unit]:
            self._forget(number)

    def take(self) -> list[bytes | Landing | Scattered]:
        """The units in order since the last call; their bytes no longer count here."""
        ready, self.ready = self.ready, []
        self._ready_bytes = 0
        self.window_opened()
        return ready

    def window_opened(self) -> None:
        """``backlog`` has shrunk: tell the root if it thinks there is little room."""
        window = self._free()
        if self._advertised <= self._window // 2 and window - self._advertised >= self._window // 4:
            self._report_due = 0

    def hold(self, holding: bool) -> None:
        """The owner fetches no more trains, or does again: the root learns that there is no window.

        It then waits, as the sender's policy says, and does not take the group for dead.
        """
        if holding != self._holding:
            self._holding = holding
            self._report_due = 0

    def _free(self) -> int:
        if self._holding:
            return 0
        free = self._window - self._ready_bytes - self.backlog
        # A window too small for any unit is none: the root would wait for a part of it for ever.
        return free if free >= self._window // 8 else 0

    # SYNC and PROBE

    def _handle_other(
        self,
        kind: int,
        header: tuple[int, int, int, int, int, int],
        symbol: memoryview,
        now_ns: int,
    ) -> None:
        if kind not in (SYNC, PROBE):
            self.counters["malformed"] += 1
            return
        _, _, epoch, _, serial, unit = header
        body = self._open_control(kind, epoch, serial, unit, symbol[HEADER_SIZE:])
        if body is None:
            self.counters["malformed"] += 1
        elif kind == PROBE:
            self._handle_probe(body)
        elif not self._listening:
            self._handle_sync(body, serial, unit, now_ns)

    def _open_control(
        self, kind: int, epoch: int, serial: int, unit: int, body: memoryview
    ) -> bytes | None:
        if self._opener is None:
            return bytes(body) if not epoch else None
        try:
            return self._opener.open_control(kind, epoch, serial, unit, body) if epoch else None
        except SpoiledError:
            return None

    def _handle_probe(self, body: bytes) -> None:
        if body == self._probe and not self.probe_heard:
            self.probe_heard = True
            self._report_due = 0

    def _handle_sync(self, body: bytes, serial: int, unit: int, now_ns: int) -> None:
        timing = decode_sync(body)
        if timing is None or unit - self._next > MAX_AHEAD:
            self.counters["malformed"] += 1
            return
        self._timing = timing
        if unit << 6 > self._expect:
            self._expect = unit << 6
            self._hole(now_ns)
        self._echo, self._echo_ns, self._serial = unit, now_ns, serial
        self._want_report(now_ns)

    # Reports

    def _backoff_ns(self) -> int:
        """How long this leaf waits before it reports a hole.

        Source:
            RFC 5401, section 3.2 (truncated exponential): few of many draw a short time.
        """
        limit = min(self._timing.backoff_us * 1000, MAX_BACKOFF_NS)
        if not limit:
            return 0
        rate = math.log(max(1, self._timing.leaves)) + 1
        grown = math.exp(rate) - 1
        return int(limit / rate * math.log1p(self._uniform() * grown))

    def _uniform(self) -> float:
        """A draw from [0, 1): splitmix64 of the seed, so that a replay is exact."""
        self._drawn += 1
        value = (self._seed + self._drawn * 0x9E3779B97F4A7C15) & _U64
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _U64
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _U64
        return ((value ^ (value >> 31)) >> 11) / (1 << 53)

    def _interval_ns(self) -> int:
        return min(self._timing.interval_us * 1000, MAX_INTERVAL_NS)

    def _want_report(self, now_ns: int) -> None:
        """Report soon; many leaves that are asked at once spread over the interval.

        And those whose last report is an interval ago spread over half of one: what began together
        would else stay together for ever, and all report a loss before it can be mended.
        """
        if self._report_due is None:
            interval = self._interval_ns()
            spread = int(self._uniform() * interval) if self._timing.leaves > 1 else 0
            self._report_due = max(now_ns + spread, self._last_report_ns + interval + spread // 2)

    def next_deadline_ns(self) -> int | None:
        """When to call ``poll_report`` or ``tick`` next; None: nothing is due."""
        dues = [due for due in (self._report_due, self._gap_due) if due is not None]
        due = max(min(dues), self._last_report_ns + self._interval_ns()) if dues else None
        keyless = self._keyless_due()
        return due if keyless is None else keyless if due is None else min(due, keyless)

    def _keyless_due(self) -> int | None:
        if self._opener is None or self._listening or not self._held:
            return None
        partial = self._held.get(self._next)
        if partial is None or partial.sealed is None:
            return None
        return partial.since_ns + KEY_WAIT_NS

    def tick(self, now_ns: int) -> None:
        """A deadline has passed: give up waiting for a key that does not come."""
        due = self._keyless_due()
        if due is not None and now_ns >= due:
            self._distrust(self._held[self._next])

    def poll_report(self, now_ns: int) -> bytes | None:
        """The REPORT frame that is due, to go on the leg; None: not yet."""
        gap_due, report_due = self._gap_due, self._report_due
        if gap_due is None and report_due is None:
            return None
        if now_ns < self._last_report_ns + self._interval_ns():
            return None
        mature = gap_due is not None and now_ns >= gap_due
        if not mature and (report_due is None or now_ns < report_due):
            return None
        if mature:
            self._ask(self._told, now_ns)
            self._told = self._expect
            self._gap_is_new = False
            self._gap_due = now_ns + self._repeat_ns()
        return self._report(now_ns)

    def _ask(self, told: int, now_ns: int) -> None:
        """The last hole is reported now: note when, if it has not been before."""
        if self._asked >= 0:
            self._asked = -1  # what answers now, the first report or this one, is not known (Karn)
            self._repair_ns = min(self._repair_ns * 3 // 2, MAX_REPEAT_NS)
            return
        unit = (self._expect >> 6) - 1  # one that has not come in part so far
        while unit << 6 >= told and self._is_known(unit):
            unit -= 1
        if unit << 6 >= told:
            self._asked, self._asked_ns = unit, now_ns

    def _answered(self, took_ns: int) -> None:
        self._asked = -1
        took_ns = min(took_ns, MAX_REPEAT_NS)
        if not self._repair_ns:
            self._repair_ns, self._repair_dev_ns = took_ns, took_ns // 2
            return
        deviation_ns = abs(took_ns - self._repair_ns)
        self._repair_dev_ns += (deviation_ns - self._repair_dev_ns) // 4
        self._repair_ns += (took_ns - self._repair_ns) // 8

    def _repeat_ns(self) -> int:
        """How long a hole waits to be filled before it is reported again.

        Source:
            RFC 6298, section 2: no longer than repairs take here, as far as that is known.
        """
        told_ns = min(self._timing.repeat_us * 1000, MAX_REPEAT_NS)
        if self._repair_ns and self._timing.leaves <= IMPATIENT_LEAVES:
            told_ns = min(told_ns, self._repair_ns + max(4 * self._repair_dev_ns, LEAST_REPEAT_NS))
        return max(told_ns, self._reorder_ns)

    def _report(self, now_ns: int) -> bytes:
        self._report_due = None
        self._last_report_ns = now_ns
        self._fresh = 0
        self._advertised = window = self._free()
        self.counters["reports"] += 1
        if self._listening:
            return report_frame(
                Report(self._stops, NO_UNIT, NO_UNIT, 0, window, self.probe_heard, False, 0, ())
            )
        delay_us = min((now_ns - self._echo_ns) // 1000, 0xFFFFFFFF)
        recovered, self._recovered = self._recovered, 0
        return report_frame(
            Report(
                self._next, -(-self._expect // 64), self._echo, max(0, delay_us), window,
                self.probe_heard, self._serial >= 0, max(0, self._serial),
                self._entries(self._told), recovered,
            )
        )  # fmt: skip

    def _entries(self, limit: int) -> list[tuple[int, int, int, int]]:
        """What is missing before the position ``limit``, oldest first."""
        entries: list[tuple[int, int, int, int]] = []
        first, run = 0, 0  # of units of which nothing has come
        for unit in range(self._next, -(-limit // 64)):
            partial = self._held.get(unit)
            if partial is None:
                first, run = (first, run + 1) if run else (unit - self._next, 1)
                continue
            if run:
                entries.append((first, run, 0, ALL))
                run = 0
            missing = self._missing(partial, limit)
            if missing:
                entries.append((unit - self._next, 1, BY_LEG * partial.by_leg, missing))
            if len(entries) >= MAX_ENTRIES:
                return entries[:MAX_ENTRIES]
        if run:
            entries.append((first, run, 0, ALL))
        return entries

    @staticmethod
    def _missing(partial: Partial, limit: int) -> int:
        if partial.by_leg:
            return ALL
        if partial.complete:
            return 0
        known = full(partial.count)
        if partial.unit == limit >> 6:
            known &= full(limit & 63)
        return known & ~partial.mask


def _is_parity(view: memoryview, segment: int, count: int) -> bool:
    """Whether there is nothing but parity behind the first ``count`` symbols."""
    kinds = view[count * segment + 4 :: segment]
    return kinds == _PARITY[: len(kinds)]


def _run(places: bytes, lows: bytes, index: int) -> int:
    """How many symbols follow one another from ``index`` on, all of the same unit.

    Args:
        places: The index of each symbol.
        lows: The low byte of each one's unit.
        index: Of the first.
    """
    size = len(places)
    expected, same = INDICES[index : index + size], _LOW[lows[0]][:size]
    if places == expected and lows == same:
        return size
    differ = int.from_bytes(places, "little") ^ int.from_bytes(expected, "little")
    differ |= int.from_bytes(lows, "little") ^ int.from_bytes(same, "little")
    return (differ & -differ).bit_length() - 1 >> 3
