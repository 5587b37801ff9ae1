"""``receive_object`` against a root that is a script, and against ``send_object`` in threads."""

from __future__ import annotations

import hashlib
import io
import queue
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from joinleaf.errors import (
    RemoteProtocolError,
    SessionBrokenError,
    SessionClosedError,
    SessionTimeoutError,
    TransferError,
)
from joinleaf.transfer import (
    LeafState,
    ReceiveProgress,
    ReceiveResult,
    receive_object,
    send_object,
    wire,
)
from joinleaf.transfer.channel import Buffer
from joinleaf.transfer.digests import new_digests
from joinleaf.transfer.manifest import Entry, Manifest, object_digest
from joinleaf.values import Address

ID = bytes(range(16))
ROOT = Address("10.0.0.1", 1)
DATA = b"0123456789" * 100
DIGESTS = new_digests("sha256")


@dataclass(frozen=True)
class Batch:
    messages: Sequence[bytes]
    sender: Address = ROOT


class Script:
    """A root that says what is written down, one batch a call; then ``end`` is raised."""

    def __init__(self, *batches: Sequence[bytes], end: type[Exception] = SessionClosedError):
        self.batches = list(batches)
        self.end = end
        self.said: list[wire.Message] = []
        self.now_ns = 0

    def clock(self) -> int:
        return self.now_ns

    def send_many(self, messages: Sequence[Buffer], *, timeout: float | None = None) -> None:
        self.said.extend(wire.decode(bytes(message)) for message in messages)

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        self.now_ns += int((timeout or 0) * 1e9) + 1
        if not self.batches:
            raise self.end
        return Batch(self.batches.pop(0))


def chunk(offset: int, payload: bytes, *, index: int = 0, object_id: bytes = ID) -> bytes:
    buffer = bytearray(wire.CHUNK_HEADER.size)
    wire.put_chunk_header(buffer, 0, object_id, index, offset)
    return bytes(buffer) + payload


def offer(name: str = "x", size: int = len(DATA)) -> list[bytes]:
    return list(Manifest("file", name, (Entry(name, size=size),)).messages(ID, DIGESTS))


def ends(digest: bytes, size: int = len(DATA)) -> bytes:
    return wire.encode(wire.Ends(ID, [wire.End(0, size, digest)]))


GOOD = hashlib.sha256(DATA).digest()
RELEASE = wire.encode(wire.Release(ID, True))


def test_a_file_is_received_and_the_report_carries_the_digest(tmp_path: Path) -> None:
    root = Script(offer(), [chunk(0, DATA), ends(GOOD)], [RELEASE, b"of the next object"])
    result = receive_object(root, tmp_path, clock=root.clock)
    assert result.ok
    assert result.acknowledged
    assert result.sha256 == GOOD.hex()
    assert result.leftover == (b"of the next object",)
    assert (tmp_path / "x").read_bytes() == DATA
    report = root.said[-1]
    assert isinstance(report, wire.Report)
    assert report.digest == object_digest([GOOD])
    assert result.as_dict()["state"] == "verified"
    assert result.as_dict()["digest_kind"] == "sha256"


def test_a_gmac_of_other_bytes_or_of_another_run_is_found_out(tmp_path: Path) -> None:
    ours, other = new_digests("gmac"), new_digests("gmac")
    offered = list(Manifest("file", "x", (Entry("x", size=len(DATA)),)).messages(ID, ours))
    for number, (wrong, sent) in enumerate(
        [
            (other.whole(0, DATA), DATA),
            (ours.whole(0, DATA), DATA[::-1]),
            (ours.whole(1, DATA), DATA),
        ]
    ):
        twice = [chunk(0, sent), ends(wrong), chunk(0, sent)]
        folder = tmp_path / str(number)
        root = Script(offered, twice)
        result = receive_object(root, folder, clock=root.clock)
        assert not result.ok
        assert "digest differs" in result.failures[0].reason
        assert not (folder / "x").exists()
        assert sum(isinstance(said, wire.Missing) for said in root.said) == 1
    right = Script(offered, [chunk(0, DATA[:7]), chunk(7, DATA[7:]), ends(ours.whole(0, DATA))])
    result = receive_object(right, tmp_path / "right", clock=right.clock)
    assert result.ok
    assert (result.digest_kind, result.sha256) == ("gmac", "")


@pytest.mark.parametrize(
    ("version", "digest", "key", "complaint"),
    [
        (wire.VERSION + 1, "gmac", bytes(32), "upgrade"),
        (wire.VERSION, "blake9", b"", "'blake9' is not known here"),
        (wire.VERSION, "gmac", bytes(31), "a key of 31 bytes"),
        (wire.VERSION, "sha256", b"?", "a key of 1 bytes"),
    ],
)
def test_an_offer_from_a_later_release_is_refused_in_words(
    tmp_path: Path, version: int, digest: str, key: bytes, complaint: str
) -> None:
    root = Script([wire.encode(wire.Offer(ID, "file", "x", 1, version, digest, key))])
    result = receive_object(root, tmp_path, clock=root.clock)
    assert not result.ok
    assert complaint in result.reason
    report = root.said[-1]
    assert isinstance(report, wire.Report)
    assert complaint in report.reason


