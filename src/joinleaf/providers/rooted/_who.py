"""Asking a running root who is in its session: WHO and ROSTER, without joining."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Final

from joinleaf.core.keys.gates import AskerGate
from joinleaf.core.wire.control import Refusal, Roster, decode
from joinleaf.core.wire.frames import Frame, FrameReader, Kind, control_frame
from joinleaf.drivers.tls_errors import TlsError, explained
from joinleaf.drivers.tls_side import asking
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import (
    WSAEACCES,
    WSAECONNABORTED,
    WSAETIMEDOUT,
    spi_error_from_os,
)
from joinleaf.spi.provider import Trust
from joinleaf.values import Address

__all__ = ["query_roster"]

_SCRATCH: Final = 64 << 10
_LINE_HINT: Final = "Give the join line that the root prints, with its key"
_STRANGER_HINT: Final = "A root answers on its own host only; ask there, by a loopback address"


def query_roster(
    address: Address,
    timeout: float = 5.0,
    *,
    secured: bool = False,
    trust: Trust | None = None,
    key: str = "",
) -> Roster:
    """Ask the root at ``address`` for its roster; blocks.

    Args:
        address: Where the root listens; the wildcard stands for this host.
        timeout: Seconds for all of it.
        secured: Whether it is asked over TLS.
        trust: Certificates for that.
        key: The session key for that.

    Returns:
        Session, number of the membership, members, and those that have left lately.

    Raises:
        SpiError: WSAECONNREFUSED (nobody listens there), WSAETIMEDOUT, WSAEACCES (it does not
            answer askers from other hosts, or wants a key), WSAECONNABORTED (what listens there
            is no root), or what the system says.
    """
    deadline = time.monotonic() + timeout
    host = "localhost" if address.is_any else address.host
    host = f"{host}%{address.scope}" if address.scope else host
    try:
        with socket.create_connection((host, address.port), timeout) as sock:
            if not secured:
                return _ask(sock, None, address, deadline)
            tls, gate = asking(sock, address, trust, key)
            try:
                with tls:
                    return _ask(tls, gate, address, deadline)
            except ssl.SSLError as error:  # TLS 1.3 asks for certificates after the handshake
                raise explained(error, str(address)) from error
    except TimeoutError as error:
        hint = "" if address.is_loopback else _STRANGER_HINT
        text = f"{address} did not answer within {timeout:g} s"
        raise SpiError(WSAETIMEDOUT, text, call="who", hint=hint) from error
    except RemoteProtocolError as error:
        text = f"what listens at {address} is no root of joinleaf: {error}"
        raise SpiError(WSAECONNABORTED, text, call="who") from error
    except TlsError as error:
        raise SpiError(WSAEACCES, error.message, call="who", hint=error.hint) from error
    except OSError as error:
        raise spi_error_from_os(error, call="who", message=f"cannot ask {address}") from error


def _ask(sock: socket.socket, gate: AskerGate | None, address: Address, deadline: float) -> Roster:
    if gate is None:
        sock.sendall(control_frame(Kind.WHO))
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
            if frame.kind == Kind.REFUSE:
                raise SpiError(WSAEACCES, decode(Refusal, frame.body).message, call="who")
            if frame.kind in (Kind.CHALLENGE, Kind.PROOF):
                sock.sendall(_proved(frame, gate))
            else:
                _expect_beat(frame)


def _proved(frame: Frame, gate: AskerGate | None) -> bytes:
    """The next word in showing the session key; the question itself in the end."""
    if gate is None:
        raise SpiError(WSAEACCES, "it asks for its session key", call="who", hint=_LINE_HINT)
    if frame.kind == Kind.CHALLENGE:
        return gate.challenged(bytes(frame.body))
    if not gate.proof(bytes(frame.body)):
        raise SpiError(WSAEACCES, "it does not know the session key", call="who", hint=_LINE_HINT)
    return control_frame(Kind.WHO)


def _expect_beat(frame: Frame) -> None:
    if frame.kind != Kind.BEAT:
        raise RemoteProtocolError(f"frame {frame.kind} instead of a roster")
