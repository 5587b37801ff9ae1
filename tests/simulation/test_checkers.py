"""The checkers can fail: broken cores, and false stories told to the ledger, are caught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from joinleaf.core import root_session as core_session
from joinleaf.core.association import Association
from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.outbox import Outbox
from joinleaf.core.root import RootMachine, RootState
from joinleaf.core.root_session import RootSession
from joinleaf.spi.provider import Batch, Buffer, JoinRole, Settings
from joinleaf.testing import SimulationError, simulate
from joinleaf.testing.__main__ import main
from joinleaf.testing.checkers import Ledger, Member, SafetyError, make_message
from joinleaf.values import Address

SEEDS = range(60, 68)
SESSION, STRANGE = b"S" * 16, b"T" * 16
ROOT, LEAF = b"R" * 16, b"L" * 16


def failure_of(seeds: Sequence[int]) -> str:
    """What the first failing seed says."""
    for seed in seeds:
        try:
            simulate(seed)
        except SimulationError as error:
            return str(error)
    pytest.fail("a broken core went through unseen")


@pytest.mark.patches
def test_a_core_in_which_everybody_hears_everybody_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core_session, "hears", lambda listener, sender, *, rooted: True)
    text = failure_of(SEEDS)
    assert "heard leaf" in text
    assert "must not" in text


@pytest.mark.patches
def test_a_core_that_skips_a_frame_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [0]
    give = RootSession._give

    def forgetful(self: RootSession, *args: Any, **kwargs: Any) -> None:
        given[0] += 1
        if given[0] % 50:
            give(self, *args, **kwargs)

    monkeypatch.setattr(RootSession, "_give", forgetful)
    assert "protocol" in failure_of(SEEDS)


@pytest.mark.patches
def test_a_core_that_delivers_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    data = LeafSession._data

    def twice(self: LeafSession, *args: Any) -> None:
        data(self, *args)
        if len(self.out) % 7 == 1:
            self.out.append(self.out[-1])

    monkeypatch.setattr(LeafSession, "_data", twice)
    assert "is due" in failure_of(SEEDS)


@pytest.mark.patches
def test_a_core_that_forgets_its_last_messages_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RootSession, "_tell_missed", lambda self, leg: leg.missed.clear())
    text = failure_of(range(3, 40))
    assert "was told of" in text or "is due" in text or "protocol" in text


@pytest.mark.patches
def test_a_core_without_signs_of_life_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Association, "_beats", property(lambda self: False))
    assert "died of silence" in failure_of(SEEDS)


@pytest.mark.patches
def test_a_core_whose_slow_policy_sleeps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(self: RootSession, key: int, buffers: list[Buffer], size: int, *_: Any) -> None:
        self.legs[key].association.outbox.extend(buffers, size)
        self.dirty[key] = None

    monkeypatch.setattr(RootSession, "_give", endless)
    monkeypatch.setattr(RootSession, "over_limit", lambda self, keys: [])
    assert "allowed" in failure_of(range(100))


@pytest.mark.patches
def test_a_core_that_loses_its_place_in_the_outbox_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = Outbox.sent

    def one_more(self: Outbox, count: int) -> None:
        sent(self, count + 1 if count > 3000 and self.size > count + 1 else count)

    monkeypatch.setattr(Outbox, "sent", one_more)
    assert "protocol" in failure_of(SEEDS)


@pytest.mark.patches
def test_a_root_that_invites_while_it_invites_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = RootMachine.handle

    def lax(self: RootMachine, kind: Any, **kwargs: Any) -> Any:
        if self.state is RootState.JOINING and kind.name == "INVITE":
            return ()
        return handle(self, kind, **kwargs)

    monkeypatch.setattr(RootMachine, "handle", lax)
    assert "a second join was let through" in failure_of(range(100))


@pytest.mark.patches
def test_a_core_that_holds_an_invited_leaf_to_old_numbers_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the invitation said when it was written is out of date when the leaf has answered.
    become = LeafSession._become

    def literal(self: LeafSession, leg: Any, answer: Any) -> None:
        become(self, leg, answer)
        assert self.facts is not None
        leg.expected[0] = self.facts.sequence

    monkeypatch.setattr(LeafSession, "_become", literal)
    assert "protocol" in failure_of(SEEDS)


@pytest.mark.patches
def test_a_core_that_takes_who_is_admitted_for_dead_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Until the asker has read the answer it keeps to its own, perhaps slower, signs of life.
    monkeypatch.setattr(Association, "_bound_ns", lambda self: self.dead_after_ns)
    assert "died of silence" in failure_of((1008, 1024, 2083, 2406))


@pytest.mark.patches
def test_a_core_whose_clocks_stand_still_after_a_tick_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tick = RootSession.tick

    def last(self: RootSession, now_ns: int) -> None:
        tick(self, now_ns)
        self.touched.clear()

    monkeypatch.setattr(RootSession, "tick", last)
    assert "died of silence" in failure_of((61, 64, 66))


@pytest.mark.patches
def test_a_core_that_lets_a_second_data_root_in_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = LeafSession.__init__

    def presumptuous(self: LeafSession, settings: Settings, **kwargs: Any) -> None:
        begin(self, settings, **{**kwargs, "d_root": True})

    monkeypatch.setattr(LeafSession, "__init__", presumptuous)
    monkeypatch.setattr(RootSession, "_check_d_root", lambda self, claimed: None)
    assert "data roots in one session" in failure_of(SEEDS)


@pytest.mark.patches
def test_a_failure_begins_with_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(core_session, "hears", lambda listener, sender, *, rooted: True)
    seed = next(seed for seed in SEEDS if main(["--seed", str(seed)]))
    assert f"python -m joinleaf.testing --seed {seed}\n" in capsys.readouterr().out
    with pytest.raises(SimulationError) as caught:
        simulate(seed)
    assert str(caught.value).startswith(f"python -m joinleaf.testing --seed {seed}\n")


# The ledger by itself


@pytest.fixture
def ledger() -> Ledger:
    """A rooted session whose root is the d_root, with members 1 and 2."""
    ledger = Ledger()
    core = RootSession(Settings(), session_id=SESSION, incarnation=ROOT, rooted=True, d_root=True)
    ledger.opened(core, lossy=False)
    for leaf in (1, 2):
        ledger.sessions[SESSION].members[leaf] = Member(
            leaf, LEAF, False, JoinRole.BOTH, Address("leaf", leaf), first={0: 5}
        )
    return ledger


def batch(
    sequence: int,
    *,
    sender: int = 0,
    session: bytes = SESSION,
    incarnation: bytes = ROOT,
    gap: int = 0,
) -> Batch:
    message = make_message(session, sender, incarnation, sequence, 64)
    return Batch([] if gap else [message], Address("root"), sequence, 0, gap)


def test_messages_in_order_are_let_through(ledger: Ledger) -> None:
    for number in (5, 6, 7):
        ledger.delivered(SESSION, 1, batch(number))
    assert ledger.counts["delivered"] == 3


@pytest.mark.parametrize(
    ("story", "text"),
    [
        (batch(6), "where 5 is due"),
        (batch(5, session=STRANGE), "another session"),
        (batch(5, incarnation=LEAF), "another incarnation"),
        (batch(0, sender=2, incarnation=LEAF), "must not"),
        (batch(0, sender=1, incarnation=LEAF), "must not"),
        (batch(0, sender=9, incarnation=LEAF), "never a member"),
        (batch(7, gap=2), "nothing may be lost"),
    ],
)
def test_a_false_delivery_is_caught(ledger: Ledger, story: Batch, text: str) -> None:
    with pytest.raises(SafetyError, match=text):
        ledger.delivered(SESSION, 1, story)


def test_a_repeated_message_is_caught(ledger: Ledger) -> None:
    ledger.delivered(SESSION, 1, batch(5))
    with pytest.raises(SafetyError, match="where 6 is due"):
        ledger.delivered(SESSION, 1, batch(5))


def test_data_for_somebody_the_root_does_not_know_is_caught(ledger: Ledger) -> None:
    with pytest.raises(SafetyError, match="no member at the root"):
        ledger.delivered(SESSION, 3, batch(5))


def test_somebody_refused_who_believes_he_is_in_is_caught(ledger: Ledger) -> None:
    ledger.decided(b"token", False, b"no")
    with pytest.raises(SafetyError, match="without being admitted"):
        ledger.asker_joined(b"token", b"no")


def test_a_member_in_its_own_mind_is_caught(ledger: Ledger) -> None:
    with pytest.raises(SafetyError, match="own mind"):
        ledger.leaf_joined(SESSION, 7, LEAF)
    with pytest.raises(SafetyError, match="somebody else"):
        ledger.leaf_joined(SESSION, 1, ROOT)
    with pytest.raises(SafetyError, match="never was"):
        ledger.leaf_joined(STRANGE, 1, LEAF)
