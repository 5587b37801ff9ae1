"""Table 2.1, flag names and validity of catalogue entries."""

from itertools import product

import pytest

from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo, accepts_roles, flag_names

MULTI, CONTROL, DATA = (
    c.XP1_SUPPORT_MULTIPOINT,
    c.XP1_MULTIPOINT_CONTROL_PLANE,
    c.XP1_MULTIPOINT_DATA_PLANE,
)
# Accepted sets of flags, as WSA_FLAG values: 0x0A C_ROOT+D_ROOT, 0x12, 0x0C, 0x14.
TABLE_2_1 = {
    0: set(),
    CONTROL | DATA: set(),
    MULTI | CONTROL | DATA: {0x0A, 0x12, 0x0C, 0x14},
    MULTI | CONTROL: {0x12, 0x14},
    MULTI | DATA: {0x0C, 0x14},
    MULTI: {0x14},
}


@pytest.mark.parametrize("flags", TABLE_2_1)
def test_every_set_of_role_flags_is_decided_as_in_table_2_1(flags: int) -> None:
    info = ProtocolInfo(service_flags=flags, name="x")
    for c_root, c_leaf, d_root, d_leaf in product((False, True), repeat=4):
        word = c_root * 2 | c_leaf * 4 | d_root * 8 | d_leaf * 16
        wanted = word == 0 or word in TABLE_2_1[flags]
        assert accepts_roles(info, c_root, c_leaf, d_root, d_leaf) is wanted, hex(word)


def test_flag_names_are_those_of_the_windows_udp_entry() -> None:
    assert flag_names(0x20601) == (
        "CONNECTIONLESS", "SUPPORT_BROADCAST", "SUPPORT_MULTIPOINT", "IFS_HANDLES",
    )  # fmt: skip
    assert flag_names(0x80000000) == ("0x80000000",)


def test_a_name_is_measured_in_utf16_units() -> None:
    assert ProtocolInfo(service_flags=0, name="\U0001f600" * 127 + "x").name
    with pytest.raises(ValueError, match="255 UTF-16"):
        ProtocolInfo(service_flags=0, name="\U0001f600" * 128)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="UNI_SEND"):
        ProtocolInfo(service_flags=c.XP1_UNI_SEND | c.XP1_UNI_RECV, name="x")
    with pytest.raises(ValueError, match="more than 7"):
        ProtocolInfo(service_flags=0, name="x", chain=(1,) * 8)
    with pytest.raises(ValueError, match="32 bits"):
        ProtocolInfo(service_flags=-1, name="x")
