"""All checks of ``check_provider``, in the order in which they run; and those about the entries."""

from __future__ import annotations

import uuid
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import WSAEINVAL, name_of
from joinleaf.spi.protocol_info import ProtocolInfo, accepts_roles
from joinleaf.spi.provider import Endpoint, Roles
from joinleaf.testing.provider_bench import Bench, CheckFailed, Checks, ProviderCheck
from joinleaf.testing.provider_checks_data import DATA_CHECKS
from joinleaf.testing.provider_checks_ending import ENDING_CHECKS
from joinleaf.testing.provider_checks_joining import JOINING_CHECKS
from joinleaf.values import SessionAddress

__all__ = ["CHECKS", "ENTRY_CHECKS", "ProviderCheck"]

ENTRY_CHECKS: Final = Checks()
CHECKS: Final = (*JOINING_CHECKS, *DATA_CHECKS, *ENDING_CHECKS)


@ENTRY_CHECKS.add("model 2")
def entries_are_valid(bench: Bench) -> None:
    """The scheme and the catalogue entries are valid and stay the same."""
    provider = bench.provider
    scheme = provider.scheme
    bench.require(scheme == scheme.lower() and scheme, f"scheme {scheme!r} is not lower case")
    entries = tuple(provider.protocols())
    bench.require(entries, "protocols() is empty")
    bench.require(entries == tuple(provider.protocols()), "protocols() changes between calls")
    for info in entries:
        bench.require(isinstance(info, ProtocolInfo), f"{info!r} is no ProtocolInfo")
        bench.require(info.name, "an entry has no name")
        bench.require(info.is_base, f"{info.name!r}: a provider's entries are base entries")
        bench.require(info.provider_id != uuid.UUID(int=0), f"{info.name!r} has no provider id")
        bench.require(info.supports_multipoint, f"{info.name!r} joins nothing: no multipoint bit")
    bench.require(
        len({info.name for info in entries}) == len(entries), "two entries have the same name"
    )


@ENTRY_CHECKS.add("model 2")
def flags_agree(bench: Bench) -> None:
    """The flags of the entry do not contradict each other."""
    info = bench.info
    connectionless = info.has(c.XP1_CONNECTIONLESS)
    for flag in (c.XP1_CONNECT_DATA, c.XP1_DISCONNECT_DATA, c.XP1_GRACEFUL_CLOSE):
        bench.require(
            not (connectionless and info.has(flag)),
            "a connectionless entry has neither connect data, disconnect data nor graceful close",
        )
    bench.require(
        info.has(c.XP1_MESSAGE_ORIENTED), "the seam moves messages: XP1_MESSAGE_ORIENTED is missing"
    )
    if info.control_plane_rooted:
        bench.require(not connectionless, "a rooted control plane has connections")


@ENTRY_CHECKS.add("values.SessionAddress")
def select_is_strict(bench: Bench) -> None:
    """Select gives one of the entries, and ValueError for an option it does not know."""
    listed = [info.name for info in bench.provider.protocols()]
    bench.require(bench.info.name in listed, "select gives an entry that protocols() does not list")
    address = bench.session
    strange = SessionAddress(
        address.scheme, address.address, address.source, {"no-such-option": "1"}
    )
    try:
        bench.provider.select(strange)
    except ValueError:
        return
    raise CheckFailed("select takes options it does not know")


@ENTRY_CHECKS.add("model 2.1")
def roles_are_checked(bench: Bench) -> None:
    """Open accepts exactly the roles that the table for the entry's planes allows."""
    for c_root in (True, False):
        for d_root in (True, False):
            roles = Roles(c_root=c_root, d_root=d_root)
            allowed = accepts_roles(bench.info, c_root, not c_root, d_root, not d_root)
            endpoint = _open_or_none(bench, roles)
            bench.require(
                (endpoint is not None) == allowed,
                f"{roles} is {'refused' if allowed else 'accepted'}, against the table",
            )
            if endpoint is not None:
                bench.require(endpoint.roles == roles, f"{roles} opened, {endpoint.roles} reported")


def _open_or_none(bench: Bench, roles: Roles) -> Endpoint | None:
    try:
        return bench.open(roles)
    except SpiError as error:
        if error.code != WSAEINVAL:
            raise CheckFailed(f"{roles}: {name_of(error.code)}, not WSAEINVAL") from error
        return None
