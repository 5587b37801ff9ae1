"""How far everybody is, and how it ended: values for tables, JSON lines and exit codes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from joinleaf.errors import TransferError

__all__ = [
    "FileFailure",
    "LeafProgress",
    "LeafState",
    "RateMeter",
    "ReceiveProgress",
    "ReceiveResult",
    "SendProgress",
    "TransferResult",
]


class LeafState(enum.StrEnum):
    """Where one leaf is. The last three are final."""

    WAITING = "waiting"  # joined; has not said yet what it wants
    RECEIVING = "receiving"
    VERIFYING = "verifying"  # has all bytes, compares digests
    VERIFIED = "verified"  # has everything; its digest equals the root's
    FAILED = "failed"
    GONE = "gone"  # left or vanished before its report

    @property
    def final(self) -> bool:
        """Whether nothing more is expected of the leaf."""
        return self in (LeafState.VERIFIED, LeafState.FAILED, LeafState.GONE)


@dataclass(frozen=True, slots=True)
class FileFailure:
    """One file that did not make it.

    Attributes:
        path: As offered, with forward slashes.
        reason: One sentence.
    """

    path: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"path": self.path, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class LeafProgress:
    """One leaf, at one moment; at the end, its verdict.

    Attributes:
        name: What it calls itself.
        address: Where it is, as text.
        state: See ``LeafState``.
        reason: Why it failed or is gone, else ``""``.
        bytes_done: Bytes it has, what it had from an earlier run included.
        bytes_total: Bytes of the whole object; None while a stream goes on.
        bytes_sent: Payload bytes sent to it in this run.
        rate: Bytes per second lately; 0.0 when final.
        eta: Seconds to go at that rate; None if unknown.
        failures: Files that failed at this leaf, the first hundred.
        returns: How often it was gone and came back.
        carrier: What served it when it was last looked at: ``"group"`` or ``"leg"``; ``""`` if
            the session cannot tell.
    """

    name: str
    address: str
    state: LeafState
    reason: str = ""
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_sent: int = 0
    rate: float = 0.0
    eta: float | None = None
    failures: tuple[FileFailure, ...] = ()
    returns: int = 0
    carrier: str = ""

    @property
    def ok(self) -> bool:
        """Whether this leaf has it."""
        return self.state is LeafState.VERIFIED

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "address": self.address,
            "state": str(self.state),
            "reason": self.reason,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "bytes_sent": self.bytes_sent,
            "rate": round(self.rate, 1),
            "eta": None if self.eta is None else round(self.eta, 1),
            "failures": [failure.as_dict() for failure in self.failures],
            "returns": self.returns,
            "carrier": self.carrier,
        }


@dataclass(frozen=True, slots=True)
class SendProgress:
    """The root's view at one moment.

    Attributes:
        object_id: Of what is being sent.
        name: Its name.
        phase: ``waiting`` (for leaves), ``sending``, ``lingering`` (for leaves to come back).
        bytes_read: How far the first pass over the source is.
        bytes_total: Bytes of the whole object; None while a stream goes on.
        rate: Payload bytes per second lately, each sent message counted once.
        expected: How many leaves the root waits for.
        leaves: Everyone seen so far, in order of appearance.
    """

    object_id: bytes
    name: str
    phase: str
    bytes_read: int
    bytes_total: int | None
    rate: float
    expected: int
    leaves: tuple[LeafProgress, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "object_id": self.object_id.hex(),
            "name": self.name,
            "phase": self.phase,
            "bytes_read": self.bytes_read,
            "bytes_total": self.bytes_total,
            "rate": round(self.rate, 1),
            "expected": self.expected,
            "leaves": [leaf.as_dict() for leaf in self.leaves],
        }


@dataclass(frozen=True, slots=True)
class TransferResult:
    """The verdict: for every leaf whether it has the object.

    Attributes:
        object_id: Of what was sent.
        name: Its name.
        kind: ``file``, ``folder`` or ``stream``.
        size: Bytes of the object, files that failed at the source included.
        digest: Object digest (``manifest.object_digest``) over the digests of its files.
        sha256: Of the file or stream, as ``sha256sum`` prints it, where ``digest_kind`` is
            ``sha256``; ``""`` for a folder.
        leaves: The verdict on each leaf; every state is final, unless cancelled.
        failures: Files that could not be read whole at the source.
        notices: What was left out of the object: symbolic links, devices, unreadable folders.
        absent: How many leaves were waited for that never came.
        cancelled: Whether it was cut short here.
        bytes_sent: Payload bytes sent, each message counted once however many received it.
        seconds: How long it took, from the end of the waiting.
        digest_kind: What each file was verified by: ``gmac`` or ``sha256``.
    """

    object_id: bytes
    name: str
    kind: str
    size: int
    digest: bytes
    sha256: str
    leaves: tuple[LeafProgress, ...]
    failures: tuple[FileFailure, ...] = ()
    notices: tuple[str, ...] = ()
    absent: int = 0
    cancelled: bool = False
    bytes_sent: int = 0
    seconds: float = 0.0
    digest_kind: str = ""

    @property
    def verified(self) -> int:
        """How many leaves have it."""
        return sum(leaf.ok for leaf in self.leaves)

    @property
    def ok(self) -> bool:
        """Whether every leaf waited for and every leaf seen has everything (at least one)."""
        return (
            self.verified == len(self.leaves) > 0
            and not self.failures
            and not self.absent
            and not self.cancelled
        )

    def check(self) -> None:
        """Raise unless all is well.

        Raises:
            TransferError: Somebody lacks something; the text says how many, who first, and why.
        """
        if self.ok:
            return
        bad = next((leaf for leaf in self.leaves if not leaf.ok), None)
        why = f"; {bad.name or bad.address}: {bad.state}, {bad.reason}" if bad else ""
        why += f"; {self.failures[0].path}: {self.failures[0].reason}" if self.failures else ""
        why += f"; {self.absent} never came" if self.absent else ""
        raise TransferError(
            f"{self.verified} of {len(self.leaves) + self.absent} leaves have {self.name!r}{why}",
            reason="cancelled" if self.cancelled else "incomplete",
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "object_id": self.object_id.hex(),
            "name": self.name,
            "kind": self.kind,
            "size": self.size,
            "digest": self.digest.hex(),
            "digest_kind": self.digest_kind,
            "sha256": self.sha256,
            "ok": self.ok,
            "verified": self.verified,
            "absent": self.absent,
            "cancelled": self.cancelled,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
            "leaves": [leaf.as_dict() for leaf in self.leaves],
            "failures": [failure.as_dict() for failure in self.failures],
            "notices": list(self.notices),
        }


@dataclass(frozen=True, slots=True)
class ReceiveProgress:
    """A leaf's own view at one moment; bytes, bytes per second, seconds."""

    name: str
    state: LeafState
    bytes_done: int
    bytes_total: int | None
    rate: float
    eta: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "state": str(self.state),
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "rate": round(self.rate, 1),
            "eta": None if self.eta is None else round(self.eta, 1),
        }


