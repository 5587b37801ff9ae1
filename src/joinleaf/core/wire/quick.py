"""The short way of a leaf from the socket to frames, in C: ``joinleaf/_trains.c``, if it was built.

What it does is what ``UnitReader`` and ``StreamReceiver`` do for a unit that comes whole, in order
and in the clear; anything else it leaves to them.
"""

from __future__ import annotations

from typing import Protocol

from joinleaf.core.wire.landing import Landing, Landings, Scattered
from joinleaf.core.wire.native import TRAINS
from joinleaf.core.wire.unit_frames import UnitFrame

__all__ = ["QuickReader", "quick_reader"]


class QuickReader(Protocol):
    """``UnitReader``, and trains that go straight into frames.

    Once memory was short in the middle of a unit, every call raises MemoryError: a part is missing.
    """

    @property
    def in_frame(self) -> bool:
        """Whether a part of a frame is held."""
        ...

    @property
    def next(self) -> int:
        """The unit behind the last that was taken straight."""
        ...

    def take(self, unit: bytes | Landing | Scattered, /) -> list[UnitFrame]:
        """The frames that this unit completes.

        Raises:
            RemoteProtocolError: It is none, or over a bound.
        """
        ...

    def take_train(self, view: memoryview, size: int, segment: int, tag: int, unit: int, /) -> int:
        """Take what was received, if it is this unit, whole, with nothing but data in it.

        Returns:
            Its kind, DATA or POLL; 0: not taken, and nothing has changed.
        """
        ...

    def taken(self) -> list[UnitFrame]:
        """The frames completed by trains that were taken straight, since the last call."""
        ...


def quick_reader(max_body: int, landings: Landings) -> QuickReader | None:
    """The reader that trains can go straight into; None: there is none."""
    if TRAINS is None:
        return None
    made: QuickReader = TRAINS.UnitReader(max_body, landings)
    return made
