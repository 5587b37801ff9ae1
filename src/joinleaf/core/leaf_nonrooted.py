"""The nonrooted c_leaf: joins a session that always exists (IP multicast), and leaves by closing.

Nobody answers such a join but this host's own network stack, so nothing here waits for a peer and
no membership is ended by one. What can happen is that the stack forgets it, because the interface
goes, or that nothing can arrive, because it is down. The member is then CUT_OFF, still a member in
name, and is renewed.

What is not here: roles of the data plane (a sender only has no membership, nothing more is decided
about it), and whether a join was a blocking one: REPORT says that it has an outcome, and the owner
returns or indicates it.
"""

from __future__ import annotations

from enum import Enum, auto

from joinleaf.core.tables import Machine, Row
from joinleaf.spi.codes import WSAEALREADY, WSAEISCONN, WSAENOTSOCK

__all__ = ["NonrootedAction", "NonrootedInput", "NonrootedLeafMachine", "NonrootedState"]


class NonrootedState(Enum):
    """Model, section 3.3, without L and X: it cannot listen, and no peer can break it."""

    IDLE = auto()  # not in the session; U and B, bound being a fact beside it
    JOINING = auto()  # asked the stack for a membership; no answer yet
    JOINING_SENDER = auto()  # the same for a sender only
    JOINED = auto()  # the stack delivers what is sent to the group
    SENDER = auto()  # in the session without a membership
    CUT_OFF = auto()  # joined, but the stack has forgotten it
    CLOSED = auto()  # terminal


class NonrootedInput(Enum):
    """What can happen to it. The first two and CLOSE come from the caller."""

    JOIN = auto()  # WSPJoinLeaf, JL_RECEIVER_ONLY or JL_BOTH
    JOIN_SENDER = auto()  # WSPJoinLeaf, JL_SENDER_ONLY
    JOIN_DONE = auto()  # the membership exists
    SENDER_DONE = auto()  # sending to the group is possible
    JOIN_FAILED = auto()
    LOST = auto()  # the membership is gone, or the attempt to renew it failed
    RENEWED = auto()  # the membership exists again
    CLOSE = auto()  # WSPCloseSocket


class NonrootedAction(Enum):
    """What the owner must do."""

    ADD_MEMBERSHIP = auto()
    PREPARE_SENDING = auto()
    DROP_MEMBERSHIP = auto()
    RENEW_MEMBERSHIP = auto()
    REPORT = auto()  # the join has an outcome
    TELL_LOST = auto()
    TELL_RENEWED = auto()


_S, _I, _A = NonrootedState, NonrootedInput, NonrootedAction
_JOINING = (_S.JOINING, _S.JOINING_SENDER)
_MEMBER = (_S.JOINED, _S.SENDER, _S.CUT_OFF)
_ASKS = (_I.JOIN, _I.JOIN_SENDER)


class NonrootedLeafMachine(Machine[NonrootedState, NonrootedInput, NonrootedAction]):
    """Tables 6.5 and 6.6 of the model."""

    TABLE = {  # noqa: RUF012  # declared ClassVar in the base
        (_S.IDLE, _I.JOIN): Row(_S.JOINING, (_A.ADD_MEMBERSHIP,), "1, 102, 103"),
        (_S.IDLE, _I.JOIN_SENDER): Row(_S.JOINING_SENDER, (_A.PREPARE_SENDING,), "127"),
        (_S.IDLE, _I.CLOSE): Row(_S.CLOSED, (), "model 5.7"),
        (_S.JOINING, _I.JOIN_DONE): Row(_S.JOINED, (_A.REPORT,), "21, 23, 103"),
        (_S.JOINING, _I.JOIN_FAILED): Row(_S.IDLE, (_A.REPORT,), "24, 30 to 32"),
        (_S.JOINING, _I.CLOSE): Row(_S.CLOSED, (), "74, model 6.4 M5"),
        (_S.JOINING_SENDER, _I.SENDER_DONE): Row(_S.SENDER, (_A.REPORT,), "21, 23, 127"),
        (_S.JOINING_SENDER, _I.JOIN_FAILED): Row(_S.IDLE, (_A.REPORT,), "24, 30 to 32"),
        (_S.JOINING_SENDER, _I.CLOSE): Row(_S.CLOSED, (), "74, model 6.4 M5"),
        (_S.JOINED, _I.CLOSE): Row(_S.CLOSED, (_A.DROP_MEMBERSHIP,), "model 6.5 G6"),
        (_S.SENDER, _I.CLOSE): Row(_S.CLOSED, (), "model 6.5 G2, G6"),
        (_S.JOINED, _I.LOST): Row(
            _S.CUT_OFF, (_A.TELL_LOST, _A.RENEW_MEMBERSHIP), "54, 55, model 14.9"
        ),
        (_S.CUT_OFF, _I.LOST): Row(_S.CUT_OFF, (), "55"),
        (_S.CUT_OFF, _I.RENEWED): Row(_S.JOINED, (_A.TELL_RENEWED,), "55"),
        (_S.CUT_OFF, _I.CLOSE): Row(_S.CLOSED, (_A.DROP_MEMBERSHIP,), "model 6.5 G6"),
        # A join or a renewal that CLOSE overtook: undo it, or the kernel keeps the group.
        (_S.CLOSED, _I.JOIN_DONE): Row(_S.CLOSED, (_A.DROP_MEMBERSHIP,), "74"),
        (_S.CLOSED, _I.RENEWED): Row(_S.CLOSED, (_A.DROP_MEMBERSHIP,), "74"),
    }
    REFUSED = {  # noqa: RUF012  # declared ClassVar in the base
        **{(state, ask): WSAEALREADY for state in _JOINING for ask in _ASKS},  # clauses 26, 42
        **{(state, ask): WSAEISCONN for state in _MEMBER for ask in _ASKS},  # clauses 27, 53
        **{(_S.CLOSED, ask): WSAENOTSOCK for ask in _ASKS},  # clause 57
    }
    STALE = frozenset(
        {
            *((state, _I.JOIN_DONE) for state in _S if state not in (_S.JOINING, _S.CLOSED)),
            *((state, _I.SENDER_DONE) for state in _S if state is not _S.JOINING_SENDER),
            *((state, _I.JOIN_FAILED) for state in _S if state not in _JOINING),
            *((state, _I.LOST) for state in _S if state not in (_S.JOINED, _S.CUT_OFF)),
            *((state, _I.RENEWED) for state in _S if state not in (_S.CUT_OFF, _S.CLOSED)),
            (_S.CLOSED, _I.CLOSE),
        }
    )
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NonrootedState.IDLE)

    @property
    def is_member(self) -> bool:
        """Whether it is in the session, cut off or not."""
        return self.state in _MEMBER
