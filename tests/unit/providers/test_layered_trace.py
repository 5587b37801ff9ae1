"""The tracer at the seam: a provider like the one below it, and a line for every call."""

from __future__ import annotations

import logging
import re

import pytest

import joinleaf
from joinleaf.providers.layered_trace import TracedProvider, TraceLayer, add_tracer
from joinleaf.providers.memory import MemoryProvider
from joinleaf.providers.rooted import RootedProvider
from joinleaf.spi import constants as c
from joinleaf.spi.catalogue import Catalogue, default_catalogue
from joinleaf.spi.provider import (
    DatagramEndpoint,
    Endpoint,
    EndpointEvent,
    Provider,
    Roles,
    Settings,
)
from joinleaf.testing import check_provider
from joinleaf.values import Address


def traced() -> Provider:
    return TraceLayer().wrap(MemoryProvider())


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO], ids=["tracing", "silent"])
def test_a_traced_provider_keeps_the_rules_of_the_seam(
    level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(level, logger="joinleaf.trace")
    report = check_provider(traced, ["mem://checked", "mem://checked?plane=nonrooted"])
    assert report.ok, report
    assert bool(caplog.records) is (level == logging.DEBUG)


def test_a_session_over_tcp_keeps_the_rules_as_well() -> None:
    report = check_provider(lambda: TracedProvider(RootedProvider()), ["jl://127.0.0.1:0"])
    assert report.ok, report


def test_an_endpoint_of_the_layer_below_has_one_endpoint_above_wherever_it_shows() -> None:
    provider = traced()
    info = provider.protocols()[0]
    root = provider.open(info, Roles(True, True), Settings())
    leaf = provider.open(info, Roles(), Settings())
    named: list[tuple[Endpoint, int]] = []

    def note(endpoint: Endpoint, event: EndpointEvent) -> None:
        named.append((endpoint, event.kind))

    root.bind(Address("one"))
    root.listen()
    leaf.subscribe(note)
    assert leaf.start_join_leaf(Address("one")) is leaf
    leg = root.accept()
    assert leg is not root
    assert leaf.join_result().endpoint is leaf
    assert (leaf, c.FD_CONNECT) in named
    root.send_many([b"x"], to=[leg])
    assert leaf.receive_many(timeout=10).messages == [b"x"]
    leaf.subscribe(None)
    for endpoint in (leaf, leg, root):
        endpoint.close()


def test_only_connectionless_endpoints_look_like_ones() -> None:
    provider, base = traced(), MemoryProvider()
    for info in base.protocols():
        below = base.open(info, Roles(), Settings())
        above = provider.open(info, Roles(), Settings())
        assert isinstance(above, DatagramEndpoint) is isinstance(below, DatagramEndpoint)
        offered = {name for name in vars(Endpoint) if not name.startswith("_")}
        assert offered <= set(dir(type(above)))


def test_a_session_of_a_traced_scheme_is_reported_with_results_errors_and_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="joinleaf.trace")
    catalogue = default_catalogue()
    chains = add_tracer(catalogue, "mem")
    try:
        with joinleaf.open_root("mem://traced") as root, joinleaf.join("mem://traced") as leaf:
            root.send(b"x" * 100_000)
            assert len(leaf.receive(timeout=10).data) == 100_000
        with pytest.raises(joinleaf.JoinError):
            joinleaf.join("mem://nobody", timeout=0.2)
    finally:
        for chain in chains:
            catalogue.remove(f"trace {chain.chain[-1]}")
        catalogue.remove("trace")
    text = "\n".join(record.getMessage() for record in caplog.records)
    for pattern in (
        r"^mem open\('joinleaf memory, .*\) -> mem#\d+ \[\d+\.\d{3} ms\]$",
        r"^mem#\d+ join_leaf\(.*\) -> Joined\(.*\) \[",
        r"^mem#\d+ join_leaf\(.*\) -> WSAE\w+ \d+ \[",
        r"^mem#\d+ <- EndpointEvent\(",
    ):
        assert re.search(pattern, text, re.M), f"{pattern} is not in\n{text}"
    assert max(map(len, text.splitlines())) < 1000, "a long message makes no long line"


def test_a_scheme_is_traced_once() -> None:
    catalogue = Catalogue()
    catalogue.add(MemoryProvider())
    add_tracer(catalogue, "mem")
    with pytest.raises(joinleaf.CatalogueError):
        add_tracer(catalogue, "mem")
    provider = catalogue.find("mem")
    assert isinstance(provider, TracedProvider)
    assert isinstance(provider.lower, MemoryProvider)
