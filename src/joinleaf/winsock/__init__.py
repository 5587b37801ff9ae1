"""The WSP* front: Windows Sockets 2 provider functions, name for name, over the provider seam.

``start("jl")`` loads a provider and starts it; its methods are the thirty functions with the
header's parameters, and ``proc_table`` is the same for C.
"""

from __future__ import annotations

from joinleaf.winsock.memory import Cell, Wsabuf
from joinleaf.winsock.provider import VERSION, ServiceProvider, start
from joinleaf.winsock.types import INVALID_SOCKET, SOCKET_ERROR
from joinleaf.winsock.upcalls import TableUpcalls, Upcalls

__all__ = [
    "INVALID_SOCKET",
    "SOCKET_ERROR",
    "VERSION",
    "Cell",
    "ServiceProvider",
    "TableUpcalls",
    "Upcalls",
    "Wsabuf",
    "start",
]
