"""The two ends of one multicast stream: the root's socket and a leaf's.

Both move trains (``offload``): what one call sends or receives is up to about 62 KB, and is many
datagrams only on the wire. Where the system or the device knows no trains, the same calls move
plain datagrams.

* The sender is connected to the group: the kernel keeps the route, nobody else can put anything
  into its receive buffer, and its address is known, which leaves want to be told.
* The receiver is bound to the group (elsewhere than on Linux to the wildcard: refused or untested
  there), so that other groups on the port stay out, and joins for the root's address only. Not
  every platform can do the latter, so who sent is looked at once more. Addresses can be forged:
  the tag in every datagram is the caller's to compare.

Tested on Linux; what else is here follows documentation.
"""

from joinleaf.drivers.group_port._receiver import GroupReceiver
from joinleaf.drivers.group_port._sender import (
    SEGMENT_MAX,
    SEGMENT_MIN,
    SEND_BUFFER,
    GroupSender,
)

__all__ = ["SEGMENT_MAX", "SEGMENT_MIN", "SEND_BUFFER", "GroupReceiver", "GroupSender"]
