"""Group keys: what is sealed opens, nothing else does, and no nonce is ever used twice."""

from __future__ import annotations

import itertools
import random
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from joinleaf.core.keys import group
from joinleaf.core.keys.group import (
    EPOCHS_KEPT,
    KEY_BODY_BYTES,
    GroupKeys,
    KeyFact,
    LeafKeys,
    epoch_byte,
)
from joinleaf.core.reliability.seams import Opener, Sealer, SpoiledError
from joinleaf.errors import LocalProtocolError, RemoteProtocolError

TAG = 0x1234ABCD
SYNC, PROBE = 4, 5


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def pair() -> tuple[GroupKeys, LeafKeys]:
    root = GroupKeys(key(1), TAG)
    return root, LeafKeys(root.fact(), TAG)


def test_they_fit_the_seams_of_the_stream() -> None:
    sealer: Sealer
    opener: Opener
    sealer, opener = pair()
    assert opener.open(sealer.epoch, 0, 1, sealer.seal(0, 1, b"x")) == b"x"


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.integers(1, 64))
def test_what_is_sealed_opens(payload: bytes, unit: int, count: int) -> None:
    root, leaf = pair()
    sealed = root.seal(unit, count, payload)
    assert len(sealed) == len(payload) + root.overhead
    assert leaf.open(root.epoch, unit, count, memoryview(sealed)) == payload
    assert leaf.open(root.epoch, unit, count, bytearray(sealed)) == payload


@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_of_a_unit_is_refused(payload: bytes, data: st.DataObject) -> None:
    root, leaf = pair()
    sealed = bytearray(root.seal(7, 2, payload))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SpoiledError):
        leaf.open(root.epoch, 7, 2, sealed)


@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_of_a_control_body_is_refused(payload: bytes, data: st.DataObject) -> None:
    root, leaf = pair()
    sealed = bytearray(root.seal_control(SYNC, 3, 7, payload))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SpoiledError):
        leaf.open_control(SYNC, root.epoch, 3, 7, sealed)


@pytest.mark.parametrize("length", range(24))
def test_what_is_too_short_is_spoiled(length: int) -> None:
    root, leaf = pair()
    with pytest.raises(SpoiledError):
        leaf.open_control(SYNC, root.epoch, 3, 0, bytes(length))
    if length < root.overhead:
        with pytest.raises(SpoiledError):
            leaf.open(root.epoch, 0, 1, bytes(length))


def test_the_header_is_part_of_what_is_authenticated() -> None:
    root, leaf = pair()
    stranger = LeafKeys(root.fact(), TAG + 1)
    unit = root.seal(7, 2, b"payload")
    sync = root.seal_control(SYNC, 3, 7, b"body")
    attempts: list[Any] = [
        lambda: leaf.open(1, 8, 2, unit),
        lambda: leaf.open(1, 7, 3, unit),
        lambda: stranger.open(1, 7, 2, unit),
        lambda: leaf.open_control(PROBE, 1, 3, 7, sync),
        lambda: leaf.open_control(SYNC, 1, 3, 8, sync),
        lambda: leaf.open_control(SYNC, 1, 4, 7, sync),
        lambda: stranger.open_control(SYNC, 1, 3, 7, sync),
        lambda: leaf.open(1, 7, 2, sync),
        lambda: leaf.open_control(SYNC, 1, 3, 7, unit),
    ]
    for attempt in attempts:
        with pytest.raises(SpoiledError):
            attempt()
    assert leaf.open(1, 7, 2, unit) == b"payload"
    assert leaf.open_control(SYNC, 1, 3, 7, sync) == b"body"


def test_cleartext_is_never_taken_for_sealed() -> None:
    _, leaf = pair()
    with pytest.raises(SpoiledError, match="not sealed"):
        leaf.open(0, 0, 1, b"plain")
    with pytest.raises(SpoiledError, match="not sealed"):
        leaf.open_control(SYNC, 0, 3, 0, b"plain")


def test_many_syncs_of_one_unit_open_once_each() -> None:
    root, leaf = pair()
    bodies = [root.seal_control(SYNC, 3, 9, b"tail") for _ in range(5)]
    assert len(set(bodies)) == 5
    for body in bodies:
        assert leaf.open_control(SYNC, 1, 3, 9, body) == b"tail"
    for body in bodies:
        with pytest.raises(SpoiledError, match="seen before"):
            leaf.open_control(SYNC, 1, 3, 9, body)


def test_a_unit_is_never_sealed_twice() -> None:
    root, leaf = pair()
    sealed = root.seal(5, 1, b"first")
    for unit in (5, 4, 0):
        with pytest.raises(LocalProtocolError, match="twice"):
            root.seal(unit, 1, b"second")
    assert root.rotate(key(2)).from_unit == 6
    with pytest.raises(LocalProtocolError, match="twice"):
        root.seal(5, 1, b"under another key")
    assert leaf.open(1, 5, 1, sealed) == b"first"


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("seal"), st.integers(1, 3)),
        st.tuples(st.just("control"), st.integers(1, 3)),
        st.tuples(st.just("rotate"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=40,
)


class _Recorder:
    """Stands in for AESGCM and notes every (key, nonce) it is asked to seal with."""

    uses: list[tuple[bytes, bytes]]

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, nonce: bytes, data: bytes, _header: bytes) -> bytes:
        self.uses.append((self._key, nonce))
        return data + bytes(16)


