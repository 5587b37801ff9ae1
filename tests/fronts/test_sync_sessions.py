"""The session API for threads, over ``jl://`` on loopback: what the reference promises."""

from __future__ import annotations

import errno
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import joinleaf
from joinleaf import FlowSpec, LeafJoined, LeafLeft, LeafRefused, MessagesLost, SessionEnded
from joinleaf.drivers.interfaces import list_interfaces
from joinleaf.spi import constants as c

BOUND = 10.0
HERE = "jl://127.0.0.1:0"
BIG = 1 << 20


class Threaded:
    """A call in a thread; calling this waits for its value or raises its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.outcome: list[tuple[Any, BaseException | None]] = []
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.outcome.append((call(), None))
        except BaseException as error:
            self.outcome.append((None, error))

    def __call__(self) -> Any:
        self._thread.join(BOUND)
        assert self.outcome, "the call is still running"
        value, error = self.outcome[0]
        if error is not None:
            raise error
        return value


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


# Joining


def test_the_first_example_of_the_manual_does_what_it_says() -> None:
    def admit(request: joinleaf.Request) -> Any:
        if request.data == b"let me in":
            return request.accept(b"welcome")
        return request.reject(b"who are you?")

    with joinleaf.open_root(HERE, admit=admit) as root:
        with joinleaf.join(root.address, data=b"let me in", name="one") as leaf:
            assert leaf.welcome == b"welcome"
            root.wait_for_leaves(1, timeout=BOUND)
            root.send(b"to all")
            message = leaf.receive(timeout=BOUND)
            assert (message.data, message.sender, message.sequence, message.gap) == (
                b"to all",
                root.local_address,
                0,
                0,
            )
            assert abs(message.time - time.time()) < BOUND
            seen = root.leaves[0]
            assert (seen.name, seen.data, seen.address) == ("one", b"let me in", leaf.local_address)
            assert leaf.session_id == root.session_id
        with pytest.raises(joinleaf.JoinRefusedError) as error:
            joinleaf.join(root.address, data=b"hello")
        assert error.value.data == b"who are you?"
        assert isinstance(error.value, ConnectionRefusedError)
        assert error.value.errno == errno.ECONNREFUSED


def test_nobody_there_is_a_refused_connection_with_a_way_out() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as error:
        joinleaf.join(f"jl://127.0.0.1:{port}")
    assert isinstance(error.value, joinleaf.JoinRefusedError)
    assert error.value.hint
    assert error.value.hint in str(error.value)
    assert f"127.0.0.1:{port}" in str(error.value)


def test_no_answer_in_time_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError) as error:
        joinleaf.join(f"jl://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
    assert isinstance(error.value, joinleaf.JoinTimeoutError)
    assert (error.value.errno, error.value.code) == (errno.ETIMEDOUT, 10060)


def test_what_does_not_fit_the_capacity_is_refused_with_the_numbers() -> None:
    flow = FlowSpec(token_rate=600_000, service_type=c.SERVICETYPE_GUARANTEED)
    with (
        joinleaf.open_root(HERE, capacity=1_000_000) as root,
        joinleaf.join(root.address, qos=flow, role="receiver"),
    ):
        with pytest.raises(joinleaf.AdmissionRefusedError, match="600000") as error:
            joinleaf.join(root.address, qos=flow, role="receiver")
        assert error.value.code == 10045
        assert error.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    "call",
    [
        lambda: joinleaf.join("127.0.0.1:7400"),
        lambda: joinleaf.join("jl://127.0.0.1"),
        lambda: joinleaf.join("jl://127.0.0.1:7400?colour=red"),
        lambda: joinleaf.join("jl://127.0.0.1:7400", role="king"),  # type: ignore[arg-type]
        lambda: joinleaf.open_root("udp://239.1.2.3:5000"),
        lambda: joinleaf.open_root(HERE, queue_bytes=1),
        lambda: joinleaf.open_root(HERE, slow="never"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_value_errors(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        call()


def test_an_address_in_use_says_so() -> None:
    with joinleaf.open_root(HERE) as root:
        with pytest.raises(OSError, match=str(root.local_address)) as error:
            joinleaf.open_root(str(root.address))
        assert error.value.errno == errno.EADDRINUSE
        assert isinstance(error.value, joinleaf.SessionOSError)


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(joinleaf.SessionError, match=r"no-such-host\.invalid"):
        joinleaf.join("jl://no-such-host.invalid:7400", timeout=BOUND)


def test_a_root_off_loopback_admits_nobody_until_told_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "joinleaf"), joinleaf.open_root("jl://0.0.0.0:0") as root:
        port = root.local_address.port
        with pytest.raises(joinleaf.JoinRefusedError, match="admits nobody"):
            joinleaf.join(f"jl://127.0.0.1:{port}")
        refused = next(root.events(timeout=BOUND))
        assert isinstance(refused, LeafRefused)
    assert "admits nobody" in caplog.text
    caplog.clear()
    with joinleaf.open_root("jl://0.0.0.0:0", open=True) as root:
        joinleaf.join(f"jl://127.0.0.1:{root.local_address.port}").close()
    with joinleaf.open_root("jl://:0", admit=lambda request: request.accept()) as root:
        joinleaf.join(f"jl://127.0.0.1:{root.local_address.port}").close()
        joinleaf.join(f"jl://[::1]:{root.local_address.port}").close()
    with joinleaf.open_root(HERE, open=False) as root, pytest.raises(joinleaf.JoinRefusedError):
        joinleaf.join(root.address)
    assert not caplog.records


def test_an_admit_that_fails_turns_the_asker_away_and_the_door_stays_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Any] = [ZeroDivisionError(), "yes", None]

    def admit(request: joinleaf.Request) -> Any:
        if not answers:
            return request.accept()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with joinleaf.open_root(HERE, admit=admit) as root:
        for _ in range(3):
            with pytest.raises(joinleaf.JoinRefusedError):
                joinleaf.join(root.address)
        joinleaf.join(root.address).close()
    assert "ZeroDivisionError" in caplog.text


def test_a_deferred_request_is_asked_about_again() -> None:
    asked = []

    def admit(request: joinleaf.Request) -> Any:
        asked.append(request)
        return request.defer() if len(asked) == 1 else request.accept(b"after all")

    with joinleaf.open_root(HERE, admit=admit) as root, joinleaf.join(root.address) as leaf:
        assert leaf.welcome == b"after all"
    assert len(asked) == 2


def test_a_leaf_is_invited_and_expelled() -> None:
    with joinleaf.open_root(HERE) as root, joinleaf.listen(HERE) as listener:
        accepting = Threaded(lambda: listener.accept(timeout=BOUND))
        view = root.invite(str(listener.local_address), data=b"come")
        with accepting() as leaf:
            assert leaf.welcome == b"come"
            root.send(b"hello")
            assert leaf.receive(timeout=BOUND).data == b"hello"
            view.close(b"enough")
            with pytest.raises(joinleaf.SessionClosedError) as error:
                leaf.receive(timeout=BOUND)
            assert (error.value.reason, error.value.data) == ("expelled", b"enough")
        assert len(root.leaves) == 0


# Who is there


def test_events_carry_a_numbered_view_and_the_reason() -> None:
    with joinleaf.open_root(HERE) as root:
        first = joinleaf.join(root.address, name="first")
        second = joinleaf.join(root.address, name="second")
        root.wait_for_leaves(2, timeout=BOUND)
        first.close(b"bye")
        until(lambda: len(root.leaves) == 1)
        root.leaves[0].close(b"out")
        events = list(root.events(timeout=0.1))
        told = [
            (type(event).__name__, event.leaf.name, event.view, event.reason, event.data)
            for event in events
            if isinstance(event, LeafJoined | LeafLeft)
        ]
        assert told == [
            ("LeafJoined", "first", 1, "", b""),
            ("LeafJoined", "second", 2, "", b""),
            ("LeafLeft", "first", 3, "closed", b"bye"),
            ("LeafLeft", "second", 4, "expelled", b"out"),
        ]
        assert root.view == 4
        with pytest.raises(joinleaf.SessionClosedError):
            second.receive(timeout=BOUND)
        assert list(second.events(timeout=BOUND)) == [SessionEnded("expelled", b"out")]
        second.close()
        assert list(second.events(timeout=0)) == []
    assert list(root.events(timeout=BOUND)) == [SessionEnded("closed")]


def test_leaves_is_live_and_found_by_position_and_address() -> None:
    with joinleaf.open_root(HERE) as root:
        leaves = root.leaves
        assert (len(leaves), list(leaves)) == (0, [])
        with joinleaf.join(root.address) as one, joinleaf.join(root.address) as two:
            assert root.wait_for_leaves(2, timeout=BOUND) is leaves
            assert [leaf.address for leaf in leaves] == [one.local_address, two.local_address]
            assert leaves[one.local_address] is leaves[0]
            assert leaves[-1] in leaves
            with pytest.raises(KeyError):
                leaves[joinleaf.Address("127.0.0.1", 1)]
        until(lambda: len(leaves) == 0)


def test_waiting_for_leaves_says_how_many_came() -> None:
    with joinleaf.open_root(HERE) as root, joinleaf.join(root.address):
        with pytest.raises(joinleaf.SessionTimeoutError, match=r"1 of 3 leaves joined within 0\.2"):
            root.wait_for_leaves(3, timeout=0.2)
        waiting = Threaded(lambda: root.wait_for_leaves(3))
        root.close()
        with pytest.raises(joinleaf.SessionClosedError):
            waiting()


# Data


def test_a_loop_that_is_left_loses_nothing() -> None:
    with joinleaf.open_root(HERE) as root, joinleaf.join(root.address) as leaf:
        root.wait_for_leaves(1, timeout=BOUND)
        root.send_many([b"%d" % n for n in range(6)])
        for message in leaf:
            assert message.data == b"0"
            break
        assert leaf.receive(timeout=0).data == b"1"
        for message in leaf:
            if message.data == b"3":
                break
        batch = leaf.receive_many(timeout=0)
        assert (batch.messages, batch.sequence) == ([b"4", b"5"], 4)


def test_a_loop_ends_with_the_session_and_raises_where_it_broke() -> None:
    with joinleaf.open_root(HERE) as root:
        leaf, other = joinleaf.join(root.address), joinleaf.join(root.address)
        root.wait_for_leaves(2, timeout=BOUND)
        heard = Threaded(lambda: [message.data for message in leaf])
        root.send_many([b"one", b"two"])
        root.leaves[0].close()
        assert heard() == [b"one", b"two"]
        root.close(abort=True)
        with pytest.raises(joinleaf.SessionBrokenError) as error:
            list(other)
        assert isinstance(error.value, ConnectionError)
        assert (error.value.reason, error.value.errno) == ("lost", errno.ECONNRESET)
        with pytest.raises(joinleaf.SessionBrokenError):
            other.send(b"x")
        for member in (leaf, other):
            member.close()
            with pytest.raises(joinleaf.SessionClosedError):
                member.receive()
            with pytest.raises(joinleaf.SessionClosedError):
                member.send(b"x")


def test_receive_with_timeout_zero_only_looks() -> None:
    with joinleaf.open_root(HERE) as root, joinleaf.join(root.address) as leaf:
        for timeout in (0, 0.02):
            with pytest.raises(joinleaf.SessionTimeoutError) as error:
                leaf.receive(timeout=timeout)
            assert isinstance(error.value, TimeoutError)


def test_the_descriptor_is_readable_until_the_last_message_is_taken() -> None:
    def readable(member: joinleaf.Session, wait: float = 0.0) -> bool:
        return bool(select.select([member], [], [], wait)[0])

    with joinleaf.open_root(HERE) as root, joinleaf.join(root.address) as leaf:
        root.wait_for_leaves(1, timeout=BOUND)
        for sender, receiver in ((root, leaf), (leaf, root)):
            while readable(receiver):
                pass  # signs of life, which the background thread takes
            sender.send_many([b"1", b"2", b"3"])
            for number in (b"1", b"2", b"3"):
                assert readable(receiver, BOUND)
                assert receiver.receive(timeout=BOUND).data == number
            assert not readable(receiver)
        root.send_many([b"4", b"5", b"6"])
        loop = iter(leaf)
        assert next(loop).data == b"4"  # and the loop stays where it is
        assert readable(leaf)
        assert leaf.receive_many(timeout=0).messages == [b"5", b"6"]
        assert not readable(leaf)
        # Nobody receives: what the background thread has read counts as well.
        root.send(b"7")
        until(lambda: leaf.stats()["bytes_received_waiting"])
        assert readable(leaf)
        with select.epoll() as poller:
            poller.register(leaf, select.EPOLLIN)
            assert poller.poll(0)
        root.close()
        leaf.receive(timeout=BOUND)
        assert readable(leaf, BOUND)
    assert leaf.fileno() == -1


def test_a_gap_is_told_with_the_next_message_and_as_an_event() -> None:
    with (
        joinleaf.open_root(HERE, slow="drop", queue_bytes=BIG) as root,
        joinleaf.join(root.address) as leaf,
    ):
        root.wait_for_leaves(1, timeout=BOUND)
        sent = 0
        while not root.leaves[0].dropped:
            root.send(bytes(BIG), timeout=0)
            sent += 1
            assert sent < 64
        dropped = root.leaves[0].dropped
        got = [leaf.receive(timeout=BOUND) for _ in range(sent - dropped)]
        # The queue is empty now, and the gap told in a batch without messages.
        until(lambda: not root.stats()["bytes_queued"])
        with pytest.raises(joinleaf.SessionTimeoutError):
            leaf.receive(timeout=0.05)
        root.send(b"after")
        after = leaf.receive(timeout=BOUND)
        assert (after.data, after.gap, after.sequence) == (b"after", dropped, sent)
        assert [message.gap for message in got] == [0] * len(got)
        (lost,) = [e for e in leaf.events(timeout=0) if isinstance(e, MessagesLost)]
        assert (lost.first, lost.count) == (sent - dropped, dropped)


def test_a_message_that_is_too_long_is_emsgsize_and_text_a_type_error() -> None:
    with (
        joinleaf.open_root(HERE, max_message=1000) as root,
        joinleaf.join(root.address, max_message=1000) as leaf,
    ):
        root.wait_for_leaves(1, timeout=BOUND)
        for member in (root, leaf):
            with pytest.raises(joinleaf.MessageTooLargeError) as error:
                member.send(bytes(1001))
            assert error.value.errno == errno.EMSGSIZE
            with pytest.raises(TypeError, match="encode"):
                member.send("text")  # type: ignore[arg-type]
        with pytest.raises(joinleaf.SessionTimeoutError):
            leaf.receive(timeout=0)


def test_sending_to_nobody_and_to_who_has_left_is_no_error() -> None:
    with joinleaf.open_root(HERE) as root:
        root.send(b"hello?")
        with joinleaf.join(root.address):
            gone = root.wait_for_leaves(1, timeout=BOUND)[0]
        until(lambda: not root.leaves)
        root.send(b"still there?", to=[gone])


def test_roles_forbid_one_direction_with_a_way_out() -> None:
    with joinleaf.open_root(HERE) as root:
        with joinleaf.join(root.address, role="receiver") as leaf:
            with pytest.raises(joinleaf.SessionError, match="role=") as error:
                leaf.send(b"x")
            assert error.value.errno == errno.EOPNOTSUPP
        with (
            joinleaf.join(root.address, role="sender") as leaf,
            pytest.raises(joinleaf.SessionError, match="role="),
        ):
            leaf.receive()


# Threads


def test_a_second_thread_in_one_direction_is_busy() -> None:
    with joinleaf.open_root(HERE) as root, joinleaf.join(root.address) as leaf:
        root.wait_for_leaves(1, timeout=BOUND)
        receiving = Threaded(lambda: leaf.receive())
        until(lambda: leaf._endpoint._driver._readers.callers)  # type: ignore[attr-defined]
        with pytest.raises(joinleaf.BusyError, match="at a time"):
            leaf.receive(timeout=0)
        leaf.send(b"the other direction is free")
        root.send(b"x")
        assert receiving().data == b"x"
        root_sends = Threaded(lambda: root.send_many([bytes(BIG)] * 40))
        until(lambda: root.stats()["bytes_queued"])
        with pytest.raises(joinleaf.BusyError):
            root.send(b"y")
        assert sum(1 for _ in zip(range(40), leaf, strict=False)) == 40
        root_sends()


def test_closing_in_another_thread_wakes_every_call() -> None:
    with joinleaf.open_root(HERE) as root, joinleaf.join(root.address) as leaf:
        root.wait_for_leaves(1, timeout=BOUND)
        calls = [
            Threaded(lambda: leaf.receive()),
            Threaded(lambda: leaf.send_many([bytes(BIG)] * 40)),
            Threaded(lambda: list(leaf.events())),
        ]
        until(lambda: leaf._endpoint._driver._readers.callers)  # type: ignore[attr-defined]
        until(lambda: leaf.stats()["bytes_queued"])
        leaf.close(timeout=0)
        for call in calls[:2]:
            with pytest.raises(joinleaf.SessionClosedError):
                call()
        assert calls[2]() == [SessionEnded("closed")]
        accepting = joinleaf.listen(HERE)
        waiting = Threaded(lambda: accepting.accept())
        accepting.close()
        with pytest.raises(joinleaf.SessionClosedError):
            waiting()


def test_many_joins_and_leaves_at_once_leave_the_view_right() -> None:
    with joinleaf.open_root(HERE) as root:

        def come_and_go() -> None:
            for _ in range(10):
                joinleaf.join(root.address, timeout=BOUND).close()

        for call in [Threaded(come_and_go) for _ in range(6)]:
            call()
        until(lambda: not root.leaves)
        events = [e for e in root.events(timeout=0) if isinstance(e, LeafJoined | LeafLeft)]
        assert [event.view for event in events] == list(range(1, 121))
        assert root._ended_early == {}


def test_leaving_the_block_is_a_clean_leave_also_after_an_error() -> None:
    with joinleaf.open_root(HERE) as root:
        with pytest.raises(ZeroDivisionError), joinleaf.join(root.address) as leaf:
            raise ZeroDivisionError
        assert leaf.closed
        until(lambda: any(isinstance(e, LeafLeft) for e in list(root._events)))
        left = [e for e in root.events(timeout=0) if isinstance(e, LeafLeft)]
        assert [event.reason for event in left] == ["closed"]


def test_a_roots_stream_goes_as_far_and_by_which_interface_it_is_told() -> None:
    loopback = next(one.name for one in list_interfaces() if one.loopback)
    where = "jl://127.0.0.1:0?data=239.255.83.40:48340"
    with joinleaf.open_root(where, hops=3, interface=loopback) as root:
        link: Any = root._endpoint
        port = link._driver._link._port
        assert port._sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 3
        assert port.interface.name == loopback
    with pytest.raises(joinleaf.SessionOSError, match="no interface has the name"):
        joinleaf.open_root(where, interface="nope0")
    with pytest.raises(ValueError, match="hops"):
        joinleaf.open_root(where, hops=256)
