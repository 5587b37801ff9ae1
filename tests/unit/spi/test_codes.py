"""The table from error numbers to exceptions, errno and hints."""

import errno

import pytest

from joinleaf import errors as e
from joinleaf.spi import codes

ALL = sorted({v for n, v in vars(codes).items() if n.startswith("WSA") and isinstance(v, int)})


@pytest.mark.parametrize("code", ALL)
@pytest.mark.parametrize("joining", [False, True])
def test_every_number_becomes_an_exception_with_errno_and_hint(code: int, joining: bool) -> None:
    error = codes.session_error(e.SpiError(code, "", data=b"said"), joining=joining)
    assert (error.code, error.errno, error.data) == (code, codes.errno_of(code), b"said")
    assert error.hint
    assert str(error).endswith(error.hint)
    assert codes.name_of(code).startswith("WSA")
    assert getattr(codes, codes.name_of(code)) == code


@pytest.mark.parametrize(
    ("code", "joining", "expected", "builtin"),
    [
        (10061, True, e.JoinRefusedError, ConnectionRefusedError),
        (10060, True, e.JoinTimeoutError, TimeoutError),
        (10060, False, e.SessionTimeoutError, TimeoutError),
        (10035, False, e.SessionTimeoutError, TimeoutError),
        (10037, True, e.JoinPendingError, BlockingIOError),
        (10045, True, e.AdmissionRefusedError, e.JoinError),
        (10045, False, e.SessionOSError, OSError),
        (10101, False, e.SessionClosedError, e.SessionError),
        (10004, False, e.SessionClosedError, e.SessionError),
        (10053, False, e.SessionBrokenError, ConnectionError),
        (10054, False, e.SessionBrokenError, ConnectionError),
        (10040, False, e.MessageTooLargeError, OSError),
        (10036, False, e.BusyError, e.SessionError),
        (10048, True, e.SessionOSError, OSError),
    ],
)
def test_the_class_is_the_one_promised(
    code: int, joining: bool, expected: type[e.SessionError], builtin: type[Exception]
) -> None:
    error = codes.session_error(e.SpiError(code, "what happened"), joining=joining)
    assert type(error) is expected
    assert isinstance(error, builtin)
    assert str(error).startswith("what happened. ")


def test_the_hint_of_the_provider_wins_and_is_said_once() -> None:
    error = codes.session_error(e.SpiError(10061, "No", hint="Bring a key", reason="refused"))
    assert str(error) == "No. Bring a key"
    assert error.reason == "refused"


def test_an_unknown_number_is_still_an_error() -> None:
    error = codes.session_error(e.SpiError(4711, "odd"))
    assert isinstance(error, e.SessionOSError)
    assert (codes.name_of(4711), error.errno) == ("4711", errno.EIO)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENODEV, 10049),
        (errno.EADDRNOTAVAIL, 10049),
        (errno.EHOSTUNREACH, 10051),
        (errno.ENETUNREACH, 10051),
        (errno.ENOMEM, 10055),
        (errno.ENOBUFS, 10055),
        (errno.ENETDOWN, 10050),
        (errno.EAGAIN, 10035),
        (errno.EADDRINUSE, 10048),
        (errno.EINTR, 10107),
        (10054, 10054),  # Windows
        (99999, 10107),
    ],
)
def test_system_errors_get_the_numbers_of_section_14_8(number: int, code: int) -> None:
    assert codes.code_of_errno(number) == code


def test_an_os_error_keeps_its_words() -> None:
    error = codes.spi_error_from_os(
        OSError(errno.EADDRINUSE, "in use"), call="bind", message="port 1"
    )
    assert (error.code, error.call) == (10048, "bind")
    assert str(error) == f"port 1: in use. {error.hint}"
    assert codes.spi_error_from_os(TimeoutError("slow"), call="x").code == 10060
