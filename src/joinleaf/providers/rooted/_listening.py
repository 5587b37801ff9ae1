"""What the c_root and the c_leaf have in common: both ask to join, and both are asked.

A leaf asks a root, and a root invites a leaf; whoever is asked takes the request from a queue,
shows it to a condition function and answers. Only what comes of a yes differs: a leg of the root's,
or a member of its own.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Final

from joinleaf.core.leg import LegState
from joinleaf.core.session import Crowded, LegEnded, Output
from joinleaf.core.wire.control import MAX_CONNECT_DATA
from joinleaf.drivers.sides import PlainSide, Side
from joinleaf.drivers.streams import StreamDriver
from joinleaf.errors import SpiError
from joinleaf.providers.rooted._base import (
    Callbacks,
    EndpointBase,
    closed_error,
    late,
)
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEACCES,
    WSAEADDRNOTAVAIL,
    WSAEALREADY,
    WSAECONNREFUSED,
    WSAECONNRESET,
    WSAEFAULT,
    WSAEINVAL,
    WSAEPROTONOSUPPORT,
    WSATRY_AGAIN,
)
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Accept,
    Condition,
    Defer,
    Endpoint,
    EndReason,
    Joined,
    JoinRequest,
    Reject,
    Roles,
    Settings,
    TakenRequest,
)
from joinleaf.values import Address, KeyedAddress

__all__ = ["ListeningEndpoint", "check_join_arguments", "plain"]

_log: Final = logging.getLogger("joinleaf")


def check_join_arguments(address: Address, caller_data: bytes, info: ProtocolInfo) -> None:
    """Steps 9 to 16 of the model's section 5.6, as far as Python types leave them open."""
    if address.is_any or not address.port or address.is_multicast:
        raise SpiError(
            WSAEADDRNOTAVAIL,
            f"{address} is not the address of a peer",
            call="join_leaf",
            hint="Name one host and its port",
        )
    if caller_data and not info.has(c.XP1_CONNECT_DATA):
        raise SpiError(WSAEPROTONOSUPPORT, "no connect data on this entry", call="join_leaf")
    if len(caller_data) > MAX_CONNECT_DATA:
        raise SpiError(
            WSAEFAULT,
            f"connect data of {len(caller_data)} bytes are over {MAX_CONNECT_DATA}",
            call="join_leaf",
            hint="Send larger things as messages once joined",
        )


def plain(address: Address) -> Address:
    """The address without a session key, to be kept and shown."""
    return address.plain if isinstance(address, KeyedAddress) else address


