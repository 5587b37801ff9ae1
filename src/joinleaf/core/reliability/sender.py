"""The root's end of the multicast stream, sans-I/O: batches in, trains out, reports in.

A batch is cut into units when it begins; their wire images are made one by one when they may
leave, and kept until every leaf served by the group has acknowledged them. Three limits hold the
stream back, whichever is nearest: the window of the sender (memory), of congestion control, and of
each leaf (what it can hold beyond its acknowledgement). Offsets count bytes on the wire and
UNIT_OVERHEAD per unit since the stream began, so that all of them are one comparison.

Order of what leaves: repairs (everybody's window waits for them), new units, SYNC. A SYNC tells
how far the stream is, while something is unacknowledged and nothing else was sent for a while:
a train whose end was lost is noticed by nobody else.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from joinleaf.core.reliability.flight import Flight
from joinleaf.core.reliability.parity import combine
from joinleaf.core.reliability.repairs import Again, Losses
from joinleaf.core.reliability.seams import Congestion, Pacer, Sealer
from joinleaf.core.reliability.tally import Mended, Tally
from joinleaf.core.wire.frames import HEADER as FRAME_HEADER
from joinleaf.core.wire.reports import (
    BY_LEG,
    NO_UNIT,
    Report,
    Timing,
    decode_report,
    skip_frame,
    start_frame,
    stop_frame,
    sync_body,
    unit_repair_frame,
)
from joinleaf.core.wire.units import (
    ALL,
    DATA,
    HEADER,
    HEADER_SIZE,
    POLL,
    PROBE,
    REPAIR,
    SYNC,
    UNIT_OVERHEAD,
    Layout,
    as_repair,
    exclusive_or,
    guarded,
    parity_header,
    strip,
    with_parity,
    write_unit,
)
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.provider import Buffer

__all__ = ["PATIENCE_NS", "StreamSender", "Train"]

MAX_UNITS: Final = 8192
"""Units kept at a time: what a receiver looks ahead (receiver.MAX_AHEAD)."""

INITIAL_RTT_NS: Final = 5_000_000
MIN_RTT_NS: Final = 200_000
MAX_RTT_NS: Final = 1_000_000_000
REORDER_NS: Final = 250_000
"""By how much a network may turn the order round: what left so much earlier than what a leaf has
heard is lost (RFC 8985, section 6.2: the reordering window)."""

RTT_DECAY: Final = 32
"""The slowest leaf's round trip counts: it grows at once and shrinks by this part per report."""

REPORT_COST_NS: Final = 20_000
"""What a report costs the root. Leaves report no oftener than all of them together could be served
in the time: a thousand leaves every 20 ms. Not less often: they clock the stream."""

SUPPRESS_FROM: Final = 33
"""Leaves from which on gaps are reported after a random backoff of round trips: fewer cannot flood
the root. What one of them reports spares another its report only if both lost the same, and until
all have reported nothing is combined. Fewer wait for a quarter of a round trip, as the root does,
and tell of more holes in one report."""

FLOWING_NS: Final = 2_000_000
"""A stream of which nothing new has left for so long (and for as long as losses are gathered) is
repaired without delay: it is not short of room, and somebody may wait for an answer."""

TIMING_TIMES: Final = 4
"""While units flow there is no SYNC, and leaves go on with what START told them of the first round
trips and leaves; so one is sent when their reports have become so many times too rare or too
frequent. Twice would be too nervous: the round trip grows at once."""

MAX_SYNC_NS: Final = 500_000_000
"""Longest time between two SYNCs while something is unacknowledged."""

STALL_NS: Final = 1_000_000_000
"""A leaf that acknowledges nothing for so long, though units flow, has lost the group."""

PATIENCE_NS: Final = 100_000_000
"""A leaf that has not got on for so long is what holds the stream up, not one of those that suffer
from it. Leaves report within milliseconds; a busy host takes some tens."""

LARGEST_TRAIN: Final = 1 << 16
"""No unit is longer."""

LEAST_UNIT: Final = 1024
"""Bytes of the stream in a unit, however low the rate: a header and a record for each must pay."""

CREDIT_MOST: Final = 4096
"""Symbols that a leaf may have repaired by the group beyond its share: a window of them may be lost
at once."""

CREDIT_SHARE: Final = 2
"""One symbol in so many is every leaf's share: who claims to lose more than half of the stream is
repaired by its leg, so that it cannot fill the group with what the others have."""

MAX_TOLD: Final = 512
"""Units of which one report's losses are looked at, about half a millisecond: a report of one entry
can name 65,535, and a hostile leaf send many. The next report tells of what is left."""

GUARDS: Final = ((0.03, 6), (0.02, 4), (0.003, 3))
"""Parity symbols that a full unit is given in advance, from which usual loss on. With three for 41
symbols at 1 per cent a leaf lacks something of one unit in thirty, and not of every third: what it
need not ask for is worth more than the 7 per cent."""

GUARDED_FROM: Final = 24
"""Symbols of a unit for which that pays."""

WHOLE_FROM: Final = 8
"""Symbols of a unit that is sent again as a whole if a leaf lacks three quarters of it: what costs
is what is looked at one by one."""

FEW: Final = 8
"""Symbols of a unit that are lost one by one: parity is of no use where whole trains are."""

MOST_WHOLE: Final = 0.75
"""Share of the units with losses of which nothing has come: a queue that is full lets some through
of a train that comes faster than it drains."""

POLLS_PER_WINDOW: Final = 4
"""Reports are asked for so often per window, so that the sender need not stand still for them."""

