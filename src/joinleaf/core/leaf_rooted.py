"""The rooted c_leaf: asks to join, or listens for invitations, and is a member once.

The member of an invited leaf is not the listener but what accept returns (model 6.3 L9); that
endpoint starts JOINED. A membership that ended is not renewed: discard and make anew (130, 131).
"""

from __future__ import annotations

from enum import Enum, auto

from joinleaf.core.tables import Machine, Row
from joinleaf.spi.codes import WSAEALREADY, WSAEINVAL, WSAEISCONN, WSAENOTSOCK

__all__ = ["LeafAction", "LeafInput", "LeafMachine", "LeafState"]


class LeafState(Enum):
    """Model, section 3.3; U and B are one state here, bound being a fact beside it."""

    IDLE = auto()
    LISTENING = auto()
    JOINING = auto()
    JOINED = auto()
    BROKEN = auto()  # the membership ended, or a blocking join was cancelled
    CLOSED = auto()  # terminal


class LeafInput(Enum):
    """What can happen to it."""

    JOIN = auto()  # WSPJoinLeaf
    JOIN_DONE = auto()
    JOIN_FAILED = auto()
    JOIN_CANCELLED = auto()  # WSPCancelBlockingCall
    LISTEN = auto()  # WSPListen
    ENDED = auto()  # root, peer or network ended the membership
    CLOSE = auto()  # WSPCloseSocket


class LeafAction(Enum):
    """What the owner must do."""

    START_JOIN = auto()
    INDICATE_CONNECT = auto()
    INDICATE_CLOSE = auto()
    CANCEL_JOIN = auto()
    START_LISTENING = auto()
    STOP_LISTENING = auto()
    LEAVE = auto()


_S, _I, _A = LeafState, LeafInput, LeafAction


class LeafMachine(Machine[LeafState, LeafInput, LeafAction]):
    """Tables 6.3 and 6.4 of the model."""

    TABLE = {  # noqa: RUF012  # declared ClassVar in the base
        (_S.IDLE, _I.JOIN): Row(_S.JOINING, (_A.START_JOIN,), "1, 101"),
        (_S.IDLE, _I.LISTEN): Row(_S.LISTENING, (_A.START_LISTENING,), "model 6.3 L9"),
        (_S.IDLE, _I.CLOSE): Row(_S.CLOSED, (), "model 5.7"),
        (_S.LISTENING, _I.LISTEN): Row(_S.LISTENING, (_A.START_LISTENING,), "model 5.3"),
        (_S.LISTENING, _I.CLOSE): Row(_S.CLOSED, (_A.STOP_LISTENING,), "model 5.7"),
        (_S.JOINING, _I.JOIN_DONE): Row(_S.JOINED, (_A.INDICATE_CONNECT,), "18, 23, 103"),
        (_S.JOINING, _I.JOIN_FAILED): Row(_S.IDLE, (_A.INDICATE_CONNECT,), "24, 30 to 32"),
        (_S.JOINING, _I.JOIN_CANCELLED): Row(_S.BROKEN, (_A.CANCEL_JOIN,), "38, model 6.3 L4"),
        (_S.JOINING, _I.CLOSE): Row(_S.CLOSED, (_A.CANCEL_JOIN,), "74, model 6.4 M5"),
        (_S.JOINED, _I.ENDED): Row(_S.BROKEN, (_A.INDICATE_CLOSE,), "100, 130"),
        (_S.JOINED, _I.CLOSE): Row(_S.CLOSED, (_A.LEAVE,), "99"),
        (_S.BROKEN, _I.CLOSE): Row(_S.CLOSED, (), "131"),
    }
    REFUSED = {  # noqa: RUF012  # declared ClassVar in the base
        (_S.JOINING, _I.JOIN): WSAEALREADY,  # clauses 26, 42
        (_S.JOINED, _I.JOIN): WSAEISCONN,  # clauses 27, 53
        (_S.LISTENING, _I.JOIN): WSAEINVAL,  # model 6.3 L6
        (_S.BROKEN, _I.JOIN): WSAEINVAL,  # clause 130
        (_S.CLOSED, _I.JOIN): WSAENOTSOCK,  # clause 57
        (_S.JOINING, _I.LISTEN): WSAEINVAL,  # model 6.4 M7
        (_S.JOINED, _I.LISTEN): WSAEISCONN,  # model 6.3 L11
        (_S.BROKEN, _I.LISTEN): WSAEINVAL,
        (_S.CLOSED, _I.LISTEN): WSAENOTSOCK,
    }
    STALE = frozenset(
        {
            *(
                (state, answer)
                for state in _S
                if state is not _S.JOINING
                for answer in (_I.JOIN_DONE, _I.JOIN_FAILED, _I.JOIN_CANCELLED)
            ),
            *((state, _I.ENDED) for state in _S if state is not _S.JOINED),
            (_S.CLOSED, _I.CLOSE),
        }
    )
    __slots__ = ()

    def __init__(self, state: LeafState = LeafState.IDLE) -> None:
        super().__init__(state)
