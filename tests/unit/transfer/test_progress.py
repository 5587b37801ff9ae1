from __future__ import annotations

import json

import pytest

from joinleaf.errors import TransferError
from joinleaf.transfer.progress import (
    FileFailure,
    LeafProgress,
    LeafState,
    RateMeter,
    ReceiveProgress,
    ReceiveResult,
    SendProgress,
    TransferResult,
)

GOOD = LeafProgress("a", "10.0.0.1:1", LeafState.VERIFIED)
GONE = LeafProgress("b", "10.0.0.2:1", LeafState.GONE, "lost", eta=1.25, bytes_total=9)


def verdict(
    *leaves: LeafProgress, absent: int = 0, failures: tuple[FileFailure, ...] = ()
) -> TransferResult:
    return TransferResult(
        bytes(16), "x", "file", 1, b"", "", leaves, failures=failures, absent=absent
    )


def test_all_is_well_only_if_every_leaf_has_everything() -> None:
    assert verdict(GOOD).ok
    verdict(GOOD).check()
    for bad in (
        verdict(),
        verdict(GOOD, GONE),
        verdict(GOOD, absent=1),
        verdict(GOOD, failures=(FileFailure("x", "unreadable"),)),
    ):
        assert not bad.ok
        with pytest.raises(TransferError):
            bad.check()


def test_the_error_names_who_lacks_it_and_why() -> None:
    with pytest.raises(TransferError, match=r"1 of 2 leaves have 'x'; b: gone, lost"):
        verdict(GOOD, GONE).check()


def test_every_picture_goes_into_json() -> None:
    pictures: list[TransferResult | SendProgress | ReceiveProgress | ReceiveResult] = [
        verdict(GOOD, GONE, failures=(FileFailure("x", "why"),)),
        SendProgress(bytes(16), "x", "sending", 1, None, 2.5, 3, (GOOD, GONE)),
        ReceiveProgress("x", LeafState.RECEIVING, 1, 2, 3.0, None),
        ReceiveResult(bytes(16), "x", "file", LeafState.VERIFIED, leftover=(b"\xff",)),
    ]
    for picture in pictures:
        assert json.loads(json.dumps(picture.as_dict())) == picture.as_dict()


def test_the_rate_follows_what_is_counted_and_is_smooth() -> None:
    meter = RateMeter(0, 0)
    assert meter.update(10, 1_000_000) == 0  # too short a step to say anything
    assert meter.update(1000, 1_000_000_000) == 1000
    assert 1000 < meter.update(4000, 2_000_000_000) < 3000
    for second in range(3, 30):
        rate = meter.update(4000, second * 1_000_000_000)
    assert rate < 1