POLL_LEAST_NS: Final = 600_000
"""But half as often while that is more than once in so long for each leaf: where a window passes so
fast, processors are what limits the stream, and a report costs as much there as a unit does. A few
leaves are asked as before: with one, to wait for its report costs more than the report. And so are
many, from ``SUPPRESS_FROM`` on: they were 30 times as often heard of a loss that all have."""


class Train(NamedTuple):
    """What one kernel call sends: datagrams of ``segment`` bytes, the last may be shorter."""

    buffer: bytes
    segment: int
    unit: int


class _Unit:
    __slots__ = ("count", "end", "epoch", "image", "sent_ns", "size")

    def __init__(self, image: bytes, epoch: int, count: int) -> None:
        self.image = image
        self.epoch = epoch
        self.count = count
        self.size = len(image) + UNIT_OVERHEAD
        self.end = 0  # offset in the stream behind it
        self.sent_ns = 0


class _Leaf:
    __slots__ = (
        "ack", "aside", "bit", "by_leg", "credit", "heard_ns", "key", "limit", "progress_ns",
        "symbols", "tally", "whole", "window",
    )  # fmt: skip

    def __init__(self, key: int, bit: int, ack: int, window: int, now_ns: int) -> None:
        self.key = key
        self.bit = bit  # as a bitmap, in the ledger of losses
        self.ack = ack
        self.window = window
        self.limit = 0  # offset up to which it can take the stream
        self.credit = CREDIT_MOST  # symbols that the group may repair for it
        self.progress_ns = now_ns
        self.heard_ns = now_ns
        self.symbols = 0  # sent when it reported last
        self.tally = Tally()
        self.by_leg: dict[int, int] = {}  # unit -> what has been put on its leg of it
        self.whole = 0.5  # share of the units with losses of which nothing came, lately
        self.aside = False  # skipped, and waited for no longer until it has room


