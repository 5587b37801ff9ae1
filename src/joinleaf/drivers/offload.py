"""Segmentation offload of UDP sockets (Linux): one call carries a whole train of datagrams.

* **Sending.** With UDP_SEGMENT set, what one call sends is cut by the kernel (or the card) into
  datagrams of that size; the last may be shorter. Data no longer than the size go as they are.
  Set as a socket option it stays; as ancillary data of every call it costs 0.5 us more each.
* **Receiving.** With UDP_GRO set, datagrams of one sender that arrived together are handed over
  as one buffer, with their size as ancillary data. Trains arrive whole, in pieces, or joined with
  the next: only a datagram shorter than those before it is sure to end one.

Source: linux/Documentation/networking/segmentation-offloads.rst, net/ipv4/udp.c, udp_offload.c.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

__all__ = ["MAX_TRAIN_SEGMENTS", "can_segment", "enable_gro", "segment_size", "set_segment"]

MAX_TRAIN_SEGMENTS: Final = 64
"""Datagrams that one call may carry: UDP_MAX_SEGMENTS of Linux before 6.9 (128 since)."""

# Not in the socket module: include/uapi/linux/udp.h, in.h.
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104

_LINUX: Final = sys.platform == "linux"


def can_segment(sock: socket.socket) -> bool:
    """Whether the system knows UDP_SEGMENT (Linux 4.18). A device may still refuse it."""
    if not _LINUX:
        return False
    try:
        sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def set_segment(sock: socket.socket, size: int) -> None:
    """Have whatever is longer than ``size`` bytes cut into datagrams of that size.

    Raises:
        OSError: EINVAL: the size is not from 1 to 65535. Nothing has changed.
    """
    sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)


def enable_gro(sock: socket.socket) -> bool:
    """Ask for trains; False where the system does not know UDP_GRO (Linux 5.0)."""
    if not _LINUX:
        return False
    try:
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


def segment_size(ancillary: list[tuple[int, int, bytes]] | Any, whole: int) -> int:
    """Size of the datagrams in a buffer of ``whole`` bytes; ``whole`` if it is a single one."""
    for level, kind, data in ancillary:
        if level == _SOL_UDP and kind == _UDP_GRO:
            return int.from_bytes(data[:4], sys.byteorder)
    return whole
