"""The smallest runs: the workers start, messages arrive and are counted, a table comes out."""

import pytest
from bench import messages
from bench.__main__ import main
from bench.contenders import Contender, JoinleafReceiver, JoinleafSender
from bench.crew import Crew
from bench.lan import BenchLan
from bench.roster import ALL, EVERY, why_not

TINY = ["--leaves", "2", "--sizes", "64", "--rounds", "1", "--seconds", "0.01"]


def test_a_tiny_run_of_joinleaf_alone_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["messages", *TINY, "--only", "joinleaf, batches"]) == 0
    printed = capsys.readouterr().out
    assert "### 64 B to 2 leaves, on loopback" in printed
    assert "| joinleaf, batches |" in printed
    assert "commit:" in printed


def test_four_leaves_of_which_some_kernel_is_full_now_and_then_get_every_batch_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What one kernel does not take is sent to its leaf later, and to nobody else again."""
    often = ["--leaves", "4", "--sizes", "64", "--rounds", "6", "--seconds", "0.3"]
    assert main(["messages", *often, "--only", "joinleaf, batches"]) == 0
    assert "failed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", list(EVERY))
def test_every_contender_that_is_installed_delivers_to_all(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := why_not(EVERY[name]):
        pytest.skip(reason)
    sizes = ["--sizes", str(max(64, EVERY[name].smallest))]
    question = "messages" if EVERY[name] in ALL else "aio"
    assert main([question, *TINY, *sizes, "--only", name]) == 0
    printed = capsys.readouterr().out
    assert f"| {name} " in printed
    assert "failed" not in printed


@pytest.mark.parametrize("name", ["joinleaf, batches", "zenoh, tcp", "nats-py", "pyzmq"])
def test_a_tiny_run_of_round_trips_prints_its_table(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := why_not(EVERY[name]):
        pytest.skip(reason)
    assert main(["latency", *TINY, "--only", name]) == 0
    printed = capsys.readouterr().out
    assert "### round trip of 64 B, 500/s, 2 leaves, on loopback" in printed
    assert f"| {name.partition(',')[0]}" in printed
    assert "failed" not in printed


def test_who_fails_is_shown_with_the_reason_and_does_not_end_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crew(contender: Contender, size: int, leaves: int, net: BenchLan | None) -> Crew:
        if contender.name == "broken":
            raise RuntimeError("a worker failed:\nTraceback\nOSError: no such luck")
        return Crew(contender, size, leaves, net)

    monkeypatch.setattr("bench.rounds.Crew", crew)
    broken = Contender("broken", JoinleafSender, JoinleafReceiver)
    messages.run(
        leaves=1,
        sizes=[64],
        rounds=1,
        seconds=0.01,
        contenders=[broken, EVERY["joinleaf, batches"]],
    )
    printed = capsys.readouterr().out
    assert "broken failed: OSError: no such luck" in printed
    assert "x joinleaf, batches" in printed


def test_what_needs_root_says_so_where_it_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.places.why_not", lambda: "network namespaces need root")
    assert main(["bulk", "--quick"]) == 2
    assert main(["messages", *TINY, "--where", "bridge"]) == 2
    told = "only loopback can be measured: network namespaces need root"
    assert capsys.readouterr().out.splitlines() == [told, told]


def test_programs_that_are_missing_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.places.why_not", lambda: "")
    monkeypatch.setattr("bench.bulk_ways.shutil.which", lambda name: None)
    assert main(["bulk", "--only", "udpcast"]) == 2
    printed = capsys.readouterr().out
    assert "left out: udpcast (udp-sender, udp-receiver not installed)" in printed
    assert "apt install uftp udpcast socat" in printed
