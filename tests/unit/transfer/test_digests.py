"""Digests: the same at both ends whatever the pieces, and different for whatever differs."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.transfer.digests import DIGESTS, DigestKind, digests_of, new_digests


@given(
    kind=st.sampled_from(DIGESTS), data=st.binary(max_size=200), cuts=st.sets(st.integers(1, 99))
)
def test_a_file_in_pieces_has_the_digest_of_the_whole(
    kind: DigestKind, data: bytes, cuts: set[int]
) -> None:
    root = new_digests(kind)
    leaf = digests_of(root.kind, root.key)
    running, begin = leaf.begin(7), 0
    for cut in [*sorted(cuts), len(data)]:
        running.update(memoryview(data)[begin:cut])
        begin = max(begin, cut)
    assert running.digest() == root.whole(7, data)
    assert len(root.whole(7, data)) == root.size


def test_gmac_is_that_of_aes_gcm_with_the_file_as_additional_data() -> None:
    digests = new_digests("gmac")
    expected = AESGCM(digests.key).encrypt((3).to_bytes(12, "big"), b"", b"data")
    assert digests.whole(3, bytearray(b"data")) == expected
    assert digests.begin(0).digest() == AESGCM(digests.key).encrypt(bytes(12), b"", None)


def test_a_gmac_tells_files_runs_and_every_bit_apart() -> None:
    digests = new_digests("gmac")
    data = bytes(range(64))
    seen = {digests.whole(0, data), digests.whole(1, data), new_digests("gmac").whole(0, data)}
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        seen.add(digests.whole(0, flipped))
    seen |= {digests.whole(0, data[:-1]), digests.whole(0, data + b"\0")}
    assert len(seen) == 3 + 8 * len(data) + 2


def test_sha256_is_what_sha256sum_prints() -> None:
    digests = new_digests("sha256")
    assert digests.key == b""
    assert digests.whole(9, b"data") == hashlib.sha256(b"data").digest()


@pytest.mark.parametrize(
    ("kind", "key"), [("gmac", b""), ("gmac", bytes(16)), ("sha256", bytes(32)), ("md5", b"")]
)
def test_what_is_no_digest_is_refused(kind: str, key: bytes) -> None:
    with pytest.raises(ValueError, match=r"not known here|is none for"):
        digests_of(kind, key)
