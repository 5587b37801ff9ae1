from __future__ import annotations

import socket
from typing import Any

import pytest

from joinleaf.drivers.names import look_up, looked_up, resolve
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEAFNOSUPPORT, WSAHOST_NOT_FOUND
from joinleaf.values import Address

HERE = Address("some-host", 7400)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that the system was asked for; it knows one."""
    hosts = []

    def getaddrinfo(host: str, port: int, **_: Any) -> Any:
        hosts.append(host)
        if host == "some-host":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", port))]
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return hosts


def test_what_was_looked_up_is_not_asked_for_again(asked: list[str]) -> None:
    answers = look_up(HERE)
    with looked_up(answers):
        places = resolve(HERE)
        places.clear()  # who tries them takes them out
        assert resolve(HERE) == [(socket.AF_INET, ("192.0.2.7", 7400))]
    assert asked == ["some-host"]
    resolve(HERE)
    assert asked == ["some-host"] * 2


def test_a_failure_is_an_answer_as_well(asked: list[str]) -> None:
    unknown = Address("nowhere", 1)
    answers = look_up(unknown)
    with looked_up(answers):
        for _ in range(2):
            with pytest.raises(SpiError, match="nowhere") as error:
                resolve(unknown)
            assert error.value.code == WSAHOST_NOT_FOUND
        resolve(HERE)  # others are asked for as ever
    assert asked == ["nowhere", "some-host"]


def test_a_scope_goes_along_and_what_is_no_name_is_told(asked: list[str]) -> None:
    with pytest.raises(SpiError):
        resolve(Address("fe80::1", 1, "lo"))
    assert asked == ["fe80::1%lo"]


def test_no_host_name_at_all() -> None:
    with pytest.raises(SpiError, match="is no host name") as error:
        resolve(Address("a" * 64 + ".example", 1))
    assert error.value.code == WSAEAFNOSUPPORT
