"""One body, both fronts: what the session API promises holds for threads and for asyncio alike."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fronts.both_fronts import FRONTS, Front

import joinleaf
from joinleaf import FlowSpec, LeafJoined, LeafLeft, LeafRefused, MessagesLost, SessionEnded
from joinleaf.spi import constants as c

BOUND = 10.0
BIG = 1 << 20
_numbers = itertools.count(1)

Body = Callable[[], Awaitable[None]]


@pytest.fixture(params=FRONTS, ids=repr)
def front(request: pytest.FixtureRequest) -> Front:
    chosen: Front = request.param
    return chosen


@pytest.fixture(params=["mem", "jl", "jl nonrooted", "jls"])
def here(request: pytest.FixtureRequest) -> str:
    """Where a root can be opened."""
    if request.param == "mem":
        return f"mem://both-fronts-{next(_numbers)}"
    scheme = request.param.partition(" ")[0]
    return f"{scheme}://127.0.0.1:0" + ("?plane=nonrooted" if "nonrooted" in request.param else "")


async def until(condition: Callable[[], Any]) -> None:
    """Bounded by the loop that runs the test."""
    while not condition():  # noqa: ASYNC110  # there is nothing that would tell
        await asyncio.sleep(0.005)


async def until_late(call: Callable[[int], Awaitable[Any]]) -> int:
    """How many calls there were before one was too late."""
    for number in range(100):
        try:
            await call(number)
        except joinleaf.SessionTimeoutError:
            return number
    return 100


# Joining


def test_a_join_carries_data_and_comes_back_with_data_or_a_refusal(front: Front, here: str) -> None:
    def admit(request: joinleaf.Request) -> Any:
        if request.data == b"let me in":
            return request.accept(b"welcome")
        return request.reject(b"who are you?", message="not you")

    async def body() -> None:
        async with front.open_root(here, admit=front.admit(admit)) as root:
            async with front.join(root.join_line, data=b"let me in", name="one") as leaf:
                assert leaf.welcome == b"welcome"
                (seen,) = await root.wait_for_leaves(1, timeout=BOUND)
                assert (seen.name, seen.data) == ("one", b"let me in")
                assert seen.address == leaf.local_address
                assert leaf.session_id == root.session_id
                assert leaf.role is joinleaf.spi.provider.JoinRole.BOTH
            with pytest.raises(joinleaf.JoinRefusedError) as error:
                await front.join(root.join_line, data=b"hello")
            assert error.value.data == b"who are you?"
            assert isinstance(error.value, ConnectionRefusedError)
            events = [event async for event in root.events(timeout=0.05)]
            assert [type(event) for event in events] == [LeafJoined, LeafLeft, LeafRefused]

    front.run(body)


def test_nobody_there_and_no_answer_are_errors_of_their_own(front: Front) -> None:
    async def body() -> None:
        with pytest.raises(joinleaf.JoinRefusedError) as refused:
            await front.join("jl://127.0.0.1:1", timeout=BOUND)
        assert refused.value.errno == errno.ECONNREFUSED
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(joinleaf.JoinTimeoutError) as late:
                await front.join(f"jl://127.0.0.1:{port}", timeout=0.1)
        assert isinstance(late.value, TimeoutError)
        async with front.open_root(
            "mem://silent", admit=front.admit(lambda request: request.defer())
        ):
            with pytest.raises(joinleaf.JoinTimeoutError):
                await front.join("mem://silent", timeout=0.05)
        with pytest.raises(joinleaf.SessionError, match=r"no-such-host\.invalid"):
            await front.join("jl://no-such-host.invalid:7400", timeout=BOUND)
        with pytest.raises(joinleaf.SessionOSError, match=r"no-such-host\.invalid"):
            await front.open_root("jl://no-such-host.invalid:7400")

    front.run(body)


@pytest.mark.parametrize(
    "call",
    [
        lambda front: front.join("127.0.0.1:7400"),
        lambda front: front.join("jl://127.0.0.1"),
        lambda front: front.join("jl://127.0.0.1:7400?colour=red"),
        lambda front: front.join("jl://127.0.0.1:7400", role="king"),
        lambda front: front.open_root("udp://239.1.2.3:5000"),
        lambda front: front.open_root("mem://x", queue_bytes=1),
        lambda front: front.open_root("mem://x", slow="never"),
        lambda front: front.listen("udp://239.1.2.3:5000"),
    ],
)
def test_wrong_arguments_are_value_errors(front: Front, call: Callable[[Front], Any]) -> None:
    async def body() -> None:
        with pytest.raises(ValueError, match=r"."):
            await call(front)

    front.run(body)


def test_an_admit_that_fails_or_talks_nonsense_turns_away_and_the_door_stays_open(
    front: Front, here: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [ZeroDivisionError(), "yes", None]

    def admit(request: joinleaf.Request) -> Any:
        answer = answers.pop(0) if answers else request.accept()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def body() -> None:
        async with front.open_root(here, admit=front.admit(admit)) as root:
            for _ in range(3):
                with pytest.raises(joinleaf.JoinRefusedError):
                    await front.join(root.join_line, timeout=BOUND)
            await (await front.join(root.join_line, timeout=BOUND)).close()

    front.run(body)
    assert "ZeroDivisionError" in caplog.text


def test_a_deferred_request_is_asked_about_again(front: Front, here: str) -> None:
    asked: list[joinleaf.Request] = []

    def admit(request: joinleaf.Request) -> Any:
        asked.append(request)
        return request.defer() if len(asked) < 3 else request.accept(b"after all")

    async def body() -> None:
        root = await front.open_root(here, admit=front.admit(admit))
        async with root, front.join(root.join_line, timeout=BOUND) as leaf:
            assert leaf.welcome == b"after all"

    front.run(body)
    assert len(asked) == 3


def test_what_does_not_fit_the_capacity_is_refused(front: Front, here: str) -> None:
    flow = FlowSpec(token_rate=600_000, service_type=c.SERVICETYPE_GUARANTEED)

    async def body() -> None:
        root = await front.open_root(here, capacity=1_000_000)
        async with root, front.join(root.join_line, qos=flow, role="receiver"):
            with pytest.raises(joinleaf.AdmissionRefusedError):
                await front.join(root.join_line, qos=flow, role="receiver")

    front.run(body)


def test_a_leaf_is_invited_and_expelled(front: Front, here: str) -> None:
    async def body() -> None:
        there = here.replace("mem://", "mem://listener-")

        def admit(request: joinleaf.Request) -> Any:
            return request.accept(b"coming") if request.data == b"come" else request.reject(b"no")

        async with (
            front.open_root(here) as root,
            front.listen(there, admit=front.admit(admit)) as listener,
        ):
            accepting = asyncio.ensure_future(listener.accept(timeout=BOUND))
            view = await root.invite(listener.join_line, data=b"come")
            async with await accepting as leaf:
                assert (leaf.welcome, view.data) == (b"come", b"coming")
                await root.send(b"hello")
                assert (await leaf.receive(timeout=BOUND)).data == b"hello"
                await view.close(b"enough")
                with pytest.raises(joinleaf.SessionClosedError) as error:
                    await leaf.receive(timeout=BOUND)
                assert (error.value.reason, error.value.data) == ("expelled", b"enough")
            assert len(root.leaves) == 0
            accepting = asyncio.ensure_future(listener.accept(timeout=BOUND))
            with pytest.raises(joinleaf.JoinRefusedError) as refused:
                await root.invite(listener.join_line, data=b"go")
            assert refused.value.data == b"no"
            with pytest.raises(joinleaf.JoinRefusedError):
                await accepting
            with pytest.raises(joinleaf.SessionTimeoutError):
                await listener.accept(timeout=0.01)
            with pytest.raises(joinleaf.SessionTimeoutError):
                await listener.accept(timeout=0)

    front.run(body)


# Who is there


def test_events_carry_a_numbered_view_and_the_reason(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here) as root:
            first = await front.join(root.join_line, name="first")
            second = await front.join(root.join_line, name="second")
            await root.wait_for_leaves(2, timeout=BOUND)
            assert [change.joined for change in root.membership_events()] == [True, True]
            await first.close(b"bye")
            await until(lambda: len(root.leaves) == 1)
            await root.leaves[0].close(b"out")
            assert [change.reason for change in root.membership_events()] == ["closed", "expelled"]
            events = [event async for event in root.events(timeout=0.1)]
            told = [
                (type(event).__name__, event.leaf.name, event.view, event.reason, event.data)
                for event in events
            ]
            assert told == [
                ("LeafJoined", "first", 1, "", b""),
                ("LeafJoined", "second", 2, "", b""),
                ("LeafLeft", "first", 3, "closed", b"bye"),
                ("LeafLeft", "second", 4, "expelled", b"out"),
            ]
            with pytest.raises(joinleaf.SessionClosedError):
                await second.receive(timeout=BOUND)
            last = [event async for event in second.events(timeout=BOUND)]
            assert last == [SessionEnded("expelled", b"out")]
            await second.close()
        assert [event async for event in root.events(timeout=BOUND)] == [SessionEnded("closed")]

    front.run(body)


def test_waiting_for_leaves_says_how_many_came(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here) as root, front.join(root.join_line):
            await root.wait_for_leaves(1, timeout=BOUND)
            with pytest.raises(joinleaf.SessionTimeoutError, match=r"1 of 3 leaves joined"):
                await root.wait_for_leaves(3, timeout=0.05)
            waiting = asyncio.ensure_future(root.wait_for_leaves(3))
            await asyncio.sleep(0.01)
            await root.close()
            with pytest.raises(joinleaf.SessionClosedError):
                await waiting

    front.run(body)


# Data


def test_both_directions_carry_numbered_messages(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here) as root, front.join(root.join_line) as leaf:
            await root.wait_for_leaves(1, timeout=BOUND)
            await root.send(b"one")
            await root.send_many([b"two", bytearray(b"three"), memoryview(b"four")])
            got = [await leaf.receive(timeout=BOUND) for _ in range(4)]
            assert [(m.data, m.sequence, m.gap) for m in got] == [
                (b"one", 0, 0),
                (b"two", 1, 0),
                (b"three", 2, 0),
                (b"four", 3, 0),
            ]
            await leaf.send_many([b"up", b"and up"])
            batch = await root.receive_many(timeout=BOUND)
            assert (batch.messages, batch.sender) == ([b"up", b"and up"], leaf.local_address)
            await root.send(b"only you", to=root.leaves[:1])
            assert (await leaf.receive(timeout=BOUND)).data == b"only you"

    front.run(body)


def test_side_chat_stays_between_two(front: Front, here: str) -> None:
    async def body() -> None:
        async with (
            front.open_root(here) as root,
            front.join(root.join_line) as leaf,
            front.join(root.join_line) as other,
        ):
            await root.wait_for_leaves(2, timeout=BOUND)
            await next(one for one in root.leaves if one.address == leaf.local_address).send(
                b"psst"
            )
            batch = await leaf.receive_many(timeout=BOUND)
            assert (batch.messages, batch.side) == ([b"psst"], True)
            with pytest.raises(joinleaf.SessionTimeoutError):
                await other.receive(timeout=0.02)
            with pytest.raises(joinleaf.SessionTimeoutError):
                await root.leaves[0].receive_many(timeout=0.02)

    front.run(body)


def test_a_loop_that_is_left_loses_nothing_and_ends_with_the_session(
    front: Front, here: str
) -> None:
    async def body() -> None:
        async with front.open_root(here) as root, front.join(root.join_line) as leaf:
            await root.wait_for_leaves(1, timeout=BOUND)
            await root.send_many([b"%d" % n for n in range(6)])
            async for message in leaf:
                assert message.data == b"0"
                break
            assert (await leaf.receive(timeout=0)).data == b"1"
            batch = await leaf.receive_many(timeout=0)
            assert (batch.messages[0], batch.sequence) == (b"2", 2)
            closing = asyncio.ensure_future(root.close())
            assert [message.data async for message in leaf] == []
            await closing
            with pytest.raises(joinleaf.SessionClosedError) as error:
                await leaf.receive(timeout=BOUND)
            assert error.value.reason == "dissolved"

    front.run(body)


def test_a_broken_session_raises(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here) as root, front.join(root.join_line) as leaf:
            await root.wait_for_leaves(1, timeout=BOUND)
            heard = asyncio.ensure_future(leaf.receive())
            await asyncio.sleep(0.01)
            await root.close(abort=True)
            with pytest.raises(joinleaf.SessionBrokenError) as error:
                await heard
            assert isinstance(error.value, ConnectionError)
            with pytest.raises(joinleaf.SessionBrokenError):
                await leaf.send(b"x")

    front.run(body)


def test_receive_with_a_timeout(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here) as root, front.join(root.join_line) as leaf:
            for timeout in (0, 0.02):
                with pytest.raises(joinleaf.SessionTimeoutError):
                    await leaf.receive(timeout=timeout)
                with pytest.raises(joinleaf.SessionTimeoutError):
                    await root.receive_many(timeout=timeout)

    front.run(body)


def test_a_leaf_that_does_not_read_holds_the_sender_up_and_misses_nothing(
    front: Front, here: str
) -> None:
    async def body() -> None:
        root = await front.open_root(here, queue_bytes=4 * BIG)
        async with root, front.join(root.join_line) as leaf:
            await root.wait_for_leaves(1, timeout=BOUND)
            sent = await until_late(
                lambda number: root.send(number.to_bytes(4, "big") * (BIG // 4), timeout=0.1)
            )
            assert 0 < sent < 100
            sending = asyncio.ensure_future(root.send(b"last", timeout=BOUND))
            got = [await leaf.receive(timeout=BOUND) for _ in range(sent + 1)]
            await sending
            assert [int.from_bytes(m.data[:4], "big") for m in got[:-1]] == list(range(sent))
            assert got[-1].data == b"last"
            assert [m.sequence for m in got] == list(range(sent + 1))

    front.run(body)


def test_a_flow_specification_shapes_what_is_sent_and_loses_nothing(front: Front) -> None:
    flow = FlowSpec(token_rate=400_000, token_bucket_size=10_000)

    async def body() -> None:
        root = await front.open_root("jl://127.0.0.1:0", qos=flow)
        async with root, front.join(root.join_line) as leaf:
            await root.wait_for_leaves(1, timeout=BOUND)
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(6):
                await root.send(bytes(10_000))
            assert loop.time() - began > 4 * 10_000 / 400_000  # the first empties the bucket
            got = [await leaf.receive(timeout=BOUND) for _ in range(6)]
            assert [m.sequence for m in got] == list(range(6))
            assert await until_late(lambda _: root.send(bytes(10_000), timeout=0)) < 5

    front.run(body)


def test_a_slow_leaf_that_is_dropped_from_is_told(front: Front, here: str) -> None:
    async def body() -> None:
        root = await front.open_root(here, slow="drop", queue_bytes=BIG)
        async with root, front.join(root.join_line) as leaf:
            await root.wait_for_leaves(1, timeout=BOUND)
            sent = 0
            missed = "messages_dropped"
            while not (root.leaves[0].dropped or leaf.stats().get(missed, 0)):
                await root.send(bytes(BIG // 2), timeout=0)
                sent += 1
                assert sent < 200
            lost: list[MessagesLost] = []
            while not lost:
                await until_late(lambda _: leaf.receive(timeout=0.05))
                found = [event async for event in leaf.events(timeout=0)]
                lost = [event for event in found if isinstance(event, MessagesLost)]
            assert lost[0].count >= 1

    front.run(body)


def test_messages_that_cannot_go(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here, max_message=1000) as root:
            await root.send(b"nobody hears it, which is no error")
            async with front.join(root.join_line, max_message=1000, role="receiver") as leaf:
                gone = await root.wait_for_leaves(1, timeout=BOUND)
                with pytest.raises(joinleaf.MessageTooLargeError):
                    await root.send(bytes(1001))
                with pytest.raises(TypeError):
                    await root.send("text")
                with pytest.raises(joinleaf.SessionError):
                    await leaf.send(b"against the role")
            await until(lambda: not root.leaves)
            await root.send(b"still there?", to=list(gone))

    front.run(body)


def test_a_second_call_in_one_direction_is_busy(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here) as root, front.join(root.join_line) as leaf:
            await root.wait_for_leaves(1, timeout=BOUND)
            receiving = asyncio.ensure_future(leaf.receive())
            await asyncio.sleep(0.05)
            with pytest.raises(joinleaf.BusyError):
                await leaf.receive(timeout=0)
            await leaf.send(b"the other direction is free")
            await root.send(b"x")
            assert (await receiving).data == b"x"

    front.run(body)


def test_closing_wakes_every_call(front: Front, here: str) -> None:
    async def body() -> None:
        async with front.open_root(here, queue_bytes=BIG) as root:
            leaf = await front.join(root.join_line)
            await root.wait_for_leaves(1, timeout=BOUND)

            async def told() -> list[Any]:
                return [event async for event in leaf.events()]

            async def sent() -> None:
                while True:
                    await leaf.send_many([bytes(BIG)] * 8)

            calls = [asyncio.ensure_future(leaf.receive()), asyncio.ensure_future(sent())]
            listening = asyncio.ensure_future(told())
            await asyncio.sleep(0.1)
            await leaf.close(timeout=0)
            for call in calls:
                with pytest.raises(joinleaf.SessionClosedError):
                    await call
            assert await listening == [SessionEnded("closed")]
            assert leaf.closed
            assert leaf.fileno() == -1
            await leaf.close()
            with pytest.raises(joinleaf.SessionClosedError):
                await leaf.send(b"x")

    front.run(body)


# Plain multicast


def test_members_of_a_multicast_session_hear_each_other(front: Front) -> None:
    where = "udp://239.255.41.7:54107"

    async def body() -> None:
        async with (
            front.join(where, interface="lo") as one,
            front.join(where, interface="lo") as two,
            front.join(where, interface="lo", role="sender") as three,
        ):
            await one.send_many([b"1", b"2"])
            await three.send(b"3")
            for member in (one, two):
                got = [await member.receive(timeout=BOUND) for _ in range(3)]
                assert sorted(m.data for m in got) == [b"1", b"2", b"3"]
            waiting = asyncio.ensure_future(two.receive(timeout=BOUND))
            await asyncio.sleep(0.02)
            await one.send(b"4")
            assert (await waiting).data == b"4"
            with pytest.raises(joinleaf.SessionTimeoutError):
                await two.receive(timeout=0.02)
            with pytest.raises(joinleaf.MessageTooLargeError):
                await one.send(bytes(70_000))

    front.run(body)


# Files


def test_a_folder_reaches_every_leaf(front: Front, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "one.bin").write_bytes(bytes(range(256)) * 5000)
    (source / "two.txt").write_text("hello")
    progress: list[Any] = []

    async def body() -> None:
        async with (
            front.open_root("jl://127.0.0.1:0") as root,
            front.join(root.join_line) as one,
            front.join(root.join_line) as two,
        ):
            await root.wait_for_leaves(2, timeout=BOUND)
            sending = root.send_file(source, leaves=2, on_progress=progress.append)
            result, *received = await asyncio.gather(
                sending,
                one.receive_file(tmp_path / "a", timeout=BOUND),
                two.receive_file(tmp_path / "b", timeout=BOUND),
            )
            assert result.ok
            assert all(one.ok for one in received)
            with pytest.raises(joinleaf.SessionTimeoutError):
                await one.receive_file(tmp_path / "c", timeout=0.05)
        for name in ("a", "b"):
            (copy,) = (tmp_path / name).rglob("one.bin")
            assert copy.read_bytes() == (source / "one.bin").read_bytes()

    front.run(body)
    assert progress