def test_an_offer_that_says_nothing_of_digests_means_sha256(tmp_path: Path) -> None:
    first, *pages = offer()
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(first)[:5])
    assert len(old) < len(first)
    root = Script([old, *pages], [chunk(0, DATA), ends(GOOD)], [RELEASE])
    result = receive_object(root, tmp_path, clock=root.clock)
    assert (result.ok, result.digest_kind) == (True, "sha256")


def test_a_digest_of_another_length_breaks_the_protocol(tmp_path: Path) -> None:
    root = Script(offer(), [chunk(0, DATA), ends(GOOD[:16])])
    with pytest.raises(RemoteProtocolError, match="no sha256 has 16 bytes"):
        receive_object(root, tmp_path, clock=root.clock)


def test_without_a_release_the_file_is_there_all_the_same(tmp_path: Path) -> None:
    root = Script(offer(), [chunk(0, DATA), ends(GOOD)])
    result = receive_object(root, tmp_path, clock=root.clock)
    assert result.ok
    assert not result.acknowledged


def test_a_backlog_comes_before_what_the_channel_has(tmp_path: Path) -> None:
    root = Script([chunk(0, DATA), ends(GOOD)], [RELEASE])
    assert receive_object(root, tmp_path, backlog=offer(), clock=root.clock).ok


def test_no_offer_within_the_timeout_is_a_timeout(tmp_path: Path) -> None:
    root = Script(end=SessionTimeoutError)
    with pytest.raises(SessionTimeoutError, match="no object was offered within 3 s"):
        receive_object(root, tmp_path, timeout=3, clock=root.clock)
    assert 3e9 <= root.now_ns < 4e9


@pytest.mark.parametrize("end", [SessionClosedError, SessionBrokenError])
def test_a_session_that_ends_leaves_what_is_needed_to_resume(
    tmp_path: Path, end: type[Exception]
) -> None:
    first = Script(offer(), [chunk(0, DATA[:300])], end=end)
    with pytest.raises(end):
        receive_object(first, tmp_path, clock=first.clock)
    assert not (tmp_path / "x").exists()
    second = Script(offer(), [chunk(300, DATA[300:]), ends(GOOD)], [RELEASE])
    result = receive_object(second, tmp_path, clock=second.clock)
    assert result.ok
    assert (result.bytes_resumed, result.bytes_received) == (300, 700)
    want = second.said[0]
    assert isinstance(want, wire.Want)
    assert [tuple(r) for r in want.have] == [(0, 300)]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", "nul\0"])
def test_a_hostile_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    root = Script(offer(name), [chunk(0, DATA), ends(GOOD)])
    with pytest.raises(RemoteProtocolError):
        receive_object(root, tmp_path / "in", clock=root.clock)
    assert [p.name for p in tmp_path.rglob("*")] == ["in"]
    report = root.said[-1]
    assert isinstance(report, wire.Report)
    assert report.reason.startswith("protocol error")


@pytest.mark.parametrize(
    "message",
    [
        chunk(1, DATA),
        chunk(0, b"x", index=1),
        ends(GOOD, size=5),
        wire.encode(wire.Ends(ID, [wire.End(7, 0, GOOD)])),
        wire.encode(wire.Status(ID, 0, 0, False)),
        RELEASE,
        b"garbage",
    ],
)
def test_a_root_that_breaks_the_protocol_is_told_and_left(tmp_path: Path, message: bytes) -> None:
    root = Script(offer(), [message])
    with pytest.raises(RemoteProtocolError):
        receive_object(root, tmp_path, clock=root.clock)
    assert isinstance(root.said[-1], wire.Report)
    assert not (tmp_path / "x").exists()


def test_messages_of_another_object_are_never_mixed_in(tmp_path: Path) -> None:
    stray = [chunk(0, b"?" * 1000, object_id=bytes(16)), wire.encode(wire.Abort(bytes(16), "no"))]
    root = Script(stray, offer(), stray, [chunk(0, DATA), *stray, ends(GOOD)], [RELEASE])
    assert receive_object(root, tmp_path, clock=root.clock).ok
    assert (tmp_path / "x").read_bytes() == DATA


def test_only_the_object_asked_for_is_taken(tmp_path: Path) -> None:
    other = list(Manifest("file", "other", (Entry("other"),)).messages(bytes(16), DIGESTS))
    root = Script(other, offer(), [chunk(0, DATA), ends(GOOD)], [RELEASE])
    assert receive_object(root, tmp_path, object_id=ID, clock=root.clock).name == "x"


def test_limits_fail_the_leaf_with_their_reason(tmp_path: Path) -> None:
    root = Script(offer(), end=SessionTimeoutError)
    result = receive_object(root, tmp_path, max_bytes=10, release_timeout=1, clock=root.clock)
    assert result.state is LeafState.FAILED
    assert "limit of 10 bytes" in result.reason
    with pytest.raises(TransferError, match="limit"):
        result.check()


