"""What was built in C, for who built it; without, everything is done in Python.

Each function there has its equal in Python, and the same tests.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Final

__all__ = ["IMAGES", "TRAINS"]


def _found(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None


TRAINS: Final = _found("joinleaf._trains")
"""From the socket to frames (see ``core/wire/quick.py``), or None."""

IMAGES: Final = _found("joinleaf._images")
"""What units look like on the wire (see ``core/wire/units.py``), or None."""
