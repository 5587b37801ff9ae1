"""Send a file, a folder or a stream to every leaf, and know for each leaf whether it has it."""

from __future__ import annotations

from joinleaf.transfer.channel import LeafChannel, LeafHandle, MembershipChange, RootChannel
from joinleaf.transfer.digests import DEFAULT_DIGEST, DigestKind
from joinleaf.transfer.progress import (
    FileFailure,
    LeafProgress,
    LeafState,
    ReceiveProgress,
    ReceiveResult,
    SendProgress,
    TransferResult,
)
from joinleaf.transfer.receiver import receive_object
from joinleaf.transfer.sender import send_object
from joinleaf.transfer.source import PathSource, Source, StreamSource

__all__ = [
    "DEFAULT_DIGEST",
    "DigestKind",
    "FileFailure",
    "LeafChannel",
    "LeafHandle",
    "LeafProgress",
    "LeafState",
    "MembershipChange",
    "PathSource",
    "ReceiveProgress",
    "ReceiveResult",
    "RootChannel",
    "SendProgress",
    "Source",
    "StreamSource",
    "TransferResult",
    "receive_object",
    "send_object",
]
