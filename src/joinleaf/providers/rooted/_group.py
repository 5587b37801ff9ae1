"""Opening the multicast stream of a rooted session: the root's end, and a leaf's."""

from __future__ import annotations

import logging
import os
from typing import Final

from joinleaf.core.keys.derive import KEY_BYTES
from joinleaf.core.keys.group import GroupKeys, KeyFact, LeafKeys
from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.reliability.congestion import CongestionWindow
from joinleaf.core.reliability.pacing import StreamPacer
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.sender import StreamSender
from joinleaf.core.root_carriage import RootCarriage
from joinleaf.core.root_session import RootSession
from joinleaf.core.wire.control import GroupFacts
from joinleaf.core.wire.units import UNIT_OVERHEAD, Layout
from joinleaf.drivers.group_link import LeafLink, RootLink
from joinleaf.drivers.group_port import GroupReceiver, GroupSender
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.provider import Settings
from joinleaf.values import IDENTITY_BYTES, Address, SessionAddress

__all__ = ["LEG", "WINDOW_BYTES", "group_of", "hear_group", "open_group"]

_log: Final = logging.getLogger("joinleaf")

LEG: Final = "leg"
"""``?data=leg``: a leaf that wants everything over its own leg."""

WINDOW_BYTES: Final = 4 << 20
"""Most that is under way, and most that is kept for repair."""

_BUFFER_BYTES: Final = 8 << 20
"""Asked of the kernel by a leaf: datagrams are charged with more than their length."""


def group_of(address: SessionAddress) -> Address | None:
    """The group that ``?data=`` names; None for ``leg`` or without it.

    Raises:
        ValueError: Something else than a multicast group with a port.
    """
    text = address.options.get("data", "")
    if not text or text == LEG:
        return None
    try:
        group = Address.parse(text)
    except ValueError as error:
        raise ValueError(f"{address}: data: {error}") from None
    if not group.is_multicast or not group.port:
        raise ValueError(
            f"{address}: data={text} is no multicast group with a port; "
            "write data=239.255.70.1:7401, or data=leg"
        )
    return group


def open_group(
    session: RootSession, group: Address, settings: Settings, local: Address, *, sealed: bool
) -> RootLink:
    """Open the root's end, and have joiners told of it from now on.

    Args:
        session: The root's.
        group: Where to send.
        settings: Interface and hops.
        local: Where the root listens.
        sealed: Whether only members shall read: where the legs are encrypted, keys travel there.

    Raises:
        SpiError: No interface for the group, or it cannot be sent to.
    """
    port = GroupSender(group, settings.interface, local=local.host, ttl=settings.hops)
    tag = int.from_bytes(os.urandom(4), "big")
    keys = GroupKeys(_fresh_key(), tag) if sealed else None
    facts = GroupFacts(
        host=group.host,
        port=group.port,
        source=port.local.host,
        tag=tag,
        nonce=os.urandom(IDENTITY_BYTES),
        window=WINDOW_BYTES,
        key=keys.key_frame_body() if keys is not None else b"",
    )
    layout = Layout(port.segment)
    window = CongestionWindow(
        ceiling=WINDOW_BYTES,
        symbol_bytes=layout.segment,
        unit_bytes=layout.segment * layout.symbols + UNIT_OVERHEAD,
    )
    pacer = StreamPacer(window)
    sender = StreamSender(
        layout, tag=tag, window_bytes=WINDOW_BYTES, sealer=keys, congestion=window, pacer=pacer
    )
    carriage = RootCarriage(facts, sender, pacer, keys)
    session.carriage = carriage
    return RootLink(port, session, carriage, _fresh_key)


def _fresh_key() -> bytes:
    return os.urandom(KEY_BYTES)


def hear_group(
    session: LeafSession,
    key: int,
    facts: GroupFacts,
    settings: Settings,
    local: Address,
    *,
    sealed: bool,
) -> LeafLink | None:
    """Join the group; None, and a line in the log, if this host cannot: the leg serves then."""
    if sealed and not facts.key:
        _log.warning("%s is not sealed, as this session has to be", facts.address())
        return None
    try:
        keys = LeafKeys(KeyFact.parse(facts.key), facts.tag) if facts.key else None
    except RemoteProtocolError as error:
        _log.warning("cannot hear %s, and is served by its leg: %s", facts.address(), error)
        return None
    try:
        port = GroupReceiver(
            facts.address(),
            settings.interface,
            receive_buffer_bytes=_BUFFER_BYTES,
            source=facts.source,
            local=local.host,
        )
    except SpiError as error:
        _log.warning("cannot hear %s, and is served by its leg: %s", facts.address(), error)
        return None
    window = min(facts.window, port.granted_bytes)
    receiver = StreamReceiver(
        tag=facts.tag,
        window_bytes=window,
        opener=keys,
        probe=facts.nonce,
        backoff_seed=int.from_bytes(os.urandom(4), "big"),
    )
    session.hear_group(key, receiver, keys)
    return LeafLink(port, session)