@settings(max_examples=60)
@given(OPERATIONS)
def test_no_nonce_repeats_under_one_key_in_any_history(operations: list[tuple[str, int]]) -> None:
    keys, uses = itertools.count(1), list[tuple[bytes, bytes]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "AESGCM", _Recorder)
        patch.setattr(_Recorder, "uses", uses, raising=False)
        root, unit, sealed = GroupKeys(key(next(keys)), TAG), 0, 0
        for name, amount in operations:
            if name == "restart":  # a new root counts its units, controls and epochs anew
                root, unit = GroupKeys(key(next(keys)), TAG), 0
            elif name == "rotate":
                root.rotate(key(next(keys)))
            elif name == "control":
                for _ in range(amount):
                    root.seal_control(SYNC, 3, unit, b"")
                    sealed += 1
            else:
                root.seal(unit, 1, b"")
                unit += amount
                sealed += 1
    assert len(uses) == sealed
    assert len(set(uses)) == len(uses)


def test_a_member_that_lags_behind_rotations_loses_nothing() -> None:
    root, leaf = pair()
    sent, facts = [], []
    for unit in range(20):
        if unit % 5 == 0 and unit:
            facts.append(root.rotate(key(unit)))
        sent.append((root.epoch, unit, root.seal(unit, 1, b"%d" % unit)))
    early = [leaf.open(epoch, unit, 1, sealed) for epoch, unit, sealed in sent]
    assert early == [b"%d" % unit for unit in range(5)] + [None] * 15  # held, not lost
    for fact in facts:
        assert leaf.learn(fact)
        assert not leaf.learn(fact)
    late = [leaf.open(epoch, unit, 1, sealed) for epoch, unit, sealed in reversed(sent)]
    assert late == [b"%d" % unit for unit in reversed(range(20))]


def test_who_was_expelled_neither_reads_on_nor_forges_what_comes_after() -> None:
    root, leaf = pair()
    expelled = LeafKeys(root.fact(), TAG)
    forger = GroupKeys(root.fact().key, TAG)  # what a member could always make of the key
    assert expelled.open(1, 0, 1, root.seal(0, 1, b"before")) == b"before"
    leaf.learn(root.rotate(key(2)))
    secret = root.seal(1, 1, b"after")
    assert expelled.open(root.epoch, 1, 1, secret) is None
    with pytest.raises(SpoiledError):
        expelled.open(1, 1, 1, secret)
    with pytest.raises(SpoiledError, match="not of epoch"):
        leaf.open(1, 1, 1, forger.seal(1, 1, b"forged"))
    with pytest.raises(SpoiledError, match="ended"):
        leaf.open_control(SYNC, 1, 3, 99, forger.seal_control(SYNC, 3, 99, b""))
    assert leaf.open(root.epoch, 1, 1, secret) == b"after"


def test_a_new_epoch_takes_no_unit_of_before_it() -> None:
    root, leaf = pair()
    root.seal(9, 1, b"last of the first epoch")
    leaf.learn(root.rotate(key(2)))
    again = GroupKeys(key(2), TAG, epoch=2)
    with pytest.raises(SpoiledError, match="not of epoch"):
        leaf.open(2, 9, 1, again.seal(9, 1, b"early"))


def test_keys_that_are_told_backwards_are_refused() -> None:
    root, leaf = pair()
    first = root.fact()
    root.seal(9, 1, b"last of the first epoch")
    leaf.learn(root.rotate(key(2)))
    for fact in (first, KeyFact(3, key(3), 9)):
        with pytest.raises(RemoteProtocolError):
            leaf.learn(fact)
    assert leaf.open(root.epoch, 10, 1, root.seal(10, 1, b"on")) == b"on"


def test_kept_keys_are_bounded_and_an_epoch_long_gone_is_no_epoch_to_come() -> None:
    root, leaf = pair()
    for unit in range(1, 500):
        old = (root.epoch, root.seal(unit - 1, 1, b"old"))
        leaf.learn(root.rotate(key(unit)))
        assert len(leaf._epochs) <= EPOCHS_KEPT
        assert leaf.open(old[0], unit - 1, 1, old[1]) == b"old"
    for behind in range(EPOCHS_KEPT, 127):
        with pytest.raises(SpoiledError, match="long gone"):
            leaf.open(epoch_byte(root.fact().epoch - behind), 1, 1, bytes(16))
    for ahead in range(1, 128):
        assert leaf.open(epoch_byte(root.fact().epoch + ahead), 500, 1, bytes(16)) is None


def test_epochs_in_which_nothing_was_sent_take_no_place() -> None:
    root, leaf = pair()
    sealed = root.seal(0, 1, b"kept")
    for number in range(3 * EPOCHS_KEPT):
        leaf.learn(root.rotate(key(number)))
    assert leaf.open(1, 0, 1, sealed) == b"kept"


