"""The simulated network keeps its promises; else nothing that runs on it proves anything."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest

from joinleaf.testing import Agenda, DatagramProfile, ManualClock, SimNetwork, StreamProfile
from joinleaf.testing.clock import MILLISECOND, SECOND
from joinleaf.testing.streams import StreamEnd
from joinleaf.values import Address

SERVER = Address("server", 7400)
GROUP = Address("239.0.0.1", 5000)
ROUGH = StreamProfile(
    latency_ns=2 * MILLISECOND,
    jitter_ns=30 * MILLISECOND,
    stall_chance=0.1,
    send_buffer=16384,
    receive_buffer=16384,
)


class Talker:
    """Sends what it is given and keeps what it gets."""

    def __init__(self, network: SimNetwork, *, reads: bool = True) -> None:
        self.network = network
        self.reads = reads
        self.got = bytearray()
        self.pieces = 0
        self.rest = b""
        self.ended = False
        self.error: OSError | None = None
        self.end: StreamEnd | None = None

    def say(self, data: bytes) -> None:
        self.rest += data
        self.stream_writable(self.the_end)

    @property
    def the_end(self) -> StreamEnd:
        assert self.end is not None
        return self.end

    def stream_connected(self, end: StreamEnd) -> None:
        self.stream_writable(end)

    def stream_writable(self, end: StreamEnd) -> None:
        if end.connected and self.rest and end.error is None:
            self.rest = self.rest[end.send([self.rest]) :]

    def stream_readable(self, end: StreamEnd) -> None:
        place = memoryview(bytearray(4096))
        while self.reads:
            try:
                count = end.receive_into(place)
            except OSError as error:
                self.error = error
                return
            if count is None:
                return
            if count == 0:
                self.ended = True
                return
            self.pieces += 1
            self.got += place[:count]


def pair(network: SimNetwork, *, reads: bool = True) -> tuple[Talker, Talker]:
    """A connected client and server."""
    client, server = Talker(network), Talker(network, reads=reads)

    def accept(end: StreamEnd) -> Talker:
        server.end = end
        return server

    network.listen(SERVER, accept)
    client.end = network.connect("client", SERVER, client)
    network.agenda.run(SECOND // 10)
    assert client.the_end.connected
    assert server.the_end.connected
    return client, server


def run(network: SimNetwork, seconds: float) -> None:
    network.agenda.run(network.clock.now_ns + int(seconds * SECOND))


@pytest.mark.parametrize("seed", range(20))
def test_bytes_arrive_once_and_in_order_however_they_are_cut(seed: int) -> None:
    network = SimNetwork(seed, streams=ROUGH)
    client, server = pair(network)
    sent = random.Random(seed).randbytes(200_000)
    client.say(sent)
    run(network, 60)
    assert bytes(server.got) == sent
    assert server.pieces > 50


def test_a_reader_that_does_not_read_stops_the_writer_and_no_byte_is_lost() -> None:
    network = SimNetwork(1, streams=ROUGH)
    client, server = pair(network, reads=False)
    sent = random.Random(1).randbytes(100_000)
    client.say(sent)
    run(network, 10)
    assert server.the_end.waiting <= ROUGH.receive_buffer
    assert len(client.rest) >= 100_000 - ROUGH.send_buffer - ROUGH.receive_buffer
    assert client.the_end.error is None
    server.reads = True
    server.stream_readable(server.the_end)
    run(network, 30)
    assert bytes(server.got) == sent


def test_a_half_close_is_read_after_all_data_and_leaves_the_other_way_open() -> None:
    network = SimNetwork(2, streams=ROUGH)
    client, server = pair(network)
    client.say(b"x" * 10_000)
    client.the_end.shut_down_sending()
    run(network, 5)
    assert len(server.got) == 10_000
    assert server.ended
    server.say(b"answer")
    run(network, 5)
    assert client.got == b"answer"


def test_closing_with_unread_bytes_resets_the_other_end() -> None:
    network = SimNetwork(3)
    client, server = pair(network, reads=False)
    client.say(b"unread")
    run(network, 1)
    server.the_end.close()
    run(network, 1)
    assert isinstance(client.error, ConnectionResetError)


def test_a_short_partition_delays_and_a_long_one_breaks() -> None:
    network = SimNetwork(4, streams=replace(ROUGH, give_up_ns=SECOND))
    client, server = pair(network)
    network.block("client", "server")
    client.say(b"late")
    run(network, 0.5)
    assert not server.got
    network.unblock("client", "server")
    run(network, 1)
    assert server.got == b"late"
    network.block("client", "server")
    client.say(b"never")
    run(network, 2)
    assert isinstance(client.error, TimeoutError)
    assert server.error is None


def test_a_one_way_partition_delivers_what_is_never_acknowledged() -> None:
    network = SimNetwork(5, streams=replace(ROUGH, give_up_ns=SECOND))
    client, server = pair(network)
    network.block("server", "client")
    client.say(b"heard")
    run(network, 3)
    assert server.got == b"heard"
    assert isinstance(client.error, TimeoutError)


def test_a_host_without_power_says_nothing_and_after_restart_sends_resets() -> None:
    network = SimNetwork(6, streams=replace(ROUGH, give_up_ns=5 * SECOND))
    client, _ = pair(network)
    network.crash("server", power=True)
    run(network, 1)
    assert client.error is None
    assert not client.ended
    network.restart("server")
    client.say(b"anybody there?")
    run(network, 1)
    assert isinstance(client.error, ConnectionResetError)


def test_a_killed_program_is_heard_of() -> None:
    network = SimNetwork(7)
    client, _ = pair(network)
    network.crash("server", power=False)
    run(network, 1)
    assert client.ended


def test_connecting_is_refused_or_times_out() -> None:
    network = SimNetwork(8)
    refused, unanswered = Talker(network), Talker(network)
    network.connect("client", SERVER, refused)
    network.block("other", "server")
    network.connect("other", SERVER, unanswered)
    run(network, 5)
    assert isinstance(refused.error, ConnectionRefusedError)
    assert isinstance(unanswered.error, TimeoutError)


class Hearer:
    """Keeps datagrams."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def datagram_received(self, data: bytes, sender: Address) -> None:
        assert sender == Address("source", GROUP.port)
        self.got.append(data)


