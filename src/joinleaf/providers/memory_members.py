"""The four kinds of endpoint of the memory provider: c_root, rooted c_leaf, leg, nonrooted c_leaf.

Each says what joining, leaving and ending mean for it; how a join goes is in ``memory_joining.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any, Final

from joinleaf.core.data_plane import Member
from joinleaf.core.leaf_nonrooted import NonrootedInput, NonrootedLeafMachine
from joinleaf.core.leaf_rooted import LeafInput, LeafMachine, LeafState
from joinleaf.core.leg import LegMachine
from joinleaf.core.qos.admission import Admission
from joinleaf.core.root import RootInput, RootMachine, RootState
from joinleaf.errors import SpiError
from joinleaf.providers.memory_endpoint import MemoryEndpoint
from joinleaf.providers.memory_hub import Hub, Session, size_of
from joinleaf.providers.memory_joining import (
    Association,
    Attempt,
    JoiningEndpoint,
    ListeningEndpoint,
)
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    Condition,
    Endpoint,
    EndReason,
    Joined,
    JoinRole,
    Roles,
    Settings,
)
from joinleaf.spi.qos import Qos
from joinleaf.values import IDENTITY_BYTES, Address

__all__ = ["LeafEndpoint", "LegEndpoint", "NonrootedEndpoint", "RootEndpoint"]

_ROOT_KEY: Final = 0
_MEMBER_ROLES: Final = Roles()


class RootEndpoint(ListeningEndpoint):
    """A c_root: invites, admits, expels and dissolves.

    Attributes:
        data: The session's data plane, the root in it as member 0.
        legs: Associations by the key of their leaf.
        admission: What has been reserved of ``Settings.capacity``.
    """

    listen_input = RootInput.LISTEN

    def __init__(self, hub: Hub, info: ProtocolInfo, roles: Roles, settings: Settings) -> None:
        super().__init__(hub, info, roles, settings)
        self.machine: RootMachine = RootMachine()
        self.data = Session(secrets.token_bytes(IDENTITY_BYTES), info.data_plane_rooted)
        self.legs: dict[int, Association] = {}
        self.admission = Admission(settings.capacity)
        self._role: JoinRole | None = None
        self.session = self.data
        self._take_role(JoinRole.BOTH)

    def _take_role(self, role: JoinRole) -> None:
        self.member = Member(_ROOT_KEY, self.roles.d_root, role, self.loopback)
        self.data.add(self.member, self)

    def join_input(self, role: JoinRole) -> RootInput:
        """The machine's input for a join."""
        return RootInput.INVITE

    def prepare(self, attempt: Attempt) -> None:
        """Make the leg, and see whether the invitation fits the capacity at all (5.6, step 17)."""
        association = self._associate(attempt, self)
        try:
            association.reserve(attempt.request.qos, attempt.request.role)
        finally:
            association.release()
        role = attempt.request.role
        # The flag is the root's own role; of different ones the union stays (model 10.2).
        self._role = role if self._role in (None, role) else JoinRole.BOTH
        self._take_role(self._role)
        attempt.leg = LegEndpoint(self)

    def _associate(self, attempt: Attempt, listener: ListeningEndpoint) -> Association:
        return Association(attempt, listener, self, LegMachine(asker=False))

    def request_arrives(self, attempt: Attempt) -> None:
        """The invitation reaches its name."""
        listener = self.hub.listeners.get(attempt.address.host)
        if isinstance(listener, LeafEndpoint) and listener.info == self.info:
            listener.request_queued(self._associate(attempt, listener))
        else:
            attempt.fail(codes.WSAECONNREFUSED, f"no leaf listens at {attempt.address.host!r}")

    def asked_by(self, attempt: Attempt) -> None:
        """A leaf's request reaches this root."""
        self.request_queued(self._associate(attempt, self))

    def joined_endpoint(self, attempt: Attempt) -> Endpoint:
        """The leg."""
        assert attempt.leg is not None
        return attempt.leg

    def machine_joined(self, attempt: Attempt) -> None:
        """The invitation was accepted."""
        self.machine.handle(RootInput.INVITE_DONE)
        assert attempt.leg is not None
        attempt.leg.state_pending = False

    def machine_failed(self, *, cancelled: bool) -> None:
        """It was not, or was taken back."""
        self.machine.handle(RootInput.INVITE_CANCELLED if cancelled else RootInput.INVITE_FAILED)

    def check_d_root(self, association: Association) -> None:
        """Raise WSAECONNREFUSED for a second d_root (model 10.1)."""
        asker, listener = association.attempt.asker, association.listener
        leaf = listener if asker is self else asker
        if leaf.roles.d_root and self.data.has_d_root:
            raise SpiError(codes.WSAECONNREFUSED, "the session has a data root already")

    def admit(self, association: Association, listener: ListeningEndpoint) -> MemoryEndpoint:
        """Make both sides of the leg, and give the one the acceptor gets."""
        attempt = association.attempt
        asker = attempt.asker
        if isinstance(asker, LeafEndpoint):
            leaf, leg, role = asker, LegEndpoint(self), attempt.request.role
            leg.state_pending = False
        else:
            assert attempt.leg is not None
            assert isinstance(listener, LeafEndpoint)
            leaf, leg, role = listener.invited(), attempt.leg, JoinRole.BOTH
        member = Member(self.data.new_key(), leaf.roles.d_root, role, leaf.loopback)
        association.leaf, association.leg, association.member = leaf, leg, member
        leaf.attach(association, member)
        leg.association, leg.agreed_qos = association, association.qos
        self.legs[member.key] = association
        self.data.add(member, leaf)
        self.counters.add("joins_admitted")
        if leaf is asker and len(self.legs) == 1:
            self.indicate_write()
        return leg if leaf is asker else leaf

    def check_connected(self, call: str) -> None:
        """A root has a session as long as it is not dissolved; the data plane says if members."""
        super().check_connected(call)
        idle = not self.legs and not self.is_listening and self.machine.state is RootState.IDLE
        if idle and call == "receive_many":
            raise SpiError(codes.WSAENOTCONN, "there are no leaves", call=call)

    def audience(self, to: Collection[Endpoint] | None) -> list[MemoryEndpoint]:
        """All who hear the root, or those of the legs given that do."""
        assert self.member is not None
        hearing = self.data.listeners(self.member)
        if to is not None and not self.roles.d_root:
            return super().audience(to)
        if to is not None:
            chosen = [self._leaf_of(leg) for leg in to]
            hearing = [leaf for leaf in hearing if leaf in chosen]
        if not any(one is not self for one in hearing):
            raise SpiError(codes.WSAENOTCONN, "no leaf hears the root", call="send_many")
        return hearing

    def _leaf_of(self, leg: Endpoint) -> MemoryEndpoint | None:
        if not isinstance(leg, LegEndpoint) or leg.root is not self:
            raise SpiError(codes.WSAEINVAL, "not a leg of this root", call="send_many")
        if leg.association is None or not leg.association.is_active:
            raise SpiError(codes.WSAENOTCONN, "that leaf has left", call="send_many")
        return leg.association.leaf

    @property
    def is_droppable(self) -> bool:
        """Never: the policy is for leaves."""
        return False

    def check_may_shut_down(self) -> None:
        """A root always may."""

    def shut_down(self, data: bytes) -> None:
        """Dissolve the session, staying open (model 1.4)."""
        self._dissolve(RootInput.DISSOLVE, EndReason.DISSOLVED, data)
        self._close_told = True  # it need not be told what it did (model 7.5)
        self.ended(EndReason.DISSOLVED)

    def release(self, data: bytes, reason: EndReason | None, abort: bool) -> None:
        """Dissolve the session on closing."""
        self._dissolve(RootInput.CLOSE, reason or EndReason.DISSOLVED, data)

    def _dissolve(self, kind: RootInput, reason: EndReason, data: bytes) -> None:
        self.machine.handle(kind)
        super().release(data, reason, abort=False)
        self.stop_listening()
        for association in list(self.legs.values()):
            association.end(reason, data, tell_leg=True, tell_leaf=True)
        self.data.remove(_ROOT_KEY)

    def indicate_present(self) -> None:
        """Sending is possible while there are leaves."""
        super().indicate_present()
        if self.legs:
            self.indicate_write()

    def statistics(self) -> dict[str, int]:
        """Counters, and how many leaves there are."""
        with self.hub:
            return {**super().statistics(), "leaves": len(self.legs)}


