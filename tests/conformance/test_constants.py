"""Every constant has the value that the Windows headers give it.

``winsock-constants.json`` holds what a C compiler made of the public-domain mingw-w64 headers.
"""

import json
from pathlib import Path

from joinleaf.spi import codes, constants

REFERENCE: dict[str, int] = json.loads(
    Path(__file__).with_name("winsock-constants.json").read_text(encoding="ascii")
)
DEFINED = {
    name: value
    for module in (constants, codes)
    for name, value in vars(module).items()
    if type(value) is int and not name.startswith("_")
}


def test_every_defined_constant_agrees_with_the_headers_and_none_is_missing() -> None:
    assert DEFINED == REFERENCE


def test_names_are_defined_in_one_module_only() -> None:
    assert not {n for n in vars(constants) if n.isupper()} & {
        n for n in vars(codes) if n.startswith("WSA")
    }
