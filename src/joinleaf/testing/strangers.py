"""Who knocks at a root without being a leaf: the silent, the noisy and the curious."""

from __future__ import annotations

import random
from enum import Enum, auto
from typing import Final

from joinleaf.core.wire.control import Roster, decode
from joinleaf.core.wire.frames import FrameReader, Kind, control_frame
from joinleaf.testing.checkers import SafetyError
from joinleaf.testing.clock import MILLISECOND
from joinleaf.testing.network import SimNetwork
from joinleaf.testing.nodes import ROOT_PORT
from joinleaf.testing.streams import StreamEnd
from joinleaf.values import Address

__all__ = ["Manner", "Stranger"]

HOST: Final = "stranger"


class Manner(Enum):
    """What a stranger does once connected."""

    SILENT = auto()  # says nothing, and stays until it is sent away
    NOISY = auto()  # sends random bytes
    CUT_SHORT = auto()  # sends half a frame
    CURIOUS = auto()  # asks who is there


class Stranger:
    """One connection. Whatever it says, nothing may come of it but a roster.

    Attributes:
        rosters: How many it was given.
    """

    def __init__(self, network: SimNetwork, root: str, dice: random.Random) -> None:
        self.manner = dice.choice(list(Manner))
        self.rosters = 0
        self._noise = dice.randbytes(dice.randint(1, 400))
        self._reader = FrameReader(memoryview(bytearray(4096)))
        self._end = network.connect(HOST, Address(root, ROOT_PORT), self)
        network.agenda.after(dice.randint(1, 3000) * MILLISECOND, self._end.close)

    def stream_connected(self, end: StreamEnd) -> None:
        """Say something, or nothing."""
        match self.manner:
            case Manner.NOISY:
                end.send([self._noise])
            case Manner.CUT_SHORT:
                end.send([control_frame(Kind.JOIN, self._noise)[:-1]])
            case Manner.CURIOUS:
                end.send([control_frame(Kind.WHO)])
            case _:
                pass

    def stream_readable(self, end: StreamEnd) -> None:
        """Only the curious are told anything."""
        while True:
            place = self._reader.buffer()
            try:
                count = end.receive_into(place)
            except OSError:
                count = 0
            if not count:
                return
            for frame in self._reader.received(count):
                if self.manner is not Manner.CURIOUS or frame.kind != Kind.ROSTER:
                    raise SafetyError(f"a {self.manner.name} stranger was told {frame.kind}")
                decode(Roster, frame.body)
                self.rosters += 1

    def stream_writable(self, end: StreamEnd) -> None:
        """It has said all it had to say."""