class ListeningEndpoint(EndpointBase):
    """An endpoint with a queue of join requests, and with at most one join of its own pending."""

    _called: ClassVar[str]  # what an asker reads that it is

    def __init__(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings,
        driver: StreamDriver,
        side: Side | None = None,
    ) -> None:
        super().__init__(info, roles, settings, driver)
        self._side = side or PlainSide()
        self._sock: socket.socket | None = None
        self._local: Address | None = None
        self._deciding: dict[int, EndReason | None] = {}  # taken requests, and why one is gone
        self._outcome: Joined | SpiError | None = None

    @property
    def session_key(self) -> str:
        """What whoever connects here must have; ``""`` before it listens, or if nothing."""
        return self._side.key_text

    @property
    def peer_identity(self) -> str:
        """There is no single peer."""
        return ""

    @property
    def asks_proof(self) -> bool:
        """Whether whoever connects has to have the session key, or a certificate."""
        return self._side.asks_proof

    @property
    def local_address(self) -> Address:
        """WSPGetSockName."""
        if self._local is None:
            raise SpiError(WSAEINVAL, "the endpoint is not bound", call="local_address")
        return self._local

    @property
    @abstractmethod
    def _listens(self) -> bool:
        """Whether requests are taken."""

    @property
    @abstractmethod
    def _joining(self) -> bool:
        """Whether a join of its own is pending."""

    @abstractmethod
    def _make_accepted(self, key: int, request: JoinRequest, verdict: Accept) -> EndpointBase:
        """Say yes to the asker, and make what ``accept`` returns. Under the lock.

        Raises:
            SpiError: It cannot be admitted after all; the asker has been refused.
        """

    def _start_accepted(self, accepted: EndpointBase) -> None:
        """Set it to work. Not under the lock; by default it works already."""

    @abstractmethod
    def _output(self, output: Output) -> Callbacks:
        """Take note of one output of the session. Under the lock."""

    def _dispatch(self, outputs: Iterable[Output]) -> Callbacks:
        calls: Callbacks = []
        for output in outputs:
            if isinstance(output, Crowded):
                _log.warning("%s", output.text)
            elif isinstance(output, LegEnded) and output.message:
                leg = self._driver.session.legs.get(output.key)
                peer = "a peer" if leg is None else leg.association.peer
                _log.warning("%s broke the protocol: %s", peer, output.message)
            calls += self._output(output)
        return calls

    def _check_open(self, call: str) -> None:
        if self._closed:
            raise closed_error(call)

    # Being asked

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> Endpoint:
        """WSPAccept; the condition runs on this thread, and no lock is held meanwhile."""
        taken = self.take_request(timeout=timeout)
        try:
            verdict = condition(taken.request) if condition is not None else Accept()
        except BaseException:
            sorry = Reject(message=f"{self._called} could not decide; see its log")
            with contextlib.suppress(SpiError):
                taken.answer(sorry)
            raise
        return taken.answer(verdict)

    def take_request(self, *, timeout: float | None = None) -> TakenRequest:
        """The first half of WSPAccept; several requests may be taken before one is answered."""
        self._check_open("accept")
        if not self._listens:
            raise SpiError(WSAEINVAL, "listen before accept", call="accept")
        offered = self._driver.wait_for(self._offer, timeout)
        if offered is None:
            raise late(timeout, "accept")
        key, request = offered

        def answer(verdict: Accept | Reject | Defer) -> Endpoint:
            self._driver.catch_up()  # an asker may have withdrawn: the word is in the socket
            accepted = self._driver.run(lambda: self._decide(key, request, verdict))
            self._start_accepted(accepted)
            return accepted._as_endpoint()

        return TakenRequest(request, answer)

    def _offer(self) -> tuple[int, JoinRequest] | None:
        self._check_open("accept")
        offered = self._driver.session.offer()
        if offered is not None:
            self._deciding[offered[0]] = None
        return offered

    def _request_gone(self, key: int, reason: EndReason) -> None:
        """The asker took it back. Under the lock."""
        if key in self._deciding:
            self._deciding[key] = reason

    def _decide(
        self, key: int, request: JoinRequest, verdict: Accept | Reject | Defer
    ) -> EndpointBase:
        self._check_open("accept")
        self._check_waiting(key)
        session = self._driver.session
        match verdict:
            case Defer():
                session.defer(key)
                raise SpiError(WSATRY_AGAIN, "the request is deferred", call="accept")
            case Reject():
                session.reject(key, verdict)
                raise SpiError(WSAECONNREFUSED, "rejected by the condition", call="accept")
            case Accept():
                return self._make_accepted(key, request, verdict)
        session.reject(key, Reject(message=f"{self._called} could not decide"))
        raise SpiError(WSAEINVAL, f"a condition may not return {verdict!r}", call="accept")

    def _check_waiting(self, key: int) -> None:
        if (reason := self._deciding.pop(key, None)) is not None:
            code = WSAECONNRESET if reason is EndReason.LOST else WSAEACCES
            raise SpiError(code, f"the asker is gone: {reason}", call="accept", reason=reason)
        waiting = self._driver.session.legs.get(key)
        if waiting is None or waiting.association.state is not LegState.OFFERED:
            text = "the request has been answered already, or its session dissolved meanwhile"
            raise SpiError(WSAECONNRESET, text, call="accept")

    # Asking

    def join_result(self) -> Joined:
        """Outcome of the last started join."""
        if self._outcome is None:
            code, text = (
                (WSAEALREADY, "still joining") if self._joining else (WSAEINVAL, "never joined")
            )
            raise SpiError(code, text, call="join_result")
        if isinstance(self._outcome, SpiError):
            raise self._outcome
        return self._outcome
