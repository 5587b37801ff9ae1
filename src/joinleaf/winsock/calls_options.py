"""Options and commands: WSPGetSockOpt, WSPSetSockOpt, WSPIoctl, WSPGetQOSByName (5.13, 5.14).

Options of level SOL_SOCKET are kept here, so that they can be read back and are inherited whatever
the carrier knows of them; a carrier that knows one is told as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import DatagramEndpoint
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address
from joinleaf.winsock import ip_level
from joinleaf.winsock.addresses import decode, encode
from joinleaf.winsock.calls_base import CallsBase, answers
from joinleaf.winsock.conversions import info_to_c, qos_to_c
from joinleaf.winsock.memory import (
    Cell,
    address_of,
    as_int,
    buffer,
    fault,
    is_null,
    qos_at,
    read,
    read_int,
    write,
    write_int,
    write_qos,
)
from joinleaf.winsock.overlapped import Result
from joinleaf.winsock.sockets import Kind, SocketRecord
from joinleaf.winsock.types import (
    QOS,
    SOCKET,
    SOCKET_ADDRESS,
    SOCKET_ERROR,
)

__all__ = ["OptionCalls"]

_DONTLINGER: Final = c.SO_DONTLINGER & 0xFFFFFFFF
_BOOLS: Final = frozenset(
    {
        c.SO_DEBUG,
        c.SO_REUSEADDR,
        c.SO_KEEPALIVE,
        c.SO_DONTROUTE,
        c.SO_BROADCAST,
        c.SO_OOBINLINE,
        c.SO_CONDITIONAL_ACCEPT,
    }
)
_SIZES: Final = frozenset({c.SO_SNDBUF, c.SO_RCVBUF})
_WORD: Final = 4
_ORDER: Final = sys.byteorder
_DEFAULT_BUFFER: Final = 65536

_TEMPLATES: Final = {
    # Names of Windows' own templates: rates in bytes per second, sizes in bytes.
    "G711": FlowSpec(token_rate=9250, token_bucket_size=680, peak_bandwidth=13875, service_type=3),
    "G723.1": FlowSpec(token_rate=2150, token_bucket_size=208, peak_bandwidth=3225, service_type=3),
    "G729": FlowSpec(token_rate=3000, token_bucket_size=160, peak_bandwidth=4500, service_type=3),
    "BESTEFFORT": FlowSpec(),
}


class OptionCalls(CallsBase):
    """Four calls."""

    @answers(SOCKET_ERROR)
    def WSPGetSockOpt(
        self, s: Any, level: Any, optname: Any, optval: Any, optlen: Any, lpErrno: Any
    ) -> int:
        """Read an option. WSAEFAULT where the value does not fit."""
        record = self.enter(s)
        option = as_int(optname) & 0xFFFFFFFF
        self._check_usable(record, reading_error=option == c.SO_ERROR)
        if as_int(level) != c.SOL_SOCKET:
            raw = self._get_ip(record, as_int(level), option)
        else:
            raw = self._get(record, option)
        if is_null(optval):
            raise fault("no place for the value")
        if isinstance(optval, Cell):
            optval.value = int.from_bytes(raw, _ORDER) if len(raw) <= _WORD else raw
            return 0
        if read_int(optlen) < len(raw):
            raise fault(f"the value has {len(raw)} bytes")
        write(optval, raw)
        write_int(optlen, len(raw))
        return 0

    @staticmethod
    def _check_usable(record: SocketRecord, *, reading_error: bool = False) -> None:
        """The table of section 6.7: a leg that is pending or failed, but for SO_ERROR."""
        if record.kind is not Kind.LEG or not (record.is_unusable or record.is_ended):
            return
        if record.is_pending or not reading_error:
            raise SpiError(codes.WSAEINVAL, "the socket is not usable")

    def _get(self, record: SocketRecord, option: int) -> bytes:
        if option == c.SO_PROTOCOL_INFOW:
            return bytes(info_to_c(record.info))
        if option == c.SO_LINGER:
            onoff, seconds = record.options.get(c.SO_LINGER, (0, 0))
            return int(onoff).to_bytes(2, _ORDER) + int(seconds).to_bytes(2, _ORDER)
        return (self._get_number(record, option) & 0xFFFFFFFF).to_bytes(_WORD, _ORDER)

    def _get_number(self, record: SocketRecord, option: int) -> int:
        if option == c.SO_ERROR:
            code, record.last_error = record.last_error, 0
            return code
        if option == c.SO_ACCEPTCONN:
            return int(record.listening)
        if option == c.SO_TYPE:
            return record.info.socket_type
        if option == _DONTLINGER:
            return int(not record.options.get(c.SO_LINGER, (0, 0))[0])
        if option in (c.SO_GROUP_ID, c.SO_GROUP_PRIORITY):
            return 0
        if option in record.options:
            return int(record.options[option])
        with contextlib.suppress(SpiError):
            return int(record.endpoint.get_option(option))
        if option in _BOOLS:
            return 0
        if option in _SIZES:
            return _DEFAULT_BUFFER
        raise SpiError(codes.WSAENOPROTOOPT, f"option {option:#x} is not known")

    @answers(SOCKET_ERROR)
    def WSPSetSockOpt(
        self, s: Any, level: Any, optname: Any, optval: Any, optlen: Any, lpErrno: Any
    ) -> int:
        """Set an option. WSAEFAULT (size), WSAEINVAL (value, level), WSAENOPROTOOPT (unknown)."""
        record = self.enter(s)
        self._check_usable(record)
        option = as_int(optname) & 0xFFFFFFFF
        if is_null(optval) and not isinstance(optval, int):
            raise fault("no value")
        if as_int(level) != c.SOL_SOCKET:
            self._set_ip(record, as_int(level), option, _bytes_of(optval, optlen))
            return 0
        self._set(record, option, _bytes_of(optval, optlen))
        return 0

    def _set(self, record: SocketRecord, option: int, raw: bytes) -> None:
        if option not in (*_BOOLS, *_SIZES, c.SO_LINGER, _DONTLINGER):
            raise SpiError(codes.WSAENOPROTOOPT, f"option {option:#x} cannot be set")
        if len(raw) < _WORD:
            raise fault("the value has 4 bytes")
        number = int.from_bytes(raw[:_WORD], _ORDER)
        value: Any = number
        if option == c.SO_LINGER:
            value = (int.from_bytes(raw[:2], _ORDER), int.from_bytes(raw[2:4], _ORDER))
        elif option == _DONTLINGER:
            linger = record.options.get(c.SO_LINGER, (0, 0))
            option, value = c.SO_LINGER, (int(not number), linger[1])
        elif option in _BOOLS:
            value = bool(number)
        if option == c.SO_CONDITIONAL_ACCEPT and record.listening:
            raise SpiError(codes.WSAEINVAL, "set it before listening")
        if option != c.SO_LINGER:
            self._tell_carrier(record, option, value)
        record.options[option] = value

    @staticmethod
    def _tell_carrier(record: SocketRecord, option: int, value: Any) -> None:
        try:
            record.endpoint.set_option(option, value)
        except SpiError as error:
            if error.code != codes.WSAENOPROTOOPT:
                raise

    # Multicast options of the BSD form, mixed with joins by many programs (model, 11.1)

    def _get_ip(self, record: SocketRecord, level: int, option: int) -> bytes:
        _check_level(record, level)
        command = ip_level.COMMANDS.get((level, option))
        if command is None:
            return ip_level.get(self.descriptor_of(record.endpoint), level, option)
        return int(record.options.get(-command, 1)).to_bytes(_WORD, _ORDER)

    def _set_ip(self, record: SocketRecord, level: int, option: int, raw: bytes) -> None:
        _check_level(record, level)
        command = ip_level.COMMANDS.get((level, option))
        if command is not None:
            self._control_number(record, command, int.from_bytes(raw[:_WORD], _ORDER))
            return
        ip_level.put(self.descriptor_of(record.endpoint), level, option, raw)
        if (interface := ip_level.interface(level, option, raw)) is not None:
            record.interface = interface
        if ip_level.joins(level, option) and isinstance(record.endpoint, DatagramEndpoint):
            record.endpoint.open_to_all()  # a member without WSPJoinLeaf hears its group as well

    def _control_number(self, record: SocketRecord, code: int, number: int) -> None:
        value: Any = bool(number) if code == c.SIO_MULTIPOINT_LOOPBACK else number
        record.endpoint.ioctl(code, value)
        record.options[-code] = int(value)

    # Commands

    @answers(SOCKET_ERROR)
    def WSPIoctl(
        self,
        s: Any,
        dwIoControlCode: Any,
        lpvInBuffer: Any,
        cbInBuffer: Any,
        lpvOutBuffer: Any,
        cbOutBuffer: Any,
        lpcbBytesReturned: Any,
        lpOverlapped: Any,
        lpCompletionRoutine: Any,
        lpThreadId: Any,
        lpErrno: Any,
    ) -> int:
        """A command; ``lpcbBytesReturned`` may be NULL, as many programs have it."""
        record = self.enter(s)
        self._check_usable(record)
        code = as_int(dwIoControlCode) & 0xFFFFFFFF
        given = (lpvInBuffer, as_int(cbInBuffer))
        room = (lpvOutBuffer, as_int(cbOutBuffer))

        def attempt() -> Result:
            return Result(self._control(record, code, given, room, lpcbBytesReturned))

        overlapped = record.overlapped and not is_null(lpOverlapped)
        if code in _CHANGES or (overlapped and code == c.SIO_GET_QOS):
            attempt = self._at_next_change(record, code, given, attempt)
        if overlapped:
            asked = (lpOverlapped, lpCompletionRoutine, lpThreadId)
            return self._overlap_control(record, attempt, asked, lpcbBytesReturned)
        if code in _CHANGES and record.blocking:
            result = self._wait_for_change(record, attempt)
        else:
            result = attempt()
        if not is_null(lpcbBytesReturned):
            write_int(lpcbBytesReturned, result.count, ctypes.c_uint32)
        return 0

    @staticmethod
    def _at_next_change(
        record: SocketRecord, code: int, given: tuple[Any, int], command: Callable[[], Result]
    ) -> Callable[[], Result]:
        """The command, to be carried out when something has changed; WSAEWOULDBLOCK until then."""
        event = _CHANGES.get(code, c.FD_QOS)
        if code == c.SIO_GET_QOS:
            if not record.info.has(c.XP1_QOS_SUPPORTED):
                raise SpiError(codes.WSAENOPROTOOPT, "this entry keeps no QoS")
        else:
            if record.info.address_family not in (c.AF_INET, c.AF_INET6):
                raise SpiError(codes.WSAEINVAL, "names have neither routes nor interfaces")
            if code == c.SIO_ROUTING_INTERFACE_CHANGE:
                decode(read(*given), record.info, codes.WSAEFAULT)
            record.notices.enable(event)
            record.interests.ask(event)
        before = record.interests.count(event)

        def attempt() -> Result:
            if record.interests.count(event) == before:
                raise SpiError(codes.WSAEWOULDBLOCK, "nothing has changed yet")
            return command() if code == c.SIO_GET_QOS else Result()

        return attempt

    def _wait_for_change(self, record: SocketRecord, attempt: Callable[[], Result]) -> Result:
        """SIO_*_CHANGE on a blocking socket: return once it has changed."""
        thread = self.outlet.objects.thread()

        def look(timeout: float | None) -> Result:
            while True:
                generation = self.generation
                if record.closed or (thread.call is not None and thread.call.cancelled):
                    raise SpiError(codes.WSAEINTR, "closed or cancelled", call="WSPIoctl")
                with contextlib.suppress(SpiError):
                    return attempt()
                with self.activity:
                    if not self.activity.wait_for(lambda: self.generation != generation, timeout):  # noqa: B023  # called at once
                        raise SpiError(codes.WSAETIMEDOUT, "not yet", call="WSPIoctl")

        return self.wait(look, self.wake_select, call="WSPIoctl")

    def _overlap_control(
        self,
        record: SocketRecord,
        attempt: Callable[[], Result],
        asked: tuple[Any, Any, Any],
        counted: Any,
    ) -> int:
        overlap: Callable[..., int] = getattr(self, "overlap")  # noqa: B009  # DataCalls has it
        return overlap(record.controls, asked, attempt, counted, None)

    def _control(
        self,
        record: SocketRecord,
        code: int,
        given: tuple[Any, int],
        room: tuple[Any, int],
        counted: Any,
    ) -> int:
        """Carry the command out; gives the bytes returned."""
        handler = _COMMANDS.get(code)
        if handler is None:
            record.endpoint.ioctl(code, None)
            return 0
        out = handler(self, record, given)
        if out is None:
            return 0
        if not isinstance(room[0], Cell) and (is_null(room[0]) or room[1] < len(out)):
            if not is_null(counted):
                write_int(counted, len(out), ctypes.c_uint32)
            raise fault(f"the answer has {len(out)} bytes")
        if code == c.SIO_ADDRESS_LIST_QUERY:
            out = _address_list(record, record.endpoint.ioctl(code), room[0])
        if isinstance(room[0], Cell) and len(out) <= _WORD:
            room[0].value = int.from_bytes(out, _ORDER)
        elif code == c.SIO_GET_QOS:
            write_qos(room[0], _own_view(record))
        else:
            write(room[0], out)
        return len(out)

    def set_mode(self, record: SocketRecord, given: tuple[Any, int]) -> None:
        """FIONBIO; back to blocking is refused while a registration is active (5.13)."""
        nonblocking = bool(_number(given))
        if not nonblocking and record.notices.is_active:
            raise SpiError(codes.WSAEINVAL, "cancel the event registration first")
        record.blocking = not nonblocking

    def bytes_waiting(self, record: SocketRecord, given: tuple[Any, int]) -> bytes:
        """FIONREAD: everything queued, what has been fetched ahead included."""
        ahead = sum(message.left for message in tuple(record.inbox))
        below = 0
        with contextlib.suppress(SpiError):
            below = int(record.endpoint.ioctl(c.FIONREAD))
        return (ahead + below).to_bytes(_WORD, _ORDER)

    def at_mark(self, record: SocketRecord, given: tuple[Any, int]) -> bytes:
        """SIOCATMARK: there are no urgent data, so none are waiting."""
        return (1).to_bytes(_WORD, _ORDER)

    def set_loopback(self, record: SocketRecord, given: tuple[Any, int]) -> None:
        """SIO_MULTIPOINT_LOOPBACK: of nonrooted data planes only (model, 10.4)."""
        number = _number(given)
        if record.info.data_plane_rooted:
            raise SpiError(codes.WSAEINVAL, "loopback is of nonrooted data planes")
        self._control_number(record, c.SIO_MULTIPOINT_LOOPBACK, number)

    def set_scope(self, record: SocketRecord, given: tuple[Any, int]) -> None:
        """SIO_MULTICAST_SCOPE: 0 to 255."""
        self._control_number(record, c.SIO_MULTICAST_SCOPE, _number(given))

    def set_qos(self, record: SocketRecord, given: tuple[Any, int]) -> None:
        """SIO_SET_QOS: WSAENOPROTOOPT where the provider knows none, WSAEOPNOTSUPP if too much."""
        if not record.info.has(c.XP1_QOS_SUPPORTED):
            raise SpiError(codes.WSAENOPROTOOPT, "this entry keeps no QoS")
        if not isinstance(given[0], Qos) and given[1] < ctypes.sizeof(QOS):
            raise fault("the buffer is shorter than a QOS")
        qos = qos_at(given[0])
        if qos is None:
            raise fault("no QOS")
        record.endpoint.ioctl(c.SIO_SET_QOS, qos)
        record.preset_qos = qos

    def get_qos(self, record: SocketRecord, given: tuple[Any, int]) -> bytes:
        """SIO_GET_QOS; lets FD_QOS be indicated again."""
        if not record.info.has(c.XP1_QOS_SUPPORTED):
            raise SpiError(codes.WSAENOPROTOOPT, "this entry keeps no QoS")
        record.notices.enable(c.FD_QOS)
        return bytes(qos_to_c(_own_view(record)))

    def find_route(self, record: SocketRecord, given: tuple[Any, int]) -> bytes:
        """SIO_ROUTING_INTERFACE_QUERY: the own address that packets there would leave from."""
        target = decode(read(*given), record.info, codes.WSAEFAULT)
        answer: Address = record.endpoint.ioctl(c.SIO_ROUTING_INTERFACE_QUERY, target)
        return encode(answer, record.info)

    def addresses(self, record: SocketRecord, given: tuple[Any, int]) -> bytes:
        """SIO_ADDRESS_LIST_QUERY; pointers in the answer are filled in where it is put."""
        found: tuple[Address, ...] = record.endpoint.ioctl(c.SIO_ADDRESS_LIST_QUERY)
        return _address_list(record, found, None)

    def broadcast(self, record: SocketRecord, given: tuple[Any, int]) -> bytes:
        """SIO_GET_BROADCAST_ADDRESS."""
        return encode(record.endpoint.ioctl(c.SIO_GET_BROADCAST_ADDRESS), record.info)

    def flush(self, record: SocketRecord, given: tuple[Any, int]) -> None:
        """SIO_FLUSH: overlapped sends that wait end with WSA_OPERATION_ABORTED."""
        record.sends.abort(quiet=False)

    def descriptor(self, record: SocketRecord, given: tuple[Any, int]) -> bytes:
        """SIO_QUERY_TARGET_PNP_HANDLE: the descriptor of the base provider, which is this one."""
        return bytes(SOCKET(record.handles[0]))

    @answers(0)
    def WSPGetQOSByName(self, s: Any, lpQOSName: Any, lpQOS: Any, lpErrno: Any) -> int:
        """Fill a QOS from a named template; WSAENOPROTOOPT without QoS, WSAEINVAL: no such name.

        Names are ASCII or UTF-16, upper or lower case, with or without a terminating zero.
        """
        record = self.enter(s)
        if not record.info.has(c.XP1_QOS_SUPPORTED):
            raise SpiError(codes.WSAENOPROTOOPT, "this entry keeps no QoS")
        name = buffer(lpQOSName)
        if name is None or is_null(lpQOS):
            raise fault("a name and a place are needed")
        text = name.read().replace(b"\0", b"").decode("latin-1").upper()
        if (template := _TEMPLATES.get(text)) is None:
            raise SpiError(codes.WSAEINVAL, f"no template is called {text[:40]!r}")
        write_qos(lpQOS, Qos(template, template))
        return 1


def _check_level(record: SocketRecord, level: int) -> None:
    """WSAEINVAL for a level that is none, WSAENOPROTOOPT for one of other kinds of socket."""
    if level not in ip_level.LEVELS:
        raise SpiError(codes.WSAEINVAL, f"level {level} is not known")
    datagrams = record.info.has(c.XP1_IFS_HANDLES)
    if not datagrams or ip_level.LEVELS[level] != record.info.address_family:
        raise SpiError(codes.WSAENOPROTOOPT, f"level {level} is of other sockets")


def _own_view(record: SocketRecord) -> Qos:
    """What this end sends and receives: what was agreed is in the words of the one who asked."""
    qos = record.endpoint.qos or record.preset_qos or Qos()
    if record.accepted:
        return Qos(qos.receiving, qos.sending, qos.provider_specific)
    return qos


def _bytes_of(value: Any, length: Any) -> bytes:
    if isinstance(value, bool | int) and as_int(length) == 0:
        return (int(value) & 0xFFFFFFFF).to_bytes(_WORD, _ORDER)
    size = as_int(length)
    if size <= 0:
        raise fault("the value has no length")
    return read(value, size)


def _number(given: tuple[Any, int]) -> int:
    place, size = given
    if size < _WORD:
        raise fault("a number of 4 bytes is needed")
    return int.from_bytes(read(place, _WORD), _ORDER)


def _address_list(record: SocketRecord, found: tuple[Address, ...], place: Any) -> bytes:
    """SOCKET_ADDRESS_LIST with the addresses behind it, as it lies at ``place``."""
    raw = [encode(address, record.info) for address in found]
    offset = ctypes.sizeof(ctypes.c_void_p) + ctypes.sizeof(SOCKET_ADDRESS) * len(raw)
    base = 0 if place is None or isinstance(place, Cell) else address_of(place)
    entries = b""
    for one in raw:
        entries += bytes(SOCKET_ADDRESS(base + offset if base else 0, len(one)))
        offset += len(one)
    count = len(raw).to_bytes(_WORD, _ORDER).ljust(ctypes.sizeof(ctypes.c_void_p), b"\0")
    return count + entries + b"".join(raw)


_Handler = Callable[[OptionCalls, SocketRecord, tuple[Any, int]], bytes | None]

_COMMANDS: Final[dict[int, _Handler]] = {
    c.FIONBIO: OptionCalls.set_mode,
    c.FIONREAD: OptionCalls.bytes_waiting,
    c.SIOCATMARK: OptionCalls.at_mark,
    c.SIO_MULTIPOINT_LOOPBACK: OptionCalls.set_loopback,
    c.SIO_MULTICAST_SCOPE: OptionCalls.set_scope,
    c.SIO_SET_QOS: OptionCalls.set_qos,
    c.SIO_GET_QOS: OptionCalls.get_qos,
    c.SIO_ROUTING_INTERFACE_QUERY: OptionCalls.find_route,
    c.SIO_ADDRESS_LIST_QUERY: OptionCalls.addresses,
    c.SIO_GET_BROADCAST_ADDRESS: OptionCalls.broadcast,
    c.SIO_FLUSH: OptionCalls.flush,
    c.SIO_QUERY_TARGET_PNP_HANDLE: OptionCalls.descriptor,
}

_CHANGES: Final = {
    c.SIO_ROUTING_INTERFACE_CHANGE: c.FD_ROUTING_INTERFACE_CHANGE,
    c.SIO_ADDRESS_LIST_CHANGE: c.FD_ADDRESS_LIST_CHANGE,
}
