"""A pytest plugin: every provider of the conformance tests is started below a tracer.

``python -m pytest -p tests.conformance.through_a_layer tests/conformance`` runs any of them so.
"""

from __future__ import annotations

from typing import Any

from joinleaf import winsock
from joinleaf.errors import SpiError
from joinleaf.winsock import Cell
from joinleaf.winsock.layered import Tracer
from joinleaf.winsock.provider import ServiceProvider
from joinleaf.winsock.types import WSPDATA

_OWN = frozenset({"join_timeout"})  # settings of the base that tests change


class _Transparent(Tracer):
    """A tracer through which tests reach what is no WSP* function."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["lower"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            setattr(self.lower, name, value)
        else:
            super().__setattr__(name, value)


def _start(
    scheme: str, *, upcalls: Any, provider: Any, settings: Any, entry: Any, version: int = 0x0202
) -> Any:
    layer = _Transparent(ServiceProvider(provider, entry, settings), entry)
    code = layer.WSPStartup(version, WSPDATA(), None, upcalls, Cell())
    if code:
        raise SpiError(code, f"WSPStartup of {scheme!r} failed", call="WSPStartup")
    return layer


def pytest_configure() -> None:
    """Take the place of ``winsock.start``, which the worlds of the tests call."""
    setattr(winsock, "start", _start)  # noqa: B010  # a plain assignment is no start() to mypy
