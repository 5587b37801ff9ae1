"""Bodies of control frames: bounds, unknown fields, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from joinleaf.core.wire.control import (
    MAX_CONNECT_DATA,
    Answer,
    Leave,
    Name,
    QosBody,
    Refusal,
    Request,
    Roster,
    RosterRow,
    SessionFacts,
    decode,
    encode,
    unknown_critical,
)
from joinleaf.errors import RemoteProtocolError
from joinleaf.spi.provider import JoinRole
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address

FACTS: dict[str, Any] = {
    "session": b"S" * 16,
    "leaf": 1,
    "rooted": True,
    "d_root": True,
    "role": 4,
    "sequence": 0,
}
REQUEST: dict[str, Any] = {
    "versions": [1, 1],
    "incarnation": b"L" * 16,
    "role": 4,
    "dead_after_ms": 1000,
    "max_message": 1000,
    "facts": FACTS,
}
ROSTER: dict[str, Any] = {"session": b"S" * 16, "number": 1, "members": [], "former": []}
ROW = {"address": "a"}


def changed(base: dict[str, Any], **fields: Any) -> bytes:
    return msgspec.msgpack.encode({**base, **fields})


def facts(**fields: Any) -> dict[str, Any]:
    return {"facts": {**FACTS, **fields}}


# Field by field: the last value that passes, the first that does not.
BOUNDS: list[tuple[type[Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (Request, REQUEST, {"versions": [0, 65535]}, {"versions": [0, 65536]}),
    (Request, REQUEST, {"versions": [0, 1]}, {"versions": [-1, 1]}),
    (Request, REQUEST, {"versions": [1, 1]}, {"versions": [1, 1, 1]}),
    (Request, REQUEST, {"incarnation": bytes(16)}, {"incarnation": bytes(15)}),
    (Request, REQUEST, {"incarnation": bytes(16)}, {"incarnation": bytes(17)}),
    (Request, REQUEST, {"role": 2}, {"role": 3}),
    (Request, REQUEST, {"role": 4}, {"role": 5}),
    (Request, REQUEST, {"dead_after_ms": 1}, {"dead_after_ms": 0}),
    (Request, REQUEST, {"dead_after_ms": 1 << 32}, {"dead_after_ms": (1 << 32) + 1}),
    (Request, REQUEST, {"max_message": 1}, {"max_message": 0}),
    (Request, REQUEST, {"max_message": 1 << 30}, {"max_message": (1 << 30) + 1}),
    (Request, REQUEST, {"data": bytes(MAX_CONNECT_DATA)}, {"data": bytes(MAX_CONNECT_DATA + 1)}),
    (Request, REQUEST, {"data": b"x"}, {"data": "x"}),
    (Request, REQUEST, {"name": "n" * 255}, {"name": "n" * 256}),
    (Request, REQUEST, {"critical": ["x"] * 64}, {"critical": ["x"] * 65}),
    (Request, REQUEST, facts(leaf=1), facts(leaf=0)),
    (Request, REQUEST, facts(leaf=(1 << 32) - 1), facts(leaf=1 << 32)),
    (Request, REQUEST, facts(role=1), facts(role=3)),
    (Request, REQUEST, facts(sequence=(1 << 63) - 1), facts(sequence=1 << 63)),
    (Request, REQUEST, {"qos": [[0] * 8] * 2}, {"qos": [[0] * 8, [0] * 7]}),
    (Request, REQUEST, {"qos": [[0] * 8] * 2}, {"qos": [[0] * 8, [0] * 7 + [1 << 32]]}),
    (Refusal, {"code": 1}, {"code": 65535}, {"code": 65536}),
    (Refusal, {"code": 1}, {"message": "m" * 1024}, {"message": "m" * 1025}),
    (Leave, {"reason": "x"}, {"reason": "r" * 255}, {"reason": "r" * 256}),
    (Name, {"leaf": 0, "host": "h", "port": 0}, {"port": 65535}, {"port": 65536}),
    (Name, {"leaf": 0, "host": "h", "port": 0}, {"host": "h" * 255}, {"host": "h" * 256}),
    (Roster, ROSTER, {"members": [ROW] * 10_000}, {"members": [ROW] * 10_001}),
    (Roster, ROSTER, {"former": [ROW] * 1000}, {"former": [ROW] * 1001}),
]


@pytest.mark.parametrize(("kind", "base", "last", "beyond"), BOUNDS)
def test_each_field_has_a_bound(
    kind: type[Any], base: dict[str, Any], last: dict[str, Any], beyond: dict[str, Any]
) -> None:
    decode(kind, changed(base, **last))
    with pytest.raises(RemoteProtocolError, match=kind.__name__):
        decode(kind, changed(base, **beyond))


def test_a_field_that_is_needed_and_missing_is_refused() -> None:
    for missing in set(REQUEST) - {"facts"}:
        rest = {name: value for name, value in REQUEST.items() if name != missing}
        with pytest.raises(RemoteProtocolError, match=missing):
            decode(Request, msgspec.msgpack.encode(rest))


def test_unknown_fields_are_ignored_and_the_critical_among_them_named() -> None:
    request = decode(Request, changed(REQUEST, colour=1, critical=["colour", "qos", "size"]))
    assert unknown_critical(request) == ["colour", "size"]
    assert unknown_critical(Answer(1, bytes(16), 1, 1)) == []


@pytest.mark.parametrize("tail", [b"\x00", b"\xc0", b"{}"])
def test_bytes_behind_a_body_are_refused(tail: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(Leave, encode(Leave("closed")) + tail)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode(Leave, b"\x81\xa6reason\xa2\xff\xfe")


def test_nesting_without_end_is_refused() -> None:
    for byte in (b"\x91", b"\x81\xa1a"):
        with pytest.raises(RemoteProtocolError):
            decode(Request, b"\x81\xa1a" + byte * 50_000)


def test_flow_specifications_come_back_and_their_rules_are_kept() -> None:
    qos = Qos(FlowSpec(token_rate=1000, peak_bandwidth=2000), FlowSpec(latency=5), b"opaque")
    body = QosBody.of(qos)
    assert body is not None
    assert decode(QosBody, encode(body)).qos() == qos
    assert QosBody.of(None) is None
    peak_below_rate = QosBody((9, 0, 1, 0, 0, 0, 0, 0), body.receiving)
    with pytest.raises(RemoteProtocolError, match="peak_bandwidth"):
        peak_below_rate.qos()


def test_values_come_out_as_they_went_in() -> None:
    session = SessionFacts(b"S" * 16, 3, True, False, JoinRole.SENDER_ONLY, 99)
    request = Request((1, 2), b"I" * 16, JoinRole.RECEIVER_ONLY, 5, 6, facts=session)
    assert decode(Request, encode(request)) == request
    assert decode(Name, encode(Name(1, "h", 2))).address() == Address("h", 2)
    roster = Roster(b"S" * 16, 4, [RosterRow("a", role=1)], [RosterRow("b", left="closed")])
    assert decode(Roster, encode(roster)) == roster