@dataclass(frozen=True, slots=True)
class ReceiveResult:
    """How it ended at this leaf.

    Attributes:
        object_id: Of what was received.
        name: Under which it was kept.
        kind: ``file``, ``folder`` or ``stream``.
        state: VERIFIED or FAILED.
        reason: Why it failed, else ``""``.
        bytes_total: Bytes of the object.
        bytes_received: Payload bytes that came in this run.
        bytes_resumed: Bytes that an earlier run had left here.
        files: How many files were verified.
        failures: Files that failed, at the source or here.
        sha256: Of the single file or stream, where ``digest_kind`` is ``sha256``; ``""`` for a
            folder.
        acknowledged: Whether the root confirmed that it has this leaf's report.
        seconds: From the offer to the end.
        leftover: Messages that came behind the object's last one; hand them to the next call.
        digest_kind: What each file was verified by: ``gmac`` or ``sha256``; ``""`` if none was.
    """

    object_id: bytes
    name: str
    kind: str
    state: LeafState
    reason: str = ""
    bytes_total: int = 0
    bytes_received: int = 0
    bytes_resumed: int = 0
    files: int = 0
    failures: tuple[FileFailure, ...] = ()
    sha256: str = ""
    acknowledged: bool = False
    seconds: float = 0.0
    leftover: tuple[bytes, ...] = field(default=(), repr=False)
    digest_kind: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything offered is here, digest for digest."""
        return self.state is LeafState.VERIFIED and not self.failures

    def check(self) -> None:
        """Raise unless all is well.

        Raises:
            TransferError: Something is missing; the text says what and why.
        """
        if not self.ok:
            first = self.failures[0] if self.failures else FileFailure(self.name, self.reason)
            text = self.reason or f"{first.path}: {first.reason}"
            raise TransferError(f"{self.name!r} did not arrive whole: {text}", reason="incomplete")

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ``leftover`` is left out."""
        return {
            "object_id": self.object_id.hex(),
            "name": self.name,
            "kind": self.kind,
            "state": str(self.state),
            "ok": self.ok,
            "reason": self.reason,
            "bytes_total": self.bytes_total,
            "bytes_received": self.bytes_received,
            "bytes_resumed": self.bytes_resumed,
            "files": self.files,
            "failures": [failure.as_dict() for failure in self.failures],
            "digest_kind": self.digest_kind,
            "sha256": self.sha256,
            "acknowledged": self.acknowledged,
            "seconds": round(self.seconds, 3),
        }


class RateMeter:
    """Bytes per second, smoothed over about two seconds, from a growing count."""

    __slots__ = ("_count", "_time_ns", "rate")

    _WINDOW_NS = 2_000_000_000
    _SHORTEST_NS = 100_000_000  # shorter steps are noise

    def __init__(self, count: int, now_ns: int) -> None:
        self._count, self._time_ns, self.rate = count, now_ns, 0.0

    def update(self, count: int, now_ns: int) -> float:
        """Tell the count reached by now; gives the rate."""
        step = now_ns - self._time_ns
        if step >= self._SHORTEST_NS:
            current = max(0, count - self._count) * 1e9 / step
            weight = min(1.0, step / self._WINDOW_NS) if self.rate else 1.0
            self.rate += (current - self.rate) * weight
            self._count, self._time_ns = count, now_ns
        return self.rate