def heard(profile: DatagramProfile, count: int = 1000) -> list[bytes]:
    """What one member hears of so many datagrams, a millisecond apart."""
    network, hearer = SimNetwork(9, datagrams=profile), Hearer()
    network.subscribe(GROUP, "member", hearer)
    network.subscribe(GROUP, "source", hearer)
    for number in range(count):
        network.send_datagram("source", GROUP, number.to_bytes(4, "big"))
        run(network, 0.001)
    run(network, 1)
    return hearer.got


def test_datagrams_are_lost_repeated_reordered_and_damaged_as_the_profile_says() -> None:
    fair = [number.to_bytes(4, "big") for number in range(1000)]
    assert heard(DatagramProfile()) == fair
    assert 600 < len(heard(DatagramProfile(loss=0.3))) < 800
    assert 1100 < len(heard(DatagramProfile(duplication=0.2))) < 1300
    reordered = heard(DatagramProfile(jitter_ns=20 * MILLISECOND))
    assert reordered != fair
    assert sorted(reordered) == fair
    damaged = heard(DatagramProfile(corruption=0.1))
    assert 50 < sum(one != other for one, other in zip(damaged, fair, strict=True)) < 150


def test_a_change_on_one_link_does_not_shift_the_others() -> None:
    def draws(extra: bool) -> list[float]:
        network = SimNetwork(10)
        if extra:
            network.rng("a", "b").random()
        return [network.rng("b", "a").random(), network.rng("a", "c").random()]

    assert draws(extra=False) == draws(extra=True)
    assert SimNetwork(10).rng("a", "b").random() != SimNetwork(11).rng("a", "b").random()


def test_the_agenda_keeps_order_and_the_clock_never_goes_back() -> None:
    clock = ManualClock()
    agenda, seen = Agenda(clock), list[tuple[int, str]]()

    def see(name: str) -> None:
        seen.append((clock.now_ns, name))

    for time_ns, name in ((5, "late"), (3, "first"), (3, "second")):
        agenda.at(time_ns, partial(see, name))
    agenda.run(4)
    assert seen == [(3, "first"), (3, "second")]
    assert clock.now_ns == 4
    agenda.at(1, partial(see, "past"))
    assert agenda.step()
    assert seen[-1] == (4, "past")
    agenda.run(10)
    assert not agenda.step()
    assert clock.now_ns == 10
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
