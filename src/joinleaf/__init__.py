"""One-to-many sessions for Python.

    with joinleaf.join("udp://239.255.10.1:5000") as session:
        session.send(b"hello")
        for message in session:
            print(message.sender, message.data)

``join`` and ``open_root`` are the two ways in; see the documentation for the rest.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from joinleaf.errors import (
    AdmissionRefusedError,
    BusyError,
    CatalogueError,
    DataLostError,
    JoinError,
    JoinleafError,
    JoinPendingError,
    JoinRefusedError,
    JoinTimeoutError,
    LocalProtocolError,
    MessageTooLargeError,
    ProtocolError,
    ProviderBrokenError,
    ProviderNotFoundError,
    RemoteProtocolError,
    SessionBrokenError,
    SessionClosedError,
    SessionError,
    SessionOSError,
    SessionTimeoutError,
    SpiError,
    TransferError,
)
from joinleaf.messages import (
    Decision,
    Event,
    LeafJoined,
    LeafLeft,
    LeafRefused,
    Message,
    MessagesLost,
    QosChanged,
    Request,
    SessionEnded,
)
from joinleaf.spi.provider import Batch
from joinleaf.spi.qos import FlowSpec, Qos, parse_rate, parse_size
from joinleaf.sync import (
    Leaf,
    Leaves,
    Listener,
    Root,
    RootLeaf,
    Session,
    join,
    listen,
    open_root,
)
from joinleaf.values import Address, SessionAddress

__version__ = "0.1.0"

_core = find_spec("joinleaf.core.outbox")
COMPILED: Final = _core is not None and not str(_core.origin).endswith(".py")
"""Whether the data path is machine code: the same source, compiled when the package was built."""

__all__ = [
    "COMPILED",
    "Address",
    "AdmissionRefusedError",
    "Batch",
    "BusyError",
    "CatalogueError",
    "DataLostError",
    "Decision",
    "Event",
    "FlowSpec",
    "JoinError",
    "JoinPendingError",
    "JoinRefusedError",
    "JoinTimeoutError",
    "JoinleafError",
    "Leaf",
    "LeafJoined",
    "LeafLeft",
    "LeafRefused",
    "Leaves",
    "Listener",
    "LocalProtocolError",
    "Message",
    "MessageTooLargeError",
    "MessagesLost",
    "ProtocolError",
    "ProviderBrokenError",
    "ProviderNotFoundError",
    "Qos",
    "QosChanged",
    "RemoteProtocolError",
    "Request",
    "Root",
    "RootLeaf",
    "Session",
    "SessionAddress",
    "SessionBrokenError",
    "SessionClosedError",
    "SessionEnded",
    "SessionError",
    "SessionOSError",
    "SessionTimeoutError",
    "SpiError",
    "TransferError",
    "__version__",
    "join",
    "listen",
    "open_root",
    "parse_rate",
    "parse_size",
]
