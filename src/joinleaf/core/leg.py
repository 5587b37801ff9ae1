"""One root-leaf association, seen from either end.

Whoever opens the connection is the asker, the other end the answerer; that is independent of who
is the root: a leaf that joins asks, and so does a root that invites. Hence one machine for both
directions of WSPJoinLeaf (model, section 1.3).

    asker     CONNECTING [-> SECURING] -> ASKED ----> ACTIVE -> ENDING -> ENDED
    answerer  OPENED -> QUEUED <-> OFFERED ---------> ACTIVE -> ENDING -> ENDED

What may be trusted: before ACTIVE nothing the peer says has an effect beyond this leg; in ENDING
everything but the peer's own end is discarded; in ENDED the connection is gone. SECURING is for
encrypted legs: nothing is asked, and no connect data is shown, before the peer is known. The
answerer is in OPENED meanwhile, where a request has no effect before the asker is known.
"""

from __future__ import annotations

from enum import Enum, auto
from itertools import product
from typing import Final

from joinleaf.core.tables import Machine, Row

__all__ = ["LegAction", "LegInput", "LegMachine", "LegState"]


class LegState(Enum):
    """Where an association is."""

    CONNECTING = auto()  # asker: the connection is being made
    SECURING = auto()  # asker: the connection stands; who the peer is remains to be seen
    ASKED = auto()  # asker: the request is with the peer
    OPENED = auto()  # answerer: somebody connected and has said nothing valid yet
    QUEUED = auto()  # answerer: the request waits for accept
    OFFERED = auto()  # answerer: the condition function is deciding
    ACTIVE = auto()  # both are members
    ENDING = auto()  # this end has taken leave and waits for the peer to hear it
    ENDED = auto()  # terminal


class LegInput(Enum):
    """What can happen to it. The last word says who: the application, the peer, the network."""

    REACHED = auto()  # network: the connection stands, and is to be made safe first
    CONNECTED = auto()  # network: the connection stands, and the peer is known as far as asked for
    REQUEST = auto()  # peer: JOIN or INVITE
    QUERY = auto()  # peer: WHO, instead of joining
    OFFER = auto()  # application: accept takes the request up
    ADMIT = auto()  # application: CF_ACCEPT
    REFUSE = auto()  # application: CF_REJECT, or there is no room
    DEFER = auto()  # application: CF_DEFER
    ACCEPTED = auto()  # peer: ACCEPT
    REFUSED = auto()  # peer: REFUSE
    LEAVE = auto()  # peer: LEAVE
    CLOSE = auto()  # application: close, withdraw, expel, dissolve
    ABORT = auto()  # application: close without ceremony
    DEADLINE = auto()  # clock: the time for this state is up
    SILENT = auto()  # clock: nothing heard within the bound
    LOST = auto()  # network: the connection ended or never came
    BAD_BYTES = auto()  # peer: broke the protocol


class LegAction(Enum):
    """What the owner must do, in the order given."""

    SEND_REQUEST = auto()
    SEND_ACCEPT = auto()
    SEND_REFUSE = auto()
    SEND_LEAVE = auto()
    INDICATE_REQUEST = auto()  # FD_ACCEPT
    INDICATE_QUERY = auto()  # somebody asks for the roster
    INDICATE_WITHDRAWN = auto()  # the asker is gone before it was answered
    JOINED = auto()  # FD_CONNECT 0, or the member that accept returns
    JOIN_FAILED = auto()  # FD_CONNECT with a code
    INDICATE_CLOSE = auto()  # FD_CLOSE, after all data
    DROP = auto()  # give the connection back
    DROP_FLUSHED = auto()  # the same, once what is queued has been sent


_S, _I, _A = LegState, LegInput, LegAction

