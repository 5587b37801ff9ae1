"""What comes once for each frame: structures that cost little to make.

The other events are dataclasses; one of these costs a quarter of what a dataclass would. They are
apart from the machines that make them because the machines can be compiled (``pyproject.toml``)
and structures of msgspec cannot.
"""

from __future__ import annotations

import msgspec

from joinleaf.spi.provider import Batch

__all__ = ["Arrived", "Data", "GroupWord"]


class Data(msgspec.Struct, gc=False):
    """A DATA frame; ``body`` is valid until the reader is asked for a buffer again."""

    flags: int
    body: memoryview


class GroupWord(msgspec.Struct, gc=False):
    """A frame about the multicast stream; ``body`` is valid as that of ``Data`` is."""

    kind: int
    body: memoryview


class Arrived(msgspec.Struct, gc=False):
    """Messages for this end.

    Attributes:
        key: The leg they came by.
        batch: The messages.
        size: About how many bytes they take.
    """

    key: int
    batch: Batch
    size: int
