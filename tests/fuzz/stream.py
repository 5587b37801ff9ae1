"""The multicast stream's receiver and the bodies around it, fed anything."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Final

from joinleaf.core.keys.group import GroupKeys, LeafKeys
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.wire.frames import HEADER as FRAME
from joinleaf.core.wire.landing import LANDING_BYTES, Landing
from joinleaf.core.wire.reports import (
    Timing,
    decode_report,
    decode_start,
    decode_unit,
    decode_unit_repair,
    report_frame,
    start_frame,
    stop_frame,
    sync_body,
    unit_repair_frame,
)
from joinleaf.core.wire.units import (
    HEADER,
    PROBE,
    SYNC,
    UNIT_OVERHEAD,
    Layout,
    write_unit,
)
from joinleaf.errors import RemoteProtocolError

__all__ = ["TAG", "WINDOW", "authentic", "stream", "stream_bodies"]

TAG: Final = 0x5EED5EED
NONCE: Final = b"nonce-of-probes!"
SEGMENT: Final = 64
WINDOW: Final = 1 << 14
UNITS: Final = 6
STEP_NS: Final = 1_000_000


@lru_cache
def authentic(sealed: bool) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Payloads, the units they go out in, and the datagrams of a SYNC and a PROBE."""
    keys, layout = GroupKeys(bytes(32), TAG), Layout(SEGMENT)
    epoch = keys.epoch if sealed else 0
    payloads = [bytes([65 + number]) * (30 + 40 * number) for number in range(UNITS)]
    units = []
    for number, payload in enumerate(payloads):
        count = layout.count(len(payload) + keys.overhead * sealed)
        body = keys.seal(number, count, payload) if sealed else payload
        units.append(write_unit(layout, TAG, epoch, number, body))
    others = []
    for kind, body in ((SYNC, sync_body(Timing(0, 0, 10_000, 1))), (PROBE, NONCE)):
        sealed_body = keys.seal_control(kind, 7, UNITS, body) if sealed else body
        others.append(HEADER.pack(TAG, kind, epoch, 255, 7, UNITS) + sealed_body)
    return payloads, units, others


def stream(data: bytes) -> None:
    """What comes from the group never raises, what comes from a leg at most RemoteProtocolError.

    Memory keeps to its bound, reports can be read, and of a sealed stream only authentic units are
    delivered, each once, in order. The first byte says whether it is sealed and has started; then
    come operations: a byte, two bytes of length, and so many bytes.
    """
    if not data:
        return
    sealed = bool(data[0] & 1)
    payloads = authentic(sealed)[0]
    keys = LeafKeys(GroupKeys(bytes(32), TAG).fact(), TAG) if sealed else None
    receiver = StreamReceiver(tag=TAG, window_bytes=WINDOW, opener=keys, probe=NONCE)
    if data[0] & 2:
        receiver.start(0)
    delivered: list[bytes] = []
    at, now_ns = 1, STEP_NS
    while at + 3 <= len(data):
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")
        body = bytearray(data[at + 3 : end])
        try:
            operate(receiver, data[at], body, now_ns)
        except RemoteProtocolError:
            break
        delivered += [unit for unit in receiver.take() if isinstance(unit, bytes)]
        check(receiver, now_ns)
        at, now_ns = end, now_ns + STEP_NS * (1 + data[at] // 16)
    if sealed:
        numbers = [payloads.index(payload) for payload in delivered]
        assert numbers == sorted(set(numbers))


def operate(receiver: StreamReceiver, operation: int, body: bytearray, now_ns: int) -> None:
    view = memoryview(body)
    match operation % 8:
        case 0:
            receiver.handle_unit_repair(view, now_ns)
        case 1:
            receiver.start(*decode_start(view))
        case 2:
            receiver.skip(decode_unit(view))
        case 3:
            receiver.stop(decode_unit(view))
        case 4:
            receiver.tick(now_ns)
        case _:
            segment = SEGMENT if operation & 8 else operation if operation & 16 else len(view)
            if operation & 32 and body:
                landing = Landing()
                landing.size, landing.segment = min(len(body), LANDING_BYTES), segment or 1
                landing.view[: landing.size] = view[: landing.size]
                receiver.handle_landing(landing, now_ns)
            else:
                receiver.handle_train(view, segment, now_ns)


def check(receiver: StreamReceiver, now_ns: int) -> None:
    held = sum(partial.size + UNIT_OVERHEAD for partial in receiver._held.values())
    assert held == receiver._held_bytes
    assert held <= WINDOW + (1 << 16) + UNIT_OVERHEAD  # the next unit is always taken
    due = receiver.next_deadline_ns()
    frame = receiver.poll_report(now_ns if due is None else max(now_ns, due))
    if frame is not None:
        decode_report(memoryview(frame)[FRAME.size :])


def stream_bodies(data: bytes) -> None:
    """A body or RemoteProtocolError; what is read is written as it was."""
    body = memoryview(data)
    with suppress(RemoteProtocolError):
        report = decode_report(body)
        assert report_frame(report)[FRAME.size :] == body
    with suppress(RemoteProtocolError):
        assert start_frame(*decode_start(body))[FRAME.size :] == body
    with suppress(RemoteProtocolError):
        assert stop_frame(decode_unit(body))[FRAME.size :] == body
    with suppress(RemoteProtocolError):
        repair = decode_unit_repair(body)
        again = unit_repair_frame(*repair[:5], bytes(repair.payload))
        assert again[FRAME.size :] == body