class LeafEndpoint(ListeningEndpoint):
    """A rooted c_leaf: joins, or listens to be invited, or is what accepting an invitation gave."""

    listen_input = LeafInput.LISTEN

    def __init__(
        self,
        hub: Hub,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings,
        state: LeafState = LeafState.IDLE,
    ) -> None:
        super().__init__(hub, info, roles, settings)
        self.machine: LeafMachine = LeafMachine(state)
        self.association: Association | None = None

    def join_input(self, role: JoinRole) -> LeafInput:
        """The machine's input for a join."""
        return LeafInput.JOIN

    def request_arrives(self, attempt: Attempt) -> None:
        """The request reaches its name."""
        listener = self.hub.listeners.get(attempt.address.host)
        if isinstance(listener, RootEndpoint) and listener.info == self.info:
            listener.asked_by(attempt)
        else:
            attempt.fail(codes.WSAECONNREFUSED, f"no root listens at {attempt.address.host!r}")

    def machine_joined(self, attempt: Attempt) -> None:
        """The root has admitted it."""
        self.machine.handle(LeafInput.JOIN_DONE)

    def machine_failed(self, *, cancelled: bool) -> None:
        """It has not, or the call was cancelled."""
        self.machine.handle(LeafInput.JOIN_CANCELLED if cancelled else LeafInput.JOIN_FAILED)

    def invited(self) -> LeafEndpoint:
        """The member that accepting an invitation gives (model 6.3, L9)."""
        member = LeafEndpoint(self.hub, self.info, self.roles, self.settings, LeafState.JOINED)
        member.inherit(self)
        member._local = self._local  # as accepted sockets have their listener's
        return member

    def attach(self, association: Association, member: Member) -> None:
        """It is a member now."""
        self.association, self.member = association, member
        self.session, self.agreed_qos = association.root.data, association.qos

    @property
    def is_usable(self) -> bool:
        """Not while a join is pending."""
        return self.machine.state is not LeafState.JOINING or self.closed

    def check_connected(self, call: str) -> None:
        """Nothing while pending (model 6.4, M6)."""
        if self.end is None and self.machine.state is not LeafState.JOINED:
            raise SpiError(codes.WSAENOTCONN, "not a member of a session", call=call)
        super().check_connected(call)

    def check_may_bind(self) -> None:
        """Not once it is bound; a joining one always is."""
        super().check_may_bind()
        if self.machine.state is not LeafState.IDLE:
            raise SpiError(codes.WSAEINVAL, "too late to bind", call="bind")

    @property
    def peer_address(self) -> Address:
        """The root's address."""
        if self.association is None or self.machine.state is LeafState.JOINING:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="peer_address")
        return self.association.root.local_address

    def audience(self, to: Collection[Endpoint] | None) -> list[MemoryEndpoint]:
        """Whoever hears this leaf; in a rooted plane without a d_root, nobody."""
        hearing = super().audience(to)
        if not any(one is not self for one in hearing):
            raise SpiError(codes.WSAENOTCONN, "nobody hears this leaf", call="send_many")
        return hearing

    def policy(self) -> Settings:
        """The root's."""
        return self.settings if self.association is None else self.association.root.settings

    def too_slow(self) -> bool:
        """Be expelled."""
        assert self.association is not None
        self.association.root.counters.add("leaves_expelled_slow")
        self.association.end(EndReason.SLOW, tell_leg=True, tell_leaf=True)
        return True

    def ended(self, reason: EndReason, data: bytes = b"") -> None:
        """The membership is over: broken, for good (clause 130)."""
        if self.machine.state is LeafState.JOINED:
            self.machine.handle(LeafInput.ENDED)
            super().ended(reason, data)

    def shut_down(self, data: bytes) -> None:
        """Leave, staying open for what has arrived."""
        if self.association is not None:
            self.association.end(EndReason.CLOSED, data, tell_leg=True, tell_leaf=False)
        self.ended(EndReason.CLOSED)

    def release(self, data: bytes, reason: EndReason | None, abort: bool) -> None:
        """Leave on closing."""
        self.machine.handle(LeafInput.CLOSE)
        super().release(data, reason, abort)
        self.stop_listening()
        if self.association is not None:
            self.association.end(reason or EndReason.CLOSED, data, tell_leg=True, tell_leaf=False)

    def change_qos(self, qos: Qos) -> None:
        """Ask for something else; while a member, at once or not at all."""
        if self.association is not None and self.association.is_active:
            self.association.reserve(qos, self.association.attempt.request.role)
            self.agreed_qos = qos
            assert self.association.leg is not None
            self.association.leg.agreed_qos = qos
            self.association.leg.indicate(c.FD_QOS)
            self.association.root.indicate(c.FD_QOS)
        super().change_qos(qos)

    def indicate_present(self) -> None:
        """Sending is possible while a member."""
        super().indicate_present()
        if self.machine.state is LeafState.JOINED:
            self.indicate_write()