def test_a_stream_beyond_the_limit_fails(tmp_path: Path) -> None:
    stream = list(Manifest("stream", "s", (Entry("s"),)).messages(ID, DIGESTS))
    root = Script(stream, [chunk(0, DATA)])
    result = receive_object(root, tmp_path, max_bytes=10, clock=root.clock)
    assert "limit of 10 bytes" in result.reason


def test_the_digest_decides_for_a_stream_destination_too() -> None:
    out = io.BytesIO()
    root = Script(offer(), [chunk(0, DATA), ends(bytes(32))])
    result = receive_object(root, out, clock=root.clock)
    assert result.state is LeafState.FAILED
    assert "digest differs" in result.failures[0].reason


def test_an_abort_by_the_root_is_a_failed_result_that_can_be_resumed(tmp_path: Path) -> None:
    root = Script(offer(), [chunk(0, DATA[:10]), wire.encode(wire.Abort(ID, "cancelled"))])
    result = receive_object(root, tmp_path, clock=root.clock)
    assert (result.state, result.reason) == (LeafState.FAILED, "cancelled")
    assert len(list(tmp_path.glob(".x.*"))) == 2


def test_cancel_tells_the_root_and_keeps_the_partial_file(tmp_path: Path) -> None:
    cancel = threading.Event()
    root = Script(offer(), [chunk(0, DATA[:10])], end=SessionTimeoutError)
    result = receive_object(
        root,
        tmp_path,
        cancel=cancel,
        on_progress=lambda picture: cancel.set() if picture.bytes_done else None,
        release_timeout=1,
        clock=lambda: root.now_ns * 1000,
    )
    assert result.reason == "cancelled at the leaf"
    report = root.said[-1]
    assert isinstance(report, wire.Report)
    assert report.reason == "cancelled at the leaf"
    assert len(list(tmp_path.glob(".x.*"))) == 2


def test_an_interrupt_keeps_what_is_needed_to_resume(tmp_path: Path) -> None:
    root = Script(offer(), [chunk(0, DATA[:300])], end=KeyboardInterrupt)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        receive_object(root, tmp_path, clock=root.clock)
    again = Script(offer(), [chunk(300, DATA[300:]), ends(GOOD)], [RELEASE])
    assert receive_object(again, tmp_path, clock=again.clock).bytes_resumed == 300


# Both sides, in threads, over queues.


@dataclass(frozen=True)
class Handle:
    key: int
    address: Address
    name: str
    incarnation: bytes = b""


class Queues:
    """A session over queues; each leaf runs in a thread of its own."""

    def __init__(self, count: int) -> None:
        self.leaves = [Handle(n, Address("10.0.0.2", n + 1), f"leaf{n}") for n in range(count)]
        self.down: list[queue.Queue[Sequence[bytes]]] = [queue.Queue(8) for _ in range(count)]
        self.up: queue.Queue[Batch] = queue.Queue()

    def send_many(
        self,
        messages: Sequence[Buffer],
        *,
        timeout: float | None = None,
        to: Collection[Handle] | None = None,
    ) -> None:
        copies = [bytes(message) for message in messages]
        for handle in self.leaves if to is None else to:
            self.down[handle.key].put(copies, timeout=30)

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        return take(self.up, timeout)

    def membership_events(self) -> Sequence[object]:
        return ()


@dataclass
class Leg:
    session: Queues
    handle: Handle

    def send_many(self, messages: Sequence[Buffer], *, timeout: float | None = None) -> None:
        copies = [bytes(message) for message in messages]
        self.session.up.put(Batch(copies, self.handle.address))

    def receive_many(self, *, timeout: float | None = None) -> Batch:
        return Batch(take(self.session.down[self.handle.key], timeout))


T = TypeVar("T")


def take(source: queue.Queue[T], timeout: float | None) -> T:
    try:
        return source.get(timeout=timeout) if timeout else source.get_nowait()
    except queue.Empty:
        raise SessionTimeoutError("nothing") from None


def run_leaf(
    session: Queues, handle: Handle, where: Path, into: dict[int, ReceiveResult]
) -> Callable[[], None]:
    def body() -> None:
        pictures: list[ReceiveProgress] = []
        result = receive_object(
            Leg(session, handle), where, timeout=30, on_progress=pictures.append
        )
        assert pictures[-1].as_dict()["state"] == "verified"
        into[handle.key] = result

    return body


def test_root_and_leaves_in_threads_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(hashlib.shake_256(b"x").digest(3_000_001))
    session = Queues(3)
    results: dict[int, ReceiveResult] = {}
    threads = [
        threading.Thread(target=run_leaf(session, h, tmp_path / h.name, results))
        for h in session.leaves
    ]
    for thread in threads:
        thread.start()
    result = send_object(session, path, leaves=3, max_wait=30, chunk_size=65536, rate=50e6)  # type: ignore[arg-type]
    for thread in threads:
        thread.join(30)
    assert result.ok
    assert all(results[n].ok and results[n].acknowledged for n in range(3))
    assert {results[n].sha256 for n in range(3)} == {result.sha256}
