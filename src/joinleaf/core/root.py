"""The c_root's own state: may it invite now? Its legs have a machine each (``leg.py``).

Bound and listening are facts beside this state, not states: a c_root may listen before, during and
after its joins (clause 109; model, sections 3.2 and 5.3).
"""

from __future__ import annotations

from enum import Enum, auto

from joinleaf.core.tables import Machine, Row
from joinleaf.spi.codes import WSAEALREADY, WSAEINVAL, WSAENOTSOCK

__all__ = ["RootAction", "RootInput", "RootMachine", "RootState"]


class RootState(Enum):
    """Model, section 3.2."""

    IDLE = auto()  # may invite
    JOINING = auto()  # one invitation is outstanding
    DISSOLVED = auto()  # the session is over, the socket still open
    CLOSED = auto()  # terminal


class RootInput(Enum):
    """What can happen to it."""

    INVITE = auto()  # WSPJoinLeaf
    INVITE_DONE = auto()
    INVITE_FAILED = auto()
    INVITE_CANCELLED = auto()  # the pending leg was closed
    LISTEN = auto()  # WSPListen
    DISSOLVE = auto()  # WSPShutdown SD_SEND or SD_BOTH
    CLOSE = auto()  # WSPCloseSocket


class RootAction(Enum):
    """What the owner must do."""

    START_INVITATION = auto()
    INDICATE_CONNECT = auto()
    CANCEL_INVITATION = auto()
    START_LISTENING = auto()
    END_ALL_LEGS = auto()
    STOP_LISTENING = auto()


_S, _I, _A = RootState, RootInput, RootAction
_END = (_A.STOP_LISTENING, _A.END_ALL_LEGS)


class RootMachine(Machine[RootState, RootInput, RootAction]):
    """At most one invitation at a time (clauses 26, 29, 77); then another (28, 76)."""

    TABLE = {  # noqa: RUF012  # declared ClassVar in the base
        (_S.IDLE, _I.INVITE): Row(_S.JOINING, (_A.START_INVITATION,), "28, 76, 89"),
        (_S.IDLE, _I.LISTEN): Row(_S.IDLE, (_A.START_LISTENING,), "105"),
        (_S.IDLE, _I.DISSOLVE): Row(_S.DISSOLVED, _END, "model 1.4"),
        (_S.IDLE, _I.CLOSE): Row(_S.CLOSED, _END, "model 5.7"),
        (_S.JOINING, _I.INVITE_DONE): Row(_S.IDLE, (_A.INDICATE_CONNECT,), "23, 29"),
        (_S.JOINING, _I.INVITE_FAILED): Row(_S.IDLE, (_A.INDICATE_CONNECT,), "24, 30 to 32"),
        (_S.JOINING, _I.INVITE_CANCELLED): Row(_S.IDLE, (), "74, 75"),
        (_S.JOINING, _I.LISTEN): Row(_S.JOINING, (_A.START_LISTENING,), "109"),
        (_S.JOINING, _I.DISSOLVE): Row(
            _S.DISSOLVED, (_A.CANCEL_INVITATION, *_END), "model 1.4, 6.2 N6"
        ),
        (_S.JOINING, _I.CLOSE): Row(_S.CLOSED, (_A.CANCEL_INVITATION, *_END), "model 6.2 N6"),
        (_S.DISSOLVED, _I.CLOSE): Row(_S.CLOSED, (), "model 5.7"),
    }
    REFUSED = {  # noqa: RUF012  # declared ClassVar in the base
        (_S.JOINING, _I.INVITE): WSAEALREADY,  # clauses 26, 42
        (_S.DISSOLVED, _I.INVITE): WSAEINVAL,  # model 6.1 R13
        (_S.DISSOLVED, _I.LISTEN): WSAEINVAL,
        (_S.CLOSED, _I.INVITE): WSAENOTSOCK,  # clause 57
        (_S.CLOSED, _I.LISTEN): WSAENOTSOCK,
        (_S.CLOSED, _I.DISSOLVE): WSAENOTSOCK,
    }
    STALE = frozenset(
        {
            *(
                (state, answer)
                for state in (_S.IDLE, _S.DISSOLVED, _S.CLOSED)
                for answer in (_I.INVITE_DONE, _I.INVITE_FAILED, _I.INVITE_CANCELLED)
            ),
            (_S.DISSOLVED, _I.DISSOLVE),
            (_S.CLOSED, _I.CLOSE),
        }
    )
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(RootState.IDLE)
