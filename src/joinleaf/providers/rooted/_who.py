"""Asking a running root who is in its session: WHO and ROSTER, without joining."""

from __future__ import annotations

import socket
import time
from typing import Final

from joinleaf.core.wire.control import Roster, decode
from joinleaf.core.wire.frames import Frame, FrameReader, Kind, control_frame
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import (
    WSAEACCES,
    WSAECONNABORTED,
    WSAETIMEDOUT,
    spi_error_from_os,
)
from joinleaf.values import Address

__all__ = ["query_roster"]

_SCRATCH: Final = 64 << 10
_STRANGER_HINT: Final = "A root answers on its own host only; ask there, by a loopback address"


def query_roster(address: Address, timeout: float = 5.0) -> Roster:
    """Ask the root at ``address`` for its roster; blocks.

    Args:
        address: Where the root listens; the wildcard stands for this host.
        timeout: Seconds for all of it.

    Returns:
        Session, number of the membership, members, and those that have left lately.

    Raises:
        SpiError: WSAECONNREFUSED (nobody listens there), WSAETIMEDOUT, WSAEACCES (it does not
            answer askers from other hosts), WSAECONNABORTED (what listens there is no root), or
            what the system says.
    """
    deadline = time.monotonic() + timeout
    host = "localhost" if address.is_any else address.host
    host = f"{host}%{address.scope}" if address.scope else host
    try:
        with socket.create_connection((host, address.port), timeout) as sock:
            sock.sendall(control_frame(Kind.WHO))
            return _read_roster(sock, address, deadline)
    except TimeoutError as error:
        hint = "" if address.is_loopback else _STRANGER_HINT
        text = f"{address} did not answer within {timeout:g} s"
        raise SpiError(WSAETIMEDOUT, text, call="who", hint=hint) from error
    except RemoteProtocolError as error:
        text = f"what listens at {address} is no root of joinleaf: {error}"
        raise SpiError(WSAECONNABORTED, text, call="who") from error
    except OSError as error:
        raise spi_error_from_os(error, call="who", message=f"cannot ask {address}") from error


def _read_roster(sock: socket.socket, address: Address, deadline: float) -> Roster:
    reader = FrameReader(memoryview(bytearray(_SCRATCH)))
    while True:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        count = sock.recv_into(reader.buffer())
        if not count:
            raise SpiError(
                WSAEACCES,
                f"{address} ended the connection without an answer",
                call="who",
                hint=_STRANGER_HINT,
            )
        for frame in reader.received(count):
            if frame.kind == Kind.ROSTER:
                return decode(Roster, frame.body)
            _expect_beat(frame)


def _expect_beat(frame: Frame) -> None:
    if frame.kind != Kind.BEAT:
        raise RemoteProtocolError(f"frame {frame.kind} instead of a roster")