def test_keys_of_what_has_been_delivered_can_be_forgotten() -> None:
    root, leaf = pair()
    sealed = []
    for unit in range(4):
        sealed.append((root.epoch, root.seal(unit, 1, b"x")))
        leaf.learn(root.rotate(key(unit)))
    leaf.forget_before(2)
    for unit in (0, 1):
        with pytest.raises(SpoiledError):
            leaf.open(sealed[unit][0], unit, 1, sealed[unit][1])
    for unit in (2, 3):
        assert leaf.open(sealed[unit][0], unit, 1, sealed[unit][1]) == b"x"
    leaf.forget_before(1000)
    assert leaf.open(root.epoch, 4, 1, root.seal(4, 1, b"now")) == b"now"


def test_epochs_are_told_apart_in_a_byte_that_is_never_zero() -> None:
    assert [epoch_byte(n) for n in (1, 2, 254, 255, 256, 257)] == [1, 2, 254, 255, 1, 2]
    assert all(1 <= epoch_byte(n) <= 255 for n in range(1, 2000))


@pytest.mark.parametrize("counter", ["_units", "_bytes", "_controls"])
def test_a_key_is_due_for_rotation_well_before_it_is_worn_out(counter: str) -> None:
    root, _ = pair()
    limit = group.BYTES_PER_EPOCH if counter == "_bytes" else group.UNITS_PER_EPOCH
    setattr(root, counter, limit - 1)
    assert not root.due_for_rotation
    setattr(root, counter, limit)
    assert root.due_for_rotation
    root.seal(0, 1, b"still good")
    root.seal_control(SYNC, 3, 0, b"")
    setattr(root, counter, 2 * limit)
    with pytest.raises(LocalProtocolError, match="worn out"):
        root.seal_control(SYNC, 3, 0, b"") if counter == "_controls" else root.seal(1, 1, b"")
    root.rotate(key(2))
    assert not root.due_for_rotation
    root.seal(1, 1, b"")


def test_the_last_epoch_is_not_rotated() -> None:
    root = GroupKeys(key(1), TAG, epoch=0xFFFFFFFF)
    with pytest.raises(LocalProtocolError, match="used up"):
        root.rotate(key(2))
    assert len(root.seal(0, 1, b"goes on")) == 23


@given(st.integers(1, 2**32 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1))
def test_a_key_travels(epoch: int, secret: bytes, from_unit: int) -> None:
    fact = KeyFact(epoch, secret, from_unit)
    assert len(fact.body()) == KEY_BODY_BYTES
    assert KeyFact.parse(memoryview(fact.body())) == fact


@given(st.binary(max_size=2 * KEY_BODY_BYTES))
def test_any_bytes_are_a_key_or_refused(body: bytes) -> None:
    try:
        fact = KeyFact.parse(body)
    except RemoteProtocolError:
        return
    assert fact.body() == body


@pytest.mark.parametrize(
    "fields", [(0, bytes(32), 0), (1 << 32, bytes(32), 0), (1, bytes(31), 0), (1, bytes(32), -1)]
)
def test_fields_out_of_range_are_refused(fields: tuple[int, bytes, int]) -> None:
    with pytest.raises(ValueError, match=r"epoch|bytes|unit"):
        KeyFact(*fields)


def test_no_text_shows_a_key() -> None:
    root, leaf = pair()
    secret = root.fact().key
    for thing in (root, leaf, root.fact()):
        text = repr(thing) + str(thing)
        assert repr(secret)[2:10] not in text
        assert secret.hex()[:8] not in text
    with pytest.raises(RemoteProtocolError) as refused:
        KeyFact.parse(root.key_frame_body() + b"x")
    assert secret.hex()[:8] not in str(refused.value)
    assert repr(secret)[2:10] not in str(refused.value)


def test_every_member_could_have_sealed_what_the_root_seals() -> None:
    """What a group key does not prove; see docs/explanation/threat-model.md."""
    root, leaf = pair()
    member = KeyFact.parse(root.key_frame_body())  # what every leaf is told
    forged = GroupKeys(member.key, TAG, epoch=member.epoch).seal(0, 1, b"as if from the root")
    assert leaf.open(1, 0, 1, forged) == b"as if from the root"


def test_units_and_control_bodies_are_what_the_protocol_page_says() -> None:
    """Written once more from docs/reference/protocol.md, with nothing of ours."""

    def derived(info: bytes) -> AESGCM:
        return AESGCM(HKDFExpand(SHA256(), 32, b"joinleaf " + info).derive(key(1)))

    root = GroupKeys(key(1), TAG, epoch=300)
    unit = derived(b"group unit\0").encrypt(
        struct.pack(">IQ", 300, 7), b"abc", struct.pack(">IBBQ", TAG, 45, 2, 7)
    )
    assert root.seal(7, 2, b"abc") == unit
    root.seal_control(SYNC, 9, 8, b"")
    sync = derived(b"group control\0").encrypt(
        struct.pack(">IQ", 300, 1), b"abc", struct.pack(">IBBBQ", TAG, 45, SYNC, 9, 8)
    )
    assert root.seal_control(SYNC, 9, 8, b"abc") == struct.pack(">Q", 1) + sync