class LegEndpoint(MemoryEndpoint):
    """The root's side of one leg: tells of its end, expels on closing, and carries side chat.

    Attributes:
        root: Its c_root.
        state_pending: State N of the model's section 6.7.
        state_failed: State F.
    """

    def __init__(self, root: RootEndpoint) -> None:
        super().__init__(root.hub, root.info, _MEMBER_ROLES, root.settings)
        self.root = root
        self.association: Association | None = None
        self.state_pending = True
        self.state_failed = False
        self.inherit(root)

    @property
    def local_address(self) -> Address:
        """The root's."""
        return self.root.local_address

    @property
    def peer_address(self) -> Address:
        """The leaf's."""
        if self.association is None or self.state_pending or self.state_failed:
            raise SpiError(codes.WSAENOTCONN, "no leaf has joined by it", call="peer_address")
        assert self.association.leaf is not None
        return self.association.leaf.local_address

    @property
    def session_id(self) -> bytes:
        """The root's session."""
        return self.root.data.session_id

    @property
    def is_usable(self) -> bool:
        """From the join's success on."""
        return not self.state_pending

    def check_may_bind(self) -> None:
        """Never."""
        raise SpiError(codes.WSAEINVAL, "a leg has its root's name", call="bind")

    def listen(self, backlog: int | None = None) -> None:
        """WSPListen."""
        raise SpiError(codes.WSAEINVAL, "a leg cannot listen", call="listen")

    def accept(
        self, condition: Condition | None = None, *, timeout: float | None = None
    ) -> Endpoint:
        """WSPAccept."""
        raise SpiError(codes.WSAEINVAL, "a leg cannot accept", call="accept")

    def refuse_join(self) -> Any:
        """By the table of section 6.7."""
        with self.entered("join_leaf"):
            if self.state_failed or self.end is not None:
                code = codes.WSAEINVAL
            else:
                code = codes.WSAEALREADY if self.state_pending else codes.WSAEISCONN
            raise SpiError(code, "a leg joins nothing", call="join_leaf")

    def check_usable(self, call: str) -> None:
        """Options only of an active or ended leg."""
        if self.state_pending or self.state_failed:
            raise SpiError(codes.WSAEINVAL, "the leg is not usable", call=call)

    def check_connected(self, call: str) -> None:
        """Active, or what ended it."""
        if self.state_pending or self.state_failed or self.association is None:
            raise SpiError(codes.WSAENOTCONN, "no leaf has joined by it", call=call)
        if self.end is not None:
            raise self.end.error(call)

    def _try_send(self, payloads: list[bytes], to: Collection[Endpoint] | None) -> bool | None:
        self.check_may_send()
        if to is not None:
            return super().audience(to) is None  # raises
        assert self.association is not None
        assert self.association.leaf is not None
        leaf = self.association.leaf
        if not leaf.takes(size_of(payloads), self.settings):
            return None
        self.hub.put([leaf], self.batch(payloads, side=True))
        self.counters.add("messages_sent", len(payloads))
        return True

    def has_room(self, size: int) -> bool:
        """Whether the leaf has."""
        leaf = self.association.leaf if self.association is not None else None
        return leaf is None or leaf.takes(size, self.settings)

    def shut_down(self, data: bytes) -> None:
        """Expel the leaf, staying open."""
        if self.association is not None:
            self.association.end(EndReason.EXPELLED, data, tell_leg=False, tell_leaf=True)
        self.ended(EndReason.EXPELLED)

    def release(self, data: bytes, reason: EndReason | None, abort: bool) -> None:
        """Cancel the invitation while it is pending (clauses 74, 75), or expel the leaf."""
        attempt = self.root.attempt
        if attempt is not None and attempt.leg is self:
            self.root.attempt = None
            attempt.give_up(codes.WSAECONNRESET)
            self.root.machine_failed(cancelled=True)
            self.root.changed.notify_all()
        elif self.association is not None:
            self.association.end(reason or EndReason.EXPELLED, data, tell_leg=False, tell_leaf=True)

    def change_qos(self, qos: Qos) -> None:
        """Change what was agreed with this leaf; it is told."""
        if self.association is not None and self.association.is_active:
            self.association.reserve(qos, self.association.attempt.request.role)
            self.agreed_qos = qos
            assert self.association.leaf is not None
            self.association.leaf.agreed_qos = qos
            self.association.leaf.indicate(c.FD_QOS)

    def statistics(self) -> dict[str, int]:
        """Counters, and what the leaf has not received yet."""
        with self.hub:
            counts = dict(super().statistics())
            if self.association is not None and self.association.leaf is not None:
                leaf = self.association.leaf
                counts["bytes_queued"] = leaf.inbox.size
                counts["messages_dropped"] = leaf.counters.values.get("messages_dropped", 0)
            return counts


