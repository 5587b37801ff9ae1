"""Sealed datagrams: what is sealed opens once; what anybody changes, replays or moves does not."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from joinleaf.core.keys.replay import REPLAY_WINDOW
from joinleaf.core.wire import sealed
from joinleaf.core.wire.sealed import (
    FRESH_S,
    OVERHEAD,
    SENDER_BYTES,
    DatagramOpener,
    DatagramSealer,
    SharedKey,
)

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
MASTER = bytes(range(32))


def ids(seed: int = 0) -> Callable[[], bytes]:
    generator = random.Random(seed)
    return lambda: generator.randbytes(SENDER_BYTES)


def shared(session: bytes = b"udp 239.1.2.3 5000 ") -> SharedKey:
    return SharedKey(MASTER, session)


def sender(seed: int = 0, now_ns: int = NOW) -> DatagramSealer:
    made = DatagramSealer(shared(), ids(seed))
    made.begin(now_ns)
    return made


def refusals(opener: DatagramOpener) -> dict[str, int]:
    names = ("plain", "other_key", "forged", "replayed", "stale", "crowded")
    return {name: count for name in names if (count := getattr(opener, name))}


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_what_is_sealed_opens(messages: list[bytes]) -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    datagrams = [sealer.seal(message) for message in messages]
    assert [len(datagram) - OVERHEAD for datagram in datagrams] == [len(m) for m in messages]
    assert opener.open_run(datagrams, NOW) == messages
    assert opener.opened == len(messages)
    assert refusals(opener) == {}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_sealed(kind: Callable[[bytes], bytes]) -> None:
    assert DatagramOpener(shared()).open_run([sender().seal(kind(b"abc"))], NOW) == [b"abc"]


@given(st.binary(max_size=40), st.booleans(), st.data())
def test_any_flipped_bit_anywhere_is_refused(
    message: bytes, is_known: bool, data: st.DataObject
) -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    if is_known:
        assert opener.open_run([sealer.seal(b"first")], NOW) == [b"first"]
    datagram = bytearray(sealer.seal(message))
    datagram[data.draw(st.integers(0, len(datagram) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert opener.open_run([bytes(datagram)], NOW) == []
    assert sum(refusals(opener).values()) == 1


@given(st.data())
def test_what_is_cut_lengthened_or_spliced_is_refused(data: st.DataObject) -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    one, other = sealer.seal(b"one message"), sealer.seal(b"another one")
    cut = data.draw(st.integers(0, len(one) - 1))
    assert opener.open_run([one[:cut]], NOW) == []
    assert opener.open_run([one + b"\0"], NOW) == []
    at = data.draw(st.integers(36, len(one) - 1))  # both have one header but for the counter
    spliced = one[:at] + other[at:]
    assert opener.open_run([spliced], NOW) == []
    assert opener.open_run([one, other], NOW) == [b"one message", b"another one"]


@given(st.binary(max_size=3 * OVERHEAD))
def test_any_bytes_are_refused_without_an_error(junk: bytes) -> None:
    opener, key = DatagramOpener(shared()), shared()
    known = key.prefix + junk
    assert opener.open_run([junk, known], NOW) == []
    assert sum(refusals(opener).values()) == 2
    assert not opener._senders


@pytest.mark.patches
def test_strangers_are_told_apart_and_cost_no_key() -> None:
    opener = DatagramOpener(shared())
    other_session = DatagramSealer(shared(b"udp 239.1.2.3 5001 "), ids())
    other_key = DatagramSealer(SharedKey(bytes(32), b"udp 239.1.2.3 5000 "), ids())
    for sealer in (other_session, other_key):
        sealer.begin(NOW)
    opener._key = None  # type: ignore[assignment]  # whoever asks for a cipher fails
    datagrams = [b"plain", b"", b"JLS", other_session.seal(b"x"), other_key.seal(b"x")]
    assert opener.open_run(datagrams, NOW) == []
    assert refusals(opener) == {"plain": 2, "other_key": 3}


def test_a_datagram_is_taken_once() -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    datagrams = [sealer.seal(b"%d" % number) for number in range(50)]
    assert len(opener.open_run(datagrams, NOW)) == 50
    assert opener.open_run(datagrams, NOW) == []
    assert refusals(opener) == {"replayed": 50}


def test_reordering_within_the_window_loses_nothing() -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    opener.open_run([sealer.seal(b"first")], NOW)
    datagrams = [sealer.seal(b"%d" % number) for number in range(REPLAY_WINDOW)]
    random.Random(3).shuffle(datagrams)
    assert len(opener.open_run(datagrams, NOW)) == REPLAY_WINDOW
    assert refusals(opener) == {}


def test_nothing_of_before_a_senders_first_datagram_is_taken() -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    recorded = [sealer.seal(b"before") for _ in range(5)]
    assert opener.open_run([sealer.seal(b"first heard")], NOW) == [b"first heard"]
    assert opener.open_run(recorded, NOW) == []
    assert refusals(opener) == {"replayed": 5}


@pytest.mark.parametrize("late_s", [FRESH_S + 1, -FRESH_S - 1, 86400, 1 << 30, -(1 << 30)])
def test_a_newcomer_has_to_be_fresh(late_s: int) -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    assert opener.open_run([sealer.seal(b"old")], NOW + late_s * SECOND) == []
    assert refusals(opener) == {"stale": 1}
    assert opener.last_stale_s == late_s


@pytest.mark.parametrize("late_s", [FRESH_S, 0, -FRESH_S])
def test_clocks_may_differ_a_little(late_s: int) -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    assert opener.open_run([sealer.seal(b"x")], NOW + late_s * SECOND) == [b"x"]


def test_a_receiver_that_starts_again_takes_nothing_older_than_fresh() -> None:
    sealer, datagrams = DatagramSealer(shared(), ids()), []
    for second in range(200):
        sealer.begin(NOW + second * SECOND)
        datagrams.append(sealer.seal(b"%d" % second))
    again = DatagramOpener(shared())
    taken = again.open_run(datagrams, NOW + 200 * SECOND)
    assert taken == [b"%d" % second for second in range(200 - FRESH_S, 200)]


def test_what_waited_long_for_a_slow_reader_is_taken_of_a_sender_it_knows() -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    assert opener.open_run([sealer.seal(b"hello")], NOW) == [b"hello"]
    waiting = [sealer.seal(b"waiting") for _ in range(3)]
    assert opener.open_run(waiting, NOW + 3600 * SECOND) == [b"waiting"] * 3


def test_what_was_held_back_is_refused_once_the_sender_has_gone_on() -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    opener.open_run([sealer.seal(b"first")], NOW)
    held_back = sealer.seal(b"held back")
    sealer.begin(NOW + (FRESH_S + 1) * SECOND)
    assert opener.open_run([sealer.seal(b"on")], NOW + 61 * SECOND) == [b"on"]
    assert opener.open_run([held_back], NOW + 61 * SECOND) == []
    assert refusals(opener) == {"stale": 1}


def test_a_sender_whose_clock_is_set_back_goes_on_as_another() -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    opener.open_run([sealer.seal(b"ahead")], NOW)
    sealer.begin(NOW - 50 * SECOND)
    assert opener.open_run([sealer.seal(b"set back")], NOW - 50 * SECOND) == [b"set back"]
    assert len(opener._senders) == 2


@pytest.mark.patches
def test_a_sender_that_has_sealed_much_goes_on_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "BYTES_PER_SENDER", 1000)
    sealer, opener, messages = sender(), DatagramOpener(shared()), 0
    for _ in range(10):
        sealer.begin(NOW)
        messages += len(opener.open_run([sealer.seal(bytes(200))], NOW))
    assert messages == 10
    assert len(opener._senders) == 3


def fill(opener: DatagramOpener, count: int, now_ns: int, first: int = 0) -> list[bytes]:
    datagrams = [sender(first + n, now_ns).seal(b"%d" % n) for n in range(count)]
    assert len(opener.open_run(datagrams, now_ns)) == count
    return datagrams


def test_the_table_of_senders_is_bounded_and_refuses_rather_than_forgets_who_is_fresh() -> None:
    opener = DatagramOpener(shared(), senders_kept=8)
    known = fill(opener, 8, NOW)
    assert opener.open_run([sender(99).seal(b"one too many")], NOW) == []
    assert opener.open_run(known, NOW) == []
    assert refusals(opener) == {"crowded": 1, "replayed": 8}
    assert len(opener._senders) == 8


def test_the_silent_make_room_and_cannot_be_replayed_afterwards() -> None:
    opener = DatagramOpener(shared(), senders_kept=8)
    known, later = fill(opener, 8, NOW), NOW + (FRESH_S + 1) * SECOND
    fill(opener, 8, later, first=100)
    assert len(opener._senders) == 8
    assert opener.open_run(known, later) == []
    assert opener.open_run(known, NOW) == []  # not even if this host's clock is set back
    assert refusals(opener) == {"stale": 16}


def test_forged_newcomers_neither_enter_the_table_nor_keep_others_out() -> None:
    opener, key = DatagramOpener(shared(), senders_kept=8), shared()
    seconds = (NOW // SECOND).to_bytes(4, "big")
    forged = [key.prefix + ids(n)() + seconds + bytes(8 + 16) for n in range(100)]
    assert opener.open_run(forged, NOW) == []
    assert not opener._senders
    assert refusals(opener) == {"forged": 100}
    fill(opener, 8, NOW)


def test_replays_of_a_known_sender_never_reach_the_cipher() -> None:
    sealer, opener = sender(), DatagramOpener(shared())
    datagram = sealer.seal(b"x")
    opener.open_run([datagram], NOW)
    (entry,) = opener._senders.values()
    entry.decrypt = None  # type: ignore[assignment]  # whoever calls it fails
    assert opener.open_run([datagram], NOW) == []


HISTORY = st.lists(
    st.one_of(
        st.tuples(st.just("seal"), st.integers(1, 3)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("clock"), st.integers(-100, 100)),
        st.tuples(st.just("process"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=80)
@given(HISTORY)
def test_no_nonce_repeats_under_one_key_in_any_history(history: list[tuple[str, int]]) -> None:
    uses: list[tuple[bytes, bytes]] = []

    class Recorder:
        def __init__(self, key: bytes) -> None:
            self._key = key

        def encrypt(self, nonce: bytes, message: bytes, _header: bytes) -> bytes:
            uses.append((self._key, nonce))
            return message + bytes(16)

    seeds, now_ns, count = itertools.count(), NOW, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed, "AESGCM", Recorder)
        sealer = sender(next(seeds))
        for name, amount in history:
            if name == "process":  # the program starts again, and counts anew
                sealer = sender(next(seeds), now_ns)
            elif name == "restart":
                sealer.restart()
            elif name == "clock":
                now_ns += amount * SECOND
                sealer.begin(now_ns)
            else:
                for _ in range(amount):
                    sealer.seal(b"")
                count += amount
    assert len(uses) == count
    assert len(set(uses)) == count


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=120), st.integers(0, 9))
def test_whatever_an_attacker_replays_no_message_is_delivered_twice(
    script: list[tuple[int, int]], restart_at: int
) -> None:
    """Senders seal, time passes, and any recorded datagram is shown at any later time."""
    opener = DatagramOpener(shared(), senders_kept=3)
    now_ns, recorded, delivered = NOW, list[bytes](), list[bytes]()
    sealers = [DatagramSealer(shared(), ids(n)) for n in range(5)]
    for step, (pick, who) in enumerate(script):
        now_ns += pick * SECOND
        if who < 5:
            sealers[who].begin(now_ns)
            if step == restart_at:
                sealers[who].restart()
            recorded.append(sealers[who].seal(b"%d" % step))
            delivered += opener.open_run(recorded[-1:], now_ns)
        if recorded:
            delivered += opener.open_run([recorded[pick % len(recorded)]], now_ns)
            delivered += opener.open_run(recorded[:: pick + 1], now_ns)
    assert len(set(delivered)) == len(delivered)


def test_times_go_round_after_136_years() -> None:
    end = (1 << 32) * SECOND
    sealer, opener = sender(0, end - SECOND), DatagramOpener(shared())
    assert opener.open_run([sealer.seal(b"before")], end - SECOND) == [b"before"]
    sealer.begin(end + SECOND)
    assert opener.open_run([sealer.seal(b"after")], end + SECOND) == [b"after"]
    assert DatagramOpener(shared()).open_run([sealer.seal(b"new")], end - 3 * SECOND) == [b"new"]


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="fresh_s"):
        DatagramOpener(shared(), fresh_s=0)
    with pytest.raises(ValueError, match="32 bytes"):
        SharedKey(b"short", b"")
    with pytest.raises(ValueError, match="16 bytes"):
        DatagramSealer(shared(), lambda: b"short")


def test_a_datagram_is_what_the_protocol_page_says() -> None:
    """Written once more from docs/reference/protocol.md, with nothing of ours."""

    def derived(key: bytes, info: bytes) -> bytes:
        return HKDFExpand(SHA256(), 32, b"joinleaf " + info).derive(key)

    session = derived(MASTER, b"sealed session\0udp 239.1.2.3 5000 ")
    name = ids()()
    stamp = struct.pack(">IQ", NOW // SECOND, 0)
    header = b"JLS\x01" + derived(session, b"hint\0")[:4] + name + stamp
    key = derived(session, b"sender\0" + name)
    assert sender().seal(b"abc") == header + AESGCM(key).encrypt(stamp, b"abc", header)
