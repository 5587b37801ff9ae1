"""Every leaf of one transfer and where it stands: a machine without clock or channel.

             Want                 all bytes sent and          Report, digest equal
    WAITING ------> RECEIVING ---> leaf says so: VERIFYING ----------------------> VERIFIED
       |                |                    |
       |                |                    +-- Report otherwise, silence, no progress --> FAILED
       +----------------+-- left ------------+--------------------------------------------> GONE

A leaf that comes back after a restart says the same *place* (a random number kept beside its
partial files): its new row takes over the old one, which then no longer counts against the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer import wire
from joinleaf.transfer.progress import FileFailure, LeafProgress, LeafState, RateMeter
from joinleaf.transfer.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from joinleaf.transfer.channel import LeafHandle

__all__ = ["MAX_RANGES", "Roster", "Row"]

MAX_RANGES: Final = 1 << 18
"""Most ranges one leaf may say it has. Orderly arrival makes one, a lossy one a few thousand."""


@dataclass(slots=True)
class Row:
    """One leaf, from joining to verdict.

    Attributes:
        handle: The leaf.
        heard_ns: When it last said anything.
        moved_ns: When it last got further, or was last sent something.
        place: Identity of where it keeps the object; ``b""`` until it has said so.
        have: What it said it has, while its pages come in; then what it began with.
        received: Bytes it says it has.
        checked: Bytes it says it has verified.
        sent: Payload bytes sent to it.
        asked_again: Bytes it has asked for a second time.
        lost_files: Files that it was told have failed although others got them.
        carrier: What served it when that was last looked at.
    """

    handle: LeafHandle
    heard_ns: int
    moved_ns: int
    meter: RateMeter
    state: LeafState = LeafState.WAITING
    reason: str = ""
    place: bytes = b""
    in_order: bool = False
    have: RangeSet = field(default_factory=RangeSet)
    received: int = 0
    checked: int = 0
    sent: int = 0
    returns: int = 0
    asked_again: int = 0
    failures: tuple[FileFailure, ...] = ()
    lost_files: set[int] = field(default_factory=set)
    carrier: str = ""

    @property
    def active(self) -> bool:
        """Whether it has said what it wants and is not at its end."""
        return self.state in (LeafState.RECEIVING, LeafState.VERIFYING)

    def end(self, state: LeafState, reason: str = "") -> None:
        """Reach a final state, once; a second end changes nothing."""
        if not self.state.final:
            if state is not LeafState.GONE:  # of one that is gone nothing is known any more
                self._look_at_carrier()
            self.state, self.reason = state, reason

    def _look_at_carrier(self) -> None:
        # Before it has been sent anything it is always its leg.
        if self.sent:
            self.carrier = getattr(self.handle, "carrier", "")

    def progress(self, total: int | None, now_ns: int) -> LeafProgress:
        """A picture of this row."""
        final = self.state.final
        if not final:
            self._look_at_carrier()
        rate = 0.0 if final else self.meter.update(self.received, now_ns)
        left = None if total is None else max(0, total - self.received)
        return LeafProgress(
            name=self.handle.name,
            address=str(self.handle.address),
            state=self.state,
            reason=self.reason,
            bytes_done=self.received,
            bytes_total=total,
            bytes_sent=self.sent,
            rate=rate,
            eta=left / rate if left is not None and rate > 0 else None,
            failures=self.failures,
            returns=self.returns,
            carrier=self.carrier,
        )


class Roster:
    """All rows, in order of joining."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, Row] = {}

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Hashable) -> Row | None:
        """The row of one leaf."""
        return self._rows.get(key)

    @property
    def ready(self) -> int:
        """How many leaves have answered the offer; one that is gone no longer counts."""
        return sum(row.state not in (LeafState.WAITING, LeafState.GONE) for row in self)

    @property
    def all_final(self) -> bool:
        """Whether nobody is left to be waited for."""
        return all(row.state.final for row in self)

    def join(self, handle: LeafHandle, now_ns: int) -> Row | None:
        """A leaf is there; gives its new row, or None if it had one."""
        if handle.key in self._rows:
            return None
        row = Row(handle, now_ns, now_ns, RateMeter(0, now_ns))
        self._rows[handle.key] = row
        return row

    def want(self, row: Row, message: wire.Want) -> bool:
        """Take one page of what a leaf has; True when it was the last.

        Raises:
            RemoteProtocolError: Not now, too many ranges, or ranges that are none.
        """
        if row.state is not LeafState.WAITING:
            raise RemoteProtocolError("a second answer to one offer")
        for start, end in message.have:
            if start >= end:
                raise RemoteProtocolError(f"{start} to {end} is no range")
            row.have.add(start, end)
        if len(row.have) > MAX_RANGES:
            raise RemoteProtocolError(f"more than {MAX_RANGES} ranges")
        if not message.last:
            return False
        row.place, row.in_order = message.place, message.in_order
        row.state, row.received = LeafState.RECEIVING, row.have.total
        row.meter = RateMeter(row.received, row.heard_ns)
        return True

    def status(self, row: Row, message: wire.Status) -> None:
        """A leaf tells how far it is."""
        if (message.received, message.checked) != (row.received, row.checked):
            row.moved_ns = row.heard_ns
        row.received, row.checked = message.received, message.checked
        if row.active:
            row.state = LeafState.VERIFYING if message.verifying else LeafState.RECEIVING

    def silent(self, now_ns: int, limit_ns: int) -> list[tuple[Row, str]]:
        """Leaves to give up, and why: those not heard, and those that could move and do not.

        Leaves that wait for the transfer to begin, or for bytes not sent yet, are only asked to
        be alive; the caller moves ``moved_ns`` along for them.
        """
        found = []
        for row in self:
            if row.active and now_ns - row.heard_ns > limit_ns:
                found.append((row, f"nothing heard for {limit_ns / 1e9:g} s"))
            elif row.active and now_ns - row.moved_ns > limit_ns:
                found.append((row, f"no progress for {limit_ns / 1e9:g} s"))
            elif row.state is LeafState.WAITING and now_ns - row.heard_ns > limit_ns:
                found.append((row, f"no answer to the offer for {limit_ns / 1e9:g} s"))
        return found

    def take_over(self, row: Row) -> list[Hashable]:
        """Drop former rows of the place where ``row`` keeps the object; gives their keys.

        Even one not known to be gone: two cannot write the same partial files, and of a broken
        connection the leaf learns earlier than the root.
        """
        old = [key for key, r in self._rows.items() if r is not row and r.place == row.place]
        for key in old:
            row.returns = max(row.returns, self._rows.pop(key).returns + 1)
        return old
