"""Have the C library keep the memory of long messages, rather than fetch it anew for each.

glibc gives a block of 128 KiB or more back to the system the moment it is freed, and its pages are
fetched and cleared again for the next message: 250 page faults for a megabyte, more than receiving
it takes. It stops doing so for blocks as long as the longest that it has seen freed, up to 32 MiB;
so one is shown to it. That takes no memory by itself, as nobody writes to it.

Source: mallopt(3), M_MMAP_THRESHOLD, "dynamic adjustment". Other systems' libraries do not care.
"""

from __future__ import annotations

import functools
from typing import Final

__all__ = ["keep_long_blocks"]

LONGEST: Final = 16 << 20
"""Messages up to this length. As much memory as twice this may stay with the process when freed."""


@functools.cache
def keep_long_blocks() -> None:
    """Do it, once."""
    bytes(LONGEST)
