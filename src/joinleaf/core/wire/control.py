"""Bodies of control frames: typed MessagePack maps, every field bounded before it is believed.

Unknown fields are ignored. A sender that depends on a field being understood names it in
``critical``; a receiver that does not know the name refuses with a reason.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.provider import JoinRole
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import IDENTITY_BYTES, Address

__all__ = [
    "MAX_CONNECT_DATA",
    "VERSION",
    "Answer",
    "GroupFacts",
    "Leave",
    "Name",
    "QosBody",
    "Refusal",
    "Request",
    "Roster",
    "RosterRow",
    "SessionFacts",
    "decode",
    "encode",
    "unknown_critical",
]

VERSION: Final = 1
"""The one version there is. A request names the lowest and highest its sender speaks."""

MAX_CONNECT_DATA: Final = 64 << 10
"""Most bytes of connect or disconnect data: what a JOIN may cost before anybody is admitted."""

_U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
_U32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
_U63 = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Identity = Annotated[bytes, Meta(min_length=IDENTITY_BYTES, max_length=IDENTITY_BYTES)]
_ConnectData = Annotated[bytes, Meta(max_length=MAX_CONNECT_DATA)]
_Text = Annotated[str, Meta(max_length=1024)]
_ShortText = Annotated[str, Meta(max_length=255)]
_Milliseconds = Annotated[int, Meta(ge=1, le=1 << 32)]
_Flow = tuple[_U32, _U32, _U32, _U32, _U32, _U32, _U32, _U32]
_Critical = Annotated[list[_ShortText], Meta(max_length=64)]


class QosBody(msgspec.Struct, array_like=True, frozen=True):
    """Flow specifications on the wire, in the order of FLOWSPEC's members.

    In a QOS frame ``refused`` says why a wish was, and ``stated`` whether anything is agreed.
    """

    sending: _Flow
    receiving: _Flow
    provider_specific: _ConnectData = b""
    refused: _Text = ""
    stated: bool = True

    @classmethod
    def of(cls, qos: Qos | None) -> QosBody | None:
        """From the vocabulary's structure; None stays None."""
        if qos is None:
            return None
        return cls(_flow(qos.sending), _flow(qos.receiving), qos.provider_specific)

    def qos(self) -> Qos:
        """To the vocabulary's structure; RemoteProtocolError if its rules are broken."""
        try:
            return Qos(_spec(self.sending), _spec(self.receiving), self.provider_specific)
        except ValueError as error:
            raise RemoteProtocolError(f"flow specification: {error}") from None


_FLOW_FIELDS: Final = tuple(member.name for member in fields(FlowSpec))


def _flow(spec: FlowSpec) -> _Flow:
    return tuple(getattr(spec, name) for name in _FLOW_FIELDS)


def _spec(values: _Flow) -> FlowSpec:
    return FlowSpec(**dict(zip(_FLOW_FIELDS, values, strict=True)))


class GroupFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where and how the root's multicast stream comes, for a leaf that can hear it.

    Attributes:
        host: The group.
        port: Its port.
        source: Where its datagrams come from; others' are not the root's.
        tag: First four bytes of every datagram of this session.
        nonce: What a probe shows, so that hearing one proves that the group is heard.
        window: Bytes the root may have under way.
        report_us: Shortest time between two reports, in microseconds; grows with the leaves.
        backoff_us: Longest random wait before a loss is reported, in microseconds; the first
            repair then spares the others' reports.
        key: The current group key, as a KEY frame has it; empty: the stream is not sealed.
    """

    host: _ShortText
    port: _U16
    source: _ShortText
    tag: _U32
    nonce: _Identity
    window: _U32
    report_us: _U32 = 0
    backoff_us: _U32 = 0
    key: Annotated[bytes, Meta(max_length=64)] = b""

    def __repr__(self) -> str:
        names = (name for name in self.__struct_fields__ if name != "key")
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"GroupFacts({shown}, key={'...' if self.key else ''!r})"

    def address(self) -> Address:
        """The group as a value."""
        return Address(self.host, self.port)


class SessionFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the root's side tells of the session.

    Attributes:
        session: The session's identity.
        leaf: The number of this leg, 1 or more; 0 stands for the root.
        rooted: Whether the data plane is rooted.
        d_root: Whether the root is the d_root.
        role: The root's own role, a JL_* value.
        sequence: Number that the root's next message has.
        group: The multicast stream, if there is one.
    """

    session: _Identity
    leaf: Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
    rooted: bool
    d_root: bool
    role: JoinRole
    sequence: _U63 = 0
    group: GroupFacts | None = None


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """JOIN or INVITE.

    Attributes:
        versions: Lowest and highest version spoken.
        incarnation: Identity of this start of the asker.
        role: What the asker is, a JL_* value.
        dead_after_ms: Silence after which the asker takes the peer for dead.
        max_message: Longest message the asker takes.
        d_root: Whether the asking leaf is the d_root.
        facts: With INVITE, the session.
        own_leg: Whether the asking leaf wants everything over its leg, and no group to be told of.
    """

    versions: tuple[_U16, _U16]
    incarnation: _Identity
    role: JoinRole
    dead_after_ms: _Milliseconds
    max_message: Annotated[int, Meta(ge=1, le=1 << 30)]
    d_root: bool = False
    data: _ConnectData = b""
    qos: QosBody | None = None
    name: _ShortText = ""
    facts: SessionFacts | None = None
    own_leg: bool = False
    critical: _Critical = []  # msgspec copies empty literals

    @property
    def weight(self) -> int:
        """Bytes that its sender chose to put into it."""
        specific = len(self.qos.provider_specific) if self.qos is not None else 0
        return len(self.data) + specific + sum(map(len, self.critical)) + len(self.name)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """ACCEPT; ``facts`` when it is the root that answers."""

    version: _U16
    incarnation: _Identity
    dead_after_ms: _Milliseconds
    max_message: Annotated[int, Meta(ge=1, le=1 << 30)]
    role: JoinRole = JoinRole.BOTH
    d_root: bool = False
    data: _ConnectData = b""
    qos: QosBody | None = None
    name: _ShortText = ""
    facts: SessionFacts | None = None
    critical: _Critical = []  # msgspec copies empty literals


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """REFUSE: a WSAE number, a sentence, and what the application said."""

    code: _U16
    message: _Text = ""
    data: _ConnectData = b""


class Leave(msgspec.Struct, frozen=True, omit_defaults=True):
    """LEAVE: why (a value of EndReason) and what the application said."""

    reason: _ShortText
    data: _ConnectData = b""


class Name(msgspec.Struct, frozen=True):
    """NAME: the address a leaf id stands for."""

    leaf: _U32
    host: _ShortText
    port: _U16

    def address(self) -> Address:
        """As a value."""
        return Address(self.host, self.port)


class RosterRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One member or former member in a ROSTER."""

    address: _ShortText
    name: _ShortText = ""
    role: Annotated[int, Meta(ge=1, le=4)] = JoinRole.BOTH.value
    since_ms: _U63 = 0
    queued_bytes: _U63 = 0
    dropped: _U63 = 0
    left: _ShortText = ""
    left_ms: _U63 = 0
    carrier: _ShortText = ""
    identity: _ShortText = ""


class Roster(msgspec.Struct, frozen=True):
    """ROSTER: the answer to WHO."""

    session: _Identity
    number: _U63
    members: Annotated[list[RosterRow], Meta(max_length=10_000)]
    former: Annotated[list[RosterRow], Meta(max_length=1_000)]


T = TypeVar("T", QosBody, Request, Answer, Refusal, Leave, Name, Roster)

_encoder: Final = msgspec.msgpack.Encoder()
_decoders: Final = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (QosBody, Request, Answer, Refusal, Leave, Name, Roster)
}


def encode(body: msgspec.Struct) -> bytes:
    """A body as MessagePack."""
    return _encoder.encode(body)


def decode(kind: type[T], body: memoryview | bytes) -> T:
    """Read a body; RemoteProtocolError if it is not one, or a field is out of its bounds."""
    try:
        return _decoders[kind].decode(body)  # type: ignore[return-value]  # by the dict's making
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"{kind.__name__}: {error}") from None


_KNOWN: Final = frozenset(name for kind in (Request, Answer) for name in kind.__struct_fields__)


def unknown_critical(body: Request | Answer) -> list[str]:
    """Names of critical fields that this version does not know; [] lets the peer in."""
    return [name for name in body.critical if name not in _KNOWN]