_TABLE: Final = {
    (_S.CONNECTING, _I.CONNECTED): Row(_S.ASKED, (_A.SEND_REQUEST,), "1, 2, 12"),
    (_S.CONNECTING, _I.LOST): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "24, 45, 54"),
    (_S.CONNECTING, _I.DEADLINE): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "61"),
    (_S.CONNECTING, _I.CLOSE): Row(_S.ENDED, (_A.DROP,), "74"),
    (_S.CONNECTING, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "74"),
    (_S.CONNECTING, _I.REACHED): Row(_S.SECURING, (), "design 8"),
    (_S.SECURING, _I.CONNECTED): Row(_S.ASKED, (_A.SEND_REQUEST,), "1, 2, 12"),
    (_S.SECURING, _I.REFUSED): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "24, 45"),
    (_S.SECURING, _I.LOST): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "24, 45"),
    (_S.SECURING, _I.BAD_BYTES): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "24"),
    (_S.SECURING, _I.DEADLINE): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "61"),
    (_S.SECURING, _I.SILENT): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "61"),
    (_S.SECURING, _I.CLOSE): Row(_S.ENDED, (_A.DROP,), "74"),
    (_S.SECURING, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "74"),
    (_S.ASKED, _I.ACCEPTED): Row(_S.ACTIVE, (_A.JOINED,), "13, 18, 23"),
    (_S.ASKED, _I.REFUSED): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "24, 45"),
    (_S.ASKED, _I.LOST): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "24, 45"),
    (_S.ASKED, _I.BAD_BYTES): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "24"),
    (_S.ASKED, _I.DEADLINE): Row(
        _S.ENDED, (_A.SEND_LEAVE, _A.JOIN_FAILED, _A.DROP_FLUSHED), "61, model 6.1 R5"
    ),
    (_S.ASKED, _I.SILENT): Row(_S.ENDED, (_A.JOIN_FAILED, _A.DROP), "61"),
    (_S.ASKED, _I.CLOSE): Row(_S.ENDED, (_A.SEND_LEAVE, _A.DROP_FLUSHED), "74, model 6.2 N5"),
    (_S.ASKED, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "74"),
    (_S.OPENED, _I.QUERY): Row(_S.ENDED, (_A.INDICATE_QUERY, _A.DROP_FLUSHED), "design 6"),
    (_S.OPENED, _I.REQUEST): Row(_S.QUEUED, (_A.INDICATE_REQUEST,), "106"),
    (_S.OPENED, _I.LOST): Row(_S.ENDED, (_A.DROP,), "model 3.4"),
    (_S.OPENED, _I.DEADLINE): Row(_S.ENDED, (_A.DROP,), "design 8"),
    (_S.OPENED, _I.BAD_BYTES): Row(_S.ENDED, (_A.DROP,), "design 8"),
    (_S.OPENED, _I.REFUSE): Row(_S.ENDED, (_A.SEND_REFUSE, _A.DROP_FLUSHED), "45"),
    (_S.OPENED, _I.CLOSE): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.OPENED, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.QUEUED, _I.OFFER): Row(_S.OFFERED, (), "107"),
    (_S.QUEUED, _I.REFUSE): Row(_S.ENDED, (_A.SEND_REFUSE, _A.DROP_FLUSHED), "45, model 5.7"),
    (_S.QUEUED, _I.CLOSE): Row(_S.ENDED, (_A.SEND_REFUSE, _A.DROP_FLUSHED), "model 5.7"),
    (_S.QUEUED, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.QUEUED, _I.LEAVE): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.QUEUED, _I.LOST): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.QUEUED, _I.SILENT): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.QUEUED, _I.BAD_BYTES): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.OFFERED, _I.ADMIT): Row(_S.ACTIVE, (_A.SEND_ACCEPT, _A.JOINED), "107, 108"),
    (_S.OFFERED, _I.REFUSE): Row(_S.ENDED, (_A.SEND_REFUSE, _A.DROP_FLUSHED), "45"),
    (_S.OFFERED, _I.DEFER): Row(_S.QUEUED, (), "model 3.4"),
    (_S.OFFERED, _I.CLOSE): Row(_S.ENDED, (_A.SEND_REFUSE, _A.DROP_FLUSHED), "model 5.7"),
    (_S.OFFERED, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.OFFERED, _I.LEAVE): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.OFFERED, _I.LOST): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.OFFERED, _I.SILENT): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.OFFERED, _I.BAD_BYTES): Row(_S.ENDED, (_A.INDICATE_WITHDRAWN, _A.DROP), "model 3.4"),
    (_S.ACTIVE, _I.LEAVE): Row(_S.ENDED, (_A.INDICATE_CLOSE, _A.DROP), "99, 100"),
    (_S.ACTIVE, _I.LOST): Row(_S.ENDED, (_A.INDICATE_CLOSE, _A.DROP), "99, 130"),
    (_S.ACTIVE, _I.SILENT): Row(_S.ENDED, (_A.INDICATE_CLOSE, _A.DROP), "model 7.5"),
    (_S.ACTIVE, _I.BAD_BYTES): Row(_S.ENDED, (_A.INDICATE_CLOSE, _A.DROP), "model 7.4"),
    (_S.ACTIVE, _I.CLOSE): Row(_S.ENDING, (_A.SEND_LEAVE,), "99, 100, model 1.4"),
    (_S.ACTIVE, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.ENDING, _I.LEAVE): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.ENDING, _I.LOST): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.ENDING, _I.SILENT): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.ENDING, _I.DEADLINE): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.ENDING, _I.BAD_BYTES): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
    (_S.ENDING, _I.ABORT): Row(_S.ENDED, (_A.DROP,), "model 5.7"),
}

# A valid frame in a state that has no use for it is the peer's breach, and the owner feeds
# BAD_BYTES for it; what is left here are answers that crossed with an end on the way.
_STALE: Final = frozenset(set(product(_S, _I)) - set(_TABLE))


class LegMachine(Machine[LegState, LegInput, LegAction]):
    """The association's state; starts CONNECTING (asker) or OPENED (answerer)."""

    TABLE = _TABLE
    REFUSED = {}  # noqa: RUF012  # declared ClassVar in the base; no input here is a caller's call
    STALE = _STALE
    __slots__ = ()

    def __init__(self, *, asker: bool) -> None:
        super().__init__(LegState.CONNECTING if asker else LegState.OPENED)