class NonrootedEndpoint(JoiningEndpoint):
    """A c_leaf of a nonrooted control plane: the session exists as soon as it is named."""

    def __init__(self, hub: Hub, info: ProtocolInfo, roles: Roles, settings: Settings) -> None:
        super().__init__(hub, info, roles, settings)
        self.machine: NonrootedLeafMachine = NonrootedLeafMachine()
        self._name = ""

    def join_input(self, role: JoinRole) -> NonrootedInput:
        """The machine's input for a join."""
        sender = role is JoinRole.SENDER_ONLY
        return NonrootedInput.JOIN_SENDER if sender else NonrootedInput.JOIN

    def check_name(self, address: Address) -> None:
        """A name that somebody is bound to is no session's (clause 102)."""
        if address.host in self.hub.names:
            raise SpiError(
                codes.WSAEADDRNOTAVAIL,
                f"{address.host!r} is the name of an endpoint, not of a session",
                call="join_leaf",
            )

    def request_arrives(self, attempt: Attempt) -> None:
        """Nobody needs to agree."""
        name, rooted = attempt.address.host, self.info.data_plane_rooted
        session = self.hub.sessions.get((name, rooted))
        if session is None:
            session = Session(secrets.token_bytes(IDENTITY_BYTES), rooted, lossy=True)
        if self.roles.d_root and session.has_d_root:
            attempt.fail(codes.WSAECONNREFUSED, "the session has a data root already")
            return
        self.hub.sessions[name, rooted] = session
        role = attempt.request.role
        self.session, self._name = session, name
        self.member = Member(session.new_key(), self.roles.d_root, role, self.loopback)
        session.add(self.member, self)
        self.join_succeeded(attempt, Joined(self, b"", attempt.request.qos))

    def machine_joined(self, attempt: Attempt) -> None:
        """It is in."""
        sender = attempt.request.role is JoinRole.SENDER_ONLY
        self.machine.handle(NonrootedInput.SENDER_DONE if sender else NonrootedInput.JOIN_DONE)

    def machine_failed(self, *, cancelled: bool) -> None:
        """It is not."""
        self.machine.handle(NonrootedInput.JOIN_FAILED)

    @property
    def peer_address(self) -> Address:
        """The session's address."""
        if self.session is None:
            raise SpiError(codes.WSAENOTCONN, "not a member", call="peer_address")
        return Address(self._name)

    def release(self, data: bytes, reason: EndReason | None, abort: bool) -> None:
        """Leave; nobody is told (model 6.5, G6)."""
        self.machine.handle(NonrootedInput.CLOSE)
        super().release(data, reason, abort)
        if self.session is not None and self.member is not None:
            self.session.remove(self.member.key)
            if not self.session.members:
                self.hub.sessions.pop((self._name, self.session.rooted), None)

    def indicate_present(self) -> None:
        """Sending is possible while a member."""
        super().indicate_present()
        if self.machine.is_member:
            self.indicate_write()