class StreamSender:
    """One stream to all leaves that are served by the group. No two threads at a time.

    Args:
        layout: How units are cut.
        tag: The session's.
        window_bytes: Most that is kept unacknowledged, UNIT_OVERHEAD per unit included.
        sealer: Seals units; None: cleartext, epoch 0.
        congestion: Limits what is under way; None: only the windows do.
        pacer: Limits the rate; None: nothing does. It may be exchanged at any time.

    Attributes:
        next_unit: The unit the next batch begins with.
        counters: What has happened, for the metrics.
    """

    __slots__ = (
        "_acked", "_at", "_base", "_bits", "_built", "_capacity", "_congestion", "_few",
        "_first_pending", "_flight", "_group_rtt_ns", "_guard", "_kept", "_last_new_ns",
        "_layout", "_leaves", "_leg", "_limits", "_losses", "_mended", "_paced_ns", "_pending",
        "_pending_bytes", "_piecewise", "_planned", "_poll_at", "_poll_ns", "_rtt_known", "_sealer",
        "_sealing", "_sent", "_sent_bytes", "_sent_symbols", "_serial", "_sync_due", "_sync_ns",
        "_sync_times", "_tag", "_timing_is_old", "_told_ns", "_whole", "_window", "counters",
        "next_unit", "pacer",
    )  # fmt: skip

    def __init__(
        self,
        layout: Layout,
        *,
        tag: int,
        window_bytes: int = 4 << 20,
        sealer: Sealer | None = None,
        congestion: Congestion | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self._layout = layout
        self._tag = tag
        self._window = window_bytes
        self._sealer = sealer
        self._sealing = sealer.overhead if sealer else 0
        self._capacity = layout.unit_bytes - self._sealing
        self._congestion = congestion
        self.pacer = pacer
        self.next_unit = 0
        self._pending: deque[list[Buffer]] = deque()  # parts of units not transmitted yet
        self._pending_bytes = 0
        self._built: dict[int, _Unit] = {}  # of those, the ones that already have an image
        self._kept: dict[int, _Unit] = {}
        self._base = 0  # oldest unit that is kept
        self._sent = 0  # next unit to transmit for the first time
        self._acked = 0  # offset before _base
        self._sent_bytes = 0  # offset before _sent
        self._sent_symbols = 0
        self._poll_at = 0  # offset from which on the next unit asks for reports,
        self._poll_ns = 0  # and when
        self._leaves: dict[int, _Leaf] = {}
        self._at: dict[int, int] = {}  # ack -> how many leaves are there
        self._bits: list[int] = []  # free ones
        self._limits: list[tuple[int, int]] = []  # heap of (limit, key), some outdated
        self._losses = Losses()
        self._paced_ns: int | None = None  # until when the pacer holds what is next
        self._planned: dict[int, deque[Again]] = {}  # by length of the symbols
        self._last_new_ns = 0  # when a unit was sent for the first time
        self._whole: Again | None = None  # a unit that is to be sent again as it was
        self._flight = Flight()
        self._guard = 0  # parity symbols sent along with a full unit
        self._few = 0.0  # share of the units with losses that lost few symbols
        self._piecewise: set[int] = set()  # leaves that lose symbols rather than trains
        self._mended = Mended()
        self._leg: deque[tuple[int, bytes]] = deque()
        self._group_rtt_ns = INITIAL_RTT_NS
        self._rtt_known = False
        self._serial = 0
        self._sync_due: int | None = None
        self._sync_ns = 0  # time to the next SYNC if nothing changes
        self._sync_times: dict[int, int] = {}
        self._told_ns = self._gather_ns()  # how late reports may be, by what the last SYNC said
        self._timing_is_old = False
        self.counters = dict.fromkeys(
            (
                "units", "bytes", "guard_symbols", "repaired_symbols", "parity_symbols",
                "repair_trains",
                "repair_bytes", "leg_repairs", "syncs", "reports", "stale_reports",
                "reported_symbols", "demoted", "skipped",
            ),
            0,
        )  # fmt: skip

    # What is sent

    def begin(self, buffers: Sequence[Buffer], size: int) -> int:
        """Queue a batch of whole frames. It begins a new unit.

        Args:
            buffers: Frames, each in one or several buffers. Borrowed until everything has been
                polled; call ``own`` before the caller may change them.
            size: Sum of their lengths in bytes.

        Returns:
            The batch's first unit. With no leaf nothing is queued.
        """
        first = self.next_unit
        if not size:
            return first
        if not self._at:
            if self._leaves:
                self.leave_hole()
            return first
        capacity = self.capacity
        if len(buffers) == 1 and size <= capacity:
            self._pending.append([buffers[0]])
            self.next_unit = first + 1
        else:
            units = _cut(buffers, capacity)
            self._pending.extend(units)
            self.next_unit = first + len(units)
        self._pending_bytes += size
        return first

    def leave_hole(self) -> None:
        """Nobody is served: a batch goes by the legs alone, and its unit is never sent.

        So whoever still hears the group, and does not know yet that it is not served, waits there
        instead of taking what comes later for what comes next.
        """
        if not self._at:
            self.next_unit += 1
            self._sent = self._base = self.next_unit

    def own(self) -> None:
        """Copy what waits of others' memory: the caller of a send may reuse it now."""
        self._pending = deque([bytes(_joined(parts))] for parts in self._pending)

    @property
    def capacity(self) -> int:
        """Bytes of the stream in a full unit: less than it can hold where the rate is low."""
        burst = LARGEST_TRAIN if self.pacer is None else self.pacer.max_burst()
        layout = self._layout
        if self._guard:
            symbols = guarded(min(layout.symbols, burst // layout.segment), self._guard)
            if symbols >= GUARDED_FROM:
                return symbols * layout.payload - self._sealing
        if burst >= LARGEST_TRAIN:
            return self._capacity
        overhead = self._sealing + HEADER_SIZE * layout.count(burst)
        return max(LEAST_UNIT, min(self._capacity, burst - overhead))

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait to be transmitted for the first time."""
        return self._pending_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes that wait, and that have left and are kept for repair."""
        return self._pending_bytes + self._sent_bytes - self._acked

    @property
    def window_bytes(self) -> int:
        """Most that is kept for repair."""
        return self._window

    def acknowledged(self, key: int) -> int:
        """The unit that this leaf wants next; KeyError if it is not served."""
        return self._leaves[key].ack

    @property
    def has_room(self) -> bool:
        """Whether nothing waits to be transmitted for the first time."""
        return not self._pending

    def poll_transmit(self, now_ns: int) -> Train | None:
        """The next train; None: nothing may leave now (see ``next_deadline_ns``)."""
        self._paced_ns = None
        if self._losses.size or self._planned or self._whole:
            idle = now_ns >= self._last_new_ns + self._idle_after_ns()
            ripe = self._losses.ripen(now_ns, all_of_them=idle)
            if ripe or self._planned or self._whole:
                train = self._repair(now_ns)
                if train is not None:
                    return train
        if self._timing_is_old and self._kept and self._conforms(1, now_ns):
            return self._sync(now_ns)
        if self._pending and self._may_send(now_ns):
            return self._transmit(now_ns)
        if self._sync_due is not None and now_ns >= self._sync_due and self._conforms(1, now_ns):
            return self._sync(now_ns)
        return None

    def _may_send(self, now_ns: int) -> bool:
        flying, congestion = self._sent_bytes - self._acked, self._congestion
        size = self._next_size()
        if flying and (flying + size > self._window or len(self._kept) >= MAX_UNITS):
            return False
        limit = self._limit()
        if limit is not None and self._sent_bytes + size > limit:
            return False
        if congestion is not None:
            # Where a leaf that joined or was skipped begins was a guess: headers were to come.
            known = max(self._flight.edge(self._sent_bytes), self._acked)
            under_way = self._sent_bytes - known
            if under_way and under_way + size > congestion.window_bytes:
                congestion.on_limited()
                return False
        size -= UNIT_OVERHEAD
        return self._conforms(size + self._guards(size) * self._layout.segment, now_ns)

    def _guards(self, size: int) -> int:
        """Parity symbols that go along with a unit of ``size`` bytes on the wire."""
        count, rest = divmod(size, self._layout.segment)
        most = guarded(self._layout.symbols, self._guard)
        return self._guard if not rest and GUARDED_FROM <= count <= most else 0

    def _conforms(self, size: int, now_ns: int) -> bool:
        """Whether the pacer lets so many bytes leave now; if not, when it will is noted."""
        delay_ns = 0 if self.pacer is None else self.pacer.delay_ns(size, now_ns)
        self._paced_ns = now_ns + delay_ns if delay_ns else None
        return not delay_ns

    def _room(self) -> int:
        if self._congestion is None:
            return self._window
        return min(self._window, self._congestion.window_bytes)

    def _next_size(self) -> int:
        """What the next unit counts for; exact where it matters, for full units."""
        built = self._built.get(self._sent)
        if built is not None:
            return built.size
        size = sum(map(len, self._pending[0])) + self._sealing
        return size + HEADER_SIZE * self._layout.count(size) + UNIT_OVERHEAD

    def _limit(self) -> int | None:
        """The lowest offset to which a leaf can take the stream; None: no leaf."""
        limits, leaves = self._limits, self._leaves
        while limits:
            limit, key = limits[0]
            leaf = leaves.get(key)
            if leaf is not None and leaf.limit == limit and not leaf.aside:
                return limit
            heapq.heappop(limits)
        return None

    def _transmit(self, now_ns: int) -> Train:
        number = self._sent
        poll = self._is_poll_due(now_ns)
        unit = self._built.pop(number, None) or self._build(
            number, self._pending[0], POLL if poll else DATA
        )
        if poll:
            self._poll_at = self._sent_bytes + self._room() // POLLS_PER_WINDOW
            leaves = len(self._leaves)
            self._poll_ns = now_ns + POLL_LEAST_NS * (leaves if leaves < SUPPRESS_FROM else 0)
        self._pending_bytes -= sum(map(len, self._pending.popleft()))
        unit.sent_ns = now_ns
        self._sent_bytes += unit.size
        unit.end = self._sent_bytes
        self._kept[number] = unit
        self._last_new_ns = now_ns
        self._sent = number + 1
        self._sent_symbols += unit.count
        self.counters["units"] += 1
        self.counters["bytes"] += len(unit.image)
        train = self._guarded(unit, number) if self._guard else unit.image
        self._left(len(train), now_ns)
        self._arm_sync(now_ns)
        if self._base not in self._at:
            self._release()  # who is served begins later: nobody will acknowledge this
        return Train(train, self._layout.segment, number)

    def _is_poll_due(self, now_ns: int) -> bool:
        behind = self._sent_bytes - self._poll_at
        return behind >= 0 and (
            now_ns >= self._poll_ns or behind >= self._room() // POLLS_PER_WINDOW
        )

    def _guarded(self, unit: _Unit, number: int) -> bytes:
        """A unit's image with the parity symbols behind it that it is given in advance."""
        image, segment = unit.image, self._layout.segment
        guard = self._guards(len(image))
        if not guard:
            return image
        self.counters["guard_symbols"] += guard
        return with_parity(image, segment, guard, self._tag, unit.epoch, number)

    def _build(self, number: int, parts: list[Buffer], kind: int = DATA) -> _Unit:
        epoch = 0
        if self._sealer is not None:
            epoch, payload = self._sealer.epoch, _joined(parts)
            count = self._layout.count(len(payload) + self._sealer.overhead)
            parts = [self._sealer.seal(number, count, payload)]
        image = write_unit(self._layout, self._tag, epoch, number, parts, kind)
        return _Unit(image, epoch, -(-len(image) // self._layout.segment))

    def _build_pending(self) -> None:
        """Make the images of what waits, in order: a unit is sealed once, and units only grow."""
        for number, parts in enumerate(self._pending, self._sent):
            if number not in self._built:
                self._built[number] = self._build(number, parts)

    def _left(self, size: int, now_ns: int) -> None:
        if self._congestion is not None:
            self._congestion.on_sent(size, now_ns)
        if self.pacer is not None:
            self.pacer.consume(size, now_ns)

    # Who is served

    def add_leaf(self, key: int, window_bytes: int, now_ns: int) -> int:
        """Serve a leaf from the next batch on; the unit for its START (see ``start``).

        Raises:
            ValueError: It is served already.
        """
        if key in self._leaves:
            raise ValueError(f"leaf {key} is served already")
        bit = self._bits.pop() if self._bits else 1 << len(self._leaves)
        leaf = self._leaves[key] = _Leaf(key, bit, self.next_unit, window_bytes, now_ns)
        leaf.symbols = self._sent_symbols
        self._flight.saw(key, self._offset(leaf.ack))
        self._at[leaf.ack] = self._at.get(leaf.ack, 0) + 1
        self._set_limit(leaf)
        return leaf.ack

    def start(self, unit: int) -> bytes:
        """The START frame for a leaf that was added at ``unit``."""
        return start_frame(unit, self.timing())

    def _set_limit(self, leaf: _Leaf) -> None:
        limit = self._offset(leaf.ack) + leaf.window
        if limit != leaf.limit:
            leaf.limit = limit
            heapq.heappush(self._limits, (limit, leaf.key))
            if len(self._limits) > 4 * len(self._leaves) + 64:
                leaves = self._leaves.values()
                self._limits = [(each.limit, each.key) for each in leaves if not each.aside]
                heapq.heapify(self._limits)

    def _offset(self, unit: int) -> int:
        """Offset before a unit; not above it for one that is not sent yet."""
        kept = self._kept.get(unit)
        if kept is not None:
            return kept.end - kept.size
        return self._sent_bytes + (self._pending_bytes if unit > self._sent else 0)

    def remove_leaf(self, key: int) -> None:
        """The leaf is gone; nobody waits for it any more."""
        leaf = self._leaves.pop(key, None)
        if leaf is None:
            return
        if self._congestion is not None:
            self._congestion.forget(key)
        self._flight.forget(key)
        self._losses.forget_leaf(leaf.bit)
        self._bits.append(leaf.bit)
        self._piecewise.discard(key)
        self._leg = deque(item for item in self._leg if item[0] != key)
        if not leaf.aside:
            self._leave(leaf.ack)

    def _leave(self, ack: int) -> None:
        """A leaf no longer stands at ``ack``."""
        left = self._at[ack] - 1
        if left:
            self._at[ack] = left
            return
        del self._at[ack]
        self._release()

    def _release(self) -> None:
        """Forget what everybody has."""
        if not self._at:
            self._pending.clear()
            self._pending_bytes = 0
            self._built.clear()
            self._sent = self.next_unit
        base, end = self._base, min(self._at, default=self._sent)
        end = min(end, self._sent)
        for number in range(base, end):
            unit = self._kept.pop(number, None)
            if unit is not None:
                self._acked = unit.end
            self._losses.release(number)
        self._base = max(base, end)
        if not self._kept:
            self._acked = self._sent_bytes
            self._sync_due = None

    def unacknowledged(self, key: int) -> int:
        """Bytes begun for this leaf that it has not acknowledged; 0 too if it is not served."""
        leaf = self._leaves.get(key)
        if leaf is None or leaf.ack >= self.next_unit or leaf.aside:
            return 0
        return self._sent_bytes - self._offset(leaf.ack) + self._pending_bytes

    def blocking(self) -> list[int]:
        """The leaves whose windows hold the next unit back; empty if none does."""
        if not self._pending:
            return []
        size = self._next_size()
        end = self._sent_bytes + size
        leaves = [leaf for leaf in self._leaves.values() if not leaf.aside]
        keys = [leaf.key for leaf in leaves if leaf.limit < end]
        if keys or not self._kept:
            return keys
        if end - self._acked > self._window or len(self._kept) >= MAX_UNITS:
            return [leaf.key for leaf in leaves if leaf.ack == self._base]
        if self._congestion is not None:
            under_way = self._sent_bytes - self._flight.edge(self._sent_bytes)
            if under_way and under_way + size > self._congestion.window_bytes:
                return self._flight.at_edge(self._sent_bytes)
        return []

    def waits_ns(self, key: int, now_ns: int) -> int:
        """For how long a leaf that is waited for has not got on; 0 if it is not waited for."""
        leaf = self._leaves[key]
        since = None if leaf.aside else self._stands_since(leaf)
        return 0 if since is None else max(0, now_ns - since)

    def _stands_since(self, leaf: _Leaf) -> int | None:
        unit = self._kept.get(leaf.ack)
        if unit is not None:
            return max(leaf.progress_ns, unit.sent_ns)
        if self._pending and not leaf.window:
            return max(leaf.progress_ns, leaf.heard_ns)
        return None

    def awaits(self, key: int) -> bool:
        """Whether a leaf that has room is yet to acknowledge something that has left."""
        leaf = self._leaves.get(key)
        return leaf is not None and leaf.window > 0 and not leaf.aside and leaf.ack in self._kept

    def stalled(self, now_ns: int) -> dict[int, bool]:
        """The leaves that have held the stream up for STALL_NS, and whether they have room.

        One that has room does not hear the group any more; one that has none takes nothing more.
        So with one that was set aside: one that has room would have said something since.
        """
        keys = {}
        for leaf in self._leaves.values():
            if leaf.aside:
                since = leaf.heard_ns if leaf.window else None
            else:
                since = self._stands_since(leaf)
            if since is not None and now_ns - since >= STALL_NS:
                keys[leaf.key] = leaf.window > 0
        return keys

    def demote(self, key: int) -> list[bytes]:
        """Serve a leaf by its leg again.

        Returns:
            Frames for its leg, in order: what it lacks of the batches begun, and STOP.

        Raises:
            KeyError: It is not served.
        """
        leaf = self._leaves[key]
        if leaf.aside:
            frames = [skip_frame(self.next_unit)]
        else:
            self._build_pending()
            frames = [self._unit_repair(unit, ALL) for unit in range(leaf.ack, self.next_unit)]
        frames.append(stop_frame(self.next_unit))
        self.remove_leaf(key)
        self.counters["demoted"] += 1
        return frames

    def skip(self, key: int, now_ns: int) -> bytes | None:
        """Wait for a leaf no longer: it goes on with the next batch.

        Returns:
            Its SKIP frame. None: there is nothing to skip, or the leaf has no room now or has long
            said nothing; then the frame comes from ``poll_leg`` when it says that it has, and it
            goes on with the batch after that. Or it would hold the stream up again at once.

        Raises:
            KeyError: It is not served.
        """
        leaf = self._leaves[key]
        if leaf.aside or leaf.ack >= self.next_unit:
            return None
        self.counters["skipped"] += 1
        self._losses.forget_leaf(leaf.bit)
        leaf.aside = True
        self._flight.forget(key)
        self._leave(leaf.ack)
        alive = now_ns - leaf.heard_ns < PATIENCE_NS
        return self._resume(leaf) if leaf.window and alive else None

    def _resume(self, leaf: _Leaf) -> bytes:
        """Serve a leaf that was set aside again, from the next batch on."""
        leaf.aside = False
        leaf.ack = self.next_unit
        self._flight.saw(leaf.key, self._offset(leaf.ack))
        leaf.tally = Tally()
        self._at[leaf.ack] = self._at.get(leaf.ack, 0) + 1
        leaf.limit = -1
        self._set_limit(leaf)
        return skip_frame(leaf.ack)

    # Reports

    def handle_report(self, key: int, body: memoryview, now_ns: int) -> None:
        """A REPORT came from a leg. One of a leaf that is not served (any more) is ignored.

        Raises:
            RemoteProtocolError: Malformed, or it acknowledges what was never sent.
        """
        report = decode_report(body)
        leaf = self._leaves.get(key)
        self.counters["reports"] += 1
        if leaf is None or report.ack < leaf.ack or report.seen == NO_UNIT:
            if leaf is not None and leaf.aside:
                self._hear_aside(leaf, report, now_ns)
            else:
                self.counters["stale_reports"] += 1  # written before START or SKIP took effect
            return
        if report.ack > self._sent and report.ack > leaf.ack:
            raise RemoteProtocolError(f"unit {report.ack} acknowledged, {self._sent} is the next")
        if leaf.aside:
            self._hear_aside(leaf, report, now_ns)
            return
        leaf.heard_ns = now_ns
        echoed_ns = self._echoed_ns(report)
        rtt_ns = self._round_trip(report, echoed_ns, now_ns)
        seen = self._flight.saw(key, self._offset(min(report.seen, self._sent)))
        self._acknowledge(leaf, report, now_ns)
        since_ns = now_ns - self._hold_off_ns()
        if echoed_ns is not None:
            since_ns = max(since_ns, echoed_ns - REORDER_NS)
        lost = self._note_losses(leaf, report, since_ns, now_ns)
        gather_ns = self._gather_ns()
        if not self._told_ns <= gather_ns * TIMING_TIMES <= self._told_ns * TIMING_TIMES**2:
            self._timing_is_old = True
        if self._congestion is not None:
            symbols = self._sent_symbols - leaf.symbols
            lost += report.recovered  # whoever mended it, something was lost
            self._congestion.on_report(seen, lost, symbols, rtt_ns, now_ns, key)
            self._choose_guard(self._congestion.usual_loss)
        leaf.symbols = self._sent_symbols

    def _choose_guard(self, loss: float) -> None:
        """How much parity pays, by what is usually lost; none where whole trains are."""
        self._guard = 0
        if loss and self._few >= 0.5:
            for least, guard in GUARDS:
                if loss >= least and guarded(self._layout.symbols, guard) >= GUARDED_FROM:
                    self._guard = guard
                    break

    def _hear_aside(self, leaf: _Leaf, report: Report, now_ns: int) -> None:
        leaf.window, leaf.heard_ns = report.window, now_ns
        if report.window:
            self._leg.append((leaf.key, self._resume(leaf)))

    def _acknowledge(self, leaf: _Leaf, report: Report, now_ns: int) -> None:
        leaf.window = report.window
        if report.ack > leaf.ack:
            before, leaf.ack = leaf.ack, report.ack
            if leaf.by_leg:
                leaf.by_leg = {unit: sent for unit, sent in leaf.by_leg.items() if unit >= leaf.ack}
            leaf.progress_ns = now_ns
            self._at[report.ack] = self._at.get(report.ack, 0) + 1
            self._set_limit(leaf)
            self._leave(before)
            if self._kept:
                self._arm_sync(now_ns)
        else:
            self._set_limit(leaf)

    def _echoed_ns(self, report: Report) -> int | None:
        """When what the leaf had heard last had left; None: not known any more."""
        if report.synced:
            return self._sync_times.get(report.serial)
        unit = self._kept.get(report.echo) if report.echo != NO_UNIT else None
        return None if unit is None else unit.sent_ns

    def _round_trip(self, report: Report, sent_ns: int | None, now_ns: int) -> int | None:
        if sent_ns is None:
            return None
        rtt_ns = now_ns - sent_ns - report.delay_us * 1000
        if rtt_ns <= 0:
            return None
        bounded = min(max(rtt_ns, MIN_RTT_NS), MAX_RTT_NS)
        known = self._group_rtt_ns
        if bounded > known or not self._rtt_known:
            self._group_rtt_ns, self._rtt_known = bounded, True
        else:
            self._group_rtt_ns = known - (known - bounded) // RTT_DECAY
        return rtt_ns

    def _note_losses(self, leaf: _Leaf, report: Report, since_ns: int, now_ns: int) -> int:
        """Take up what the leaf lacks; how many symbols it has newly lost.

        Args:
            leaf: Whose report it is.
            report: What it says.
            since_ns: What left before that would have arrived, had it not been lost.
            now_ns: Now.
        """
        lost: dict[int, int] = {}
        wanted: dict[int, int] = {}
        whole: set[int] = set()
        old_before = 0
        position, left = report.ack, MAX_TOLD
        leaf.credit += (self._sent_symbols - leaf.symbols) // CREDIT_SHARE
        leaf.credit = min(leaf.credit, CREDIT_MOST)
        spent = leaf.credit <= 0 and len(self._leaves) > 1
        for offset, run, flags, bitmap in report.entries:
            first = max(report.ack + offset, position)
            position = max(position, min(report.ack + offset + run, self._sent, first + left))
            left -= max(0, position - first)
            for number in range(first, position):
                unit = self._kept.get(number)
                if unit is None:
                    continue
                missing = bitmap & ((1 << unit.count) - 1)
                if not missing:  # somebody told it of more symbols than the unit has
                    self._repair_by_leg(leaf, number, ALL)
                    continue
                lost[number] = missing
                if unit.sent_ns < since_ns:
                    old_before = number + 1
                if flags & BY_LEG or spent:
                    self._repair_by_leg(leaf, number, missing)
                else:
                    wanted[number] = missing
                    if _nearly_all(missing, unit.count):
                        whole.add(number)
        gather_ns = self._gather_ns()
        leaf.credit -= self._losses.reported(leaf.bit, wanted, now_ns, since_ns, gather_ns, whole)
        before = leaf.tally.missing
        new = leaf.tally.reported(lost, old_before, self._mended)
        if lost:
            self._judge_losses(leaf, {at: lost[at] for at in lost if at not in before})
        self.counters["reported_symbols"] += new
        return new

    def _judge_losses(self, leaf: _Leaf, lost: dict[int, int]) -> None:
        """Learn whether symbols get lost one by one, or whole trains; each loss tells once.

        Trains count for packets only while no leaf loses packets: those of a queue that is shared
        with others are lost one by one.
        """
        if not lost:
            return
        few = whole = 0
        for number, missing in lost.items():
            few += missing.bit_count() <= FEW
            count = self._kept[number].count
            whole += count > FEW and missing == (1 << count) - 1
        self._few += (few / len(lost) - self._few) / 8
        leaf.whole += (whole / len(lost) - leaf.whole) / 4
        if leaf.whole >= 0.5:
            self._piecewise.discard(leaf.key)
        else:
            self._piecewise.add(leaf.key)
        if self._congestion is None:
            return
        if self._piecewise:
            self._congestion.symbols_lost_at_once = 1
        elif leaf.whole > MOST_WHOLE:
            self._congestion.symbols_lost_at_once = self._layout.symbols

    def _gather_ns(self) -> int:
        """How long a loss waits for those of other leaves, to be mended together with them."""
        if len(self._leaves) < 2:
            return 0
        return self._backoff_ns() + self._interval_ns() + self._group_rtt_ns // 4

    def _idle_after_ns(self) -> int:
        """How long after the last new unit repairs no longer wait for the losses of others.

        Where many have to tell of theirs, a stream that waits for nothing but room has stood for
        some times that: a thousand leaves had 28 per cent sent again, and 15 if all are heard.
        """
        gather_ns = self._gather_ns()
        if len(self._leaves) >= SUPPRESS_FROM:
            gather_ns = max(gather_ns, min(4 * gather_ns, PATIENCE_NS))
        return max(FLOWING_NS, gather_ns)

    def _interval_ns(self) -> int:
        return max(1, len(self._leaves)) * REPORT_COST_NS

    def _backoff_ns(self) -> int:
        leaves, rtt_ns = len(self._leaves), self._group_rtt_ns
        if leaves >= SUPPRESS_FROM:
            return rtt_ns * leaves.bit_length() // 2
        return rtt_ns // 4 if leaves > 1 else 0

    def _hold_off_ns(self) -> int:
        return self._group_rtt_ns + self._group_rtt_ns // 4

    def timing(self) -> Timing:
        """When leaves shall report, for as many as there are now."""
        leaves = max(1, len(self._leaves))
        rtt_ns = self._group_rtt_ns
        interval_ns = self._interval_ns()
        backoff_ns = self._backoff_ns()
        repeat_ns = max(2 * rtt_ns + 1_000_000, interval_ns)
        return Timing(interval_ns // 1000, backoff_ns // 1000, repeat_ns // 1000, leaves)

    # Repairs

    def _repair(self, now_ns: int) -> Train | None:
        """Symbols of one length, as many as fit a train of those to be sent again."""
        segment, most = self._layout.segment, self._layout.symbols
        if self.pacer is not None:
            most = min(most, max(1, self.pacer.max_burst() // segment))
        size = 0 if self._whole else self._plan(most, now_ns)
        if self._whole:
            return self._repair_whole(self._whole, now_ns)
        if not size:
            return None
        queue = self._planned[size]
        count = min(most, len(queue))
        if not self._conforms(count * size, now_ns):
            return None
        parts: list[Buffer] = []
        first = queue[0].unit
        for _ in range(count):
            again = queue.popleft()
            unit = self._kept.get(again.unit)
            if unit is not None:  # else everybody has it by now
                self._goes_again(again, now_ns)
                parts += self._symbol(again, unit)
        if not queue:
            del self._planned[size]
        if not parts:
            return self._repair(now_ns)
        return self._repairing(b"".join(parts), size, first, now_ns)

    def _repair_whole(self, again: Again, now_ns: int) -> Train | None:
        """A unit that is sent again as it was: its wire image, and nothing of it is looked at."""
        unit = self._kept.get(again.unit)
        if unit is None:  # everybody has it by now
            self._whole = None
            return self._repair(now_ns) if self._losses.size or self._planned else None
        if not self._conforms(len(unit.image), now_ns):
            return None
        self._whole = None
        self._goes_again(again, now_ns)
        self.counters["repaired_symbols"] += unit.count
        segment = self._layout.segment
        return self._repairing(as_repair(unit.image, segment), segment, again.unit, now_ns)

    def _goes_again(self, again: Again, now_ns: int) -> None:
        again.sent_ns = now_ns
        self._mended.add(again.unit, again.parts)

    def _repairing(self, buffer: bytes, segment: int, unit: int, now_ns: int) -> Train:
        """A train of repairs leaves."""
        self.counters["repair_trains"] += 1
        self.counters["repair_bytes"] += len(buffer)
        self._left(len(buffer), now_ns)
        return Train(buffer, segment, unit)

    def _plan(self, most: int, now_ns: int) -> int:
        """Decide what is sent again until a train is full; the length of its symbols, 0: nothing.

        A unit's losses count as under way from here on: nobody shall ask for them twice. A unit of
        which some leaf lacks nearly all goes as a whole, and before the others.
        """
        losses, planned = self._losses, self._planned
        segment, since_ns = self._layout.segment, now_ns - self._hold_off_ns()
        size = next(iter(planned), 0)  # what has waited longest
        while (not size or len(planned[size]) < most) and (taken := losses.take()) is not None:
            number, patterns = taken
            image, count = self._kept[number].image, self._kept[number].count
            if count <= most and any(_nearly_all(pattern, count) for pattern in patterns):
                self._whole = losses.sending_whole(number, count, since_ns)
                break
            full = 1 << len(image) // segment
            for again in losses.sending(number, combine(patterns, full - 1), since_ns):
                length = segment if again.parts < full else len(image) % segment
                planned.setdefault(length, deque()).append(again)
                size = size or length
        return size

    def _symbol(self, again: Again, unit: _Unit) -> tuple[bytes, Buffer]:
        """Header and payload of what is sent again."""
        parts, segment, view = again.parts, self._layout.segment, memoryview(unit.image)
        index = parts.bit_length() - 1
        self.counters["repaired_symbols"] += parts.bit_count()
        if not parts & parts - 1:
            start = index * segment
            header = HEADER.pack(self._tag, REPAIR, unit.epoch, index, unit.count, again.unit)
            return header, view[start + HEADER_SIZE : start + segment]
        self.counters["parity_symbols"] += 1
        payloads = []
        while parts:
            start = (parts.bit_length() - 1) * segment
            payloads.append(view[start + HEADER_SIZE : start + segment])
            parts ^= 1 << parts.bit_length() - 1
        header = parity_header(self._tag, unit.epoch, unit.count, again.unit, again.parts)
        return header, exclusive_or(payloads, segment - HEADER_SIZE)

    def _repair_by_leg(self, leaf: _Leaf, number: int, bitmap: int) -> None:
        # A leg loses nothing: once is enough, however often the leaf asks until it has come. Only
        # where a part did not help, all of it follows.
        every, before = (1 << self._kept[number].count) - 1, leaf.by_leg.get(number, 0)
        if before == every:
            return
        bitmap = every if before & bitmap else bitmap
        leaf.by_leg[number] = before | bitmap
        self.counters["leg_repairs"] += 1
        self._leg.append((leaf.key, self._unit_repair(number, bitmap)))

    def poll_leg(self) -> tuple[int, bytes] | None:
        """(key, whole frame) that belongs on a leg; None: nothing does."""
        return self._leg.popleft() if self._leg else None

    def _unit_repair(self, number: int, bitmap: int) -> bytes:
        unit = self._kept.get(number) or self._built[number]
        bitmap &= (1 << unit.count) - 1
        segment = self._layout.segment
        if bitmap == (1 << unit.count) - 1:
            payload = strip(memoryview(unit.image), segment, unit.count)
        else:
            view = memoryview(unit.image)
            payload = b"".join(
                view[index * segment + HEADER_SIZE : (index + 1) * segment]
                for index in range(unit.count)
                if bitmap >> index & 1
            )
        return unit_repair_frame(
            number, unit.epoch, unit.count, self._layout.payload, bitmap, payload
        )

    # SYNC, PROBE and time

    def _arm_sync(self, now_ns: int) -> None:
        self._sync_ns = 2 * self._group_rtt_ns
        self._sync_due = now_ns + self._sync_ns

    def _sync(self, now_ns: int) -> Train:
        self._sync_ns = min(2 * self._sync_ns, MAX_SYNC_NS)
        self._sync_due = now_ns + self._sync_ns
        self._serial = (self._serial + 1) & 0xFF
        self._sync_times[self._serial] = now_ns
        self._sync_times.pop((self._serial - 8) & 0xFF, None)
        self._told_ns, self._timing_is_old = self._gather_ns(), False
        self.counters["syncs"] += 1
        return self._control(SYNC, sync_body(self.timing()), self._serial, now_ns)

    def probe(self, nonce: bytes, now_ns: int) -> Train:
        """A PROBE with a nonce that the leaves have been told over their legs."""
        return self._control(PROBE, nonce, 0, now_ns)

    def _control(self, kind: int, body: bytes, serial: int, now_ns: int) -> Train:
        epoch = 0
        if self._sealer is not None:
            epoch = self._sealer.epoch
            body = self._sealer.seal_control(kind, serial, self._sent, body)
        # No unit has an index of 255: a receiver that compares indices cannot take it for data.
        buffer = HEADER.pack(self._tag, kind, epoch, 255, serial, self._sent) + body
        self._left(len(buffer), now_ns)
        return Train(buffer, len(buffer), self._sent)

    def next_deadline_ns(self) -> int | None:
        """When ``poll_transmit`` may have something though nothing else happens; None: never."""
        if self._paced_ns is not None:
            return self._paced_ns
        due = self._sync_due
        if (ripe := self._losses.due_ns()) is not None:
            ripe = min(ripe, self._last_new_ns + self._idle_after_ns())
            due = ripe if due is None else min(due, ripe)
        if due is None and self._pending:  # nobody is asked, as everybody has acknowledged all
            full = [leaf for leaf in self._leaves.values() if not leaf.window and not leaf.aside]
            due = min((max(leaf.progress_ns, leaf.heard_ns) for leaf in full), default=None)
            due = None if due is None else due + STALL_NS
        for leaf in self._leaves.values() if due is None else ():
            if leaf.aside and leaf.window:
                due = min(due or leaf.heard_ns + STALL_NS, leaf.heard_ns + STALL_NS)
        return due

    def tick(self, now_ns: int) -> None:
        """A deadline has passed. Changes nothing: ``poll_transmit`` looks at the time itself."""


def _nearly_all(missing: int, count: int) -> bool:
    """Whether a unit of ``count`` symbols is sent again as a whole for who lacks these."""
    return count >= WHOLE_FROM and missing.bit_count() * 4 >= count * 3


def _joined(parts: list[Buffer]) -> Buffer:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _cut(buffers: Sequence[Buffer], capacity: int) -> list[list[Buffer]]:
    """Cut frames into full units.

    But a frame that fits a unit does not begin in the last quarter of one, so that it can be read
    where it lies.
    """
    units: list[list[Buffer]] = []
    parts: list[Buffer] = []
    room = capacity
    frame_left = 0
    for buffer in filter(len, buffers):
        if not frame_left:
            frame_left = FRAME_HEADER.unpack_from(buffer)[0] + FRAME_HEADER.size
            if parts and frame_left > room and room * 4 <= capacity:
                units.append(parts)
                parts, room = [], capacity
        frame_left -= len(buffer)
        view = memoryview(buffer)
        while len(view) > room:
            units.append([*parts, view[:room]] if room else parts)
            view = view[room:]
            parts, room = [], capacity
        if len(view):
            parts.append(view)
            room -= len(view)
    if parts:
        units.append(parts)
    return units
