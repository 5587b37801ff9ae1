"""Names that come from the network, judged before anything is done with them.

Two families. *Hostile* names (absolute, ``..``, NUL, too long) no honest root sends: the offer is
refused as a whole. *Unsuitable* names are somebody's real files but cannot be kept here safely (a
backslash, a drive letter, ``aux`` on Windows): that file fails alone, with its reason.
"""

from __future__ import annotations

import os
import re
from typing import Final

from joinleaf.errors import RemoteProtocolError

__all__ = ["MAX_DEPTH", "MAX_NAME_BYTES", "MAX_PATH_BYTES", "check_path", "own_name", "unsuitable"]

MAX_NAME_BYTES: Final = 255
"""Longest component: NAME_MAX of every common file system."""
MAX_PATH_BYTES: Final = 4096
"""Longest path: PATH_MAX of Linux; longer ones cannot be named at all by most programs."""
MAX_DEPTH: Final = 128
"""Deepest folder: each level costs the receiver an open directory while it walks."""

_DRIVE: Final = re.compile(r"^[A-Za-z]:")
_DEVICE: Final = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])$", re.I)
_NOT_ON_WINDOWS: Final = frozenset('<>:"|?*')


def check_path(path: str) -> tuple[str, ...]:
    """Split a relative path with forward slashes into its components.

    Raises:
        RemoteProtocolError: Absolute, empty, with an empty, ``.`` or ``..`` component, with NUL,
            not representable in UTF-8, or beyond one of the limits above.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise RemoteProtocolError(f"path {path!r} is not valid Unicode") from None
    parts = tuple(path.split("/"))
    for wrong, why in (
        (size > MAX_PATH_BYTES, f"is longer than {MAX_PATH_BYTES} bytes"),
        (len(parts) > MAX_DEPTH, f"is deeper than {MAX_DEPTH} folders"),
        ("\0" in path, "contains NUL"),
        (any(part in ("", ".", "..") for part in parts), "is absolute or leaves its folder"),
        (any(len(p.encode()) > MAX_NAME_BYTES for p in parts), "has a name that is too long"),
    ):
        if wrong:
            raise RemoteProtocolError(f"path {path[:100]!r} {why}")
    return parts


def own_name(name: str) -> str:
    """The name under which receivers are to keep an object, as the sender gives it.

    Raises:
        ValueError: No receiver could keep it under that name.
    """
    try:
        parts = check_path(name)
    except RemoteProtocolError as error:
        raise ValueError(f"{name!r} is no name to keep it under: {error}") from None
    if len(parts) != 1 or (reason := unsuitable(parts, windows=False)):
        why = reason if len(parts) == 1 else "it is a path"
        raise ValueError(f"{name!r} is no name to keep it under: {why}")
    return name


def unsuitable(parts: tuple[str, ...], *, windows: bool = os.name == "nt") -> str:
    """Why these components cannot be kept here; ``""`` if they can.

    Args:
        parts: What ``check_path`` gave.
        windows: Whether Windows' rules apply (device names, trailing dots, reserved characters).
    """
    for part in parts:
        if "\\" in part:
            return f"the name {part!r} contains a backslash"
        if _DRIVE.match(part):
            return f"the name {part!r} begins like a drive letter"
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in part):
            return f"the name {part!r} contains a control character"
        if windows and (reason := _unsuitable_on_windows(part)):
            return reason
    return ""


def _unsuitable_on_windows(part: str) -> str:
    if _DEVICE.match(part.split(".")[0].rstrip(" ")):
        return f"the name {part!r} is a device on Windows"
    if part[-1] in ". ":
        return f"the name {part!r} ends with a dot or a space"
    if not _NOT_ON_WINDOWS.isdisjoint(part):
        return f"the name {part!r} contains a character that Windows reserves"
    return ""
